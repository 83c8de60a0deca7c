#include "train/fixture.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <limits>

#include "engine/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

using namespace hax;
using namespace hax::test;

namespace {

std::vector<std::string> fixture_files(const std::string& prefix) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(fixture_path(""))) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".safetensors"))
      files.push_back(entry.path().string());
  }
  return files;
}

void check_within(const FixtureReport& report, double tolerance) {
  CHECK(report.all_rows.size() > 20);
  for (const auto* errors : {&report.all_rows, &report.as_training}) {
    for (const FixtureError& e : *errors) {
      INFO(e.what);
      CHECK(e.error <= tolerance);
    }
  }
}

}  // namespace

TEST_CASE("fixtures: losses, sets and every gradient in float32") {
  for (const auto& [base, count] :
       {std::pair{"mamba__", 17U}, {"mamba2__", 17U}, {"samba__", 2U}}) {
    const auto files = fixture_files(base);
    REQUIRE(files.size() == count);
    for (const std::string& file : files) {
      INFO(file);
      check_within(check_fixture(file, DType::float32), 1e-4);
    }
  }
}

TEST_CASE("fixtures: losses, sets and every gradient in float64") {
  for (const std::string& file : fixture_files("")) {
    INFO(file);
    const FixtureReport report = check_fixture(file, DType::float64);
    check_within(report, report.stored_as_float64 ? 1e-9 : 1e-6);
  }
}

TEST_CASE("a fixture that disagrees is noticed") {
  const std::string file = fixture_files("mamba__key_selection__causal").front();
  SafeTensors content = read_safetensors(file);
  const auto path = std::filesystem::temp_directory_path() / "hax_disagreeing_fixture.safetensors";
  for (const char* name : {"logits", "debug.attended.0", "grad.backbone.norm_f.weight"}) {
    SafeTensors changed = content;
    Tensor tensor = changed.tensors.at(name).clone();
    if (tensor.dtype() == DType::uint8) {
      tensor.data<std::uint8_t>()[0] ^= 1;
    } else {
      tensor.data<float>()[0] += 1;
    }
    changed.tensors[name] = tensor;
    write_safetensors(path.string(), changed);
    CHECK(worst_of(check_fixture(path.string(), DType::float32).all_rows).error > 1e-3);
  }
  std::filesystem::remove(path);
}

TEST_CASE("what is not a fixture is refused in one line") {
  const auto path = std::filesystem::temp_directory_path() / "hax_not_a_fixture.safetensors";
  write_safetensors(path.string(), SafeTensors{});
  CHECK(error_of([&] {
          check_fixture(path.string(), DType::float32);
        }).find("metadata 'config' is missing") != std::string::npos);
  std::filesystem::remove(path);
}

namespace {

// What check_fixture says of a fixture after `damage`, without the path that it begins with.
std::string refusal(const std::string& name, const std::function<void(SafeTensors&)>& damage) {
  const TempFolder folder;
  const std::string path = folder / "damaged.safetensors";
  SafeTensors content = read_safetensors(fixture_path(name));
  damage(content);
  write_safetensors(path, content);
  const std::string message = error_of([&] { check_fixture(path, DType::float32); });
  INFO(message);
  CHECK(message.starts_with(path + ": "));
  CHECK(message.find('\n') == std::string::npos);
  return message.substr(std::min(message.size(), path.size() + 2));
}

}  // namespace

TEST_CASE("a tensor of another type or shape is refused, whichever it is") {
  const std::string name = "mamba__sign_bin_lsh+key_selection__causal.safetensors";
  const SafeTensors good = read_safetensors(fixture_path(name));
  for (const auto& [tensor_name, tensor] : good.tensors) {
    INFO(tensor_name);
    const Shape shape = tensor.shape();
    const DType type = tensor.dtype();
    const std::string found = fmt::format("{} is {} ", tensor_name, name_of(type));
    const auto replaced = [&, key = tensor_name](Shape other, DType dtype) {
      return refusal(name,
                     [&](SafeTensors& file) { file.tensors[key] = Tensor::zeros(other, dtype); });
    };
    // Half the rows; tokens say how many rows there are, so the others do not fit them.
    const bool tokens = tensor_name == "tokens";
    const Shape fewer = [&] {
      std::vector<std::int64_t> sizes(shape.sizes().begin(), shape.sizes().end());
      sizes[0] = shape.numel() == 1 ? 2 : sizes[0] / 2;
      return Shape(sizes);
    }();
    CHECK(replaced(fewer, type).find(tokens ? " is " : found + to_string(fewer)) !=
          std::string::npos);
    CHECK(replaced({0}, type).starts_with(found + "[0], expected "));
    CHECK(replaced({1, 1, 2, 3}, type).starts_with(found + "[1, 1, 2, 3], expected "));
    const DType wrong = is_floating(type) ? DType::uint8 : DType::float32;
    CHECK(replaced(shape, wrong)
              .starts_with(
                  fmt::format("{} is {} {}, expected ", tensor_name, name_of(wrong), shape)));
  }
}

TEST_CASE("damaged fixtures are refused in one line that says where") {
  const std::string name = "mamba__key_selection__causal.safetensors";  // 3 sequences padded to 57
  const auto put = [&](const std::string& tensor, Shape shape, DType dtype) {
    return refusal(name,
                   [&](SafeTensors& file) { file.tensors[tensor] = Tensor::zeros(shape, dtype); });
  };
  CHECK(put("debug.attended.0", {1, 2, 3}, DType::uint8) ==
        "debug.attended.0 is uint8 [1, 2, 3], expected [3, 57, 57]");
  CHECK(put("debug.attended.1", {3, 57, 57}, DType::int32) ==
        "debug.attended.1 is int32 [3, 57, 57], expected uint8");
  CHECK(put("debug.rank_target.0", {24}, DType::float32) ==
        "debug.rank_target.0 is float32 [24], expected [3, 8]");
  CHECK(put("logits", {3, 57, 31}, DType::float32) ==
        "logits is float32 [3, 57, 31], expected [3, 57, 32]");
  CHECK(put("candidates.0", {3, 9}, DType::int64) ==
        "candidates.0 is int64 [3, 9], expected [3, 1 to 8]");
  CHECK(put("loss", {2}, DType::float32) == "loss is float32 [2], expected one number");
  for (const Shape& empty : {Shape{0, 57}, Shape{3, 0}, Shape{0, 0}}) {
    // The other tensors alike, as a writer of an empty batch would have them.
    CHECK(refusal(name, [&](SafeTensors& file) {
            for (const char* key : {"tokens", "labels", "mask", "attention_mask"}) {
              file.tensors[key] = Tensor::zeros(empty, DType::int64);
            }
          }) == fmt::format("tokens is int64 {}, expected [B, L] with B and L at least 1", empty));
  }
  CHECK(put("mask", {3, 57}, DType::uint8) == "mask marks no token to predict");
  CHECK(refusal(name, [](SafeTensors& file) {
          for (const char* key : {"mask", "attention_mask"}) {
            Tensor last = file.tensors[key].rows(2, 3);
            fill(last, 0);
          }
        }) == "attention_mask leaves sequence 2 without a token");
  CHECK(refusal(name, [](SafeTensors& file) {
          file.tensors.erase("labels");
        }).starts_with("tensor 'labels' is missing"));

  const auto value = [&](const std::string& tensor, std::int64_t index, std::int64_t number) {
    return refusal(name, [&](SafeTensors& file) {
      file.tensors[tensor].data<std::int64_t>()[index] = number;
    });
  };
  CHECK(value("tokens", 1, 32).find("32") != std::string::npos);
  CHECK(value("tokens", 1, -1).find("-1") != std::string::npos);
  CHECK(value("tokens", 1, std::int64_t{1} << 40).find("1099511627776") != std::string::npos);
  CHECK(value("candidates.1", 2, 57).find("57") != std::string::npos);
  CHECK(value("candidates.1", 2, -1).find("-1") != std::string::npos);
  CHECK(value("candidates.1", 2, std::int64_t{1} << 40).find("1099511627776") != std::string::npos);

  for (const char* weight : {"", "0.1x", " 0.1", "0.1 0.2", "nan", "inf", "1e999", "heavy"}) {
    CHECK(refusal(name, [&](SafeTensors& file) { file.metadata["gate_loss_weight"] = weight; }) ==
          fmt::format("metadata gate_loss_weight '{}' is not a finite number", weight));
  }
  CHECK(refusal(name, [](SafeTensors& file) {
          std::string& config = file.metadata["config"];
          const std::string layers = "\"num_hidden_layers\": 2";
          config.replace(config.find(layers), layers.size(), "\"num_hidden_layers\": 9000");
        }).starts_with("metadata config has 9000 layers, the file "));
}

TEST_CASE("numbers that are not finite never pass") {
  const TempFolder folder;
  const std::string path = folder / "not_finite.safetensors";
  const SafeTensors good =
      read_safetensors(fixture_path("mamba__key_selection__causal.safetensors"));
  for (const double number :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const char* name : {"logits", "loss", "grad.backbone.norm_f.weight"}) {
      SafeTensors changed = good;
      Tensor tensor = changed.tensors.at(name).clone();
      tensor.data<float>()[0] = static_cast<float>(number);
      changed.tensors[name] = tensor;
      write_safetensors(path, changed);
      const FixtureError worst = worst_of(check_fixture(path, DType::float32).all_rows);
      CHECK(worst.error == std::numeric_limits<double>::infinity());
      CHECK(worst.what == name);
    }
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(worst_of({{"a", 1}, {"b", nan}, {"c", 0}}).what == "b");
}

TEST_CASE("fewer candidates than keys are taken as the file has them") {
  const TempFolder folder;
  const std::string path = folder / "few_candidates.safetensors";
  SafeTensors content = read_safetensors(fixture_path("mamba__key_selection__causal.safetensors"));
  for (const char* layer : {"0", "1"}) {
    for (const std::string& name :
         {std::string("candidates."), std::string("debug.rank_target.")}) {
      Tensor& all = content.tensors.at(name + layer);
      const bool given = !is_floating(all.dtype());
      Tensor some = Tensor::zeros({3, 5}, all.dtype());
      for (std::int64_t i = 0; i < 15; ++i) {
        const std::int64_t from = i / 5 * 8 + i % 5;
        if (given) {
          some.data<std::int64_t>()[i] = all.data<std::int64_t>()[from];
        } else {
          some.data<float>()[i] = all.data<float>()[from];
        }
      }
      all = some;
    }
  }
  write_safetensors(path, content);
  // The ranking loss of fewer pairs is another one; all that does not depend on it stays right.
  int compared = 0;
  for (const FixtureError& e : check_fixture(path, DType::float32).all_rows) {
    INFO(e.what);
    if (e.what.starts_with("debug.") || e.what == "logits" || e.what == "lm_loss") {
      CHECK(e.error <= 1e-4);
      ++compared;
    }
    if (e.what == "gate_loss") CHECK(e.error > 0);
  }
  CHECK(compared == 10);
}
