#include "engine/safetensors.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/engine/safetensors_support.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::safetensors;

namespace {

bool same(const SafeTensors& a, const SafeTensors& b) {
  return a.metadata == b.metadata &&
         std::ranges::equal(a.tensors, b.tensors, [](const auto& x, const auto& y) {
           return x.first == y.first && same_bits(x.second, y.second);
         });
}

SafeTensors sample() {
  SafeTensors content;
  content.tensors["b.float"] = random_tensor({3, 5}, 1, DType::float32);
  content.tensors["a.double"] = random_tensor({2, 2, 2, 3}, 2, DType::float64);
  content.tensors["ids"] = Tensor::from(std::vector<std::int64_t>{INT64_MIN, -1, INT64_MAX});
  content.tensors["rows"] = Tensor::from(std::vector<std::int32_t>{INT32_MIN, 7, INT32_MAX});
  content.tensors["mask"] = Tensor::from(std::vector<std::uint8_t>{0, 1, 255});
  content.tensors["scalar"] = Tensor::full({}, -0.0);
  content.tensors["empty"] = Tensor::zeros({0, 7});
  content.tensors["no columns"] = Tensor::zeros({4, 0}, DType::int64);
  content.tensors["special"] = Tensor::from(std::vector<float>{
      std::nanf("1"), HUGE_VALF, -HUGE_VALF, std::numeric_limits<float>::denorm_min()});
  content.tensors["\xc3\xa9\n\"\\"] = Tensor::full({1}, 3);
  content.metadata = {{"format", "hax"}, {"quotes \" and \n", "{\"a\": [1]}"}, {"", ""}};
  return content;
}

}  // namespace

TEST_CASE("safetensors: every type and shape comes back to the bit") {
  const TempFolder folder;
  const SafeTensors content = sample();
  write_safetensors(folder / "model.safetensors", content);
  CHECK(same(read_safetensors(folder / "model.safetensors"), content));
  CHECK(folder.names() == std::vector<std::string>{"model.safetensors"});
}

TEST_CASE("safetensors: a view is written as what it shows") {
  const TempFolder folder;
  const Tensor whole = random_tensor({6, 4}, 3);
  write_safetensors(folder / "view", {{{"w", whole.rows(2, 5)}}, {}});
  CHECK(same_bits(read_safetensors(folder / "view").tensors.at("w"), whole.rows(2, 5).clone()));
}

TEST_CASE("safetensors: equal content gives equal bytes, in the form that the page states") {
  const TempFolder folder;
  write_safetensors(folder / "first", sample());
  write_safetensors(folder / "second", sample());
  CHECK(read_file(folder / "first") == read_file(folder / "second"));

  const auto bytes = [&](const SafeTensors& content) {
    write_safetensors(folder / "small", content);
    return read_file(folder / "small");
  };
  CHECK(bytes({}) == file_of("{}      "));
  SafeTensors content;
  content.tensors["z"] = Tensor::from(std::vector<std::uint8_t>{9}, {});
  content.tensors["b"] = Tensor::from(std::vector<float>{1});
  content.tensors["a"] = Tensor::from(std::vector<std::int32_t>{2, 3}, {2, 1});
  content.tensors["y"] = Tensor::from(std::vector<std::int64_t>{4});
  content.metadata["k"] = "v";
  std::string header = R"({"__metadata__":{"k":"v"},)"
                       R"("y":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"I32","shape":[2,1],"data_offsets":[8,16]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[16,20]},)"
                       R"("z":{"dtype":"U8","shape":[],"data_offsets":[20,21]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string data = little_endian(4) + std::string("\2\0\0\0\3\0\0\0\0\0\x80\x3f\t", 13);
  CHECK(bytes(content) == file_of(header, data));
}

TEST_CASE("safetensors: reading accepts what others may write") {
  const Reader reader;
  CHECK(reader.read(file_of("{}")).tensors.empty());
  CHECK(reader.read(file_of(R"({"__metadata__":{}})")).metadata.empty());
  // White space, any order of members and entries, an unaligned header, escapes, tensors without
  // bytes anywhere between others.
  const std::string header =
      "{ \"b\" : {\"data_offsets\":[4,12], \"shape\":[2],\n\"dtype\":\"F32\"},"
      R"("none":{"dtype":"F64","shape":[3,0],"data_offsets":[4,4]},)"
      R"("\u00e9":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}} )";
  const float numbers[] = {1.5f, -2.5f};
  std::string data = "\1\2\3\4";
  data.append(reinterpret_cast<const char*>(numbers), 8);
  const SafeTensors content = reader.read(file_of(header, data));
  CHECK(content.tensors.size() == 3);
  CHECK(same_bits(content.tensors.at("b"), Tensor::from(std::vector<float>{1.5f, -2.5f})));
  CHECK(same_bits(content.tensors.at("\xc3\xa9"),
                  Tensor::from(std::vector<std::uint8_t>{1, 2, 3, 4}, {2, 2})));
  CHECK(content.tensors.at("none").shape() == Shape{3, 0});
}

TEST_CASE("safetensors: BOOL is read as uint8, F16 and BF16 exactly as float32") {
  const Reader reader;
  const auto read = [&](const std::string& type, std::size_t width, const std::string& data) {
    return reader
        .read(file_of(fmt::format(R"({{"t":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}})",
                                  type, data.size() / width, data.size()),
                      data))
        .tensors.at("t");
  };
  CHECK(same_bits(read("BOOL", 1, std::string("\0\1", 2)),
                  Tensor::from(std::vector<std::uint8_t>{0, 1})));

  std::string all;  // every 16-bit pattern, more than once around the reader's buffer
  for (int round = 0; round < 3; ++round) {
    for (int bits = round; bits < 0x10000; ++bits) {
      all += static_cast<char>(bits & 255);
      all += static_cast<char>(bits >> 8);
    }
  }
  const Tensor half = read("F16", 2, all), brain = read("BF16", 2, all);
  REQUIRE(half.numel() == static_cast<std::int64_t>(all.size() / 2));
  const auto differs = [](float a, double b) { return std::isnan(b) ? !std::isnan(a) : a != b; };
  int wrong = 0;
  for (std::int64_t i = 0; i < half.numel(); ++i) {
    const auto low = static_cast<unsigned char>(all[static_cast<std::size_t>(2 * i)]);
    const auto high = static_cast<unsigned char>(all[static_cast<std::size_t>(2 * i + 1)]);
    const int bits = high << 8 | low, exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) value = fraction == 0 ? HUGE_VAL : std::nan("");
    if (bits & 0x8000) value = -value;
    wrong += differs(half.data<float>()[i], value);
    wrong += std::signbit(half.data<float>()[i]) != ((bits & 0x8000) != 0);
    wrong += std::bit_cast<std::uint32_t>(brain.data<float>()[i]) !=
             static_cast<std::uint32_t>(bits) << 16;
  }
  CHECK(wrong == 0);
}

TEST_CASE("safetensors: what cannot be written is refused, and the old file stays") {
  const TempFolder folder;
  const std::string path = folder / "model";
  write_safetensors(path, sample());
  const auto error = [&](const SafeTensors& content) {
    return error_of([&] { write_safetensors(path, content); });
  };
  CHECK(error({{{"w", Tensor()}}, {}}) == "cannot write " + path + ": tensor \"w\" is undefined");
  CHECK(error({{{"__metadata__", Tensor::zeros({1})}}, {}}) ==
        "cannot write " + path + ": a tensor cannot be called __metadata__");
  CHECK(error({{{"w\xff", Tensor::zeros({1})}}, {}}) ==
        "cannot write " + path + ": the tensor name \"w\xef\xbf\xbd\" is not valid UTF-8");
  CHECK(error({{}, {{"k", "\xff"}}}) ==
        "cannot write " + path + ": the metadata value \"\xef\xbf\xbd\" is not valid UTF-8");
  CHECK(same(read_safetensors(path), sample()));
}

TEST_CASE("safetensors: files that cannot be opened") {
  const TempFolder folder;
  CHECK(error_of([&] { (void)read_safetensors(folder / "none"); }) ==
        "cannot read " + (folder / "none").string() + ": No such file or directory");
  CHECK(error_of([&] { (void)read_safetensors(folder.path()); }) ==
        "cannot read " + folder.path().string() + ": not a regular file");
  CHECK(error_of([&] { (void)read_safetensors("/dev/zero"); }) ==
        "cannot read /dev/zero: not a regular file");
}

TEST_CASE("safetensors: the fixtures written by PyTorch are read, and survive a round trip") {
  const std::vector<std::string> names = fixture_names();
  CHECK(names.size() == 36);
  const TempFolder folder;
  for (const std::string& name : names) {
    INFO(name);
    const SafeTensors content = read_safetensors(fixture_path(name));
    CHECK(content.metadata.at("set") == "public");
    CHECK(name.starts_with(content.metadata.at("base_arch") + "__" +
                           content.metadata.at("sparse_arch") + "__" +
                           content.metadata.at("norm_mode")));
    CHECK(content.tensors.contains("param.backbone.embeddings.weight"));
    CHECK(content.tensors.at("tokens").dtype() == DType::int64);
    write_safetensors(folder / "copy", content);
    CHECK(same(read_safetensors(folder / "copy"), content));
  }
}

TEST_CASE("safetensors: numbers of two fixtures are those that Python's struct module reads") {
  const auto sum = [](const Tensor& tensor) {
    double total = 0;
    const Tensor numbers = tensor.to(DType::float64);
    for (const double number : numbers.values<double>()) total += number;
    return total;
  };
  const SafeTensors mamba =
      read_safetensors(fixture_path("mamba__key_selection__causal.safetensors"));
  CHECK(mamba.tensors.size() == 95);
  CHECK(mamba.metadata.at("seed") == "33001");
  CHECK(mamba.tensors.at("loss").item() == 10.441627502441406);
  CHECK(mamba.tensors.at("tokens").shape() == Shape{3, 57});
  CHECK(sum(mamba.tensors.at("tokens")) == 2049);
  CHECK(sum(mamba.tensors.at("candidates.0")) == 446);
  CHECK(mamba.tensors.at("debug.attended.0").shape() == Shape{3, 57, 57});
  CHECK(sum(mamba.tensors.at("debug.attended.0")) == 1284);
  CHECK(mamba.tensors.at("param.backbone.norm_f.weight").data<float>()[3] == 1.62534761428833f);

  const SafeTensors samba =
      read_safetensors(fixture_path("samba__none__released__f64.safetensors"));
  CHECK(samba.tensors.size() == 61);
  CHECK(samba.tensors.at("loss").dtype() == DType::float64);
  CHECK(samba.tensors.at("loss").item() == 6.610936716272192);
  CHECK(sum(samba.tensors.at("param.backbone.norm_f.weight")) ==
        doctest::Approx(15.9891277551651).epsilon(1e-14));
}
