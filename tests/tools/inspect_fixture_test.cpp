// Every number of hax inspect against the tensors of fixtures, which an independent implementation
// wrote.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/safetensors.h"
#include "tests/support/command.h"
#include "train/inspection.h"

using namespace hax;
using namespace hax::test;
using Json = nlohmann::json;

namespace {

// |a - b| within 1e-4 of `size`.
void check_close(double a, double b, double size) { CHECK(std::abs(a - b) <= 1e-4 * size + 1e-12); }

double largest_of(const NumberStats& stats) {
  return std::max(std::abs(stats.min), std::abs(stats.max));
}

// `size`: what the errors of single numbers are measured against.
void check_stats(const Json& mine, const NumberStats& wanted, double size) {
  CHECK(mine["count"] == wanted.count);
  CHECK(mine["nan"] == 0);
  CHECK(mine["infinite"] == 0);
  check_close(mine["min"], wanted.min, size);
  check_close(mine["max"], wanted.max, size);
  check_close(mine["mean"], wanted.mean, size);
  check_close(mine["std"], wanted.std, size);
  check_close(mine["norm"], wanted.norm, size * std::sqrt(static_cast<double>(wanted.count)));
}

// A fixture, and what the command says of it.
struct Case {
  explicit Case(const std::string& name) : file(read_safetensors(fixture_path(name))) {
    const TempFolder folder;
    const CommandResult result = run_hax({"inspect", "--fixture", fixture_path(name), "--format",
                                          "json", "--out", folder / "step.json"});
    INFO(result.err);
    REQUIRE(result.code == 0);
    seen = Json::parse(read_text(folder / "step.json"));
    count = file.tensors.at("tokens").size(0);
    length = file.tensors.at("tokens").size(1);
    const Tensor& present = file.tensors.at("attention_mask");
    for (std::int64_t i = 0; i < count * length; ++i) {
      if (present.data<std::uint8_t>()[i] != 0) rows.push_back(i);
    }
  }

  const Tensor& tensor(const std::string& name) const { return file.tensors.at(name); }
  bool has(const std::string& name) const { return file.tensors.contains(name); }
  // x [B, L, C] without the padding.
  Tensor packed(const std::string& name) const {
    const Tensor x = tensor(name).to(DType::float64);
    const std::int64_t columns = x.numel() / (count * length);
    Tensor y = Tensor::empty({static_cast<std::int64_t>(rows.size()), columns}, DType::float64);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      std::copy_n(x.data<double>() + rows[r] * columns, columns,
                  y.data<double>() + static_cast<std::int64_t>(r) * columns);
    }
    return y;
  }
  // The last op of that name and scope with a result of rank 2.
  const Json& op(const std::string& name, const std::string& scope) const {
    const Json* found = nullptr;
    for (const Json& op : seen["ops"]) {
      if (op["op"] == name && op["scope"] == scope && op["outputs"][0]["shape"].size() == 2) {
        found = &op;
      }
    }
    REQUIRE(found != nullptr);
    return *found;
  }

  SafeTensors file;
  Json seen;
  std::int64_t count = 0, length = 0;
  std::vector<std::int64_t> rows;
};

void check_parameters(const Case& c) {
  double largest = 0;
  std::size_t known = 0;
  for (const auto& [name, tensor] : c.file.tensors) {
    known += name.starts_with("param.") ? 1 : 0;
    if (name.starts_with("grad.")) largest = std::max(largest, largest_of(stats_of(tensor)));
  }
  CHECK(c.seen["parameters"].size() == known);
  for (const Json& parameter : c.seen["parameters"]) {
    const std::string name = parameter["name"];
    INFO(name);
    const NumberStats value = stats_of(c.tensor("param." + name).to(DType::float32));
    const NumberStats gradient = stats_of(c.tensor("grad." + name));
    check_stats(parameter["value"], value, largest_of(value));
    CHECK(parameter["value"]["histogram"] == value.histogram);
    CHECK(parameter["value"]["zeros"] == value.zeros);
    check_stats(parameter["gradient"], gradient, std::max(largest_of(gradient), 1e-4 * largest));
    CHECK(parameter["update_ratio"].is_null() == (value.norm == 0));  // infinite
  }
}

void check_activations(const Case& c) {
  int layers = 0;
  for (; c.has(fmt::format("debug.layer_out.{}", layers)); ++layers) {
    INFO("layer " << layers);
    const Json& output = c.op("add", fmt::format("backbone.layers.{}", layers))["outputs"][0];
    const NumberStats wanted = stats_of(c.packed(fmt::format("debug.layer_out.{}", layers)));
    check_stats(output["value"], wanted, largest_of(wanted));
  }
  CHECK(layers == c.seen["model"]["num_hidden_layers"]);
  const NumberStats logits = stats_of(c.packed("logits"));
  check_stats(c.op("matmul", "backbone")["outputs"][0]["value"], logits, largest_of(logits));
}

void check_answers(const Case& c) {
  const Tensor logits = c.packed("logits"), mask = c.packed("mask"), labels = c.packed("labels");
  std::size_t at = 0;
  for (std::size_t r = 0; r < c.rows.size(); ++r) {
    if (mask.data<double>()[r] == 0) continue;
    REQUIRE(at < c.seen["targets"].size());
    const Json& target = c.seen["targets"][at++];
    const double* row = logits.data<double>() + static_cast<std::int64_t>(r) * logits.size(1);
    const double* most = std::max_element(row, row + logits.size(1));
    double sum = 0;
    for (std::int64_t v = 0; v < logits.size(1); ++v) sum += std::exp(row[v] - *most);
    const auto label = static_cast<std::int64_t>(labels.data<double>()[r]);
    CHECK(target["sample"] == c.rows[r] / c.length);
    CHECK(target["label"] == std::to_string(label));
    CHECK(target["predicted"] == std::to_string(most - row));
    CHECK(target["probability"].get<double>() ==
          doctest::Approx(std::exp(row[label] - *most) / sum).epsilon(1e-4));
  }
  CHECK(at == c.seen["targets"].size());
}

void check_attention(const Case& c) {
  for (const Json& picture : c.seen["attention"]) {
    const std::int64_t layer = picture["layer"], sample = picture["sample"], length = c.length;
    const std::string attended = fmt::format("debug.attended.{}", layer);
    if (picture["op"] != "sparse_attention" || !c.has(attended)) continue;
    const std::uint8_t* allowed =
        c.tensor(attended).data<std::uint8_t>() + sample * length * length;
    for (std::size_t i = 0; i < picture["queries"].size(); ++i) {
      double sum = 0;
      std::vector<std::uint8_t> mine(static_cast<std::size_t>(length));
      const Json& list = picture["queries"][i];
      for (std::size_t z = 0; z < list.size(); z += 2) {
        mine[list[z].get<std::size_t>()] = 1;
        sum += list[z + 1].get<double>();
      }
      CHECK(std::equal(mine.begin(), mine.end(), allowed + static_cast<std::int64_t>(i) * length));
      CHECK((list.empty() || std::abs(sum - 1) < 1e-5));
    }
    const std::string scores = fmt::format("debug.key_score.{}", layer);
    CHECK(picture.contains("key_score") == c.has(scores));
    if (!c.has(scores)) continue;
    const Tensor wanted = c.tensor(scores).to(DType::float64);
    const double size = largest_of(stats_of(wanted));
    for (std::size_t t = 0; t < picture["key_score"].size(); ++t) {
      check_close(picture["key_score"][t],
                  wanted.data<double>()[sample * length + static_cast<std::int64_t>(t)], size);
    }
  }
}

}  // namespace

TEST_CASE("hax inspect: losses, activations, gradients, answers and key sets of every fixture") {
  for (const std::string& name : fixture_names()) {
    INFO(name);
    const Case c(name);
    for (const char* what : {"lm_loss", "gate_loss", "loss", "accuracy"}) {
      INFO(what);
      const double wanted = c.tensor(what).item();
      check_close(c.seen[what], wanted, std::max(std::abs(wanted), 1e-3));
    }
    check_parameters(c);
    check_activations(c);
    check_answers(c);
    check_attention(c);
  }
}
