#include "train/fixture.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "engine/safetensors.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

std::vector<std::string> fixture_files(const std::string& prefix) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(HAX_SOURCE_DIR "/tests/fixtures")) {
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
