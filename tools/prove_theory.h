// The numbers that `hax prove` puts beside what it measures.
#pragma once

#include <cstdint>
#include <vector>

namespace hax {

/// n log2(n)^2: the growth that the propositions state.
double growth(std::int64_t n);
/// The slope of the straight line that fits log y over log x best. Two different x or more.
double fitted_exponent(const std::vector<double>& x, const std::vector<double>& y);
/// The largest share of right answers that a state can give about values drawn uniformly from
/// `values`, when it has `bits` bits an entry (Fano's inequality). values >= 2.
double most_accurate(double bits, double values);
/// Corollary 3.1: log2 of the largest probability that all `entries` answers from a state of
/// `state_bits` bits are right; 0 when that is certain.
double all_right_bits(double state_bits, double entries, double values);

}  // namespace hax
