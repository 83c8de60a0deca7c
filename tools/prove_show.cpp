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

}  // namespace

void show_theorem(const JointRecallTask& table, const TheoremOptions& options) {
  const TheoremModel model(tokens_of(table), options);
  SampleGenerator generator(table, options.seed);
  std::vector<std::int32_t> tokens, rows;
  generator.draw(tokens);
  for (std::size_t t = tokens.size() / 2; t < tokens.size(); ++t) {
    if (table.is_key(tokens[t])) rows.push_back(static_cast<std::int32_t>(t));
  }

  TheoremModel::State scanned, past;
  TheoremModel::Trace trace;
  const Tensor present = Tensor::from(tokens);
  const Tensor y = model.overwrite(present, scanned).value();
  const Tensor answers = argmax_rows(model.forward(present, Tensor::from(rows), past, &trace));
  const auto lists = to_lists(trace.keys);

  std::vector<std::string> states;
  std::size_t width = 0;
  for (std::int64_t t = 0; t < y.size(0); ++t) {
    states.push_back(in_words(table, model, y.data<float>() + t * y.size(1)));
    width = std::max(width, states.back().size() + 1);
  }
  const auto bin = [&](const Tensor& bins, std::size_t row) {
    return fmt::format("{:0{}b}", bins.values<std::int64_t>()[row], options.hash_bits);
  };
  const auto bin_width = std::max<std::size_t>(static_cast<std::size_t>(options.hash_bits), 9) + 2;
  const auto print_line = [&](auto position, std::string_view token, std::string_view words,
                              std::string_view key_bin) {
    fmt::print("{:>3}  {:<6}{:<{}}{}", position, token, words, width, key_bin);
    return bin_width - key_bin.size();  // to the next column
  };
  std::size_t gap = print_line("pos", "token", "state", "key bin");
  fmt::print("{:<{}}{:<{}}{:<8}{}\n", "", gap, "query bin", bin_width, "answer", "sees");
  std::size_t question = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    gap = print_line(t, token_label(table, tokens[t]), states[t], bin(trace.key_bin, t));
    if (question < rows.size() && rows[question] == static_cast<std::int32_t>(t)) {
      fmt::print("{:<{}}{:<{}}{:<8}{}", "", gap, bin(trace.query_bin, question), bin_width,
                 answers.values<std::int32_t>()[question], fmt::join(lists[t], " "));
      ++question;
    }
    fmt::print("\n");
  }
}

}  // namespace hax
