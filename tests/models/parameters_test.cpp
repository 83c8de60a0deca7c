#include "models/parameters.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "models/model.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

struct Moments {
  double mean = 0, deviation = 0, low = 0, high = 0;
};

Moments moments_of(const Tensor& t) {
  Moments m{0, 0, 1e300, -1e300};
  for (const float x : t.values<float>()) {
    m.mean += x / static_cast<double>(t.numel());
    m.low = std::min<double>(m.low, x);
    m.high = std::max<double>(m.high, x);
  }
  for (const float x : t.values<float>()) {
    m.deviation += (x - m.mean) * (x - m.mean) / static_cast<double>(t.numel());
  }
  m.deviation = std::sqrt(m.deviation);
  return m;
}

}  // namespace

TEST_CASE("parameters have the released names, shapes and counts") {
  const Model model(named_config("mamba", "sign_bin_lsh+key_selection"));
  CHECK(model.parameters().count() == 86658);  // PERFORMANCE: Mamba+HAX
  const Parameters p(model.parameters());
  CHECK(p.find("backbone.embeddings.weight").shape() == Shape{100, 64});
  CHECK(p.find("backbone.layers.1.mixer.conv1d.weight").shape() == Shape{128, 1, 4});
  CHECK(p.find("backbone.layers.0.mixer.x_proj.weight").shape() == Shape{40, 128});
  CHECK(p.find("backbone.layers.0.mixer.xx_proj.weight").shape() == Shape{32, 128});
  CHECK(p.find("backbone.layers.1.mixer.dx_proj_3.bias").shape() == Shape{1});
  CHECK(p.find("backbone.norm_f.weight").shape() == Shape{64});
  CHECK(!p.find("backbone.layers.0.mixer.in_proj.bias").defined());
}

TEST_CASE("the Transformer has Samba's names and the size of Mamba with HAX") {
  const Model model(named_config("transformer", "none"));
  CHECK(model.parameters().count() == 88640);
  const Model hax(named_config("mamba", "sign_bin_lsh+key_selection"));
  const double ratio = static_cast<double>(model.parameters().count()) /
                       static_cast<double>(hax.parameters().count());
  CHECK(ratio > 0.95);
  CHECK(ratio < 1.05);
  const Parameters p(model.parameters());
  for (const std::string layer : {"backbone.layers.0.", "backbone.layers.1."}) {
    for (const char* name : {"mixer_norm.weight", "mlp_norm.weight"}) {
      CHECK(p.find(layer + name).shape() == Shape{64});
    }
    for (const char* name : {"q", "k", "v", "o"}) {
      CHECK(p.find(fmt::format("{}mixer.{}_proj.weight", layer, name)).shape() == Shape{64, 64});
    }
    CHECK(p.find(layer + "mlp.gate_proj.weight").shape() == Shape{128, 64});
    CHECK(p.find(layer + "mlp.up_proj.weight").shape() == Shape{128, 64});
    CHECK(p.find(layer + "mlp.down_proj.weight").shape() == Shape{64, 128});
  }
  CHECK(p.specs().size() == 2 * 9 + 2);
}

TEST_CASE("initial values follow their distributions") {
  const Model model(named_config("mamba_2x", "key_selection"));
  Parameters p(model.parameters());
  p.initialize(7);
  const Moments w = moments_of(p.find("backbone.layers.0.mixer.in_proj.weight"));
  CHECK(std::abs(w.mean) < 0.002);
  CHECK(w.deviation == doctest::Approx(0.1).epsilon(0.02));
  const Moments conv = moments_of(p.find("backbone.layers.0.mixer.conv1d.weight"));
  CHECK(conv.low >= -0.5);
  CHECK(conv.high <= 0.5);
  CHECK(conv.deviation == doctest::Approx(0.5 / std::sqrt(3.0)).epsilon(0.05));
  const Moments dt = moments_of(p.find("backbone.layers.0.mixer.dt_proj.weight"));
  CHECK(dt.high <= 1 / std::sqrt(8.0));
  CHECK(dt.high > 0.9 / std::sqrt(8.0));
  const Tensor A_log = p.find("backbone.layers.1.mixer.A_log");
  CHECK(A_log.data<float>()[16 * 5 + 3] == doctest::Approx(std::log(4.0)));
  for (const float b : p.find("backbone.layers.0.mixer.dt_proj.bias").values<float>()) {
    const double step = std::log1p(std::exp(static_cast<double>(b)));
    CHECK(step >= 0.00099);
    CHECK(step <= 0.1001);
  }
  CHECK(moments_of(p.find("backbone.layers.0.mixer.D")).low == 1);
  CHECK(moments_of(p.find("backbone.layers.0.mixer.E")).high == 1);
  CHECK(moments_of(p.find("backbone.layers.0.mixer.dx_proj_1.bias")).high == 0);
}

TEST_CASE("equal parts of different architectures start equal, other seeds differ") {
  const Model plain(named_config("mamba", "none")), hax(named_config("mamba", "key_selection"));
  Parameters a(plain.parameters()), b(hax.parameters()), c(plain.parameters());
  a.initialize(1);
  b.initialize(1);
  c.initialize(2);
  const std::string name = "backbone.layers.1.mixer.out_proj.weight";
  CHECK(same_bits(a.find(name), b.find(name)));
  CHECK(!same_bits(a.find(name), c.find(name)));
  CHECK(!same_bits(a.find(name), a.find("backbone.layers.0.mixer.out_proj.weight")));
}

TEST_CASE("a parameter is declared once") {
  ParamTable table;
  table.add("w", {3}, Init::constant(0));
  CHECK(error_of([&] { table.add("w", {3}, Init::constant(0)); }) ==
        "parameter 'w' is declared twice");
}

TEST_CASE("a model of absurd size is refused before memory is requested") {
  const std::int64_t limit = std::int64_t{1} << 40;
  const auto refused = [](ParamTable& table, Shape shape) {
    return error_of([&] { table.add("w", shape, Init::constant(0)); });
  };
  ParamTable table;
  CHECK(refused(table, {1 << 20, (1 << 20) + 1}) ==
        "parameter 'w' of shape [1048576, 1048577] takes the model beyond 2^40 numbers; use "
        "smaller sizes");
  CHECK(refused(table, {std::numeric_limits<std::int64_t>::max()}).find("2^40") !=
        std::string::npos);
  CHECK(refused(table, {limit, limit}).find("more elements than 64 bits can count") !=
        std::string::npos);
  CHECK(table.flat_size() == 0);
  // The gap behind each parameter counts, and the limit itself is allowed.
  table.add("one", {1}, Init::constant(0));
  CHECK(table.flat_size() == 16);
  CHECK(refused(table, {limit - 15}).find("2^40") != std::string::npos);
  table.add("rest", {limit - 16}, Init::constant(0));
  CHECK(table.flat_size() == limit);
  CHECK(refused(table, {1}).find("2^40") != std::string::npos);
}
