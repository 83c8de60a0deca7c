#include "ops/sparse_attention/sparse_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/memory.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

using Rows = std::vector<std::int32_t>;

struct Inputs {
  Tensor Q, K, V, dy;  // float64
};

Inputs random_inputs(std::int64_t queries, std::int64_t tokens, std::int64_t states,
                     std::int64_t channels) {
  return {random_tensor({queries, states}, 1), random_tensor({tokens, states}, 2),
          random_tensor({tokens, channels}, 3), random_tensor({queries, channels}, 4)};
}

struct Results {
  Tensor y, dQ, dK, dV;
};

double dot(const double* a, const double* b, std::int64_t size) {
  return std::inner_product(a, a + size, b, 0.0);
}

// One query at a time: weights of the listed keys, or equal ones over the padded sequence, whose
// pads have no K and V. Gradients as of an ordinary softmax in both cases.
Results naive(const Inputs& in, const KeySet& keys, Rows rows, EmptyRows empty) {
  const std::int64_t tokens = in.K.size(0), states = in.K.size(1), channels = in.V.size(1);
  if (in.Q.size(0) == tokens) {
    rows.resize(static_cast<std::size_t>(tokens));
    std::iota(rows.begin(), rows.end(), 0);
  }
  const auto zeros = [](const Tensor& like) { return Tensor::zeros(like.shape(), DType::float64); };
  Results out{zeros(in.dy), zeros(in.Q), zeros(in.K), zeros(in.V)};
  const auto lists = to_lists(keys);
  for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
    const std::int64_t row = rows[static_cast<std::size_t>(r)];
    std::int64_t s = 0;
    while (keys.sequences.end(s) <= row) ++s;
    const std::int64_t begin = keys.sequences.begin(s);
    Rows list = lists[static_cast<std::size_t>(row)];
    std::vector<double> weight;
    const double* q = in.Q.data<double>() + r * states;
    const double* dy = in.dy.data<double>() + r * channels;
    if (list.empty()) {
      if (empty == EmptyRows::zero) continue;
      list.resize(static_cast<std::size_t>(keys.sequences.length(s)));
      std::iota(list.begin(), list.end(), 0);
      weight.assign(list.size(), 1.0 / static_cast<double>(keys.sequences.padded(s)));
    } else {
      double largest = -1e300, sum = 0;
      for (const std::int32_t j : list) {
        weight.push_back(dot(q, in.K.data<double>() + (begin + j) * states, states));
        largest = std::max(largest, weight.back());
      }
      for (double& w : weight) sum += w = std::exp(w - largest);
      for (double& w : weight) w /= sum;
    }
    double* y = out.y.data<double>() + r * channels;
    for (std::size_t z = 0; z < list.size(); ++z) {
      const double* v = in.V.data<double>() + (begin + list[z]) * channels;
      for (std::int64_t e = 0; e < channels; ++e) y[e] += weight[z] * v[e];
    }
    for (std::size_t z = 0; z < list.size(); ++z) {
      const std::int64_t key = begin + list[z];
      const double* v = in.V.data<double>() + key * channels;
      const double dscore = weight[z] * (dot(dy, v, channels) - dot(dy, y, channels));
      for (std::int64_t e = 0; e < channels; ++e) {
        out.dV.data<double>()[key * channels + e] += weight[z] * dy[e];
      }
      for (std::int64_t n = 0; n < states; ++n) {
        out.dQ.data<double>()[r * states + n] += dscore * in.K.data<double>()[key * states + n];
        out.dK.data<double>()[key * states + n] += dscore * q[n];
      }
    }
  }
  return out;
}

Results computed(const Inputs& in, DType dtype, const KeySet& keys, const Rows& rows,
                 EmptyRows empty) {
  const bool all = in.Q.size(0) == in.K.size(0);
  const Var Q = Var::leaf(in.Q.to(dtype)), K = Var::leaf(in.K.to(dtype));
  const Var V = Var::leaf(in.V.to(dtype));
  const Var y = sparse_attention(Q, K, V, keys, all ? Tensor{} : Tensor::from(rows), empty);
  backward(y, in.dy.to(dtype));
  return {y.value(), Q.grad(), K.grad(), V.grad()};
}

void check_equal(const Results& a, const Results& b, double tolerance) {
  CHECK(relative_error(a.y, b.y) <= tolerance);
  CHECK(relative_error(a.dQ, b.dQ) <= tolerance);
  CHECK(relative_error(a.dK, b.dK) <= tolerance);
  CHECK(relative_error(a.dV, b.dV) <= tolerance);
}

Tensor bins_of(const Sequences& sequences, std::uint64_t seed) {
  const Tensor x = random_tensor({sequences.tokens(), 4}, seed), hash = random_tensor({4, 3}, 9);
  return lsh_bins(x, hash, sequences, LshRule::sign_bits, LshCenter::causal, NormMode::causal);
}

KeySet hax_keys(const Sequences& sequences, std::int64_t keys) {
  return unite(lsh_keys(bins_of(sequences, 5), bins_of(sequences, 6), sequences, keys),
               key_selection_keys(random_tensor({sequences.tokens()}, 7), sequences, keys));
}

std::vector<KeySet> key_sets(const Sequences& sequences) {
  return {full_keys(sequences),
          window_keys(sequences, 1),
          window_keys(sequences, 20),
          unite(sink_keys(sequences, 3), window_keys(sequences, 4)),
          dilated_keys(sequences, 5, 2),
          dilated_keys(sequences, 1000, 2),
          lsh_keys(bins_of(sequences, 5), bins_of(sequences, 6), sequences, 4),
          hax_keys(sequences, 9),
          unite(dilated_keys(sequences, 7, 3),
                lsh_keys(bins_of(sequences, 5), bins_of(sequences, 6), sequences, 2))};
}

Rows every_third(std::int64_t tokens) {
  Rows rows;
  for (std::int32_t t = 1; t < tokens; t += 3) rows.push_back(t);
  return rows;
}

}  // namespace

TEST_CASE("sparse attention equals dense softmax over the listed keys") {
  const Sequences packs[] = {Sequences::single(0), Sequences::single(1), Sequences::single(75),
                             Sequences::of_lengths({0, 6, 1, 40, 0, 23}, {4, 9, 1, 64, 0, 23})};
  const std::pair<std::int64_t, std::int64_t> sizes[] = {
      {1, 1}, {5, 19}, {16, 32}, {33, 7}, {16, 187}};
  for (const Sequences& sequences : packs) {
    const auto sets = key_sets(sequences);
    for (std::size_t set = 0; set < sets.size(); ++set) {
      for (const auto& [states, channels] : sizes) {
        for (const EmptyRows empty : {EmptyRows::zero, EmptyRows::uniform}) {
          const std::int64_t tokens = sequences.tokens();
          const Rows some = every_third(tokens), none;
          for (const Rows* rows : {static_cast<const Rows*>(nullptr), &some, &none}) {
            const std::int64_t queries = rows != nullptr ? std::ssize(*rows) : tokens;
            CAPTURE(set);
            CAPTURE(states);
            CAPTURE(channels);
            CAPTURE(tokens);
            CAPTURE(queries);
            const Inputs in = random_inputs(queries, tokens, states, channels);
            const Rows wanted = rows != nullptr ? *rows : none;
            const Results expected = naive(in, sets[set], wanted, empty);
            check_equal(computed(in, DType::float64, sets[set], wanted, empty), expected, 1e-12);
            check_equal(computed(in, DType::float32, sets[set], wanted, empty), expected, 2e-5);
          }
        }
      }
    }
  }
}

TEST_CASE("queries without keys: zero sends nothing, uniform averages the padded sequence") {
  const auto sequences = Sequences::of_lengths({3, 2}, {5, 2});
  const KeySet keys = dilated_keys(sequences, 100, 1);  // nobody sees anything
  const Inputs in = random_inputs(5, 5, 4, 6);
  const Results zero = computed(in, DType::float64, keys, {}, EmptyRows::zero);
  for (const Tensor* result : {&zero.y, &zero.dQ, &zero.dK, &zero.dV}) {
    CHECK(same_bits(*result, Tensor::zeros(result->shape(), DType::float64)));
  }
  const Results uniform = computed(in, DType::float64, keys, {}, EmptyRows::uniform);
  const double* v = in.V.data<double>();
  CHECK(uniform.y.data<double>()[0] == doctest::Approx((v[0] + v[6] + v[12]) / 5));
  CHECK(uniform.y.data<double>()[12] == doctest::Approx((v[0] + v[6] + v[12]) / 5));
  CHECK(uniform.y.data<double>()[18] == doctest::Approx((v[18] + v[24]) / 2));
  CHECK(relative_error(uniform.dQ, zero.dQ) > 0.01);  // it has a gradient, checked above
}

TEST_CASE("a subset of the rows gets the same bits as all rows") {
  const auto sequences = Sequences::of_lengths({40, 0, 70});
  const KeySet keys = hax_keys(sequences, 8);
  const Inputs in = random_inputs(110, 110, 16, 24);
  const Rows rows = every_third(110);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor Q = in.Q.to(dtype), K = in.K.to(dtype), V = in.V.to(dtype);
    Tensor some = Tensor::empty({std::ssize(rows), 16}, dtype);
    for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
      const std::int64_t row = rows[static_cast<std::size_t>(r)];
      Tensor to = some.rows(r, r + 1);
      copy(to, Q.rows(row, row + 1));
    }
    const Tensor all = sparse_attention(Q, K, V, keys).value();
    const Tensor subset = sparse_attention(some, K, V, keys, Tensor::from(rows)).value();
    for (std::int64_t r = 0; r < std::ssize(rows); ++r) {
      const std::int64_t row = rows[static_cast<std::size_t>(r)];
      CHECK(same_bits(subset.rows(r, r + 1), all.rows(row, row + 1)));
    }
  }
}

TEST_CASE("later tokens change no bit of earlier results, nor does the rest of the pack") {
  const std::int64_t length = 90, cut = 41;
  const auto run = [](const Inputs& in, const Sequences& sequences, const Tensor& score) {
    const Tensor hash = random_tensor({16, 3}, 9, DType::float32);
    const auto bins = [&](const Tensor& x) {
      return lsh_bins(x, hash, sequences, LshRule::sign_bits, LshCenter::causal, NormMode::causal);
    };
    const Tensor Q = in.Q.to(DType::float32), K = in.K.to(DType::float32);
    const KeySet keys =
        unite(lsh_keys(bins(Q), bins(K), sequences, 6), key_selection_keys(score, sequences, 7));
    return sparse_attention(Q, K, in.V.to(DType::float32), keys).value();
  };
  Inputs in = random_inputs(length, length, 16, 40);
  Tensor score = random_tensor({length}, 8);
  const Tensor before = run(in, Sequences::single(length), score);
  for (Tensor* tensor : {&in.Q, &in.K, &in.V, &score}) {
    Tensor later = tensor->rows(cut, length);
    for (std::int64_t i = 0; i < later.numel(); ++i)
      later.data<double>()[i] = 3 - 0.1 * double(i % 60);
  }
  const Tensor after = run(in, Sequences::single(length), score);
  CHECK(same_bits(after.rows(0, cut), before.rows(0, cut)));
  CHECK(!same_bits(after.rows(cut, length), before.rows(cut, length)));
  const Tensor other_pack = run(in, Sequences::of_lengths({cut, 0, length - cut}), score);
  CHECK(same_bits(other_pack.rows(0, cut), before.rows(0, cut)));
}

TEST_CASE("two runs give the same bits") {
  const auto sequences = Sequences::of_lengths({50, 31});
  const KeySet keys = hax_keys(sequences, 8);
  const Inputs in = random_inputs(81, 81, 16, 24);
  const Results a = computed(in, DType::float32, keys, {}, EmptyRows::uniform);
  const Results b = computed(in, DType::float32, keys, {}, EmptyRows::uniform);
  CHECK(same_bits(a.y, b.y));
  CHECK(same_bits(a.dQ, b.dQ));
  CHECK(same_bits(a.dK, b.dK));
  CHECK(same_bits(a.dV, b.dV));
}

TEST_CASE("large scores neither overflow nor lose their weights") {
  const auto sequences = Sequences::single(60);
  Inputs in = random_inputs(60, 60, 16, 24);
  for (std::int64_t i = 0; i < in.Q.numel(); ++i) in.Q.data<double>()[i] *= 2500;  // scores of 1e4
  const KeySet keys = hax_keys(sequences, 16);
  for (const double offset : {0.0, 1e4, -1e4}) {
    // A constant feature adds the same number to every score of a row.
    for (std::int64_t t = 0; t < 60; ++t) {
      in.Q.data<double>()[t * 16] = offset;
      in.K.data<double>()[t * 16] = 1;
    }
    const Results expected = naive(in, keys, {}, EmptyRows::zero);
    check_equal(computed(in, DType::float64, keys, {}, EmptyRows::zero), expected, 1e-9);
    const Results single = computed(in, DType::float32, keys, {}, EmptyRows::zero);
    for (const Tensor* result : {&single.y, &single.dQ, &single.dK, &single.dV}) {
      for (const float number : result->values<float>()) REQUIRE(std::isfinite(number));
    }
    CHECK(relative_error(single.y, expected.y) < 0.05);  // float32 scores of 1e4 are off by 1e-3
  }
  // Equal scores of any size are equal weights: nothing of the size may remain.
  for (const double score : {0.0, 1e4, -1e4, 1e30}) {
    const Tensor Q = Tensor::full({3, 1}, score), K = Tensor::full({3, 1}, 1.0);
    const Var V = Var::leaf(Tensor::from<float>({1, 2, 6}).reshape({3, 1}));
    const Var y = sparse_attention(Q, K, V, full_keys(Sequences::single(3)));
    CHECK(y.value().data<float>()[2] == doctest::Approx(3.0));
    backward(y, Tensor::from<float>({0, 0, 1}).reshape({3, 1}));
    CHECK(V.grad().data<float>()[0] == doctest::Approx(1.0 / 3));
  }
}

TEST_CASE("memory grows with the tokens, not with their square") {
  const auto extra = [](std::int64_t length) {
    const auto sequences = Sequences::single(length);
    const Var V = Var::leaf(Tensor::zeros({length, 4}));
    const Tensor Q = Tensor::zeros({length, 4});
    const std::int64_t before = memory_stats(kCpu).bytes_in_use;
    reset_peak_memory(kCpu);
    const Var y = sparse_attention(Q, Q, V, window_keys(sequences, 16));
    backward(y, Tensor::full({length, 4}, 1.0));
    return memory_stats(kCpu).peak_bytes_in_use - before;
  };
  const std::int64_t small = extra(4096), large = extra(16384);
  CHECK(small > 0);
  CHECK(large < 5 * small);
}

TEST_CASE("sparse attention refuses what does not fit") {
  const auto sequences = Sequences::of_lengths({2, 3});
  const KeySet keys = full_keys(sequences);
  const auto error = [&](const Shape& q, const Shape& k, const Shape& v, const Tensor& rows = {},
                         DType dtype = DType::float64) {
    return error_of([&] {
      sparse_attention(random_tensor(q, 1), random_tensor(k, 2), random_tensor(v, 3, dtype), keys,
                       rows);
    });
  };
  CHECK(error({5, 3}, {5, 4}, {5, 2}) ==
        "sparse_attention: Q is [5, 3], K is [5, 4] and V is [5, 2], expected [R, N], [T, N] and "
        "[T, E]");
  CHECK(error({5, 3}, {5, 3}, {4, 2}) ==
        "sparse_attention: Q is [5, 3], K is [5, 3] and V is [4, 2], expected [R, N], [T, N] and "
        "[T, E]");
  CHECK(error({5, 3}, {5, 3}, {5, 2}, {}, DType::float32) ==
        "sparse_attention: Q is float64, K is float64 and V is float32, expected one "
        "floating-point type");
  CHECK(error({6, 3}, {6, 3}, {6, 2}) == "sparse_attention: 6 rows for a pack of 5 tokens");
  CHECK(error({4, 3}, {5, 3}, {5, 2}) ==
        "sparse_attention: Q has 4 rows, expected one for each of the 5 tokens");
  CHECK(error({4, 3}, {5, 3}, {5, 2}, Tensor::from<std::int32_t>({0, 1})) ==
        "sparse_attention: Q has 4 rows, expected one for each of the 2 rows wanted");
  CHECK(error({2, 3}, {5, 3}, {5, 2}, Tensor::from<std::int64_t>({0, 1})) ==
        "sparse_attention: rows are int64 [2], expected int32 [R]");
  CHECK(error({2, 3}, {5, 3}, {5, 2}, Tensor::from<std::int32_t>({1, 1})) ==
        "sparse_attention: row 1 follows 1, expected increasing rows below 5");
  CHECK(error({2, 3}, {5, 3}, {5, 2}, Tensor::from<std::int32_t>({1, 5})) ==
        "sparse_attention: row 5 follows 1, expected increasing rows below 5");
  KeySet other = keys;
  other.death = Tensor::zeros({4}, DType::int32);
  const Tensor x = random_tensor({5, 3}, 1);
  CHECK(error_of([&] { sparse_attention(x, x, x, other); }) ==
        "sparse_attention: the key set is not of this pack of 5 tokens");
}
