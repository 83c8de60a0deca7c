// Joint recall as a Task: streamed samples or a dataset folder.
#include <optional>

#include "data/dataset.h"
#include "data/sample_source.h"
#include "train/task.h"

namespace hax {
namespace {

using Sources = std::array<std::shared_ptr<const SampleSource>, kSplits.size()>;

class JointRecall final : public Task {
 public:
  /// `counts`: samples used of the validation and test split.
  JointRecall(Sources sources, std::int64_t valid, std::int64_t test, std::string text,
              std::string fingerprint)
      : sources_(std::move(sources)),
        valid_(valid),
        test_(test),
        text_(std::move(text)),
        fingerprint_(std::move(fingerprint)) {}

  std::int64_t vocab_size() const override { return source(Split::train).task().vocab_size(); }
  SequenceBounds bounds() const override { return sequence_bounds(source(Split::train).task()); }
  std::string describe() const override { return text_; }
  std::string fingerprint() const override { return fingerprint_; }
  Batch train_batch(std::int64_t first, std::int64_t count) const override {
    return read_batch(source(Split::train), first, count);
  }
  std::int64_t count(Split split) const override {
    check_usage(split != Split::train, "evaluation takes the valid or the test split");
    return split == Split::valid ? valid_ : test_;
  }
  Batch batch(Split split, std::int64_t first, std::int64_t count) const override {
    return read_batch(source(split), first, count);
  }
  std::string token_label(std::int32_t token) const override {
    return token == kBosToken ? "bos" : hax::token_label(source(Split::train).task(), token);
  }
  std::vector<TargetFacts> target_facts(const Batch& batch) const override {
    return hax::target_facts(source(Split::train).task(), batch);
  }

 private:
  const SampleSource& source(Split split) const {
    return *sources_[static_cast<std::size_t>(split)];
  }

  Sources sources_;
  std::int64_t valid_, test_;
  std::string text_, fingerprint_;
};

std::unique_ptr<Task> stream(const TrainOptions& options) {
  constexpr std::int64_t kEvaluationSamples = 1440;
  const auto range = [](const std::string& text, const char* flag) {
    return text.empty() ? std::nullopt : std::optional(parse_range(text, flag));
  };
  check_usage(options.levels <= kMaxLevels, "--levels {}: expected 1 to {}", options.levels,
              kMaxLevels);
  const JointRecallTask task =
      make_task(static_cast<std::int32_t>(options.levels), range(options.contexts, "--contexts"),
                range(options.keys, "--keys"), static_cast<std::int32_t>(options.values));
  const auto count = [](std::int64_t wanted) { return wanted > 0 ? wanted : kEvaluationSamples; };
  const std::int64_t valid = count(options.valid_samples), test = count(options.test_samples);
  const auto seed = static_cast<std::uint64_t>(options.seed);
  const Sources sources{std::make_shared<StreamSource>(task, seed, Split::train),
                        std::make_shared<StreamSource>(task, seed, Split::valid, valid),
                        std::make_shared<StreamSource>(task, seed, Split::test, test)};
  const std::string text = "streamed joint recall, " + to_string(task);
  return std::make_unique<JointRecall>(sources, valid, test, text,
                                       fmt::format("{}, seed {}", text, seed));
}

std::unique_ptr<Task> from_folder(const TrainOptions& options) {
  const TrainOptions defaults;
  check_usage(options.contexts.empty() && options.keys.empty() &&
                  options.values == defaults.values && options.levels == defaults.levels,
              "--data_dir has its own task: leave out --contexts, --keys, --values and --levels");
  const Dataset dataset(options.data_dir);
  const auto limited = [&](Split split, std::int64_t wanted, const char* flag) {
    const std::int64_t there = dataset.split(split).samples();
    check(there > 0, "{} has no {} samples; generate some", options.data_dir, name_of(split));
    check_usage(wanted <= there, "--{} {}: {} has {} {} samples", flag, wanted, options.data_dir,
                there, name_of(split));
    return wanted > 0 ? wanted : there;
  };
  limited(Split::train, 0, "train_samples");
  const std::int64_t valid = limited(Split::valid, options.valid_samples, "valid_samples");
  const std::int64_t test = limited(Split::test, options.test_samples, "test_samples");
  return std::make_unique<JointRecall>(
      Sources{dataset.source(Split::train), dataset.source(Split::valid),
              dataset.source(Split::test)},
      valid, test,
      fmt::format("joint recall from {}, {}", options.data_dir, to_string(dataset.task())),
      fmt::format("files {:016x} {:016x} {:016x}", dataset.split(Split::train).checksum(),
                  dataset.split(Split::valid).checksum(), dataset.split(Split::test).checksum()));
}

}  // namespace

SequenceBounds sequence_bounds(const JointRecallTask& task) {
  TableSizes least{}, most{};
  least.fill(1);
  most.fill(1);
  for (int level = 0; level < task.levels; ++level) {
    least[static_cast<std::size_t>(level)] = task.range(level).lo;
    most[static_cast<std::size_t>(level)] = task.range(level).hi;
  }
  // Of all tokens from the first symbol on, with bos and sep.
  const std::int64_t symbols = task.vocab_size() - kFirstSymbol + 2;
  const auto of = [&](const TableSizes& sizes, std::int64_t distinct) {
    const std::int64_t tokens = task.length(sizes) - 1;
    return SequenceSizes{tokens, task.entries(sizes), std::min(distinct, tokens)};
  };
  return {of(least, 1), of(most, symbols)};
}

std::unique_ptr<Task> open_task(const TrainOptions& options) {
  return options.data_dir.empty() ? stream(options) : from_folder(options);
}

}  // namespace hax
