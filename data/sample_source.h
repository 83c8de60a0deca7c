// Where training and evaluation take samples from: an endless stream or a file.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/generator.h"
#include "data/joint_recall.h"

namespace hax {

/// Samples of one split, by number.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual const JointRecallTask& task() const = 0;
  /// Number of samples; none when there is no end.
  virtual std::optional<std::int64_t> count() const = 0;
  /// The unpadded tokens of sample `index` into `tokens`. May be called from several threads.
  /// Throws Error when there is no such sample or the file is damaged there.
  virtual void sample(std::int64_t index, std::vector<std::int32_t>& tokens) const = 0;
};

/// Generates samples as they are asked for: sample i is the first of its split in slot i.
class StreamSource : public SampleSource {
 public:
  /// `count` limits the stream. Throws UsageError for an invalid task, or one so small that some
  /// combination of sizes has no sample in this split.
  StreamSource(const JointRecallTask& task, std::uint64_t seed, Split split,
               std::optional<std::int64_t> count = std::nullopt);
  const JointRecallTask& task() const override { return generator_.task(); }
  std::optional<std::int64_t> count() const override { return count_; }
  void sample(std::int64_t index, std::vector<std::int32_t>& tokens) const override;

 private:
  SampleGenerator generator_;
  Split split_;
  std::optional<std::int64_t> count_;
};

/// Samples first .. first+count-1 as a pack; a source that ends begins again (file order, not
/// shuffled).
Batch read_batch(const SampleSource& source, std::int64_t first, std::int64_t count);

}  // namespace hax
