// What the tests of ssd share: inputs as in a model, the op with its gradients, and the recurrence
// itself in float64.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "ops/ssd/ssd.h"
#include "tests/support/compare.h"

namespace hax::test::ssd_op {

inline constexpr std::size_t kInputs = 7;
using Inputs = std::array<Tensor, kInputs>;  // x, dt, A, B, C, D, initial_state
inline const std::array<const char*, kInputs> kNames{"x", "dt",           "A", "B", "C",
                                                     "D", "initial_state"};

struct Sizes {
  std::int64_t heads, head_dim, state, groups;
};

inline Inputs random_inputs(const Sizes& size, const Sequences& pack, std::int64_t rows) {
  const std::int64_t tokens = pack.tokens(), heads = size.heads;
  Inputs in{random_tensor({tokens, heads * size.head_dim}, 1),
            random_tensor({tokens, heads}, 2),
            random_tensor({heads}, 3),
            random_tensor({tokens, size.groups * size.state}, 4),
            random_tensor({rows, size.groups * size.state}, 5),
            random_tensor({heads}, 6),
            random_tensor({pack.count(), heads, size.head_dim, size.state}, 7)};
  // Steps from 0.002 to 1.1 and decay rates from nearly nothing to some tens, as in a model.
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = std::exp(3 * std::tanh(dt) - 3);
  }
  for (std::int64_t h = 0; h < heads; ++h) {
    double& A = in[2].data<double>()[h];
    A = -std::exp(2 * A);
  }
  // What a float32 input would be, so that both precisions see the same numbers.
  for (Tensor& tensor : in) tensor = tensor.to(DType::float32).to(DType::float64);
  return in;
}

inline Inputs to(const Inputs& in, DType dtype) {
  Inputs out;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out[i] = in[i].to(dtype);
  }
  return out;
}

inline SsdOptions options(const Sizes& size, std::int64_t chunk) {
  return {.heads = size.heads, .groups = size.groups, .chunk = chunk};
}

struct Result {
  Tensor y, final_state;
  Inputs gradients;
};

// Gradients of sum(y dy) + sum(final_state dfinal); either seed may be undefined.
struct Seeds {
  Tensor dy, dfinal;
};

inline Seeds random_seeds(const Sizes& size, const Sequences& pack, std::int64_t rows) {
  return {random_tensor({rows, size.heads * size.head_dim}, 8),
          random_tensor({pack.count(), size.heads, size.head_dim, size.state}, 9)};
}

// A scalar whose gradients with respect to the outputs are the seeds.
inline Var loss_of(const SsdResult& result, const Seeds& seeds) {
  std::vector<Var> inputs;
  std::vector<Tensor> gradients;
  if (seeds.dy.defined()) {
    inputs.push_back(result.y);
    gradients.push_back(seeds.dy);
  }
  if (seeds.dfinal.defined()) {
    inputs.push_back(result.final_state);
    gradients.push_back(seeds.dfinal);
  }
  const Tensor zero = Tensor::zeros({}, gradients[0].dtype());
  return record("loss", zero, inputs, [gradients](const Tensor&) { return Grads(gradients); });
}

inline Result run(const Inputs& in, const Sequences& pack, const SsdOptions& opts,
                  const Tensor& rows, const Seeds& seeds) {
  std::array<Var, kInputs> v;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) v[i] = Var::leaf(in[i]);
  }
  const SsdResult result = ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, opts, rows, v[6]);
  backward(loss_of(result, seeds));
  Result out{result.y.value(), result.final_state.value(), {}};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out.gradients[i] = v[i].grad();
  }
  return out;
}

inline std::vector<std::int32_t> all_rows(std::int64_t tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The recurrence and its adjoint, one number of one state at a time, every state kept.
inline Result naive(const Inputs& in, const Sizes& size, const Sequences& pack,
                    const std::vector<std::int32_t>& rows, const Seeds& seeds) {
  const auto [heads, head_dim, states, groups] = size;
  const std::int64_t tokens = pack.tokens(), channels = heads * head_dim, width = groups * states;
  Result r{Tensor::zeros({static_cast<std::int64_t>(rows.size()), channels}, DType::float64),
           Tensor::zeros({pack.count(), heads, head_dim, states}, DType::float64),
           {}};
  std::array<const double*, kInputs> v{};
  std::array<double*, kInputs> dv{};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (!in[i].defined()) continue;
    r.gradients[i] = Tensor::zeros(in[i].shape(), DType::float64);
    v[i] = in[i].data<double>();
    dv[i] = r.gradients[i].data<double>();
  }
  const auto [x, dt, A, B, C, D, initial] = v;
  const auto [dx, ddt, dA, dB, dC, dD, dinitial] = dv;
  const double* dy = seeds.dy.defined() ? seeds.dy.data<double>() : nullptr;
  const double* dfinal = seeds.dfinal.defined() ? seeds.dfinal.data<double>() : nullptr;
  double *y = r.y.data<double>(), *last = r.final_state.data<double>();
  std::vector<std::int64_t> row_of(static_cast<std::size_t>(tokens), -1);
  for (std::size_t j = 0; j < rows.size(); ++j) row_of[rows[j]] = static_cast<std::int64_t>(j);

  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t row = row_of[t];
    for (std::int64_t e = 0; row >= 0 && e < channels; ++e) {
      const double seed = dy != nullptr ? dy[row * channels + e] : 0;
      y[row * channels + e] = D[e / head_dim] * x[t * channels + e];
      dx[t * channels + e] += D[e / head_dim] * seed;
      dD[e / head_dim] += seed * x[t * channels + e];
    }
  }
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    for (std::int64_t index = 0; index < channels * states; ++index) {
      const std::int64_t n = index % states, e = index / states, h = e / head_dim;
      const std::int64_t column = h / (heads / groups) * states + n;
      const std::int64_t at = s * channels * states + index;
      std::vector<double> S{initial != nullptr ? initial[at] : 0};
      for (std::int64_t t = pack.begin(s); t < pack.end(s); ++t) {
        const double step = dt[t * heads + h], row = static_cast<double>(row_of[t]);
        S.push_back(std::exp(step * A[h]) * S.back() +
                    step * x[t * channels + e] * B[t * width + column]);
        if (row >= 0) y[row_of[t] * channels + e] += C[row_of[t] * width + column] * S.back();
      }
      last[at] = S.back();
      double dS = dfinal != nullptr ? dfinal[at] : 0;
      for (std::int64_t t = pack.end(s) - 1; t >= pack.begin(s); --t) {
        const std::int64_t row = row_of[t], i = t - pack.begin(s);
        if (row >= 0 && dy != nullptr) {
          dS += dy[row * channels + e] * C[row * width + column];
          dC[row * width + column] += dy[row * channels + e] * S[i + 1];
        }
        const double step = dt[t * heads + h], decay = std::exp(step * A[h]);
        const double u = x[t * channels + e], b = B[t * width + column];
        dx[t * channels + e] += dS * step * b;
        dB[t * width + column] += dS * step * u;
        ddt[t * heads + h] += dS * (u * b + A[h] * decay * S[i]);
        dA[h] += dS * step * decay * S[i];
        dS *= decay;
      }
      if (dinitial != nullptr) dinitial[at] = dS;
    }
  }
  return r;
}

inline void check_close(const Result& result, const Result& expected, double tolerance) {
  CHECK(relative_error(result.y, expected.y) < tolerance);
  CHECK(relative_error(result.final_state, expected.final_state) < tolerance);
  for (std::size_t i = 0; i < kInputs; ++i) {
    INFO("gradient of " << kNames[i]);
    REQUIRE(result.gradients[i].defined() == expected.gradients[i].defined());
    if (!expected.gradients[i].defined()) continue;
    CHECK(relative_error(result.gradients[i], expected.gradients[i]) < tolerance);
  }
}

inline void compare_with_recurrence(const Sizes& size, const Sequences& pack, std::int64_t chunk) {
  INFO(size.heads << " heads of " << size.head_dim << ", state " << size.state << ", "
                  << size.groups << " groups, " << pack.tokens() << " tokens, chunk " << chunk);
  const Inputs in = random_inputs(size, pack, pack.tokens());
  const Seeds seeds = random_seeds(size, pack, pack.tokens());
  const Result expected = naive(in, size, pack, all_rows(pack.tokens()), seeds);
  check_close(run(in, pack, options(size, chunk), {}, seeds), expected, 1e-12);
  const Seeds seeds32{seeds.dy.to(DType::float32), seeds.dfinal.to(DType::float32)};
  check_close(run(to(in, DType::float32), pack, options(size, chunk), {}, seeds32), expected, 1e-5);
}

// Rows of x, B, C (and whatever else has one a token) of tokens begin..end.
inline Inputs part(const Inputs& in, std::int64_t begin, std::int64_t end, Tensor initial) {
  return {in[0].rows(begin, end), in[1].rows(begin, end), in[2],
          in[3].rows(begin, end), in[4].rows(begin, end), in[5],
          std::move(initial)};
}

inline Tensor gather(const Tensor& x, const std::vector<std::int32_t>& rows) {
  Tensor out = Tensor::empty({static_cast<std::int64_t>(rows.size()), x.size(1)}, x.dtype());
  for (std::size_t j = 0; j < rows.size(); ++j) {
    const auto at = static_cast<std::int64_t>(j);
    Tensor row = out.rows(at, at + 1);
    copy(row, x.rows(rows[j], rows[j] + 1));
  }
  return out;
}

}  // namespace hax::test::ssd_op
