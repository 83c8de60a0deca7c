// Data for the rows of `hax bench`: random, the same in every run.
#pragma once

#include "engine/memory.h"
#include "engine/random.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"

namespace hax::bench {

/// Normal. On a device only the first million numbers are drawn, and then repeated: drawing all
/// would keep it waiting.
inline Tensor random_tensor(Shape shape, std::uint64_t seed, double deviation = 1,
                            Device device = kCpu) {
  constexpr std::int64_t kDrawn = 1 << 20;
  const std::int64_t count = shape.numel();
  Tensor drawn = Tensor::empty({device.is_cpu() ? count : std::min(count, kDrawn)});
  fill_normal(drawn, {.seed = seed}, deviation);
  drawn = drawn.to(device);
  if (drawn.numel() == count) return drawn.reshape(shape);
  Tensor tensor = Tensor::empty(shape, DType::float32, device);
  auto* to = static_cast<float*>(tensor.raw());
  for (std::int64_t begin = 0; begin < count; begin += kDrawn) {
    const auto bytes = sizeof(float) * static_cast<std::size_t>(std::min(kDrawn, count - begin));
    copy_bytes(device, to + begin, device, drawn.raw(), bytes);
  }
  return tensor;
}

/// The bins of random queries or keys x [T, N] under 8 random directions.
inline Tensor sign_bins(const Tensor& x, const Sequences& sequences) {
  return lsh_bins(x, random_tensor({x.size(1), 8}, 7), sequences, LshRule::sign_bits,
                  LshCenter::causal, NormMode::causal);
}

/// What HAX lets queries see: the 32 latest of their bin and the 32 best by a random score.
inline KeySet hax_keys(const Tensor& Q, const Tensor& K, const Tensor& score,
                       const Sequences& sequences) {
  return unite(lsh_keys(sign_bins(Q, sequences), sign_bins(K, sequences), sequences, 32),
               key_selection_keys(score, sequences, 32));
}

/// Pairs of a query and a key it sees.
inline double count_pairs(const KeySet& keys) {
  double pairs = 0;
  for (const auto& list : to_lists(keys)) pairs += static_cast<double>(list.size());
  return pairs;
}

}  // namespace hax::bench
