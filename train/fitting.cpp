#include "train/fitting.h"

#include <algorithm>

#include "engine/cuda/runtime.h"
#include "engine/memory.h"

namespace hax {
namespace {

std::int64_t free_bytes(Device device) {
  release_cached_memory(device);
  if constexpr (kHasCuda) return cuda::free_memory().free;
  return 0;
}

}  // namespace

std::string advice_on_batch(const MemoryNeeds& needs, std::int64_t bsz, std::int64_t packs) {
  // Blocks of other sizes leave gaps.
  constexpr double kUsable = 0.9;
  const std::int64_t more_tokens = needs.long_tokens - needs.short_tokens,
                     more_bytes = needs.long_bytes - needs.short_bytes;
  const double per_token =
      more_tokens > 0 && more_bytes > 0
          ? static_cast<double>(more_bytes) / static_cast<double>(more_tokens)
          : static_cast<double>(needs.long_bytes) / static_cast<double>(needs.long_tokens);
  const double fixed = std::max(0.0, static_cast<double>(needs.long_bytes) -
                                         per_token * static_cast<double>(needs.long_tokens));
  const double tokens = (kUsable * static_cast<double>(needs.free_bytes) - fixed) / per_token;
  const auto fits =
      std::min(static_cast<std::int64_t>(tokens / needs.mean_tokens), bsz - 1);  // bsz did not
  if (fits < 1) return "not even two of its sequences fit at once";
  std::int64_t part = fits;
  while (bsz * packs % part != 0) --part;
  return fmt::format(
      "about {} of its {} sequences fit at once: --bsz {} --grad_acc {} makes the same step", fits,
      bsz, part, bsz * packs / part);
}

std::string advice_on_batch(const Model& model, const Parameters& parameters, const Batch& batch,
                            const RandomInputs& random, const StepOptions& options,
                            std::int64_t bsz, std::int64_t packs, Parameters& gradients) {
  const Device device = parameters.device();
  const auto length = [&](std::int64_t s) { return batch.sequences.length(s); };
  std::int64_t shortest = 0, longest = 0;
  for (std::int64_t s = 1; s < batch.count(); ++s) {
    if (length(s) < length(shortest)) shortest = s;
    if (length(s) > length(longest)) longest = s;
  }
  const auto bytes_of = [&](std::int64_t s) {
    reset_peak_memory(device);
    const std::int64_t before = memory_stats(device).bytes_in_use;
    step_gradients(model, parameters, batch.slice(s, s + 1), random, options, gradients);
    return memory_stats(device).peak_bytes_in_use - before;
  };
  MemoryNeeds needs{.short_tokens = length(shortest),
                    .long_tokens = length(longest),
                    .short_bytes = 0,
                    .long_bytes = 0,
                    .mean_tokens = static_cast<double>(batch.sequences.tokens()) /
                                   static_cast<double>(batch.count()),
                    .free_bytes = free_bytes(device)};
  try {
    needs.short_bytes = bytes_of(shortest);
    needs.long_bytes = bytes_of(longest);
  } catch (const OutOfMemory&) {
    return fmt::format("not even one sequence of {} tokens fits", needs.long_tokens);
  }
  return advice_on_batch(needs, bsz, packs);
}

}  // namespace hax
