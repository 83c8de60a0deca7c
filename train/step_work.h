// How much work a training step is: counted from the configuration and the batch, never measured.
// `hax bench` divides it by what the machine can do (docs/benchmarks.md).
#pragma once

#include <string>
#include <vector>

#include "engine/sequences.h"
#include "models/config.h"

namespace hax {

struct Work {
  double products = 0;  ///< FLOPs inside matrix products
  double other = 0;     ///< all other FLOPs
  double exps = 0;      ///< exponentials and logarithms
  double numbers = 0;   ///< read and written when every op does both once: a fully fused plan
};
Work operator+(const Work& a, const Work& b);
Work operator*(double factor, const Work& a);

/// Which rows of a layer an op has to be computed for.
enum class WorkRows : std::uint8_t {
  every,
  read,           ///< in the last layer only the target rows: nobody reads the others
  distinct,       ///< in the first layer once for each distinct token, counted as nothing
  distinct_read,  ///< both
};

/// One op, for one row.
struct OpWork {
  std::string op;
  Work forward, backward;
  WorkRows rows = WorkRows::every;

  Work both() const { return forward + backward; }
};

// The counts of single ops, a row each. E channels, N states, D hidden, W taps.
OpWork linear_work(std::string op, double inputs, double outputs, WorkRows rows = WorkRows::every);
OpWork norm_work(double D);
OpWork conv_work(double channels);
OpWork scan_state_work(double E, double N);
OpWork scan_output_work(double E, double N);
OpWork ssd_state_work(double E, double N, double heads);
OpWork ssd_output_work(double E, double N);
/// `keys` of N numbers and values of E, for each of `heads` that together have these widths.
OpWork attention_work(double keys, double N, double E, double heads = 1);

/// Keys a query sees, mean over all tokens: the most its pattern allows, min(i + 1, k) and the
/// like.
double mean_keys(const ModelConfig& config, const Sequences& sequences);

/// The ops of a layer. `config` resolved.
std::vector<OpWork> layer_work(const ModelConfig& config, int layer, const Sequences& sequences);

/// Forward and backward over a batch. `removed`: without the work that the rows' classes above say
/// can be left out (exponentials stay counted in full).
Work step_work(const ModelConfig& config, const Sequences& sequences, std::int64_t targets,
               bool removed);

/// What a machine does in a second.
struct MachineLimits {
  double products = 0;  ///< FLOPs in matrix products
  double other = 0;     ///< FLOPs in multiply-adds on registers
  double exps = 0;      ///< exponentials
};

/// Seconds for the arithmetic alone: one kind after the other, as on a core that does all of them.
double floor_seconds(const Work& work, const MachineLimits& limits);

}  // namespace hax
