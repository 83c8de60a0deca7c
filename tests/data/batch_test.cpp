#include "data/batch.h"

#include <doctest/doctest.h>

#include "data/sample_source.h"
#include "engine/check.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

using Ints = std::vector<std::int32_t>;
using Longs = std::vector<std::int64_t>;

// Values 10 11, keys 12 13, contexts 14 15: fixed length 2 * 2 * 5 + 2 = 22.
const JointRecallTask kTask = make_task(2, Range{1, 2}, Range{1, 2}, 2);
const std::vector<Ints> kSamples{{1, 14, 12, 10, 13, 11, 4, 14, 13, 11, 12, 10},
                                 {1, 14, 12, 11, 15, 12, 10, 4, 15, 12, 10, 14, 12, 11}};

Ints ints(const Tensor& tensor) {
  const auto values = tensor.values<std::int32_t>();
  return {values.begin(), values.end()};
}

Longs lengths(const Sequences& sequences) {
  Longs result;
  for (std::int64_t s = 0; s < sequences.count(); ++s) result.push_back(sequences.length(s));
  return result;
}

// The padded arrays [B, L] that hold the same inputs and targets as a pack.
struct Padded {
  Longs tokens, labels, mask, attention;
  explicit Padded(const Batch& batch, std::int64_t padded) {
    const auto size = static_cast<std::size_t>(batch.count() * padded);
    tokens.assign(size, 3);
    labels.assign(size, 3);
    mask.assign(size, 0);
    attention.assign(size, 0);
    std::int64_t target = 0;
    const Ints rows = ints(batch.target_rows);
    for (std::int64_t s = 0; s < batch.count(); ++s) {
      for (std::int64_t row = batch.sequences.begin(s); row < batch.sequences.end(s); ++row) {
        const auto at = static_cast<std::size_t>(s * padded + row - batch.sequences.begin(s));
        tokens[at] = batch.tokens.data<std::int32_t>()[row];
        labels[at] = batch.labels.data<std::int32_t>()[row];
        attention[at] = 1;
        if (target < static_cast<std::int64_t>(rows.size()) &&
            rows[static_cast<std::size_t>(target)] == row) {
          mask[at] = 1;
          ++target;
        }
      }
    }
  }
};

void check_equal(const Batch& a, const Batch& b) {
  CHECK(ints(a.tokens) == ints(b.tokens));
  CHECK(ints(a.labels) == ints(b.labels));
  CHECK(lengths(a.sequences) == lengths(b.sequences));
  CHECK(ints(a.target_rows) == ints(b.target_rows));
  CHECK(ints(a.target_labels) == ints(b.target_labels));
  CHECK(lengths(a.target_samples) == lengths(b.target_samples));
  for (std::int64_t s = 0; s < a.count(); ++s)
    CHECK(a.sequences.padded(s) == b.sequences.padded(s));
}

}  // namespace

TEST_CASE("batch: samples are packed without padding") {
  const Batch batch = pack(kTask, kSamples);
  CHECK(ints(batch.tokens) == Ints{1,  14, 12, 10, 13, 11, 4, 14, 13, 11, 12, 1,
                                   14, 12, 11, 15, 12, 10, 4, 15, 12, 10, 14, 12});
  CHECK(ints(batch.labels) == Ints{14, 12, 10, 13, 11, 4, 14, 13, 11, 12, 10, 14,
                                   12, 11, 15, 12, 10, 4, 15, 12, 10, 14, 12, 11});
  CHECK(lengths(batch.sequences) == Longs{11, 13});
  CHECK(batch.sequences.padded(0) == 21);
  CHECK(batch.sequences.padded(1) == 21);
  CHECK(ints(batch.target_rows) == Ints{8, 10, 20, 23});
  CHECK(ints(batch.target_labels) == Ints{11, 10, 10, 11});
  CHECK(lengths(batch.target_samples) == Longs{2, 2});
  CHECK(batch.count() == 2);
}

TEST_CASE("batch: every entry of the table is asked once, and rows lead to its value") {
  const StreamSource stream(JointRecallTask{}, 1, Split::train);
  const Batch batch = read_batch(stream, 140, 9);
  const Ints tokens = ints(batch.tokens), labels = ints(batch.labels),
             rows = ints(batch.target_rows);
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    const TableSizes sizes = stream.task().sizes(140 + s);
    CHECK(batch.target_samples.length(s) == sizes[0] * sizes[1]);
    CHECK(batch.sequences.length(s) == stream.task().length(sizes) - 1);
    CHECK(batch.sequences.padded(s) == 1057);
    for (std::int64_t t = batch.target_samples.begin(s); t < batch.target_samples.end(s); ++t) {
      const std::int32_t row = rows[static_cast<std::size_t>(t)];
      CHECK(row >= batch.sequences.begin(s) + batch.sequences.length(s) / 2);
      CHECK(row < batch.sequences.end(s));
      CHECK(stream.task().is_key(tokens[static_cast<std::size_t>(row)]));
      CHECK(batch.target_labels.data<std::int32_t>()[t] == labels[static_cast<std::size_t>(row)]);
      CHECK(labels[static_cast<std::size_t>(row)] < 26);
    }
  }
}

TEST_CASE("batch: a slice is the pack of its samples") {
  const StreamSource stream(kTask, 2, Split::train, 5);
  std::vector<Ints> samples(5);
  for (std::int64_t i = 0; i < 5; ++i) stream.sample(i, samples[static_cast<std::size_t>(i)]);
  const Batch batch = pack(kTask, samples);
  for (std::int64_t first = 0; first <= 5; ++first) {
    for (std::int64_t last = first; last <= 5; ++last) {
      const std::vector<Ints> part(samples.begin() + first, samples.begin() + last);
      check_equal(batch.slice(first, last), pack(kTask, part));
    }
  }
  // Rows of the whole are left alone.
  check_equal(batch, pack(kTask, samples));
  CHECK_THROWS_AS(batch.slice(0, 6), Error);
  CHECK_THROWS_AS(batch.slice(3, 2), Error);
}

TEST_CASE("batch: padded arrays give the same pack") {
  const Batch batch = pack(kTask, kSamples);
  const Padded padded(batch, 21);
  const Shape shape{2, 21};
  const auto tensor = [&](const Longs& values) { return Tensor::from(values, shape); };
  check_equal(pack_padded(tensor(padded.tokens), tensor(padded.labels), tensor(padded.mask),
                          tensor(padded.attention)),
              batch);
  check_equal(
      pack_padded(tensor(padded.tokens).to(DType::int32), tensor(padded.labels).to(DType::int32),
                  tensor(padded.mask).to(DType::uint8), tensor(padded.attention).to(DType::uint8)),
      batch);

  const auto fault = [&](Longs Padded::*array, std::size_t at, std::int64_t value) {
    Padded broken = padded;
    (broken.*array)[at] = value;
    return error_of([&] {
      pack_padded(tensor(broken.tokens), tensor(broken.labels), tensor(broken.mask),
                  tensor(broken.attention));
    });
  };
  CHECK(fault(&Padded::mask, 23, 2) == "pack_padded: masks 2 and 1 at [1, 2], expected 0 or 1");
  CHECK(fault(&Padded::mask, 20, 1) == "pack_padded: target in the padding at [0, 20]");
  CHECK(fault(&Padded::attention, 3, 0) == "pack_padded: token after padding at [0, 4]");
  CHECK(fault(&Padded::tokens, 0, -1) == "pack_padded: token -1 at [0, 0]");
  CHECK(fault(&Padded::labels, 0, 1ll << 32) == "pack_padded: token 4294967296 at [0, 0]");
  CHECK(error_of([&] {
          pack_padded(tensor(padded.tokens).reshape({42}), tensor(padded.labels),
                      tensor(padded.mask), tensor(padded.attention));
        }) == "pack_padded: tokens are [42], expected [B, L]");
  CHECK(error_of([&] {
          pack_padded(tensor(padded.tokens), tensor(padded.labels).reshape({21, 2}),
                      tensor(padded.mask), tensor(padded.attention));
        }) == "pack_padded: shapes [2, 21] and [21, 2], expected equal ones");
  CHECK(error_of([&] {
          pack_padded(tensor(padded.tokens), tensor(padded.labels),
                      tensor(padded.mask).to(DType::float32), tensor(padded.attention));
        }) == "pack_padded: type float32, expected integers");
}

TEST_CASE("batch: empty packs and empty sequences") {
  const Batch none = pack(kTask, {});
  CHECK(none.count() == 0);
  CHECK(none.tokens.numel() == 0);
  CHECK(none.target_samples.count() == 0);
  const Tensor zeros = Tensor::zeros({2, 3}, DType::int64);
  const Batch empty = pack_padded(zeros, zeros, zeros, zeros);
  CHECK(lengths(empty.sequences) == Longs{0, 0});
  CHECK(lengths(empty.target_samples) == Longs{0, 0});
  CHECK(empty.sequences.padded(1) == 3);
  const Tensor thin = Tensor::zeros({2, 0}, DType::int64);
  CHECK(lengths(pack_padded(thin, thin, thin, thin).sequences) == Longs{0, 0});
}

TEST_CASE("batch: samples that cannot be packed are refused") {
  CHECK(error_of([&] { pack(kTask, std::vector<Ints>{{1}}); }) ==
        "pack: a sample of 1 tokens, expected 2 to 22");
  CHECK(error_of([&] { pack(kTask, std::vector<Ints>{Ints(23, 1)}); }) ==
        "pack: a sample of 23 tokens, expected 2 to 22");
}

TEST_CASE("batch: a source that ends begins again") {
  const StreamSource five(kTask, 0, Split::train, 5);
  const StreamSource endless(kTask, 0, Split::train);
  std::vector<Ints> expected(4);
  for (std::int64_t i = 0; i < 4; ++i) {
    five.sample((13 + i) % 5, expected[static_cast<std::size_t>(i)]);
  }
  check_equal(read_batch(five, 13, 4), pack(kTask, expected));
  check_equal(read_batch(five, 0, 5), read_batch(endless, 0, 5));
  CHECK(ints(read_batch(five, 13, 4).tokens) != ints(read_batch(endless, 13, 4).tokens));
  const StreamSource none(kTask, 0, Split::train, 0);
  CHECK(read_batch(none, 0, 0).count() == 0);
  CHECK(error_of([&] { read_batch(none, 0, 2); }) == "a batch of 2 samples from an empty source");
}
