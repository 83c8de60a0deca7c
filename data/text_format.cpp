#include "data/text_format.h"

#include <algorithm>

#include "data/sample_scan.h"
#include "data/text_lines.h"
#include "engine/check.h"

namespace hax {
namespace {

constexpr std::int64_t kBlock = 2048;

std::filesystem::path text_path(const std::string& prefix, Split split, std::string_view kind) {
  return fmt::format("{}_{}_{}.txt", prefix, name_of(split), kind);
}

std::size_t length_without_padding(const std::vector<std::int32_t>& tokens) {
  std::size_t length = tokens.size();
  while (length > 0 && tokens[length - 1] == kPadToken) --length;
  return length;
}

// What the nesting of samples says about their task. After bos, and after every value, tokens fall:
// context > context inside it > ... > key > value; the next token, a key or a context, is larger
// than the value. So a falling run of r + 1 tokens is the last r levels and a value.
class TaskFinder {
 public:
  explicit TaskFinder(int levels) : first_(levels, INT32_MAX), fewest_(levels, INT32_MAX) {}

  static int levels_of(std::span<const std::int32_t> tokens) {
    return static_cast<int>(run_end(tokens, 1)) - 2;
  }

  // False when this cannot be a sample of so many levels.
  bool add(std::span<const std::int32_t> tokens) {
    const std::size_t levels = first_.size();
    if (tokens.empty() || tokens[0] != kBosToken) return false;
    std::vector<std::int64_t> blocks(levels);
    for (std::size_t at = 1; at < tokens.size() && tokens[at] != kSepToken;) {
      const std::size_t end = run_end(tokens, at), depth = end - at - 1;
      if (depth == 0 || depth > levels || (at == 1 && depth < levels)) return false;
      for (std::size_t level = levels - depth; level < levels; ++level, ++at) {
        first_[level] = std::min(first_[level], tokens[at]);
        ++blocks[level];
      }
      at = end;
    }
    for (std::size_t level = 0; level < levels; ++level) {
      const std::int64_t around = level == 0 ? 1 : std::max<std::int64_t>(blocks[level - 1], 1);
      fewest_[level] = std::min(fewest_[level], static_cast<std::int32_t>(blocks[level] / around));
    }
    return true;
  }

  void merge(const TaskFinder& other) {
    for (std::size_t level = 0; level < first_.size(); ++level) {
      first_[level] = std::min(first_[level], other.first_[level]);
      fewest_[level] = std::min(fewest_[level], other.fewest_[level]);
    }
  }

  // The task that flags and findings give together; not validated.
  JointRecallTask task(const TaskFlags& flags, std::int64_t line_length) const {
    const auto levels = static_cast<int>(first_.size());
    const auto first = [this](int level) { return first_[static_cast<std::size_t>(level)]; };
    const std::int64_t half = line_length / 2 - 1;
    JointRecallTask task{.levels = levels, .contexts = {1, 1}};
    task.values = flags.values.value_or(first(levels - 1) - kFirstSymbol);
    const std::int64_t keys =
        levels == 1 ? half / 2 : std::int64_t{first(levels - 2)} - first(levels - 1);
    task.keys = flags.keys.value_or(Range{fewest_.back(), static_cast<std::int32_t>(keys)});
    if (levels > 1) {
      const std::int64_t contexts = levels == 2
                                        ? half / (2 * std::int64_t{task.keys.hi} + 1)
                                        : std::int64_t{first(levels - 3)} - first(levels - 2);
      const std::int32_t fewest = *std::min_element(fewest_.begin(), fewest_.end() - 1);
      task.contexts = flags.contexts.value_or(Range{fewest, static_cast<std::int32_t>(contexts)});
    }
    return task;
  }

 private:
  static std::size_t run_end(std::span<const std::int32_t> tokens, std::size_t at) {
    do ++at;
    while (at < tokens.size() && tokens[at] < tokens[at - 1] && tokens[at] >= kFirstSymbol);
    return at;
  }

  std::vector<std::int32_t> first_;   // smallest token of each level
  std::vector<std::int32_t> fewest_;  // entries of the smallest block of each level
};

struct SplitText {
  TextLines inputs, mask;
  SplitText(const std::string& prefix, Split split)
      : inputs(text_path(prefix, split, "inputs")), mask(text_path(prefix, split, "mask")) {
    check(inputs.count() == mask.count(), "{}: {} lines, but {} has {}", mask.path().string(),
          mask.count(), inputs.path().string(), inputs.count());
  }
};

using Texts = std::vector<std::unique_ptr<const SplitText>>;

JointRecallTask find_task(const Texts& texts, const TaskFlags& flags) {
  const auto first = std::find_if(texts.begin(), texts.end(),
                                  [](const auto& text) { return text->inputs.count() > 0; });
  check(first != texts.end(), "{}: no samples in any split", texts[0]->inputs.path().string());
  const TextLines& example = (*first)->inputs;
  std::vector<std::int32_t> line;
  example.numbers(0, line);
  const auto length = static_cast<std::int64_t>(line.size());

  if (flags.keys && flags.values && (flags.contexts || flags.levels == 1)) {
    return make_task(flags.levels.value_or(2), flags.contexts, flags.keys, *flags.values);
  }
  line.resize(length_without_padding(line));
  const int levels = flags.levels.value_or(TaskFinder::levels_of(line));
  example.check_line(1 <= levels && levels <= kMaxLevels, 0,
                     "not a sample: no context, key, value");
  check_usage(levels > 1 || !flags.contexts,
              "--contexts is not for one level, which has keys only");
  TaskFinder finder(levels);
  for (const auto& text : texts) {
    FirstFault fault;
#pragma omp parallel
    {
      TaskFinder part(levels);
      std::vector<std::int32_t> tokens;
#pragma omp for schedule(dynamic, 64)
      for (std::int64_t i = 0; i < text->inputs.count(); ++i) {
        fault.guard(i, [&] {
          text->inputs.numbers(i, tokens);
          text->inputs.check_line(static_cast<std::int64_t>(tokens.size()) == length, i,
                                  "{} numbers, expected {} as in {}:1", tokens.size(), length,
                                  example.path().string());
          tokens.resize(length_without_padding(tokens));
          text->inputs.check_line(part.add(tokens), i, "not a sample of {} level{}", levels,
                                  levels == 1 ? "" : "s");
        });
      }
#pragma omp critical(hax_find_task)
      finder.merge(part);
    }
    fault.rethrow();
  }
  const JointRecallTask task = finder.task(flags, length);
  try {
    task.validate();
  } catch (const UsageError& error) {
    example.fail(0, fmt::format("cannot tell the task ({}); give --levels, --contexts, --keys and "
                                "--values",
                                error.what()));
  }
  return task;
}

// One line of both files, checked; unpadded tokens into `tokens`.
std::uint64_t read_sample(const SplitText& text, std::int64_t i, const JointRecallTask& task,
                          std::vector<std::int32_t>& tokens, std::vector<std::int32_t>& mask) {
  const auto length = static_cast<std::size_t>(task.fixed_length());
  const TextLines& inputs = text.inputs;
  inputs.numbers(i, tokens);
  inputs.check_line(tokens.size() == length, i, "{} numbers, expected {} for {}", tokens.size(),
                    length, to_string(task));
  text.mask.numbers(i, mask);
  text.mask.check_line(mask.size() == length, i, "{} numbers, expected {}", mask.size(), length);
  tokens.resize(length_without_padding(tokens));
  const SampleCheck result = check_sample(task, tokens);
  inputs.check_line(result.fault.empty(), i, "{}", result.fault);
  bool second_half = false;
  for (std::size_t t = 0; t < length; ++t) {
    const std::int32_t token = t < tokens.size() ? tokens[t] : kPadToken;
    second_half |= token == kSepToken;
    const std::int32_t expected = second_half && task.is_key(token);
    text.mask.check_line(mask[t] == expected, i,
                         "number {} is {}, expected {} for the token {} ({})", t + 1, mask[t],
                         expected, token, token_label(task, token));
  }
  return sample_hash(tokens);
}

}  // namespace

void import_text(const std::string& prefix, const std::filesystem::path& folder,
                 const TaskFlags& flags, bool replace, const DataProgress& progress) {
  Texts texts;
  for (const Split split : kSplits) texts.push_back(std::make_unique<SplitText>(prefix, split));
  const JointRecallTask task = find_task(texts, flags);
  const int bytes = token_bytes(task);

  DatasetWriter writer(folder, {.task = task, .origin = Origin::imported}, replace);
  DuplicateFinder duplicates;
  std::vector<std::vector<std::int32_t>> samples(static_cast<std::size_t>(kBlock));
  std::vector<std::uint64_t> hashes(samples.size());
  std::vector<std::byte> stored;
  std::vector<std::int32_t> lengths;
  for (const Split split : kSplits) {
    const SplitText& text = *texts[static_cast<std::size_t>(split)];
    const std::int64_t count = text.inputs.count();
    for (std::int64_t first = 0; first < count; first += kBlock) {
      const std::int64_t last = std::min(first + kBlock, count);
      FirstFault fault;
#pragma omp parallel
      {
        std::vector<std::int32_t> mask;
#pragma omp for schedule(dynamic, 16)
        for (std::int64_t i = first; i < last; ++i) {
          const auto at = static_cast<std::size_t>(i - first);
          fault.guard(i, [&] { hashes[at] = read_sample(text, i, task, samples[at], mask); });
        }
      }
      fault.rethrow();
      stored.clear();
      lengths.clear();
      for (std::int64_t i = first; i < last; ++i) {
        const auto at = static_cast<std::size_t>(i - first);
        if (const auto before = duplicates.insert(split, hashes[at])) {
          const TextLines& where = texts[static_cast<std::size_t>(before->split)]->inputs;
          text.inputs.fail(
              i, fmt::format("the same sample as {}:{}", where.path().string(), before->index + 1));
        }
        lengths.push_back(static_cast<std::int32_t>(samples[at].size()));
        const std::size_t begin = stored.size();
        stored.resize(begin + samples[at].size() * static_cast<std::size_t>(bytes));
        narrow(samples[at], bytes, stored.data() + begin);
      }
      writer.split(split).append(stored, lengths);
      report(progress, split, last, count);
    }
  }
  writer.publish();
}

void export_text(const Dataset& dataset, const std::string& prefix, bool replace,
                 const DataProgress& progress) {
  const JointRecallTask& task = dataset.task();
  const auto length = static_cast<std::size_t>(task.fixed_length());
  std::vector<std::string> words;  // every token with the space before it
  for (std::int32_t token = 0; token < task.vocab_size(); ++token) {
    words.push_back(fmt::format(" {}", token));
  }

  const std::filesystem::path parent = text_path(prefix, Split::train, "inputs").parent_path();
  OutputFolder folder(parent.empty() ? "." : parent);
  std::vector<std::unique_ptr<OutputFile>> files;
  for (const Split split : kSplits) {
    for (const std::string_view kind : {"inputs", "mask"}) {
      const std::filesystem::path path = text_path(prefix, split, kind);
      check_usage(replace || !std::filesystem::exists(path), "{} exists; --force replaces it",
                  path.string());
      files.push_back(std::make_unique<OutputFile>(path));
    }
  }

  std::vector<std::string> lines[2];  // of a block: inputs, masks
  std::string text;
  for (auto& kind : lines) kind.resize(static_cast<std::size_t>(kBlock));
  for (const Split split : kSplits) {
    const SplitFile& source = dataset.split(split);
    for (std::int64_t first = 0; first < source.samples(); first += kBlock) {
      const std::int64_t last = std::min(first + kBlock, source.samples());
      FirstFault fault;
#pragma omp parallel
      {
        std::vector<std::int32_t> tokens;
#pragma omp for schedule(dynamic, 16)
        for (std::int64_t i = first; i < last; ++i) {
          fault.guard(i, [&] {
            source.sample(i, tokens);
            std::string& inputs = lines[0][static_cast<std::size_t>(i - first)];
            std::string& mask = lines[1][static_cast<std::size_t>(i - first)];
            inputs.clear();
            mask.clear();
            bool second_half = false;
            for (std::size_t t = 0; t < length; ++t) {
              const std::int32_t token = t < tokens.size() ? tokens[t] : kPadToken;
              second_half |= token == kSepToken;
              inputs += words[static_cast<std::size_t>(token)];
              mask += second_half && task.is_key(token) ? " 1" : " 0";
            }
            inputs += '\n';
            mask += '\n';
          });
        }
      }
      fault.rethrow();
      for (std::size_t kind = 0; kind < 2; ++kind) {
        text.clear();
        for (std::int64_t i = first; i < last; ++i) {
          // Without the space before the first number.
          text += std::string_view(lines[kind][static_cast<std::size_t>(i - first)]).substr(1);
        }
        files[2 * static_cast<std::size_t>(split) + kind]->append(text);
      }
      report(progress, split, last, source.samples());
    }
  }
  for (const auto& file : files) file->finish();
  for (const auto& file : files) file->publish();
  folder.keep();
}

}  // namespace hax
