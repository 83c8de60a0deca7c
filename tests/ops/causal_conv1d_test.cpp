#include "ops/causal_conv1d/causal_conv1d.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Arguments {
  Tensor x, weight, bias;
};

Arguments arguments(std::int64_t tokens, std::int64_t channels, std::int64_t width) {
  return {random_tensor({tokens, channels}, 1), random_tensor({channels, 1, width}, 2),
          random_tensor({channels}, 3)};
}

Arguments to(const Arguments& in, DType dtype) {
  return {in.x.to(dtype), in.weight.to(dtype), in.bias.to(dtype)};
}

struct Result {
  Tensor y;
  Grads gradients;  // of x, weight, bias
};

// The op and its gradients under the seed dy.
Result run(const Arguments& in, const Sequences& sequences, Activation activation,
           const Tensor& dy) {
  const Var x = Var::leaf(in.x), weight = Var::leaf(in.weight), bias = Var::leaf(in.bias);
  const Var y = causal_conv1d(x, weight, bias, sequences, activation);
  backward(y, dy);
  return {y.value(), {x.grad(), weight.grad(), bias.grad()}};
}

// The formula and the chain rule, one number at a time.
Result naive(const Arguments& in, const Sequences& sequences, Activation activation,
             const Tensor& dy) {
  const std::int64_t channels = in.x.size(1), width = in.weight.size(2);
  Result r{Tensor::zeros(in.x.shape(), DType::float64),
           {Tensor::zeros(in.x.shape(), DType::float64),
            Tensor::zeros(in.weight.shape(), DType::float64),
            Tensor::zeros(in.bias.shape(), DType::float64)}};
  double* dx = r.gradients[0].data<double>();
  double* dw = r.gradients[1].data<double>();
  double* db = r.gradients[2].data<double>();
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t t = sequences.begin(s); t < sequences.end(s); ++t) {
      for (std::int64_t c = 0; c < channels; ++c) {
        double p = in.bias.data<double>()[c];
        for (std::int64_t w = 0; w < width; ++w) {
          const std::int64_t from = t - (width - 1) + w;
          if (from < sequences.begin(s)) continue;
          p += in.weight.data<double>()[c * width + w] * in.x.data<double>()[from * channels + c];
        }
        const double sigma = 1 / (1 + std::exp(-p));
        const bool silu = activation == Activation::silu;
        r.y.data<double>()[t * channels + c] = silu ? p * sigma : p;
        const double g =
            dy.data<double>()[t * channels + c] * (silu ? sigma + p * sigma * (1 - sigma) : 1.0);
        db[c] += g;
        for (std::int64_t w = 0; w < width; ++w) {
          const std::int64_t from = t - (width - 1) + w;
          if (from < sequences.begin(s)) continue;
          dw[c * width + w] += g * in.x.data<double>()[from * channels + c];
          dx[from * channels + c] += g * in.weight.data<double>()[c * width + w];
        }
      }
    }
  }
  return r;
}

void check_close(const Result& result, const Result& expected, double tolerance) {
  CHECK(relative_error(result.y, expected.y) < tolerance);
  for (std::size_t i = 0; i < 3; ++i) {
    INFO("gradient " << i);
    CHECK(relative_error(result.gradients[i], expected.gradients[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE("causal_conv1d and its gradients equal the formula") {
  const std::vector<Sequences> packs = {Sequences::of_lengths({9, 0, 1, 2, 0, 13}),
                                        Sequences::single(21), Sequences::single(1),
                                        Sequences::single(0), Sequences::of_lengths({0, 0, 3})};
  for (const Sequences& pack : packs) {
    for (const std::int64_t width : {1, 2, 3, 4, 5, 8, 11}) {
      for (const std::int64_t channels : {1, 16, 37}) {
        for (const Activation activation : {Activation::silu, Activation::none}) {
          INFO(pack.tokens() << " tokens, width " << width << ", " << channels << " channels");
          const Arguments in = arguments(pack.tokens(), channels, width);
          const Tensor dy = random_tensor(in.x.shape(), 4);
          const Result expected = naive(in, pack, activation, dy);
          check_close(run(in, pack, activation, dy), expected, 1e-13);
          check_close(run(to(in, DType::float32), pack, activation, dy.to(DType::float32)),
                      expected, 1e-5);
        }
      }
    }
  }
}

TEST_CASE("causal_conv1d without a bias is that with a bias of zero") {
  Arguments in = arguments(12, 5, 4);
  fill(in.bias, 0);
  const Sequences pack = Sequences::of_lengths({7, 5});
  const Tensor dy = random_tensor({12, 5}, 4);
  const Result expected = run(in, pack, Activation::silu, dy);
  const Var x = Var::leaf(in.x), weight = Var::leaf(in.weight);
  const Var y = causal_conv1d(x, weight, {}, pack);
  backward(y, dy);
  CHECK(same_bits(y.value(), expected.y));
  CHECK(same_bits(x.grad(), expected.gradients[0]));
  CHECK(same_bits(weight.grad(), expected.gradients[1]));
}

TEST_CASE("causal_conv1d of a pack is that of its sequences, to the bit") {
  const Sequences pack = Sequences::of_lengths({6, 0, 1, 19});
  const Arguments in = to(arguments(26, 21, 4), DType::float32);
  const Tensor dy = random_tensor({26, 21}, 4, DType::float32);
  const Result all = run(in, pack, Activation::silu, dy);
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    const std::int64_t begin = pack.begin(s), end = pack.end(s);
    const Result one = run({in.x.rows(begin, end), in.weight, in.bias}, pack.slice(s, s + 1),
                           Activation::silu, dy.rows(begin, end));
    CHECK(same_bits(one.y, all.y.rows(begin, end)));
    CHECK(same_bits(one.gradients[0], all.gradients[0].rows(begin, end)));
  }
}

TEST_CASE("causal_conv1d does not look ahead") {
  const Arguments in = to(arguments(20, 9, 4), DType::float32);
  const Sequences pack = Sequences::single(20);
  const Tensor y = causal_conv1d(in.x, in.weight, in.bias, pack).value();
  Tensor changed = in.x.clone();
  for (std::int64_t c = 0; c < 9; ++c) changed.data<float>()[12 * 9 + c] += 1;
  const Tensor z = causal_conv1d(changed, in.weight, in.bias, pack).value();
  CHECK(same_bits(z.rows(0, 12), y.rows(0, 12)));
  CHECK_FALSE(same_bits(z.rows(12, 13), y.rows(12, 13)));
  CHECK_FALSE(same_bits(z.rows(15, 16), y.rows(15, 16)));
  CHECK(same_bits(z.rows(16, 20), y.rows(16, 20)));
}

TEST_CASE("causal_conv1d refuses shapes and types that do not fit") {
  const Arguments in = arguments(6, 3, 4);
  const Sequences pack = Sequences::single(6);
  CHECK(error_of([&] {
          causal_conv1d(in.x, random_tensor({4, 1, 4}, 1), in.bias, pack);
        }) ==
        "causal_conv1d: x is [6, 3] and weight is [4, 1, 4], expected [T, C] and [C, 1, W] with W "
        ">= 1");
  CHECK(error_of([&] {
          causal_conv1d(in.x, random_tensor({3, 1, 0}, 1), in.bias, pack);
        }) ==
        "causal_conv1d: x is [6, 3] and weight is [3, 1, 0], expected [T, C] and [C, 1, W] with W "
        ">= 1");
  CHECK(error_of([&] { causal_conv1d(in.x, in.weight, random_tensor({4}, 1), pack); }) ==
        "causal_conv1d: bias is [4], expected [3]");
  CHECK(error_of([&] { causal_conv1d(in.x, in.weight.to(DType::float32), {}, pack); }) ==
        "causal_conv1d: x is float64, weight is float32 and bias is absent, expected float32 or "
        "float64 for all");
  CHECK(error_of([&] {
          causal_conv1d(in.x, in.weight, in.bias, Sequences::single(7));
        }).starts_with("causal_conv1d: "));
}

TEST_CASE("causal_conv1d on CUDA equals the CPU, the same to the bit in two runs") {
  if constexpr (!kHasCuda) {
    MESSAGE("skipped: this build has no CUDA backend");
    return;
  }
  // Runs of 8 and 16 tokens that sequences begin and end in; several parts of the tokens.
  const std::vector<Sequences> packs = {
      Sequences::of_lengths({9, 0, 1, 2, 0, 33, 16, 1, 1, 1, 1, 0}), Sequences::single(300),
      Sequences::single(1), Sequences::single(0), Sequences::of_lengths({})};
  for (const Sequences& pack : packs) {
    for (const std::int64_t width : {1, 2, 3, 4, 6}) {
      for (const std::int64_t channels : {1, 37}) {
        for (const Activation activation : {Activation::silu, Activation::none}) {
          INFO(pack.tokens() << " tokens, width " << width << ", " << channels << " channels");
          const Arguments in = arguments(pack.tokens(), channels, width);
          const auto op = [&](std::span<const Var> v) {
            return causal_conv1d(v[0], v[1], v.size() > 2 ? v[2] : Var{}, pack, activation);
          };
          check_on_cuda(op, {in.x, in.weight, in.bias});
          if (channels == 37) check_on_cuda(op, {in.x, in.weight});
        }
      }
    }
  }
}
