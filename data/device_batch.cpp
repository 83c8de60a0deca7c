#include "data/device_batch.h"

#include <algorithm>

namespace hax {
namespace {

constexpr const char* kOffsets = "offsets";  // as Sequences::offsets_on() has them

// One part after the other; write_numbers() and batch_in() go through them in one order.
template <class OnTensor, class OnOffsets>
void for_each_part(const Batch& batch, OnTensor&& tensor, OnOffsets&& offsets) {
  tensor(&Batch::tokens);
  tensor(&Batch::target_rows);
  tensor(&Batch::target_labels);
  offsets(batch.sequences);
  offsets(batch.target_samples);
}

}  // namespace

std::int64_t pinned_count(const Batch& batch) {
  std::int64_t count = 0;
  for_each_part(
      batch, [&](auto part) { count += (batch.*part).numel(); },
      [&](const Sequences& sequences) { count += sequences.count() + 1; });
  return count;
}

void write_numbers(const Batch& batch, std::span<std::int32_t> numbers) {
  auto out = numbers.begin();
  for_each_part(
      batch,
      [&](auto part) {
        out = std::ranges::copy((batch.*part).template values<std::int32_t>(), out).out;
      },
      [&](const Sequences& sequences) {
        *out++ = 0;
        for (std::int64_t s = 0; s < sequences.count(); ++s) {
          *out++ = static_cast<std::int32_t>(sequences.end(s));
        }
      });
}

Batch batch_in(const Batch& batch, const Tensor& numbers) {
  Batch there;
  there.sequences = batch.sequences;
  there.target_samples = batch.target_samples;
  std::int64_t at = 0;
  const auto next = [&](std::int64_t count) {
    at += count;
    return numbers.flat(at - count, at);
  };
  for_each_part(
      batch, [&](auto part) { there.*part = next((batch.*part).numel()); },
      [&](const Sequences& sequences) { sequences.keep(kOffsets, next(sequences.count() + 1)); });
  return there;
}

}  // namespace hax
