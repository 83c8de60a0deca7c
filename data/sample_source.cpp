#include "data/sample_source.h"

#include "engine/check.h"

namespace hax {

StreamSource::StreamSource(const JointRecallTask& task, std::uint64_t seed, Split split,
                           std::optional<std::int64_t> count)
    : generator_(task, seed), split_(split), count_(count) {
  check_usage(!count || *count >= 0, "a stream of {} {} samples: expected at least 0",
              count.value_or(0), name_of(split));
  SplitCounts wanted{};
  wanted[static_cast<std::size_t>(split)] =
      static_cast<std::uint64_t>(count && *count == 0 ? 0 : task.size_count());
  require_supply(task, wanted);
}

void StreamSource::sample(std::int64_t index, std::vector<std::int32_t>& tokens) const {
  check(index >= 0 && (!count_ || index < *count_), "{} sample {} of a stream of {} does not exist",
        name_of(split_), index, count_.value_or(0));
  SampleGenerator generator = generator_;  // its scratch memory belongs to this call
  generator.start(static_cast<std::uint64_t>(index));
  generator.draw(split_, tokens);
}

Batch read_batch(const SampleSource& source, std::int64_t first, std::int64_t count) {
  const std::optional<std::int64_t> end = source.count();
  check(first >= 0 && count >= 0, "batch of {} samples from {}", count, first);
  check(!end || *end > 0 || count == 0, "a batch of {} samples from an empty source", count);
  std::vector<std::vector<std::int32_t>> samples(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    source.sample(end ? (first + i) % *end : first + i, samples[static_cast<std::size_t>(i)]);
  }
  return pack(source.task(), samples);
}

}  // namespace hax
