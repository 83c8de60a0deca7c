// The construction of Propositions 3.2 and C.1: it answers every question, in one piece or many,
// and fails where the paper says that it must.
#include "models/theorem.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "data/generator.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Question {
  std::int32_t position, right, value;  // right: where the first half has the value
};

// A table with its questions, read off the tokens.
struct Recall {
  Recall(std::int32_t levels, std::int32_t size, std::uint64_t seed, std::int32_t keys = 0) {
    task.levels = levels;
    task.contexts = levels == 1 ? Range{1, 1} : Range{size, size};
    task.keys = keys == 0 ? Range{size, size} : Range{keys, keys};
    roles.vocabulary = task.vocab_size();
    roles.values = {kFirstSymbol, task.values};
    for (int l = 0; l < levels; ++l) {
      roles.levels.push_back({task.first_token(l), task.range(l).hi});
    }
    SampleGenerator(task, seed).draw(tokens);
    std::vector<std::int32_t> path(static_cast<std::size_t>(levels), -1);
    std::map<std::vector<std::int32_t>, std::int32_t> places;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      for (int l = 0; l < levels; ++l) {
        const std::int32_t first = task.first_token(l);
        if (first <= tokens[t] && tokens[t] < first + task.range(l).hi) {
          path[static_cast<std::size_t>(l)] = tokens[t];
        }
      }
      if (!task.is_key(tokens[t])) continue;
      const auto [place, is_new] = places.emplace(path, static_cast<std::int32_t>(t) + 1);
      if (is_new) continue;
      questions.push_back({static_cast<std::int32_t>(t), place->second,
                           tokens[static_cast<std::size_t>(place->second)] - kFirstSymbol});
    }
  }

  JointRecallTask task;
  RecallTokens roles;
  std::vector<std::int32_t> tokens;
  std::vector<Question> questions;
};

struct Answers {
  double accuracy = 0;
  Tensor logits;  // [questions, values]
};

// Prefills the sequence in pieces of `piece` tokens.
Answers answer(const TheoremModel& model, const Recall& recall, std::int64_t piece,
               std::vector<TheoremModel::Trace>* traces = nullptr) {
  TheoremModel::State state;
  std::vector<float> logits;
  std::size_t next = 0, right = 0;
  const auto length = static_cast<std::int64_t>(recall.tokens.size());
  for (std::int64_t first = 0; first < length; first += piece) {
    const std::int64_t last = std::min(first + piece, length);
    const std::vector<std::int32_t> present(recall.tokens.begin() + first,
                                            recall.tokens.begin() + last);
    std::vector<std::int32_t> rows;
    const std::size_t begin = next;
    for (; next < recall.questions.size() && recall.questions[next].position < last; ++next) {
      rows.push_back(recall.questions[next].position - static_cast<std::int32_t>(first));
    }
    TheoremModel::Trace trace;
    const Tensor found = model.forward(Tensor::from(present), Tensor::from(rows), state, &trace);
    if (traces != nullptr) traces->push_back(trace);
    const Tensor best = argmax_rows(found);
    for (std::size_t q = begin; q < next; ++q) {
      right += best.data<std::int32_t>()[q - begin] == recall.questions[q].value ? 1 : 0;
    }
    const auto numbers = found.values<float>();
    logits.insert(logits.end(), numbers.begin(), numbers.end());
  }
  CHECK(state.seen == length);
  const auto count = static_cast<std::int64_t>(recall.questions.size());
  return {static_cast<double>(right) / static_cast<double>(count),
          Tensor::from(logits, {count, recall.task.values})};
}

constexpr std::int64_t kWhole = 1 << 20;

TheoremOptions with(LookBack look_back, std::int64_t keys, std::int64_t dilation = 1) {
  TheoremOptions options;
  options.look_back = look_back;
  options.keys = keys;
  options.dilation = dilation;
  return options;
}

}  // namespace

TEST_CASE("theorem: every entry is recalled, for one to four levels and odd sizes") {
  for (const auto& [levels, size] : {std::pair{1, 50}, {1, 1}, {2, 9}, {2, 1}, {3, 4}, {4, 3}}) {
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
      INFO(levels << " levels of " << size << ", seed " << seed);
      const Recall recall(levels, size, seed);
      REQUIRE(recall.questions.size() == std::pow(size, levels));
      TheoremOptions options;
      options.seed = seed;
      const TheoremModel model(recall.roles, options);
      CHECK(answer(model, recall, kWhole).accuracy == 1);
    }
  }
  // More keys than contexts, and the other way round.
  for (const auto& [size, keys] : {std::pair{2, 40}, {40, 2}}) {
    const Recall recall(2, size, 4, keys);
    CHECK(answer(TheoremModel(recall.roles, {}), recall, kWhole).accuracy == 1);
  }
}

TEST_CASE("theorem: the scan is a conditional overwrite, to the bit") {
  for (const int levels : {1, 2, 3, 4}) {
    const Recall recall(levels, 4, 5);
    const TheoremModel model(recall.roles, {});
    const TheoremChannels& at = model.channels();
    TheoremModel::State state;
    const Tensor y = model.overwrite(Tensor::from(recall.tokens), state).value();
    const Tensor& embedding = model.weights().embedding;
    std::vector<double> expected(static_cast<std::size_t>(at.count));
    std::int64_t different = 0;
    for (std::size_t t = 0; t < recall.tokens.size(); ++t) {
      for (std::int64_t e = 0; e < at.count; ++e) {
        const double carried = embedding.data<float>()[recall.tokens[t] * at.count + e];
        double& held = expected[static_cast<std::size_t>(e)];
        // The indicators of a class are overwritten with zeros too.
        if (carried != 0 || e >= at.classes) held = carried;
        different += y.data<float>()[static_cast<std::int64_t>(t) * at.count + e] != held;
      }
    }
    INFO(levels << " levels");
    CHECK(different == 0);
  }
}

TEST_CASE("theorem: token vectors have length 1, no zeros, and differ") {
  const Recall recall(3, 6, 1);
  const TheoremModel model(recall.roles, {});
  const TheoremChannels& at = model.channels();
  const Tensor& embedding = model.weights().embedding;
  for (std::size_t part = 0; part < at.level.size(); ++part) {
    const bool is_level = part + 1 < at.level.size();
    const RecallTokens::Range range = is_level ? recall.roles.levels[part] : recall.roles.values;
    const std::int64_t end = is_level ? at.level[part + 1] : at.is_value;
    std::set<std::vector<float>> distinct;
    for (std::int32_t token = range.first; token < range.first + range.count; ++token) {
      const float* row = embedding.data<float>() + token * at.count;
      double square = 0;
      for (std::int64_t e = 0; e < at.is_value; ++e) {
        const bool own = at.level[part] <= e && e < end;
        CHECK((row[e] != 0) == own);
        square += static_cast<double>(row[e]) * row[e];
      }
      CHECK(square == doctest::Approx(1).epsilon(1e-6));
      CHECK(row[at.is_value] == (is_level ? -1 : 1));
      distinct.emplace(row, row + at.is_value);
    }
    CHECK(distinct.size() == static_cast<std::size_t>(range.count));
  }
}

TEST_CASE("theorem: a query has its own key's bin, and centred on their means they part") {
  const Recall recall(2, 32, 6);
  for (const LshCenter center : {LshCenter::none, LshCenter::causal}) {
    TheoremOptions options;
    options.center = center;
    std::vector<TheoremModel::Trace> traces;
    const Answers found = answer(TheoremModel(recall.roles, options), recall, kWhole, &traces);
    std::size_t same = 0;
    for (std::size_t q = 0; q < recall.questions.size(); ++q) {
      same += traces[0].key_bin.data<std::int64_t>()[recall.questions[q].right] ==
              traces[0].query_bin.data<std::int64_t>()[q];
    }
    const double share = static_cast<double>(same) / static_cast<double>(recall.questions.size());
    if (center == LshCenter::none) {
      CHECK(share == 1);
      CHECK(found.accuracy == 1);
    } else {
      CHECK(share < 0.02);
      CHECK(found.accuracy < 0.15);
    }
  }
}

TEST_CASE("theorem: pieces of any size give the logits of one piece, to the bit") {
  const Recall recall(3, 4, 7);
  std::vector<TheoremOptions> all{with(LookBack::lsh, 64),
                                  with(LookBack::lsh, 2),
                                  with(LookBack::window, 5),
                                  with(LookBack::dilated, 6, 7),
                                  with(LookBack::window_and_sink, 7),
                                  with(LookBack::nothing, 1),
                                  with(LookBack::fixed_state, 16)};
  all[1].hash_bits = 3;  // crowded bins: keys drop out
  all.push_back(all[0]);
  all.back().center = LshCenter::causal;
  for (const TheoremOptions& options : all) {
    const TheoremModel model(recall.roles, options);
    const Answers whole = answer(model, recall, kWhole);
    for (const std::int64_t piece : {1, 2, 37, 150}) {
      INFO("look back " << static_cast<int>(options.look_back) << ", pieces of " << piece);
      const Answers found = answer(model, recall, piece);
      CHECK(found.accuracy == whole.accuracy);
      CHECK(same_bits(found.logits, whole.logits));
    }
  }
}

TEST_CASE("theorem: fixed patterns, no attention and a fixed state fail on large tables") {
  const Recall recall(2, 40, 8);  // 1600 entries, 6484 tokens
  const auto accuracy = [&](const TheoremOptions& options) {
    return answer(TheoremModel(recall.roles, options), recall, kWhole).accuracy;
  };
  CHECK(accuracy(with(LookBack::lsh, 16)) == 1);
  // Guessing is 1 in 16, the right key is among 16 of 1600 for one query in 100.
  CHECK(accuracy(with(LookBack::window, 16)) < 0.12);
  CHECK(accuracy(with(LookBack::dilated, 16, 406)) < 0.12);
  CHECK(accuracy(with(LookBack::window_and_sink, 16)) < 0.12);
  CHECK(accuracy(with(LookBack::nothing, 16)) < 0.12);
  CHECK(accuracy(with(LookBack::fixed_state, 16)) < 0.2);
  // A window over everything holds the answers, and so does a state with room for them.
  CHECK(accuracy(with(LookBack::window, 6484)) == 1);
  const Recall small(2, 4, 8);
  const TheoremModel roomy(small.roles, with(LookBack::fixed_state, 1024));
  CHECK(answer(roomy, small, kWhole).accuracy == 1);
}

TEST_CASE("theorem: what is kept of the past") {
  const Recall recall(2, 16, 9);
  const auto kept = [&](const TheoremOptions& options) {
    const TheoremModel model(recall.roles, options);
    TheoremModel::State state;
    const Tensor none = Tensor::empty({0}, DType::int32);
    for (std::size_t t = 0; t < 400; ++t) {
      model.forward(Tensor::from(std::vector<std::int32_t>{recall.tokens[t]}), none, state);
    }
    return state.keys.rows();
  };
  CHECK(kept(with(LookBack::lsh, 64)) == 400);
  const std::int64_t window = kept(with(LookBack::window, 12));
  CHECK(window >= 11);
  CHECK(window <= 16);  // until a quarter is free
  CHECK(kept(with(LookBack::nothing, 12)) == 0);
  CHECK(kept(with(LookBack::fixed_state, 12)) == 0);
}

TEST_CASE("theorem: options and tokens out of range") {
  const Recall recall(2, 3, 1);
  const auto refused = [&](auto change) {
    TheoremOptions options;
    change(options);
    return error_of([&] { TheoremModel(recall.roles, options); });
  };
  CHECK(refused([](TheoremOptions& o) { o.hash_bits = 63; }) ==
        "theorem: 63 hash bits, expected 1 to 62");
  CHECK(refused([](TheoremOptions& o) { o.hash_bits = 0; }) ==
        "theorem: 0 hash bits, expected 1 to 62");
  CHECK(refused([](TheoremOptions& o) { o.keys = 0; }) == "theorem: 0 keys, expected at least 1");
  CHECK(refused([](TheoremOptions& o) {
          o.look_back = LookBack::window_and_sink;
          o.keys = 1;
        }) == "theorem: 1 keys, expected at least 2");
  CHECK(refused([](TheoremOptions& o) { o.dilation = 0; }) ==
        "theorem: the dilation is 0, expected at least 1");
  CHECK(refused([](TheoremOptions& o) { o.center = LshCenter::sequence; }) ==
        "theorem: centring on the sequence looks ahead, expected none or causal");
  const auto refused_tokens = [&](auto change) {
    RecallTokens tokens = recall.roles;
    change(tokens);
    return error_of([&] { TheoremModel(tokens, {}); });
  };
  CHECK(refused_tokens([](RecallTokens& t) { t.levels.clear(); }) ==
        "theorem: no levels, expected at least one");
  CHECK(refused_tokens([](RecallTokens& t) {
          t.levels[0].count = 0;
        }).starts_with("theorem: a level: 0 tokens from "));
  CHECK(refused_tokens([](RecallTokens& t) {
          t.values = {t.vocabulary - 1, 2};
        }).starts_with("theorem: values: 2 tokens from "));
  const TheoremModel model(recall.roles, {});
  TheoremModel::State state;
  CHECK_THROWS_AS(model.forward(Tensor::from(std::vector<std::int32_t>{99}),
                                Tensor::empty({0}, DType::int32), state),
                  Error);
}

TEST_CASE("growing keys: appended rows stay, kept rows move up") {
  GrowingKeys keys(2);
  const auto piece = [](std::int64_t first, std::int64_t count) {
    KeyMemory memory{.sequences = Sequences::single(count),
                     .position = Tensor::empty({count}, DType::int64),
                     .K = Tensor::empty({count, 3}),
                     .V = Tensor::empty({count, 2}),
                     .score = {},
                     .key_bin = {}};
    for (std::int64_t r = 0; r < count; ++r) {
      memory.position.data<std::int64_t>()[r] = first + r;
      Tensor K = memory.K.value(), V = memory.V.value();
      for (int i = 0; i < 3; ++i) K.data<float>()[3 * r + i] = static_cast<float>(first + r);
      for (int i = 0; i < 2; ++i) V.data<float>()[2 * r + i] = static_cast<float>(-first - r);
    }
    return memory;
  };
  const auto holds = [&](const std::vector<std::int64_t>& positions) {
    const KeyMemory view = keys.view();
    REQUIRE(keys.rows() == static_cast<std::int64_t>(positions.size()));
    REQUIRE(view.sequences.tokens() == keys.rows());
    for (std::int64_t r = 0; r < keys.rows(); ++r) {
      const auto position = positions[static_cast<std::size_t>(r)];
      CHECK(view.position.data<std::int64_t>()[r] == position);
      for (int i = 0; i < 3; ++i) CHECK(view.K.value().data<float>()[3 * r + i] == position);
      for (int i = 0; i < 2; ++i) CHECK(view.V.value().data<float>()[2 * r + i] == -position);
    }
  };
  keys.append(piece(0, 2));
  keys.append(piece(2, 0));
  keys.append(piece(2, 5));  // grows
  holds({0, 1, 2, 3, 4, 5, 6});
  keys.keep(Tensor::from(std::vector<std::int32_t>{0, 2, 3, 6}));
  holds({0, 2, 3, 6});
  keys.append(piece(7, 4));
  holds({0, 2, 3, 6, 7, 8, 9, 10});
  CHECK(error_of([&] {
          keys.keep(Tensor::from(std::vector<std::int32_t>{0, 8}));
        }) == "growing_keys: row 8 follows 0, expected increasing rows below 8");
  keys.keep(Tensor::empty({0}, DType::int32));
  holds({});
  KeyMemory bare = piece(11, 1);
  bare.position = {};
  CHECK_THROWS_AS(keys.append(bare), Error);
  keys.append(piece(11, 1));
  holds({11});
  KeyMemory two = piece(12, 2);
  two.sequences = Sequences::of_lengths({1, 1});
  CHECK_THROWS_AS(keys.append(two), Error);
  KeyMemory hashed = piece(12, 1);
  hashed.key_bin = Tensor::zeros({1}, DType::int64);
  CHECK_THROWS_AS(keys.append(hashed), Error);
}
