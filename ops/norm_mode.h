// Two conventions for hashing and scoring (REFERENCE: "causal" and "released").
#pragma once

#include <cstdint>

namespace hax {

/// causal: nothing looks ahead; vectors are normalised over their features, the LSH centre of
/// position i is the mean of positions 0..i, a query without keys contributes zero (paper,
/// equations 5, 6, 16). released: as the authors' released code computes it: per feature over the
/// padded sequence, centre over the padded sequence, a query without keys averages all padded
/// positions. Padding enters only through Sequences::padded().
enum class NormMode : std::uint8_t { causal, released };

}  // namespace hax
