// A dataset: a folder with train.hax, valid.hax, test.hax and manifest.json. The manifest is
// written last: a folder without it is not a dataset.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "data/split_file.h"

namespace hax {

/// Called now and then with what was done of how much. Returning false stops the work: it throws
/// Interrupted and leaves nothing behind.
using DataProgress = std::function<bool(Split split, std::int64_t done, std::int64_t total)>;
/// The work was stopped from outside.
class Interrupted : public Error {
 public:
  using Error::Error;
};
/// Calls `progress` when there is one. Throws Interrupted when it returns false.
void report(const DataProgress& progress, Split split, std::int64_t done, std::int64_t total);

/// Writes a dataset so that it is whole or not there. An object destroyed without publish() leaves
/// the folder as it was.
class DatasetWriter {
 public:
  /// Creates the folder. Throws UsageError when it holds a dataset already, unless `replace`, and
  /// Error when it cannot be written.
  DatasetWriter(const std::filesystem::path& folder, const DatasetInfo& info, bool replace);
  SplitWriter& split(Split split) { return *files_[static_cast<std::size_t>(split)]; }
  /// Completes the files and gives them their names.
  void publish();

 private:
  DatasetInfo info_;
  bool replace_;
  OutputFolder folder_;
  std::array<std::unique_ptr<SplitWriter>, kSplits.size()> files_;
};

struct GenerateOptions {
  JointRecallTask task;
  SplitCounts samples{1'440'000, 14'400, 14'400};
  std::uint64_t seed = 0;
  bool replace = false;  ///< of a dataset that is there already
  int threads = 0;       ///< 0: as many as OpenMP has; never changes the result
};

/// Draws a dataset and writes it. Sample i of a split is the first of slot i (data/generator.h)
/// that belongs to the split and did not occur in slots before. Equal options give equal bytes.
/// Throws UsageError for an invalid task or one with too few distinct samples.
void generate_dataset(const std::filesystem::path& folder, const GenerateOptions& options,
                      const DataProgress& progress = {});

/// An opened dataset.
class Dataset {
 public:
  /// Checks the manifest and the headers against each other. Throws Error.
  explicit Dataset(std::filesystem::path folder);

  const std::filesystem::path& folder() const { return folder_; }
  const DatasetInfo& info() const { return files_[0]->info(); }
  const JointRecallTask& task() const { return info().task; }
  const SplitFile& split(Split split) const { return *files_[static_cast<std::size_t>(split)]; }
  /// The same, to be kept.
  std::shared_ptr<const SampleSource> source(Split split) const {
    return files_[static_cast<std::size_t>(split)];
  }

 private:
  std::filesystem::path folder_;
  std::array<std::shared_ptr<const SplitFile>, kSplits.size()> files_;
};

/// Reads everything: checksums, the structure of every sample, that it is in the split of its hash
/// (generated data), and that none occurs twice in the dataset. Throws Error with the first fault.
void verify_dataset(const Dataset& dataset, const DataProgress& progress = {});

}  // namespace hax
