#include "ops/matmul/matmul.h"

#include <algorithm>
#include <utility>

#include "engine/dispatch.h"
#include "ops/matmul/matmul_kernels.h"

namespace hax {
namespace {

Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b) {
  Tensor c = Tensor::empty({a.size(transpose_a ? 1 : 0), b.size(transpose_b ? 0 : 1)}, a.dtype(),
                           a.device());
  on_device(a.device(),
            [&](auto device) { gemm(device, a, transpose_a, b, transpose_b, false, c); });
  return c;
}

}  // namespace

Var matmul(const Var& a, const Var& b, bool transpose_a, bool transpose_b) {
  check(a.shape().rank() == 2 && b.shape().rank() == 2 &&
            a.size(transpose_a ? 0 : 1) == b.size(transpose_b ? 1 : 0),
        "matmul: a is {}{} and b is {}{}, expected [M, K] and [K, N]", a.shape(),
        transpose_a ? " transposed" : "", b.shape(), transpose_b ? " transposed" : "");
  check(a.dtype() == b.dtype(), "matmul: a is {} and b is {}, expected equal types",
        name_of(a.dtype()), name_of(b.dtype()));

  const Tensor c = product(a.value(), transpose_a, b.value(), transpose_b);
  // Each gradient needs the other factor: what nobody needs is neither kept nor multiplied.
  const Tensor at = b.requires_grad() ? a.value() : Tensor{};
  const Tensor bt = a.requires_grad() ? b.value() : Tensor{};
  const auto gradient = [at, bt, transpose_a, transpose_b](const Tensor& dc) {
    Tensor da, db;
    if (bt) {
      da = transpose_a ? product(bt, transpose_b, dc, true) : product(dc, false, bt, !transpose_b);
    }
    if (at) {
      db = transpose_b ? product(dc, true, at, transpose_a) : product(at, !transpose_a, dc, false);
    }
    return Grads{da, db};
  };
  return record("matmul", c, {a, b}, gradient);
}

Var linear(const Var& x, const Var& weight, const Var& bias) {
  check(x.shape().rank() == 2 && weight.shape().rank() == 2 && x.size(1) == weight.size(1),
        "linear: x is {} and weight is {}, expected [R, I] and [O, I]", x.shape(), weight.shape());
  check(!bias.defined() || bias.shape() == Shape{weight.size(0)},
        "linear: bias is {} and weight is {}, expected [O] and [O, I]", bias.shape(),
        weight.shape());
  check(x.dtype() == weight.dtype() && (!bias.defined() || x.dtype() == bias.dtype()),
        "linear: x is {}, weight is {}, bias is {}, expected equal types", name_of(x.dtype()),
        name_of(weight.dtype()), bias.defined() ? name_of(bias.dtype()) : "none");

  Tensor y = Tensor::empty({x.size(0), weight.size(0)}, x.dtype(), x.device());
  on_device(x.device(), [&](auto device) {
    if (bias.defined()) broadcast_rows(device, bias.value(), y);
    gemm(device, x.value(), false, weight.value(), true, bias.defined(), y);
  });

  const Tensor xt = weight.requires_grad() ? x.value() : Tensor{};
  const Tensor wt = x.requires_grad() ? weight.value() : Tensor{};
  const auto gradient = [xt, wt, bias_wanted = bias.requires_grad()](const Tensor& dy) {
    Tensor dx, dweight, dbias;
    if (wt) dx = product(dy, false, wt, false);
    if (xt) dweight = product(dy, true, xt, false);
    if (bias_wanted) {
      dbias = Tensor::empty({dy.size(1)}, dy.dtype(), dy.device());
      on_device(dy.device(), [&](auto device) { sum_rows(device, dy, dbias); });
    }
    return Grads{dx, dweight, dbias};
  };
  return record("linear", y, {x, weight, bias}, gradient);
}

namespace {

// The rows of all matrices in one.
Tensor stack(const std::vector<Var>& matrices, std::int64_t rows) {
  const Var& first = matrices.front();
  std::vector<Tensor> parts;
  std::vector<std::int64_t> sizes;
  for (const Var& matrix : matrices) {
    const std::int64_t size = matrix.value().numel();
    parts.push_back(matrix.value().reshape({1, size}));
    sizes.push_back(size);
  }
  // One row of numbers after the other is one row of all numbers.
  Tensor all = Tensor::empty({1, rows * first.size(1)}, first.dtype(), first.device());
  on_device(first.device(), [&](auto device) { join_columns(device, parts, sizes, all); });
  return all.reshape({rows, first.size(1)});
}

}  // namespace

std::vector<Var> linears(const Var& x, const std::vector<Var>& weights) {
  check(!weights.empty(), "linears: no weight, expected at least one");
  std::int64_t outputs = 0;
  std::vector<std::int64_t> widths;
  for (const Var& weight : weights) {
    check(x.shape().rank() == 2 && weight.shape().rank() == 2 && x.size(1) == weight.size(1),
          "linears: x is {} and a weight is {}, expected [R, I] and [O, I]", x.shape(),
          weight.shape());
    check(x.dtype() == weight.dtype(), "linears: x is {} and a weight is {}, expected equal types",
          name_of(x.dtype()), name_of(weight.dtype()));
    widths.push_back(weight.size(0));
    outputs += weight.size(0);
  }
  const Tensor xt = x.value(), wt = stack(weights, outputs);
  const Tensor all = product(xt, false, wt, true);
  std::vector<Tensor> parts;
  for (const std::int64_t width : widths) {
    parts.push_back(Tensor::empty({x.size(0), width}, x.dtype(), x.device()));
  }
  on_device(x.device(), [&](auto device) { split_columns(device, all, parts); });

  const bool want_x = x.requires_grad();
  const bool want_w = std::ranges::any_of(weights, &Var::requires_grad);
  std::vector<Var> inputs{x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  const auto gradient = [xt = want_w ? xt : Tensor{}, wt = want_x ? wt : Tensor{}, widths,
                         rows = x.size(0), outputs, dtype = x.dtype(),
                         device = x.device()](std::span<const Tensor> dy) {
    Tensor all_dy = Tensor::empty({rows, outputs}, dtype, device);
    on_device(device, [&](auto tag) { join_columns(tag, dy, widths, all_dy); });
    Grads grads(1 + widths.size());
    if (wt) grads[0] = product(all_dy, false, wt, false);
    if (!xt) return grads;
    const Tensor dweights = product(all_dy, true, xt, false);
    std::int64_t at = 0;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      grads[1 + i] = dweights.rows(at, at + widths[i]);
      at += widths[i];
    }
    return grads;
  };
  return record_many("linears", std::move(parts), std::move(inputs), gradient);
}

}  // namespace hax
