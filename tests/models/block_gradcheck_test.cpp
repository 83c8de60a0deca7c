#include "models/block_gradcheck.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "models/architectures.h"
#include "models/model.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

const std::vector<GradCase>& cases() {
  static const std::vector<GradCase> all = block_gradchecks();
  return all;
}

bool trains_scores(const GradCase& c) { return c.what.find("ranking loss") != std::string::npos; }

// The largest gradient of each input, -1 for an input that none reaches.
std::vector<double> gradients_of(const GradCase& c) {
  std::vector<Var> leaves;
  for (const Tensor& input : c.inputs) leaves.push_back(Var::leaf(input.clone()));
  const Var y = c.run(leaves);
  backward(y, gradcheck_tensor(y.shape(), 1));
  std::vector<double> largest;
  for (const Var& leaf : leaves) {
    largest.push_back(-1);
    if (!leaf.grad().defined()) continue;
    for (const double g : leaf.grad().values<double>()) {
      largest.back() = std::max(largest.back(), std::abs(g));
    }
  }
  return largest;
}

}  // namespace

TEST_CASE("the gradients of every block and small model equal finite differences") {
  for (const GradCase& c : cases()) {
    INFO(c.op << ", " << c.what);
    const GradError error = check_gradient(c);
    INFO(c.name_of_input(error.input));
    CHECK(error.worst <= 1e-7);
  }
}

TEST_CASE("every base with every sparse branch that it takes has its blocks checked") {
  std::set<std::string> checked;
  for (const GradCase& c : cases()) {
    if (c.what.find("block: sequences") != std::string::npos) checked.insert(c.op);
  }
  std::set<std::string> expected;
  for (const std::string& base : base_arch_names()) {
    if (base.ends_with("_2x")) continue;  // another size of the same model
    for (const std::string& sparse : sparse_arch_names()) {
      ModelConfig config = named_config(base, sparse);
      if (error_of([&] { config.resolve(); }).empty()) expected.insert(base + " + " + sparse);
    }
  }
  CHECK(expected.size() >= 21);
  CHECK(checked == expected);
}

// A gradient of nearly nothing would be compared with nothing.
TEST_CASE("every input of a block or model case matters, the scoring network to its loss alone") {
  std::set<std::string> trained;
  for (const GradCase& c : cases()) {
    if (c.what.find("one token") != std::string::npos) continue;  // leaves no past to decay
    INFO(c.op << ", " << c.what);
    const std::vector<double> largest = gradients_of(c);
    REQUIRE(c.names.size() == c.inputs.size());
    for (std::size_t i = 0; i < largest.size(); ++i) {
      INFO(c.names[i]);
      const bool scores = c.names[i].find(".dx_proj_") != std::string::npos;
      if (trains_scores(c)) {
        CHECK(scores);
        // The loss compares scores: what is added to all of them changes nothing.
        if (c.names[i].ends_with("dx_proj_3.bias")) {
          CHECK(largest[i] < 1e-12);
        } else {
          CHECK(largest[i] > 1e-3);
        }
        trained.insert(c.names[i]);
      } else if (scores) {
        CHECK(largest[i] == -1);
      } else {
        CHECK(largest[i] > 1e-3);
      }
    }
  }
  CHECK(trained.size() == 12);  // two layers of three weights and three biases
}

TEST_CASE("a step that changes the selected keys is an error of the draw, not of the gradient") {
  int hashed = 0;
  for (const GradCase& c : cases()) {
    if (!c.op.ends_with("+ sign_bin_lsh") || !c.what.starts_with("block: sequences")) continue;
    ++hashed;
    std::vector<Var> elsewhere;
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      elsewhere.emplace_back(gradcheck_tensor(c.inputs[i].shape(), i));
    }
    CHECK(error_of([&] { c.run(elsewhere); }) ==
          "gradcheck: " + c.op + ", " + c.what +
              ": its draw lies too near an edge: a step changes the selected keys or the side of "
              "a kink, where finite differences mean nothing");
  }
  CHECK(hashed >= 2);
}
