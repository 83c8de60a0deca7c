#include "tools/prove_measure.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <optional>
#include <unordered_map>

#include "data/generator.h"
#include "ops/key_set/key_sweep.h"

namespace hax {
namespace {

// A sequence is prefilled in pieces that are a fixed part of it: what is done over all keys once a
// piece (sorting their bins) then stays in proportion to the length.
constexpr std::int64_t kPieces = 16, kShortestPiece = 8192;

// One question: a key token of the second half.
struct Question {
  std::int32_t position;  // in the sequence
  std::int32_t right;     // where the first half has the value
  std::int32_t value;
};

std::vector<Question> questions_of(const JointRecallTask& table,
                                   const std::vector<std::int32_t>& tokens) {
  const TableSizes sizes = table.sizes(0);
  const auto entries = static_cast<std::size_t>(table.entries(sizes));
  std::vector<std::int32_t> right(entries);
  std::vector<Question> questions;
  questions.reserve(entries);
  std::array<std::int64_t, kMaxLevels> at{};  // the current entry of each level
  bool second_half = false;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    second_half = second_half || tokens[t] == kSepToken;
    for (int level = 0; level < table.levels; ++level) {
      const std::int64_t index = tokens[t] - table.first_token(level);
      if (0 <= index && index < table.range(level).hi) at[static_cast<std::size_t>(level)] = index;
    }
    if (!table.is_key(tokens[t])) continue;
    std::int64_t entry = 0;
    for (int level = 0; level < table.levels; ++level) {
      entry = entry * table.range(level).hi + at[static_cast<std::size_t>(level)];
    }
    std::int32_t& place = right[static_cast<std::size_t>(entry)];
    if (!second_half) {
      place = static_cast<std::int32_t>(t) + 1;
    } else {
      questions.push_back({static_cast<std::int32_t>(t), place,
                           tokens[static_cast<std::size_t>(place)] - kFirstSymbol});
    }
  }
  return questions;
}

// Adds up what the questions of all tables found.
class Tally {
 public:
  void start_table() {
    in_bin_.clear();
    bin_of_.clear();
  }

  void answers(std::span<const Question> asked, const Tensor& answer) {
    for (std::size_t q = 0; q < asked.size(); ++q) {
      right_answers_ += answer.data<std::int32_t>()[q] == asked[q].value ? 1 : 0;
    }
    questions_ += static_cast<std::int64_t>(asked.size());
  }

  void keys(std::span<const Question> asked, const TheoremModel::Trace& trace) {
    KeySweep sweep(trace.keys);
    sweep.enter(0);
    const std::int64_t* position = trace.position.data<std::int64_t>();
    for (std::size_t q = 0; q < asked.size(); ++q) {
      const auto list = sweep.keys_of(trace.rows.data<std::int32_t>()[q]);
      keys_sum_ += static_cast<std::int64_t>(list.size());
      keys_max_ = std::max(keys_max_, static_cast<std::int64_t>(list.size()));
      right_seen_ += std::ranges::any_of(
          list, [&](std::int32_t row) { return position[row] == asked[q].right; });
    }
  }

  // `first` is the position of the piece.
  void bins(std::span<const Question> asked, const TheoremModel::Trace& trace, std::int64_t first) {
    bin_of_.insert(bin_of_.end(), trace.key_bin.values<std::int64_t>().begin(),
                   trace.key_bin.values<std::int64_t>().end());
    const auto key_bin = trace.key_bin.values<std::int64_t>();
    const std::int64_t* query_bin = trace.query_bin.data<std::int64_t>();
    std::size_t seen = 0;
    for (const Question& question : asked) {
      for (; static_cast<std::int64_t>(seen) <= question.position - first; ++seen) {
        ++in_bin_[key_bin[seen]];
      }
      const bool same = bin_of_[static_cast<std::size_t>(question.right)] == *query_bin;
      const auto found = in_bin_.find(*query_bin++);
      same_bin_ += same;
      wrong_in_bin_ += (found == in_bin_.end() ? 0 : found->second) - (same ? 1 : 0);
    }
    for (; seen < key_bin.size(); ++seen) ++in_bin_[key_bin[seen]];
  }

  void finish(Measurement& m) const {
    const auto share = [&](std::int64_t count) {
      return static_cast<double>(count) / static_cast<double>(questions_);
    };
    m.accuracy = share(right_answers_);
    m.keys_mean = share(keys_sum_);
    m.keys_max = keys_max_;
    m.right_seen = share(right_seen_);
    m.same_bin = share(same_bin_);
    m.wrong_in_bin = share(wrong_in_bin_);
  }

 private:
  std::int64_t questions_ = 0, right_answers_ = 0, keys_sum_ = 0, keys_max_ = 0, right_seen_ = 0;
  std::int64_t same_bin_ = 0, wrong_in_bin_ = 0;
  std::unordered_map<std::int64_t, std::int64_t> in_bin_;  // keys so far
  std::vector<std::int64_t> bin_of_;                       // of the key at a position
};

// Of this thread, the only one there is: what it would take on a machine without other work.
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Prefills one table and answers its questions. Returns the seconds that the model took.
double run_table(const TheoremModel& model, const std::vector<std::int32_t>& tokens,
                 const std::vector<Question>& questions, TheoremModel::State& state, Tally& tally) {
  const LookBack look_back = model.options().look_back;
  const bool attends = look_back != LookBack::nothing && look_back != LookBack::fixed_state;
  const auto length = static_cast<std::int64_t>(tokens.size());
  const std::int64_t piece = std::max(kShortestPiece, (length + kPieces - 1) / kPieces);
  double seconds = 0;
  auto next = questions.begin();
  for (std::int64_t first = 0; first < length; first += piece) {
    const std::int64_t last = std::min(first + piece, length);
    const auto begin = next;
    std::vector<std::int32_t> rows;
    for (; next != questions.end() && next->position < last; ++next) {
      rows.push_back(next->position - static_cast<std::int32_t>(first));
    }
    const Tensor present =
        Tensor::from(std::span(tokens).subspan(static_cast<std::size_t>(first),
                                               static_cast<std::size_t>(last - first)),
                     {last - first});
    const Tensor wanted = Tensor::from(rows);
    TheoremModel::Trace trace;
    const double start = processor_seconds();
    const Tensor answer =
        argmax_rows(model.forward(present, wanted, state, attends ? &trace : nullptr));
    seconds += processor_seconds() - start;
    const std::span<const Question> asked(begin, next);
    tally.answers(asked, answer);
    if (attends) tally.keys(asked, trace);
    if (look_back == LookBack::lsh) tally.bins(asked, trace, first);
  }
  return seconds;
}

}  // namespace

JointRecallTask table_of(std::int64_t entries, std::int32_t levels, std::int32_t values) {
  JointRecallTask table;
  table.levels = levels;
  table.values = values;
  table.contexts = {1, 1};
  const auto contexts =
      static_cast<std::int64_t>(std::llround(std::pow(static_cast<double>(entries), 1.0 / levels)));
  std::int64_t blocks = 1;  // of keys
  for (int level = 1; level < levels; ++level) blocks *= contexts;
  const auto size = [](std::int64_t count) {
    return Range{static_cast<std::int32_t>(count), static_cast<std::int32_t>(count)};
  };
  if (levels > 1) table.contexts = size(contexts);
  table.keys = size((entries + blocks - 1) / blocks);
  return table;
}

std::string shape_of(const JointRecallTask& table) {
  std::string text;
  for (int level = 0; level < table.levels; ++level) {
    text += fmt::format("{}{}", level == 0 ? "" : " x ", table.range(level).hi);
  }
  return text;
}

RecallTokens tokens_of(const JointRecallTask& table) {
  RecallTokens tokens{.vocabulary = table.vocab_size(),
                      .levels = {},
                      .values = {.first = kFirstSymbol, .count = table.values}};
  for (int level = 0; level < table.levels; ++level) {
    tokens.levels.push_back({table.first_token(level), table.range(level).hi});
  }
  return tokens;
}

Measurement measure(const JointRecallTask& table, const TheoremOptions& options) {
  const TheoremModel model(tokens_of(table), options);
  Measurement m;
  m.entries = table.entries(table.sizes(0));
  m.tokens = table.fixed_length();
  m.tables = std::clamp<std::int64_t>(4096 / m.entries, 1, 256);
  m.hash_bits = options.hash_bits;
  m.state = model.channels().count;
  if (options.look_back == LookBack::fixed_state) {
    m.fixed = options.keys * model.channels().value_width();
  }
  SampleGenerator generator(table, options.seed);
  std::vector<std::int32_t> tokens;
  Tally tally;
  for (std::int64_t i = 0; i < m.tables; ++i) {
    generator.start(static_cast<std::uint64_t>(i));
    generator.draw(tokens);
    tally.start_table();
    TheoremModel::State state(m.tokens);
    m.seconds += run_table(model, tokens, questions_of(table, tokens), state, tally) /
                 static_cast<double>(m.tables);
    m.kept = state.keys.rows();
  }
  tally.finish(m);
  return m;
}

}  // namespace hax
