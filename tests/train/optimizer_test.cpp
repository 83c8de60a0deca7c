#include "train/optimizer.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("AdamW equals its formula in double") {
  ParamTable table;
  table.add("w", {37}, Init::normal(1));
  table.add("b", {5}, Init::normal(1));
  Parameters p(table), g(table);
  p.initialize(3);
  std::vector<double> value, m(42), v(42);
  for (const float x : p.view(0).values<float>()) value.push_back(x);
  for (const float x : p.view(1).values<float>()) value.push_back(x);
  AdamW optimizer(table, {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .weight_decay = 0.1});
  for (int step = 1; step <= 20; ++step) {
    g.initialize(static_cast<std::uint64_t>(100 + step));
    optimizer.update(step, 0.01, g, p);
    for (std::size_t i = 0; i < 42; ++i) {
      const double grad = i < 37 ? g.view(0).data<float>()[i] : g.view(1).data<float>()[i - 37];
      m[i] = 0.9 * m[i] + 0.1 * grad;
      v[i] = 0.99 * v[i] + 0.01 * grad * grad;
      const double m_hat = m[i] / (1 - std::pow(0.9, step)),
                   v_hat = v[i] / (1 - std::pow(0.99, step));
      value[i] = value[i] * (1 - 0.01 * 0.1) - 0.01 * m_hat / (std::sqrt(v_hat) + 1e-6);
    }
  }
  for (std::size_t i = 0; i < 42; ++i) {
    const float got = i < 37 ? p.view(0).data<float>()[i] : p.view(1).data<float>()[i - 37];
    CHECK(got == doctest::Approx(value[i]).epsilon(1e-5));
  }
}

TEST_CASE("warm-up rises to the rate and stays") {
  CHECK(warmup_rate(2.0, 1, 4) == 0.5);
  CHECK(warmup_rate(2.0, 4, 4) == 2.0);
  CHECK(warmup_rate(2.0, 400, 4) == 2.0);
  CHECK(warmup_rate(2.0, 1, 0) == 2.0);
}

TEST_CASE("clipping keeps the direction and bounds the norm") {
  ParamTable table;
  table.add("w", {3}, Init::constant(2));
  Parameters g(table);
  g.initialize(0);
  CHECK(global_norm(g) == doctest::Approx(std::sqrt(12.0)));
  clip(g, global_norm(g), 100);
  CHECK(g.view(0).data<float>()[1] == 2);
  clip(g, global_norm(g), 1);
  CHECK(global_norm(g) == doctest::Approx(1).epsilon(1e-6));
  CHECK(g.view(0).data<float>()[0] == g.view(0).data<float>()[2]);
}
