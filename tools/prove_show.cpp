#include "tools/prove_show.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "data/generator.h"
#include "tools/prove_measure.h"

namespace hax {
namespace {

// The token of a range whose vector a part of the state holds; "-" where nothing was written yet.
std::string name_of_vector(const JointRecallTask& table, const TheoremModel& model,
                           const float* state, std::int64_t begin, std::int64_t end,
                           RecallTokens::Range range) {
  const Tensor& embedding = model.weights().embedding;
  for (std::int32_t token = range.first; token < range.first + range.count; ++token) {
    const float* row = embedding.data<float>() + token * embedding.size(1);
    if (std::equal(state + begin, state + end, row + begin)) return token_label(table, token);
  }
  return "-";
}

// "[B b 7 -1]"
std::string in_words(const JointRecallTask& table, const TheoremModel& model, const float* state) {
  const TheoremChannels& at = model.channels();
  const RecallTokens tokens = tokens_of(table);
  std::string text = "[";
  for (std::size_t part = 0; part < at.level.size(); ++part) {
    const bool is_level = part + 1 < at.level.size();
    text += name_of_vector(table, model, state, at.level[part],
                           is_level ? at.level[part + 1] : at.is_value,
                           is_level ? tokens.levels[part] : tokens.values) +
            " ";
  }
  return text + fmt::format("{:+}]", static_cast<int>(state[at.is_value]));
}

// The positions that the query at `row` sees.
std::string keys_seen(const std::vector<std::vector<std::int32_t>>& lists, std::int32_t row) {
  return fmt::format("{}", fmt::join(lists[static_cast<std::size_t>(row)], " "));
}

}  // namespace

void show_theorem(const JointRecallTask& table, const TheoremOptions& options) {
  const TheoremModel model(tokens_of(table), options);
  SampleGenerator generator(table, options.seed);
  std::vector<std::int32_t> tokens, rows;
  generator.draw(tokens);
  for (std::size_t t = tokens.size() / 2; t < tokens.size(); ++t) {
    if (table.is_key(tokens[t])) rows.push_back(static_cast<std::int32_t>(t));
  }

  TheoremModel::State scanned, state;
  TheoremModel::Trace trace;
  const Tensor present = Tensor::from(tokens);
  const Tensor y = model.overwrite(present, scanned).value();
  const Tensor answers = argmax_rows(model.forward(present, Tensor::from(rows), state, &trace));
  const auto lists = to_lists(trace.keys);

  const int bits = static_cast<int>(options.hash_bits);
  const int words = static_cast<int>(in_words(table, model, y.data<float>()).size()) + 2;
  fmt::print("{:>3}  {:<6}{:<{}}{:<{}}  {:<{}}  {:<10}{}\n", "pos", "token", "state", words,
             "key bin", std::max(bits, 7), "query bin", std::max(bits, 9), "sees", "answer");
  std::size_t question = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    fmt::print("{:>3}  {:<6}{:<{}}{:0{}b}", t, token_label(table, tokens[t]),
               in_words(table, model, y.data<float>() + static_cast<std::int64_t>(t) * y.size(1)),
               words, trace.key_bin.data<std::int64_t>()[t], bits);
    if (question < rows.size() && rows[question] == static_cast<std::int32_t>(t)) {
      fmt::print("  {:0{}b}  {:<10}{}", trace.query_bin.data<std::int64_t>()[question], bits,
                 keys_seen(lists, rows[question]), answers.data<std::int32_t>()[question]);
      ++question;
    }
    fmt::print("\n");
  }
}

}  // namespace hax
