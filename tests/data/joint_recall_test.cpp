#include "data/joint_recall.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "engine/check.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

TableSizes sizes_of(std::initializer_list<std::int32_t> sizes) {
  TableSizes result;
  result.fill(1);
  std::copy(sizes.begin(), sizes.end(), result.begin());
  return result;
}

JointRecallTask small_task() { return make_task(2, Range{1, 3}, Range{2, 3}, 4); }

// Values 10..13, keys 14..16, contexts 17..19: A b 3 a 0 B a 1 b 2 | B b 2 a 1 A a 0 b 3.
const std::vector<std::int32_t> kSample{1, 17, 15, 13, 14, 10, 18, 14, 11, 15, 12,
                                        4, 18, 15, 12, 14, 11, 17, 14, 10, 15, 13};

}  // namespace

TEST_CASE("joint recall: the default task is the paper's") {
  const JointRecallTask task;
  task.validate();
  CHECK(task.fixed_length() == 1058);
  CHECK(task.vocab_size() == 58);
  CHECK(task.first_key() == 26);
  CHECK(task.first_token(1) == 26);
  CHECK(task.first_token(0) == 42);
  CHECK(task.size_count() == 144);
  CHECK(to_string(task) == "contexts 5:16, keys 5:16, 16 values");

  // All pairs, keys fastest, then again; mean length about 464.
  std::int64_t tokens = 0;
  for (std::int64_t c = 0; c < 144; ++c) {
    const TableSizes sizes = task.sizes(c);
    CHECK(sizes[0] == 5 + c / 12);
    CHECK(sizes[1] == 5 + c % 12);
    CHECK(sizes == task.sizes(c + 144));
    CHECK(task.entries(sizes) == sizes[0] * sizes[1]);
    CHECK(task.length(sizes) == 2 * sizes[0] * (2 * sizes[1] + 1) + 2);
    tokens += task.length(sizes);
  }
  CHECK(tokens == 144 * 464);
}

TEST_CASE("joint recall: token ranges and lengths for any number of levels") {
  const JointRecallTask mqar = make_task(1, {}, Range{2, 7}, 5);
  CHECK(mqar.first_token(0) == 15);
  CHECK(mqar.vocab_size() == 22);
  CHECK(mqar.fixed_length() == 2 * 2 * 7 + 2);
  CHECK(mqar.size_count() == 6);

  const JointRecallTask nested = make_task(3, Range{2, 4}, Range{1, 3}, 6);
  CHECK(nested.first_token(2) == 16);
  CHECK(nested.first_token(1) == 19);
  CHECK(nested.first_token(0) == 23);
  CHECK(nested.vocab_size() == 27);
  CHECK(nested.fixed_length() == 2 * 4 * (1 + 4 * (1 + 2 * 3)) + 2);
  CHECK(nested.size_count() == 27);
  CHECK(nested.sizes(1) == sizes_of({2, 2, 2}));
  CHECK(nested.sizes(3) == sizes_of({2, 3, 1}));
  CHECK(nested.sizes(26) == sizes_of({4, 4, 3}));
  CHECK(nested.entries(sizes_of({2, 3, 3})) == 18);
  CHECK(to_string(nested) == "3 levels, contexts 2:4, keys 1:3, 6 values");
  CHECK(to_string(nested, sizes_of({2, 1, 3})) == "2 contexts x 1 context x 3 keys");
}

TEST_CASE("joint recall: labels for the eye") {
  const JointRecallTask task = make_task(3, Range{1, 30}, Range{1, 28}, 12);
  const auto first = [&](int level) { return task.first_token(level); };
  CHECK(token_label(task, 10) == "0");
  CHECK(token_label(task, 21) == "11");
  CHECK(token_label(task, first(2)) == "a");
  CHECK(token_label(task, first(2) + 25) == "z");
  CHECK(token_label(task, first(2) + 26) == "aa");
  CHECK(token_label(task, first(2) + 27) == "ab");
  CHECK(token_label(task, first(1)) == "A");
  CHECK(token_label(task, first(0)) == "A'");
  CHECK(token_label(task, first(0) + 29) == "AD'");
  CHECK(token_label(task, task.vocab_size()) == "<110>");
  CHECK(token_label(task, 4) == "|");
  CHECK(token_label(task, 5) == "<5>");
}

TEST_CASE("joint recall: ranges are parsed strictly") {
  CHECK(parse_range("5:16", "--keys") == Range{5, 16});
  CHECK(parse_range("7", "--keys") == Range{7, 7});
  for (const char* text : {"", ":", "5:", ":5", "5:6:7", "a", "5 :6", " 5", "5x", "5:6x", "+5",
                           "1.5", "99999999999", "5:99999999999"}) {
    CAPTURE(text);
    CHECK(error_of([&] { parse_range(text, "--keys"); }) ==
          fmt::format("--keys '{}': expected a:b, as in 5:16, or one number", text));
    CHECK_THROWS_AS(parse_range(text, "--keys"), UsageError);
  }
  for (const char* text : {"0:5", "6:5", "-1:5", "-3:-1"}) {
    CAPTURE(text);
    CHECK(error_of([&] { parse_range(text, "--keys"); }) ==
          fmt::format("--keys {}: expected a:b with 1 <= a <= b", text));
  }
  CHECK(error_of([] { parse_range("0", "--keys"); }) ==
        "--keys 0:0: expected a:b with 1 <= a <= b");
}

TEST_CASE("joint recall: impossible tasks are refused") {
  const Range r{2, 3};
  CHECK(error_of([&] { make_task(0, {}, r, 4); }) == "--levels 0: expected 1 to 16");
  CHECK(error_of([&] { make_task(17, r, r, 4); }) == "--levels 17: expected 1 to 16");
  CHECK(error_of([&] { make_task(2, r, r, 0); }) == "--values 0: expected at least 1");
  CHECK(error_of([&] {
          make_task(2, Range{3, 2}, r, 4);
        }) == "--contexts 3:2: expected a:b with 1 <= a <= b");
  CHECK(error_of([&] { make_task(1, r, r, 4); }) ==
        "--contexts is not for --levels 1, which has keys only");
  CHECK(error_of([&] {
          make_task(16, Range{1, 100}, r, 4);
        }) ==
        "samples of 16 levels, contexts 1:100, keys 2:3, 4 values would be longer than 268435456 "
        "tokens");
  CHECK(error_of([&] {
          make_task(1, {}, Range{1, 2147483647}, 4);
        }) == "the task needs 2147483661 tokens, at most 268435456 are possible");
  CHECK(error_of([&] {
          make_task(2, Range{1, 2147483647}, Range{1, 2147483647}, 2147483647);
        }).starts_with("the task needs 6442450951 tokens"));
  CHECK_THROWS_AS(make_task(0, {}, r, 4), UsageError);
  const JointRecallTask one_level{.levels = 1};
  CHECK(error_of([&] { one_level.validate(); }) ==
        "--contexts 5:16: one level has keys only, no contexts");
}

TEST_CASE("joint recall: the number of distinct samples") {
  const JointRecallTask task = make_task(2, Range{1, 9}, Range{1, 9}, 3);
  CHECK(task.distinct_samples(sizes_of({1, 1})) == 3);
  CHECK(task.distinct_samples(sizes_of({1, 2})) == 9 * 2 * 2);
  CHECK(task.distinct_samples(sizes_of({2, 1})) == 9 * 2 * 2);
  // Orders of 2 contexts and, in each, of 3 keys; squared for two halves.
  CHECK(task.distinct_samples(sizes_of({2, 3})) == 729u * (2 * 36) * (2 * 36));
  CHECK(task.distinct_samples(sizes_of({9, 9})) == UINT64_MAX);
  CHECK(make_task(1, {}, Range{3, 3}, 1).distinct_samples(sizes_of({3})) == 36);
  const JointRecallTask huge = make_task(1, {}, Range{1, 1 << 20}, 1);
  CHECK(huge.distinct_samples(sizes_of({1 << 20})) == UINT64_MAX);
}

TEST_CASE("joint recall: a sample is checked in every respect") {
  const JointRecallTask task = small_task();
  const SampleCheck good = check_sample(task, kSample);
  CHECK(good.fault == "");
  CHECK(good.sizes == sizes_of({2, 2}));

  const auto fault = [&](std::size_t position, std::int32_t token) {
    std::vector<std::int32_t> tokens = kSample;
    tokens[position] = token;
    return check_sample(task, tokens).fault;
  };
  CHECK(fault(0, 2) == "token 1: 2 (<2>), expected bos");
  CHECK(fault(1, 14) == "token 2: 14 (a), expected a context");
  CHECK(fault(2, 10) == "token 3: 10 (0), expected a key");
  CHECK(fault(2, 17) == "token 3: 17 (A), expected a key");
  CHECK(fault(3, 14) == "token 4: 14 (a), expected a value");
  CHECK(fault(3, 20) == "token 4: 20 (<20>), expected a value");
  CHECK(fault(3, -1) == "token 4: -1 (<-1>), expected a value");
  CHECK(fault(3, 3) == "token 4: 3 (pad), expected a value");
  CHECK(fault(3, 12) == "token 22: value 3 where the first half has 2");
  CHECK(fault(4, 15) == "token 5: b occurs twice in its block");
  CHECK(fault(4, 16) == "token 19: a was not in the first half here");
  CHECK(fault(6, 17) == "token 7: A occurs twice in its block");
  CHECK(fault(6, 19) == "token 13: B was not in the first half here");
  CHECK(fault(11, 3) == "token 12: 3 (pad), expected sep");
  CHECK(fault(12, 17) == "token 15: value 2 where the first half has 3");
  CHECK(fault(14, 11) == "token 15: value 1 where the first half has 2");
  CHECK(fault(15, 15) == "token 16: b occurs twice in its block");
  CHECK(fault(17, 18) == "token 18: B occurs twice in its block");

  const auto prefix = [&](std::size_t length) {
    return check_sample(task, std::span(kSample).first(length)).fault;
  };
  CHECK(prefix(0) == "token 1: the sample ends, expected bos");
  CHECK(prefix(1) == "token 2: the sample ends, expected a context");
  CHECK(prefix(3) == "token 4: the sample ends, expected a value");
  CHECK(prefix(11) == "token 12: the sample ends, expected sep");
  for (std::size_t length = 0; length < kSample.size(); ++length) CHECK(prefix(length) != "");

  std::vector<std::int32_t> longer = kSample;
  longer.push_back(3);
  CHECK(check_sample(task, longer).fault == "token 23: 3 (pad), expected the end");
  // Sizes: too few keys; blocks of different sizes; a smaller second half.
  CHECK(check_sample(task, std::vector{1, 17, 14, 10, 4, 17, 14, 10}).fault ==
        "token 5: a block of 1 keys, expected 2:3");
  CHECK(check_sample(task, std::vector{1, 17, 14, 10, 15, 10, 18, 14, 10, 4}).fault ==
        "token 10: a block of 1 keys after one of 2");
  CHECK(check_sample(task,
                     std::vector{1, 17, 14, 10, 15, 10, 18, 14, 10, 15, 10, 4, 17, 14, 10, 15, 10})
            .fault == "token 18: a block of 1 contexts after one of 2");
  CHECK(check_sample(make_task(2, Range{3, 3}, Range{2, 3}, 4), kSample).fault ==
        "token 12: a block of 2 contexts, expected 3:3");
}

TEST_CASE("joint recall: the hash is the documented one and decides the split") {
  // Computed from the formula of docs/data_format.md by other means.
  CHECK(sample_hash(kSample) == 0xed63c11b8d22b45au);
  std::vector<std::int32_t> longer(5000);
  for (std::size_t i = 0; i < longer.size(); ++i) longer[i] = static_cast<std::int32_t>(i * i % 97);
  CHECK(sample_hash(longer) == 0xe194c3f0244313dau);
  CHECK(split_of(16) == Split::valid);
  CHECK(split_of(17) == Split::test);
  for (std::uint64_t residue = 2; residue < 8; ++residue) CHECK(split_of(residue) == Split::train);
  for (const Split split : kSplits) CHECK(parse_split(name_of(split)) == split);
  CHECK(error_of([] { parse_split("validation"); }) ==
        "split 'validation': expected train, valid or test");
}
