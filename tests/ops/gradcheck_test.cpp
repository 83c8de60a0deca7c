#include "ops/gradcheck.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <regex>
#include <set>

#include "engine/files.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

using namespace hax;

namespace {

// The op names that one file of ops/ gives to record() and record_many(). A name that is no string
// literal counts as "?".
std::set<std::string> recorded_names(const std::string& text) {
  static const std::regex call(R"re(\brecord(?:_many)?\s*\(\s*(?:"([^"]*)")?)re");
  std::set<std::string> names;
  for (std::sregex_iterator match(text.begin(), text.end(), call), end; match != end; ++match) {
    names.insert((*match)[1].matched ? (*match)[1].str() : "?");
  }
  return names;
}

// The same for the elementwise functions, which carry their names.
std::set<std::string> functor_names(const std::string& text) {
  static const std::regex member(R"re(\bname\s*=\s*"([^"]*)")re");
  std::set<std::string> names;
  for (std::sregex_iterator match(text.begin(), text.end(), member), end; match != end; ++match) {
    names.insert((*match)[1].str());
  }
  return names;
}

}  // namespace

TEST_CASE("every op's gradient equals finite differences") {
  const std::vector<GradCase> cases = all_gradchecks();
  REQUIRE(cases.size() >= 4);
  for (const GradCase& c : cases) {
    INFO(c.op << ": " << c.what);
    CHECK(check_gradient(c).worst <= 1e-6);
  }
}

TEST_CASE("the gradient check notices a wrong gradient") {
  const auto wrong_square = [](std::span<const Var> in) {
    const Tensor x = in[0].value();
    Tensor y = x.clone();
    for (std::int64_t i = 0; i < y.numel(); ++i) y.data<double>()[i] *= x.data<double>()[i];
    return record("wrong_square", y, {in[0]}, [x](const Tensor&) { return Grads{x.clone()}; });
  };
  CHECK(check_gradient({"wrong_square", "", {gradcheck_tensor({3}, 1)}, wrong_square}).worst > 0.1);
}

TEST_CASE("the gradient check notices NaN") {
  const auto nan_gradient = [](std::span<const Var> in) {
    return record("nan", in[0].value().clone(), {in[0]}, [](const Tensor& dy) {
      Tensor dx = dy.clone();
      dx.data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
      return Grads{dx};
    });
  };
  CHECK(std::isinf(check_gradient({"nan", "", {gradcheck_tensor({3}, 1)}, nan_gradient}).worst));
}

TEST_CASE("random directions notice one wrong element among many") {
  // The identity, whose gradient is off by 1% at one place.
  const auto almost = [](std::span<const Var> in) {
    return record("almost", in[0].value().clone(), {in[0]}, [](const Tensor& dy) {
      Tensor dx = dy.clone();
      dx.data<double>()[701] *= 1.01;
      return Grads{dx};
    });
  };
  const auto exact = [](std::span<const Var> in) {
    return record("exact", in[0].value().clone(), {in[0]},
                  [](const Tensor& dy) { return Grads{dy}; });
  };
  GradCase c{"almost", "", {gradcheck_tensor({40, 25}, 1)}, almost, {"weight"}, 8};
  const GradError error = check_gradient(c);
  CHECK(error.worst > 1e-5);
  CHECK(c.name_of_input(error.input) == "weight");
  c.run = exact;
  CHECK(check_gradient(c).worst < 1e-9);
  c.names = {};
  CHECK(c.name_of_input(0) == "input 0");
}

TEST_CASE("every op that records a gradient has a check under its name") {
  namespace fs = std::filesystem;
  const fs::path root = hax::test::source_path();
  std::set<std::string> recorded =
      functor_names(read_file(root / "ops/elementwise/elementwise_functors.h"));
  REQUIRE(recorded.contains("mul_silu"));
  for (const auto& entry : fs::recursive_directory_iterator(root / "ops")) {
    if (entry.path().extension() != ".cpp") continue;
    if (entry.path().stem().string().ends_with("_gradcheck")) continue;  // helpers of the checks
    std::set<std::string> names = recorded_names(read_file(entry.path()));
    // The one place that takes its names from elsewhere: the functors above.
    if (entry.path().filename() == "elementwise.cpp") names.erase("?");
    INFO(entry.path().string());
    CHECK(!names.contains("?"));
    recorded.merge(names);
  }
  REQUIRE(recorded.contains("rms_norm"));

  std::set<std::string> checked;
  for (const GradCase& c : all_gradchecks()) checked.insert(c.op);
  for (const std::string& name : recorded) {
    INFO("op " << name << " has no case in its _gradcheck.cpp");
    CHECK(checked.contains(name));
  }
  for (const std::string& name : checked) {
    INFO("no op records itself as " << name);
    CHECK(recorded.contains(name));
  }
}

TEST_CASE("recorded names are found however the call is written") {
  const std::string text = R"(
    return record("one", y, {x}, gradient);
    return record_many(
        "two", {y}, {x}, gradient);
    return record(name, y, {x}, gradient);
    return record_without_gradient("three", y, {x});
    recorded("four");)";
  CHECK(recorded_names(text) == std::set<std::string>{"?", "one", "two"});
}
