// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011). A number is a pure function of its key, so it is the same on every device and
// for any number of threads.
#pragma once

#include <array>
#include <cstdint>

#include "engine/tensor.h"

namespace hax {

/// One block of Philox4x32-10.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// What a stream of numbers is for; part of its key.
enum class Purpose : std::uint16_t {
  init = 1,        ///< parameter initialisation; `sequence` is a hash of the parameter's name
  hash = 2,        ///< LSH matrix
  candidates = 3,  ///< keys compared by the ranking loss
  sample = 4,      ///< synthetic data; `step` and `sequence` hold the sample's 64-bit index
  test = 5,
};

/// Names a stream. Never a pack, a device or a thread.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t sequence = 0;  ///< index of the sequence in the batch
  std::uint16_t layer = 0;
  Purpose purpose = Purpose::test;
};

/// The standard normal quantile of a uniform 32-bit integer. Uses only integer operations, +, x,
/// fma and sqrt, so that CPU and CUDA agree to the bit. Symmetric; |value| <= 6.34; within 4e-7 of
/// the quantile, relative to max(1, |value|).
float normal_from_bits(std::uint32_t bits);

/// Reads the numbers of one key in order: 2^34 of them, then they repeat.
class RandomStream {
 public:
  explicit RandomStream(RandomKey key) : key_(key) {}

  std::uint32_t next();
  /// Uniform integer in [0, bound), without bias. bound >= 1.
  std::uint32_t below(std::uint32_t bound);
  /// Uniform in [0, 1), a multiple of 2^-24.
  float uniform();
  /// Standard normal.
  float normal() { return normal_from_bits(next()); }

 private:
  RandomKey key_;
  std::array<std::uint32_t, 4> block_{};
  std::uint32_t index_ = 0;  // of the next block
  int used_ = 4;
};

/// Fills with independent N(0, deviation^2) draws of `key` (float32 or float64; both get the same
/// float32 draws).
void fill_normal(Tensor& tensor, RandomKey key, double deviation = 1.0);
/// Fills with independent uniform float32 draws in [low, high). Throws Error when no float32 lies
/// there.
void fill_uniform(Tensor& tensor, RandomKey key, double low, double high);

}  // namespace hax
