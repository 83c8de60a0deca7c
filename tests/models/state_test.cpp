// Reading a text in pieces from a carried state gives what reading it at once gives.
#include "models/state.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "models/costs.h"
#include "ops/embedding/embedding.h"
#include "ops/join_rows/join_rows.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"

using namespace hax;
using namespace hax::test;

namespace {

const std::vector<std::int64_t> kLengths{33, 1, 0, 50};

Tensor random_tokens(std::int64_t count, std::int64_t vocab) {
  RandomStream random({.seed = 5});
  std::vector<std::int32_t> tokens;
  for (std::int64_t t = 0; t < count; ++t) {
    tokens.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(vocab))));
  }
  return Tensor::from(tokens);
}

// Tokens first..first+step of every sequence that has them: pack rows.
struct Piece {
  Sequences sequences;
  std::vector<std::int32_t> rows;
};

std::vector<Piece> cut(const Sequences& whole, const std::vector<std::int64_t>& steps) {
  std::int64_t longest = 0, first = 0;
  for (std::int64_t s = 0; s < whole.count(); ++s) longest = std::max(longest, whole.length(s));
  std::vector<Piece> pieces;
  for (std::size_t i = 0; first < longest; first += steps[i++ % steps.size()]) {
    const std::int64_t step = steps[i % steps.size()];
    std::vector<std::int64_t> lengths;
    Piece& piece = pieces.emplace_back();
    for (std::int64_t s = 0; s < whole.count(); ++s) {
      const std::int64_t begin = std::min(first, whole.length(s));
      const std::int64_t end = std::min(first + step, whole.length(s));
      for (std::int64_t t = begin; t < end; ++t) {
        piece.rows.push_back(static_cast<std::int32_t>(whole.begin(s) + t));
      }
      lengths.push_back(end - begin);
    }
    piece.sequences = Sequences::of_lengths(lengths);
  }
  return pieces;
}

Tensor tokens_of(const Tensor& tokens, const Piece& piece) {
  std::vector<std::int32_t> picked;
  for (const std::int32_t row : piece.rows) picked.push_back(tokens.data<std::int32_t>()[row]);
  return Tensor::from(picked);
}

struct Reader {
  const TestModel& test;
  const Leaves& leaves;
  DrawnInputs random{17, 3};

  Var read(const Sequences& sequences, const Tensor& tokens, ModelState* state,
           const Tensor& rows = {}) const {
    return test.model
        .forward({.parameters = leaves,
                  .random = random,
                  .sequences = sequences,
                  .training = false,
                  .state = state},
                 tokens, rows)
        .logits;
  }

  // The logits of every piece, put where they belong.
  Tensor read_pieces(const Sequences& whole, const Tensor& tokens,
                     const std::vector<std::int64_t>& steps, ModelState& state) const {
    Tensor logits = Tensor::zeros({whole.tokens(), test.model.config().vocab_size},
                                  test.parameters.flat().dtype());
    for (const Piece& piece : cut(whole, steps)) {
      const Tensor part = read(piece.sequences, tokens_of(tokens, piece), &state).value();
      for (std::size_t r = 0; r < piece.rows.size(); ++r) {
        Tensor row = logits.rows(piece.rows[r], piece.rows[r] + 1);
        copy(row, part.rows(static_cast<std::int64_t>(r), static_cast<std::int64_t>(r) + 1));
      }
    }
    return logits;
  }
};

const std::vector<std::vector<std::int64_t>> kCuts{{1}, {2}, {7}, {1, 0, 16, 3}, {100}};

}  // namespace

TEST_CASE("every architecture reads in pieces as at once") {
  const NoGrad no_grad;
  for (const NamedConfig& named : all_small_configs()) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      const TestModel test(named.config, dtype, 7);
      const Leaves leaves(test.parameters);
      const Reader reader{test, leaves};
      const Sequences whole = Sequences::of_lengths(kLengths);
      const Tensor tokens = random_tokens(whole.tokens(), test.model.config().vocab_size);
      const Tensor expected = reader.read(whole, tokens, nullptr).value();
      for (const auto& steps : kCuts) {
        INFO(named.name << ", " << name_of(dtype) << ", pieces of " << steps.front());
        ModelState state = test.model.initial_state(whole.count());
        const Tensor logits = reader.read_pieces(whole, tokens, steps, state);
        CHECK(relative_error(logits, expected) <= (dtype == DType::float32 ? 1e-5 : 1e-11));
        CHECK(state.seen == kLengths);
      }
    }
  }
}

TEST_CASE("gradients flow from piece to piece") {
  for (const NamedConfig& named : all_small_configs()) {
    INFO(named.name);
    const TestModel test(named.config, DType::float64, 7);
    const Sequences whole = Sequences::of_lengths({21, 1, 30});
    const Tensor tokens = random_tokens(whole.tokens(), test.model.config().vocab_size);
    const Tensor dy = random_tensor({whole.tokens(), test.model.config().vocab_size}, 9);

    Parameters expected(test.model.parameters(), DType::float64);
    {
      const Leaves leaves(test.parameters, expected);
      backward(Reader{test, leaves}.read(whole, tokens, nullptr), dy);
    }
    Parameters found(test.model.parameters(), DType::float64);
    {
      const Leaves leaves(test.parameters, found);
      const Reader reader{test, leaves};
      ModelState state = test.model.initial_state(whole.count());
      // All pieces in one tensor, so that backward() runs once through all of them.
      Var logits;
      std::vector<std::int32_t> order;
      Sequences before = Sequences::single(0);
      for (const Piece& piece : cut(whole, {8, 1, 5})) {
        const Var part = reader.read(piece.sequences, tokens_of(tokens, piece), &state);
        const Sequences rows = Sequences::single(part.size(0));
        logits = logits.defined() ? join_rows(logits, before, part, rows) : part;
        before = before.joined(rows);
        for (const std::int32_t row : piece.rows) order.push_back(row);
      }
      backward(logits, embedding(dy, Tensor::from(order)).value());
    }
    for (std::size_t i = 0; i < expected.specs().size(); ++i) {
      INFO(expected.specs()[i].name);
      CHECK(relative_error(found.view(i), expected.view(i)) <= 1e-11);
    }
  }
}

TEST_CASE("a detached state has the numbers and no graph") {
  const TestModel test(small_config("sign_bin_lsh+key_selection"), DType::float64, 7);
  Parameters gradients(test.model.parameters(), DType::float64);
  const Leaves leaves(test.parameters, gradients);
  const Reader reader{test, leaves};
  ModelState state = test.model.initial_state(1);
  reader.read(Sequences::single(9), random_tokens(9, 48), &state);
  CHECK(state.layers[0].ssm.requires_grad());
  const ModelState cut_off = state.detached();
  CHECK(cut_off.numbers() == state.numbers());
  for (const MixerState& layer : cut_off.layers) {
    for (const Var& var : {layer.ssm, layer.conv[0].rows, layer.keys.K, layer.keys.V}) {
      CHECK(var.defined());
      CHECK(!var.requires_grad());
    }
  }
}

TEST_CASE("only the rows wanted are computed, whatever the state holds") {
  const NoGrad no_grad;
  for (const NamedConfig& named : all_small_configs()) {
    INFO(named.name);
    const TestModel test(named.config, DType::float64, 7);
    const Leaves leaves(test.parameters);
    const Reader reader{test, leaves};
    const Sequences first = Sequences::of_lengths({9, 4}), second = Sequences::of_lengths({5, 8});
    const Tensor tokens = random_tokens(26, test.model.config().vocab_size);
    const Tensor rows = Tensor::from(std::vector<std::int32_t>{0, 4, 12});
    ModelState state = test.model.initial_state(2);
    reader.read(first, tokens.rows(0, 13), &state);
    ModelState copy_of_state = state;
    const Tensor all = reader.read(second, tokens.rows(13, 26), &state).value();
    const Tensor some = reader.read(second, tokens.rows(13, 26), &copy_of_state, rows).value();
    for (std::int64_t r = 0; r < 3; ++r) {
      const std::int32_t row = rows.data<std::int32_t>()[r];
      CHECK(relative_error(some.rows(r, r + 1), all.rows(row, row + 1)) <= 1e-12);
    }
    CHECK(copy_of_state.numbers() == state.numbers());
  }
}

TEST_CASE("the state of a bounded architecture stops growing") {
  const NoGrad no_grad;
  for (const NamedConfig& named : all_small_configs()) {
    INFO(named.name);
    ModelConfig config = named.config;
    config.num_hash = 2;  // few bins, which fill up soon
    const TestModel test(config, DType::float32, 7);
    const Leaves leaves(test.parameters);
    const Reader reader{test, leaves};
    ModelState state = test.model.initial_state(1);
    const Tensor tokens = random_tokens(1600, test.model.config().vocab_size);
    reader.read(Sequences::single(1504), tokens.rows(0, 1504), &state);
    const std::int64_t before = state.numbers();
    reader.read(Sequences::single(96), tokens.rows(1504, 1600), &state);
    const bool bounded =
        !test.model.config().uses("full") && test.model.config().model_type != "transformer";
    CHECK((state.numbers() == before) == bounded);
  }
}

TEST_CASE("the state has the size that hax list prints") {
  const NoGrad no_grad;
  for (const NamedConfig& named : all_small_configs()) {
    const TestModel test(named.config, DType::float32, 7);
    const ModelConfig& config = test.model.config();
    const Leaves leaves(test.parameters);
    const Reader reader{test, leaves};
    ModelState state = test.model.initial_state(1);
    const Tensor tokens = random_tokens(200, config.vocab_size);
    std::int64_t read = 0;
    for (const std::int64_t piece : {1, 1, 1, 4, 30, 90, 73}) {
      reader.read(Sequences::single(piece), tokens.rows(read, read + piece), &state);
      read += piece;
      INFO(named.name << " after " << read);
      const std::int64_t carried = state.numbers() - 1;  // without the count of tokens
      const std::int64_t expected = state_numbers(config, read);
      // At most, where bins may be empty, grid keys passed, or components agree on a key.
      const bool exact =
          config.sparse_components().size() < 2 && !config.hashes() && !config.uses("dilated");
      CHECK(carried <= expected);
      if (exact) CHECK(carried == expected);
    }
  }
}

TEST_CASE("what looks ahead can't go on from a state, and an error leaves the state alone") {
  const TestModel test(small_config("sign_bin_lsh+key_selection"), DType::float32, 7);
  const auto error = [](ModelConfig config, bool training) {
    const TestModel changed(std::move(config), DType::float32, 7);
    const Leaves leaves(changed.parameters);
    const DrawnInputs random(1, 1);
    ModelState state = changed.model.initial_state(1);
    return error_of([&] {
      changed.model.forward({.parameters = leaves,
                             .random = random,
                             .sequences = Sequences::single(3),
                             .training = training,
                             .state = &state},
                            random_tokens(3, 10));
    });
  };
  ModelConfig config = test.model.config();
  CHECK(error(config, true) ==
        "model: the ranking loss looks at whole sequences and can't go on from a state; run with "
        "training = false");
  config.norm_mode = NormMode::released;
  CHECK(error(config, false) ==
        "model: norm_mode released looks at whole sequences and can't go on from a state; use "
        "causal");
  config.norm_mode = NormMode::causal;
  config.lsh_center = LshCenter::sequence;
  CHECK(error(config, false) ==
        "model: lsh_center sequence looks at whole sequences and can't go on from a state; use "
        "causal or none");

  const Leaves leaves(test.parameters);
  const Reader reader{test, leaves};
  ModelState state = test.model.initial_state(1);
  reader.read(Sequences::single(5), random_tokens(5, 10), &state);
  const std::int64_t numbers = state.numbers();
  CHECK(error_of([&] {
          reader.read(Sequences::single(1), Tensor::from(std::vector<std::int32_t>{1000}), &state);
        }).find("1000") != std::string::npos);
  CHECK(state.numbers() == numbers);
  CHECK(state.seen == std::vector<std::int64_t>{5});
  CHECK(error_of([&] {
          reader.read(Sequences::of_lengths({1, 1}), random_tokens(2, 10), &state);
        }) == "model: the state is of 1 sequences, the pack has 2");
}
