// What the tests of selective_scan share: inputs as in a model, the op with its gradients, and the
// recurrence itself in float64.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "ops/selective_scan/selective_scan.h"
#include "tests/support/compare.h"

namespace hax::test::scan_op {

inline constexpr std::size_t kInputs = 7;
using Inputs = std::array<Tensor, kInputs>;  // u, dt, A, B, C, D, initial_state or undefined
inline const std::array<const char*, kInputs> kNames{"u", "dt",           "A", "B", "C",
                                                     "D", "initial_state"};

inline Inputs random_inputs(std::int64_t tokens, std::int64_t dim, std::int64_t state,
                            std::int64_t rows) {
  Inputs in{random_tensor({tokens, dim}, 1),
            random_tensor({tokens, dim}, 2),
            random_tensor({dim, state}, 3),
            random_tensor({tokens, state}, 4),
            random_tensor({rows, state}, 5),
            random_tensor({dim}, 6),
            Tensor{}};
  // Steps from 0.002 to 1.1 and decay rates from nearly nothing to some hundreds, as in a model.
  for (std::int64_t i = 0; i < in[1].numel(); ++i) {
    double& dt = in[1].data<double>()[i];
    dt = std::exp(3 * std::tanh(dt) - 3);
  }
  for (std::int64_t i = 0; i < in[2].numel(); ++i) {
    double& A = in[2].data<double>()[i];
    A = -std::exp(2 * A);
  }
  // What a float32 input would be, so that both precisions see the same numbers.
  for (std::size_t i = 0; i < kInputs - 1; ++i) {
    in[i] = in[i].to(DType::float32).to(DType::float64);
  }
  return in;
}

inline Inputs with_state(Inputs in, std::int64_t sequences) {
  const Tensor state = random_tensor({sequences, in[2].size(0), in[2].size(1)}, 8);
  in[6] = state.to(DType::float32).to(DType::float64);
  return in;
}

inline Inputs to(const Inputs& in, DType dtype) {
  Inputs out;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) out[i] = in[i].to(dtype);
  }
  return out;
}

struct Result {
  Tensor y, final_state;
  Inputs gradients;
};

// Gradients of sum(y dy) + sum(final_state dfinal); either seed may be undefined.
struct Seeds {
  Tensor dy, dfinal;
};

// A scalar whose gradients with respect to the variables are the seeds, where defined.
inline Var loss_of(const std::vector<Var>& variables, const std::vector<Tensor>& seeds) {
  const Tensor zero = Tensor::zeros({}, variables.front().dtype());
  return record("loss", zero, variables, [seeds](const Tensor&) { return Grads(seeds); });
}

using Leaves = std::array<Var, kInputs>;

inline Leaves leaves_of(const Inputs& in) {
  Leaves x;
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) x[i] = Var::leaf(in[i]);
  }
  return x;
}

inline ScanResult run_scan(const Leaves& x, const Sequences& sequences, const Tensor& rows = {}) {
  return selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], sequences, rows, x[6]);
}
inline ScanResult run_scan(const Inputs& in, const Sequences& sequences) {
  return selective_scan(in[0], in[1], in[2], in[3], in[4], in[5], sequences, {}, in[6]);
}

// The op and its gradients under the seeds.
inline Result run(const Inputs& in, const Sequences& sequences, const Tensor& rows,
                  const Seeds& seeds) {
  const Leaves x = leaves_of(in);
  const ScanResult out = run_scan(x, sequences, rows);
  backward(loss_of({out.y, out.final_state}, {seeds.dy, seeds.dfinal}));
  Result result{out.y.value(), out.final_state.value(), {}};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (in[i].defined()) result.gradients[i] = x[i].grad();
  }
  return result;
}
inline Result run(const Inputs& in, const Sequences& sequences, const Tensor& rows,
                  const Tensor& dy) {
  return run(in, sequences, rows, Seeds{dy, {}});
}

inline std::vector<std::int32_t> all_rows(std::int64_t tokens) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The recurrence and its adjoint, one channel and one state at a time, every h kept.
inline Result naive(const Inputs& in, const Sequences& sequences,
                    const std::vector<std::int32_t>& rows, const Seeds& seeds) {
  const std::int64_t tokens = in[0].size(0), dim = in[2].size(0), state = in[2].size(1);
  const auto wanted = static_cast<std::int64_t>(rows.size());
  Result r{Tensor::zeros({wanted, dim}, DType::float64),
           Tensor::zeros({sequences.count(), dim, state}, DType::float64),
           {}};
  std::array<const double*, kInputs> x{};
  std::array<double*, kInputs> dx{};
  for (std::size_t i = 0; i < kInputs; ++i) {
    if (!in[i].defined()) continue;
    r.gradients[i] = Tensor::zeros(in[i].shape(), DType::float64);
    x[i] = in[i].data<double>();
    dx[i] = r.gradients[i].data<double>();
  }
  std::vector<std::int64_t> row_of(static_cast<std::size_t>(tokens), -1);
  for (std::int64_t j = 0; j < wanted; ++j) row_of[rows[j]] = j;
  const auto [u, dt, A, B, C, D, initial] = x;
  const auto [du, ddt, dA, dB, dC, dD, dinitial] = dx;
  double *y = r.y.data<double>(), *last = r.final_state.data<double>();
  const Tensor dy = seeds.dy.defined() ? seeds.dy : Tensor::zeros(r.y.shape(), DType::float64);
  const double* seed = dy.data<double>();
  const double* dlast = seeds.dfinal.defined() ? seeds.dfinal.data<double>() : nullptr;

  for (std::int64_t j = 0; j < wanted; ++j) {
    for (std::int64_t e = 0; e < dim; ++e) {
      const std::int64_t te = rows[j] * dim + e;
      y[j * dim + e] = D[e] * u[te];
      du[te] += D[e] * seed[j * dim + e];
      dD[e] += seed[j * dim + e] * u[te];
    }
  }
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
    for (std::int64_t e = 0; e < dim; ++e) {
      for (std::int64_t n = 0; n < state; ++n) {
        const double a = A[e * state + n];
        const std::int64_t at = (s * dim + e) * state + n;
        std::vector<double> h{initial != nullptr ? initial[at] : 0};
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t te = t * dim + e, j = row_of[t];
          h.push_back(std::exp(dt[te] * a) * h.back() + dt[te] * B[t * state + n] * u[te]);
          if (j >= 0) y[j * dim + e] += C[j * state + n] * h.back();
        }
        last[at] = h.back();
        double dh = dlast != nullptr ? dlast[at] : 0;
        for (std::int64_t t = end - 1; t >= begin; --t) {
          const std::int64_t te = t * dim + e, tn = t * state + n, j = row_of[t];
          if (j >= 0) {
            dh += seed[j * dim + e] * C[j * state + n];
            dC[j * state + n] += seed[j * dim + e] * h[t - begin + 1];
          }
          const double decay = std::exp(dt[te] * a);
          du[te] += dh * dt[te] * B[tn];
          dB[tn] += dh * dt[te] * u[te];
          dA[e * state + n] += dh * decay * h[t - begin] * dt[te];
          ddt[te] += dh * (B[tn] * u[te] + decay * h[t - begin] * a);
          dh *= decay;
        }
        if (dinitial != nullptr) dinitial[at] = dh;
      }
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

inline Tensor gather(const Tensor& x, const std::vector<std::int32_t>& rows) {
  const std::int64_t dim = x.size(1);
  Tensor out = Tensor::empty({static_cast<std::int64_t>(rows.size()), dim}, x.dtype());
  for (std::size_t j = 0; j < rows.size(); ++j) {
    Tensor row = out.rows(static_cast<std::int64_t>(j), static_cast<std::int64_t>(j) + 1);
    copy(row, x.rows(rows[j], rows[j] + 1));
  }
  return out;
}

// Tokens from[s]..until[s] of every sequence: a pack of pieces.
inline Inputs piece_of(const Inputs& in, const Sequences& pack,
                       const std::vector<std::int64_t>& from,
                       const std::vector<std::int64_t>& until) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    for (std::int64_t t = from[s]; t < until[s]; ++t) {
      tokens.push_back(static_cast<std::int32_t>(pack.begin(s) + t));
    }
  }
  Inputs piece = in;
  for (const std::size_t i : {0, 1, 3, 4}) piece[i] = gather(in[i], tokens);
  return piece;
}

}  // namespace hax::test::scan_op
