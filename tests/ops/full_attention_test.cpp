#include "ops/full_attention/full_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/memory.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Problem {
  const char* what;
  Sequences sequences;
  FullAttentionOptions options;
  std::int64_t dim, value_dim;
  std::vector<std::int32_t> rows = {};  // pack rows; empty: all
  bool no_rows = false;                 // no row is wanted

  std::int64_t wanted() const {
    if (no_rows) return 0;
    return rows.empty() ? sequences.tokens() : static_cast<std::int64_t>(rows.size());
  }
  Tensor index() const { return rows.empty() && !no_rows ? Tensor{} : Tensor::from(rows); }
  Tensor Q() const { return random_tensor({wanted(), options.heads * dim}, 1); }
  Tensor K() const { return random_tensor({sequences.tokens(), options.kv_heads * dim}, 2); }
  Tensor V() const { return random_tensor({sequences.tokens(), options.kv_heads * value_dim}, 3); }
  Tensor dy() const { return random_tensor({wanted(), options.heads * value_dim}, 4); }
};

std::vector<std::int32_t> every(std::int32_t step, std::int32_t begin, std::int32_t end) {
  std::vector<std::int32_t> rows;
  for (std::int32_t r = begin; r < end; r += step) rows.push_back(r);
  return rows;
}

std::vector<Problem> problems() {
  const Sequences several({0, 70, 70, 71, 263, 264, 300});
  return {
      {"one token", Sequences::single(1), {}, 1, 1},
      {"one short sequence", Sequences::single(5), {.scale = 0.3}, 3, 2},
      {"exactly one tile", Sequences::single(64), {}, 16, 16},
      {"one token more than a tile", Sequences::single(65), {}, 17, 33},
      {"several sequences", several, {.scale = 0.25}, 8, 8},
      {"grouped heads", several, {.heads = 6, .kv_heads = 2, .scale = 0.5}, 5, 7},
      {"wide heads", Sequences::single(150), {.heads = 2, .kv_heads = 2, .scale = 0.1}, 70, 130},
      {"window of 1", several, {.window = 1}, 4, 3},
      {"window of 50", several, {.heads = 2, .kv_heads = 2, .window = 50}, 4, 20},
      {"window of 64", several, {.window = 64}, 16, 64},
      {"window of 100", several, {.window = 100}, 7, 5},
      {"window longer than any sequence", several, {.window = 1'000'000'000'000}, 7, 5},
      {"every third row", several, {.heads = 2, .kv_heads = 1}, 6, 6, every(3, 1, 300)},
      {"the last rows", several, {}, 6, 6, {69, 70, 262, 263, 299}},
      {"few rows, small window", Sequences::single(700), {.window = 10}, 6, 6, {5, 6, 300, 699}},
      {"rows of one sequence only", several, {.window = 90}, 6, 6, every(1, 100, 200)},
      {"no rows", several, {}, 3, 3, {}, true},
      {"no tokens", Sequences(), {.heads = 2}, 3, 3},
      {"empty sequences only", Sequences({0, 0, 0}), {}, 3, 3},
      {"scores of nothing", Sequences::single(80), {}, 0, 4},
      {"values of nothing", Sequences::single(80), {}, 4, 0},
      {"large scores", Sequences::single(130), {.scale = 40.0}, 9, 4},
  };
}

struct Expected {
  Tensor y, dQ, dK, dV;
};

// Softmax over the visible keys and its gradient, pair by pair.
Expected naive(const Problem& p) {
  const Tensor Q = p.Q(), K = p.K(), V = p.V(), dy = p.dy(), index = p.index();
  const std::int64_t heads = p.options.heads, kv_heads = p.options.kv_heads;
  Expected e{Tensor::zeros(dy.shape(), DType::float64), Tensor::zeros(Q.shape(), DType::float64),
             Tensor::zeros(K.shape(), DType::float64), Tensor::zeros(V.shape(), DType::float64)};
  const double *Qs = Q.data<double>(), *Ks = K.data<double>(), *Vs = V.data<double>();
  const double* dys = dy.data<double>();
  double *ys = e.y.data<double>(), *dQs = e.dQ.data<double>();
  double *dKs = e.dK.data<double>(), *dVs = e.dV.data<double>();
  for (std::int64_t r = 0; r < p.wanted(); ++r) {
    const std::int64_t i = index ? index.data<std::int32_t>()[r] : r;
    std::int64_t s = 0;
    while (p.sequences.end(s) <= i) ++s;
    const std::int64_t window = p.options.window.value_or(i + 1);
    const std::int64_t first = std::max(p.sequences.begin(s), i - window + 1);
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t g = h / (heads / kv_heads);
      const double* q = Qs + (r * heads + h) * p.dim;
      const double* dout = dys + (r * heads + h) * p.value_dim;
      double* out = ys + (r * heads + h) * p.value_dim;
      const auto k = [&](std::int64_t j) { return (j * kv_heads + g) * p.dim; };
      const auto v = [&](std::int64_t j) { return (j * kv_heads + g) * p.value_dim; };

      std::vector<double> weight;
      for (std::int64_t j = first; j <= i; ++j) {
        double dot = 0;
        for (std::int64_t n = 0; n < p.dim; ++n) dot += q[n] * Ks[k(j) + n];
        weight.push_back(p.options.scale * dot);
      }
      const double top = *std::max_element(weight.begin(), weight.end());
      double sum = 0;
      for (double& w : weight) sum += w = std::exp(w - top);
      double delta = 0;
      std::vector<double> dweight;
      for (std::size_t j = 0; j < weight.size(); ++j) {
        weight[j] /= sum;
        double dw = 0;
        for (std::int64_t d = 0; d < p.value_dim; ++d) {
          const std::int64_t at = v(first + static_cast<std::int64_t>(j)) + d;
          out[d] += weight[j] * Vs[at];
          dw += dout[d] * Vs[at];
          dVs[at] += weight[j] * dout[d];
        }
        dweight.push_back(dw);
        delta += weight[j] * dw;
      }
      for (std::size_t j = 0; j < weight.size(); ++j) {
        const double dscore = p.options.scale * weight[j] * (dweight[j] - delta);
        for (std::int64_t n = 0; n < p.dim; ++n) {
          const std::int64_t at = k(first + static_cast<std::int64_t>(j)) + n;
          dQs[(r * heads + h) * p.dim + n] += dscore * Ks[at];
          dKs[at] += dscore * q[n];
        }
      }
    }
  }
  return e;
}

Tensor value(const Problem& p, const Tensor& Q, const Tensor& K, const Tensor& V) {
  return full_attention(Q, K, V, p.sequences, p.options, p.index()).value();
}

// Rows `index` of x.
Tensor pick(const Tensor& x, const std::vector<std::int32_t>& index) {
  Tensor y = Tensor::empty({static_cast<std::int64_t>(index.size()), x.size(1)}, x.dtype());
  for (std::size_t r = 0; r < index.size(); ++r) {
    Tensor to = y.rows(static_cast<std::int64_t>(r), static_cast<std::int64_t>(r) + 1);
    copy(to, x.rows(index[r], index[r] + 1));
  }
  return y;
}

void poison(Tensor& x, std::int64_t begin, std::int64_t end) {
  Tensor rows = x.rows(begin, end);
  fill(rows, std::numeric_limits<double>::quiet_NaN());
}

}  // namespace

TEST_CASE("full_attention and its gradients equal softmax over the visible keys") {
  for (const Problem& p : problems()) {
    const Expected expected = naive(p);
    const bool large = p.options.scale == 40.0;
    for (const DType dtype : {DType::float64, DType::float32}) {
      INFO(p.what << " " << name_of(dtype));
      // Scores near 500 keep an absolute error of 500 times the rounding.
      const double tolerance = (dtype == DType::float64 ? 1e-12 : 2e-6) * (large ? 100 : 1);
      const Var Q = Var::leaf(p.Q().to(dtype)), K = Var::leaf(p.K().to(dtype));
      const Var V = Var::leaf(p.V().to(dtype));
      const Var y = full_attention(Q, K, V, p.sequences, p.options, p.index());
      CHECK(relative_error(y.value(), expected.y) < tolerance);
      backward(y, p.dy().to(dtype));
      CHECK(relative_error(Q.grad(), expected.dQ) < tolerance);
      CHECK(relative_error(K.grad(), expected.dK) < tolerance);
      CHECK(relative_error(V.grad(), expected.dV) < tolerance);
    }
  }
}

TEST_CASE("later tokens change no bit of an earlier row, not even as NaN") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const std::int64_t cut : {1, 63, 64, 65, 130, 199}) {
      for (const std::optional<std::int64_t> window : {std::optional<std::int64_t>{}, {70}}) {
        INFO(name_of(dtype) << " " << cut);
        const Problem p{
            "", Sequences::single(200), {.heads = 2, .kv_heads = 1, .window = window}, 9, 21};
        Tensor Q = p.Q().to(dtype), K = p.K().to(dtype), V = p.V().to(dtype);
        const Tensor before = value(p, Q, K, V);
        poison(Q, cut, 200);
        poison(K, cut, 200);
        poison(V, cut, 200);
        CHECK(same_bits(value(p, Q, K, V).rows(0, cut), before.rows(0, cut)));

        // Nor does their absence.
        const Problem prefix{"", Sequences::single(cut), p.options, p.dim, p.value_dim};
        CHECK(same_bits(value(prefix, Q.rows(0, cut), K.rows(0, cut), V.rows(0, cut)),
                        before.rows(0, cut)));
      }
    }
  }
}

TEST_CASE("keys that have left the window change no bit") {
  const Problem p{"", Sequences::single(200), {.window = 70}, 9, 21};
  const Tensor Q = p.Q();
  Tensor K = p.K(), V = p.V();
  const Tensor before = value(p, Q, K, V);
  poison(K, 0, 100);
  poison(V, 0, 100);
  const Tensor after = value(p, Q, K, V);
  CHECK(same_bits(after.rows(169, 200), before.rows(169, 200)));
  CHECK(std::isnan(after.data<double>()[168 * 21]));
}

TEST_CASE("other sequences of the pack change no bit") {
  const Problem p{"", Sequences({0, 100, 230, 300}), {.heads = 2, .kv_heads = 2}, 9, 21};
  const Tensor Q = p.Q(), K = p.K(), V = p.V();
  const Problem alone{"", Sequences::single(130), p.options, p.dim, p.value_dim};
  CHECK(same_bits(value(alone, Q.rows(100, 230), K.rows(100, 230), V.rows(100, 230)),
                  value(p, Q, K, V).rows(100, 230)));
}

TEST_CASE("rows wanted equal the same rows of all to the bit") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const auto& rows : {every(1, 299, 300), every(2, 0, 300), every(7, 66, 290),
                             every(1, 40, 110), every(64, 0, 300)}) {
      Problem p{
          "", Sequences({0, 70, 71, 263, 300}), {.heads = 2, .kv_heads = 1, .window = 90}, 9, 21};
      const Tensor Q = p.Q().to(dtype), K = p.K().to(dtype), V = p.V().to(dtype);
      const Tensor all = value(p, Q, K, V);
      p.rows = rows;
      CHECK(same_bits(value(p, pick(Q, rows), K, V), pick(all, rows)));
    }
  }
}

TEST_CASE("a window of one key returns the values") {
  const Problem p{"", Sequences({0, 90, 100}), {.window = 1}, 5, 3};
  CHECK(same_bits(value(p, p.Q(), p.K(), p.V()), p.V()));
}

TEST_CASE("full_attention holds memory in proportion to the tokens") {
  const Problem p{"", Sequences::single(3000), {}, 8, 8};
  const Var Q = Var::leaf(p.Q().to(DType::float32)), K = Var::leaf(p.K().to(DType::float32));
  const Var V = Var::leaf(p.V().to(DType::float32));
  reset_peak_memory(kCpu);
  const std::int64_t before = memory_stats(kCpu).bytes_in_use;
  const Var y = full_attention(Q, K, V, p.sequences, p.options);
  backward(y, p.dy().to(DType::float32));
  const std::int64_t used = memory_stats(kCpu).peak_bytes_in_use - before;
  CHECK(used < 3000 * 1000);  // the scores alone would be 3000 * 12000
}

TEST_CASE("full_attention refuses what does not fit") {
  const Tensor Q = random_tensor({4, 6}, 1), K = random_tensor({4, 3}, 2);
  const Tensor V = random_tensor({4, 5}, 3);
  const Sequences four = Sequences::single(4);
  const FullAttentionOptions two{.heads = 2};
  const auto refused = [&](const Tensor& q, const Tensor& k, const Tensor& v,
                           const FullAttentionOptions& options, const Tensor& rows = {}) {
    return error_of([&] { full_attention(q, k, v, four, options, rows); });
  };
  const auto rows = [](std::vector<std::int32_t> index) { return Tensor::from(index); };
  CHECK(refused(Q, K, V, two).empty());
  CHECK(refused(Q, K, V, {}) ==
        "full_attention: Q is [4, 6], K is [4, 3], V is [4, 5] with 1 heads and 1 key/value heads, "
        "expected [R, heads N], [T, kv_heads N], [T, kv_heads P]");
  CHECK(!refused(Q, K, random_tensor({3, 5}, 3), two).empty());
  CHECK(!refused(Q, K, V, {.heads = 4}).empty());
  CHECK(refused(Q, K, V, {.heads = 3, .kv_heads = 2}) ==
        "full_attention: 3 heads with 2 key/value heads, expected a multiple of them");
  CHECK(!refused(Q, K, V, {.heads = 0, .kv_heads = 0}).empty());
  CHECK(refused(Q, K, V, {.heads = 2, .window = 0}) ==
        "full_attention: window is 0, expected at least 1 (the query's own key)");
  CHECK(refused(Q, K, V, {.heads = 2, .scale = std::nan("")}) ==
        "full_attention: scale is nan, expected a finite number");
  CHECK(refused(Q, K, V.to(DType::float32), two) ==
        "full_attention: Q is float64, K is float64, V is float32, expected equal types");
  CHECK(refused(Q.rows(0, 3), K, V, two) ==
        "full_attention: Q has 3 rows and K has 4, expected equally many unless rows are given");
  CHECK(refused(Q.rows(0, 3), K, V, two, rows({0, 1})) ==
        "full_attention: rows are int32 [2] and Q is [3, 6], expected int32 [R] and [R, heads N]");
  CHECK(refused(Q.rows(0, 2), K, V, two, rows({1, 1})) ==
        "full_attention: rows[1] is 1, expected increasing rows of 0..3");
  CHECK(refused(Q.rows(0, 2), K, V, two, rows({-1, 1})) ==
        "full_attention: rows[0] is -1, expected increasing rows of 0..3");
  CHECK(refused(Q.rows(0, 2), K, V, two, rows({1, 4})) ==
        "full_attention: rows[1] is 4, expected increasing rows of 0..3");
  CHECK(!error_of([&] { full_attention(Q, K, V, Sequences::single(5), two); }).empty());
}
