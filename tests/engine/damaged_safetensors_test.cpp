// Safetensors files that are cut, wrong or hostile: each is refused with one line that says why.
#include <doctest/doctest.h>

#include <filesystem>

#include "tests/engine/safetensors_support.h"

using namespace hax;
using namespace hax::test;
using namespace hax::test::safetensors;

TEST_CASE("safetensors: a file that is too short, or whose header's length cannot be true") {
  const Reader reader;
  CHECK(reader.error("") == "0 bytes are too few for a safetensors file");
  CHECK(reader.error("1234567") == "7 bytes are too few for a safetensors file");
  const std::string expected = ", expected 1 to 100000000: not a safetensors file?";
  CHECK(reader.error(little_endian(0)) == "the header's length is 0" + expected);
  CHECK(reader.error(little_endian(100'000'001) + "{}") ==
        "the header's length is 100000001" + expected);
  CHECK(reader.error(little_endian(~std::uint64_t{0}) + "{}") ==
        "the header's length is 18446744073709551615" + expected);
  CHECK(reader.error(little_endian(100'000'000) + "{}") ==
        "the header's length is 100000000, but only 2 bytes follow");
  CHECK(reader.error(little_endian(3) + "{}") ==
        "the header's length is 3, but only 2 bytes follow");
}

TEST_CASE("safetensors: a header that is not the JSON it should be") {
  const Reader reader;
  const auto error = [&](const std::string& header) { return reader.error(file_of(header, 4)); };
  CHECK(error("[]") == R"(the header begins with "[", expected {)");
  CHECK(error("12") == R"(the header begins with "1", expected {)");
  CHECK(error(" {}") == R"(the header begins with " ", expected {)");
  CHECK(error("\xef\xbb\xbf{}").starts_with("the header begins with "));
  CHECK(error("{\"a\"") ==
        "the header is not JSON: syntax error while parsing object separator - unexpected end of "
        "input; expected ':' at its byte 5");
  CHECK(error("{} x").starts_with("the header is not JSON: "));
  CHECK(error("{}{}").starts_with("the header is not JSON: "));
  CHECK(error(std::string("{}\0", 3)) == "the header is not JSON: a zero byte at its byte 3");
  CHECK(error("{'a':1}").starts_with("the header is not JSON: "));
  CHECK(error("{\"a\xff\":1}") ==
        "the header is not JSON: syntax error while parsing object key - invalid string: "
        "ill-formed UTF-8 byte at its byte 4");
  CHECK(error("{\"" + std::string(5000, '\n') + "\":1}").starts_with("the header is not JSON: "));
  CHECK(error("{\"a\":{\"shape\":[1e999]}}").starts_with("the header is not JSON: "));
  CHECK(error("{\"a\":{\"shape\":[" + std::string(5000, '9') + "e999]}}").size() < 300);
  CHECK(error(R"({"a":1})") == R"(tensor "a" holds 1, expected an object)");
  CHECK(error(R"({"a":null})") == R"(tensor "a" holds null, expected an object)");
  CHECK(error(R"({"a":[1]})") == R"(tensor "a" holds a list, expected an object)");
  // 10 MB of nesting: refused at the first level, without building anything.
  CHECK(error("{\"a\":" + std::string(10'000'000, '[')) ==
        R"(tensor "a" holds a list, expected an object)");
}

TEST_CASE("safetensors: metadata that is not a map of strings") {
  const Reader reader;
  const auto error = [&](const std::string& header) { return reader.error(file_of(header)); };
  CHECK(error(R"({"__metadata__":"text"})") == R"(__metadata__ holds "text", expected an object)");
  CHECK(error(R"({"__metadata__":{"step":1}})") ==
        R"(__metadata__ entry "step" holds 1, expected a string)");
  CHECK(error(R"({"__metadata__":{"step":{"a":"b"}}})") ==
        R"(__metadata__ entry "step" holds an object, expected a string)");
  CHECK(error(R"({"__metadata__":{"step":["a"]}})") ==
        R"(__metadata__ entry "step" holds a list, expected a string)");
  CHECK(error(R"({"__metadata__":{"a":"1","a":"1"}})") ==
        R"(__metadata__ holds the key "a" twice)");
  CHECK(error(R"({"__metadata__":{},"__metadata__":{}})") ==
        R"(the header holds the key "__metadata__" twice)");
}

TEST_CASE("safetensors: entries with missing, repeated, unknown or ill-typed fields") {
  const Reader reader;
  const auto error = [&](const std::string& entry) {
    return reader.error(file_of("{\"w\":{" + entry + "}}", 4));
  };
  const std::string type = R"("dtype":"F32")", shape = R"("shape":[1])",
                    offsets = R"("data_offsets":[0,4])";
  CHECK(error(type + "," + shape + "," + offsets) == "");
  CHECK(error(shape + "," + offsets) == R"(tensor "w" has no dtype)");
  CHECK(error(type + "," + offsets) == R"(tensor "w" has no shape)");
  CHECK(error(type + "," + shape) == R"(tensor "w" has no data_offsets)");
  CHECK(error("") == R"(tensor "w" has no dtype)");
  for (const std::string& field : {type, shape, offsets}) {
    CHECK(error(type + "," + shape + "," + offsets + "," + field)
              .starts_with(R"(tensor "w" holds the key )"));
  }
  CHECK(error(type + "," + shape + "," + offsets + R"(,"stride":[1])") ==
        R"(tensor "w" has the field "stride", expected dtype, shape and data_offsets only)");
  CHECK(
      error(R"("dtype":"F8_E4M3")") ==
      R"(the dtype of tensor "w" is "F8_E4M3", expected one of F32 F64 I32 I64 U8 BOOL F16 BF16)");
  CHECK(error(R"("dtype":"f32")").starts_with(R"(the dtype of tensor "w" is "f32")"));
  CHECK(error(R"("dtype":32)") == R"(the dtype of tensor "w" holds 32, expected a string)");
  CHECK(error(R"("dtype":["F32"])") ==
        R"(the dtype of tensor "w" holds a list, expected a string)");
  const std::string whole = ", expected whole numbers from 0 to 2^63 - 1";
  const auto shape_error = [&](const std::string& number) {
    const std::string message = error("\"shape\":[" + number + "]");
    const std::string before = R"(the shape of tensor "w" holds )";
    return message.starts_with(before) && message.ends_with(whole)
               ? message.substr(before.size(), message.size() - before.size() - whole.size())
               : "unexpected: " + message;
  };
  CHECK(shape_error("-1") == "-1");
  CHECK(shape_error("1.0") == "1.0");
  CHECK(shape_error("1e2") == "1e2");
  CHECK(shape_error("\"1\"") == "\"1\"");
  CHECK(shape_error("true") == "true");
  CHECK(shape_error("null") == "null");
  CHECK(shape_error("[1]") == "a list");
  CHECK(shape_error("{}") == "an object");
  CHECK(shape_error("9223372036854775808") == "9223372036854775808");
  CHECK(shape_error("18446744073709551616") == "18446744073709551616");
  CHECK(shape_error("99999999999999999999999999") == "99999999999999999999999999");
  CHECK(error(R"("shape":4)") == R"(the shape of tensor "w" holds 4, expected a list of numbers)");
  CHECK(error(R"("shape":[1,1,1,1,1])") == R"(the shape of tensor "w" has more than 4 numbers)");
  CHECK(error(R"("data_offsets":[0])") ==
        R"(the data_offsets of tensor "w" has 1 numbers, expected begin and end)");
  CHECK(error(R"("data_offsets":[0,1,2])") ==
        R"(the data_offsets of tensor "w" has more than 2 numbers)");
  CHECK(error(R"("data_offsets":[-4,0])") == R"(the data_offsets of tensor "w" holds -4)" + whole);
}

TEST_CASE("safetensors: the same tensor twice") {
  const Reader reader;
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK(reader.error(file_of("{\"w\":" + entry + ",\"w\":" + entry + "}")) ==
        R"(the header holds the key "w" twice)");
  CHECK(reader.error(file_of("{\"w\":" + entry + ",\"\\u0077\":" + entry + "}")) ==
        R"(the header holds the key "w" twice)");
}

TEST_CASE("safetensors: offsets that do not fit the shape, the file or each other") {
  const Reader reader;
  const auto entry = [](const std::string& type, const std::string& shape,
                        const std::string& offsets) {
    return fmt::format(R"({{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", type, shape,
                       offsets);
  };
  const auto one = [&](const std::string& type, const std::string& shape,
                       const std::string& offsets, std::size_t bytes) {
    return reader.error(file_of("{\"w\":" + entry(type, shape, offsets) + "}", bytes));
  };
  CHECK(one("F32", "2", "8,0", 8) == R"(tensor "w": data_offsets 8..0 run backwards)");
  CHECK(one("F32", "2", "0,8", 7) ==
        R"(tensor "w": data_offsets 0..8 pass the end of the data, which has 7 bytes)");
  CHECK(
      one("U8", "9223372036854775807", "0,9223372036854775807", 1) ==
      R"(tensor "w": data_offsets 0..9223372036854775807 pass the end of the data, which has 1 bytes)");
  CHECK(
      one("F32", "3", "0,8", 8) ==
      R"(tensor "w": data_offsets 0..8 span 8 bytes, expected 3 elements of 4 bytes for F32 [3])");
  CHECK(one("F64", "", "0,4", 4) ==
        R"(tensor "w": data_offsets 0..4 span 4 bytes, expected 1 elements of 8 bytes for F64 [])");
  CHECK(
      one("F32", "1", "0,7", 7) ==
      R"(tensor "w": data_offsets 0..7 span 7 bytes, expected 1 elements of 4 bytes for F32 [1])");
  CHECK(
      one("F16", "2,0", "0,2", 2) ==
      R"(tensor "w": data_offsets 0..2 span 2 bytes, expected 0 elements of 2 bytes for F16 [2, 0])");
  // 2^62 float64 elements need 2^65 bytes: 0 after wrapping around.
  CHECK(one("F64", "4611686018427387904", "0,0", 0) ==
        R"(tensor "w": data_offsets 0..0 span 0 bytes, expected 4611686018427387904 elements of 8 )"
        "bytes for F64 [4611686018427387904]");
  CHECK(one("U8", "4294967296,4294967296", "0,0", 0) ==
        R"(tensor "w": shape [4294967296, 4294967296] has more elements than 64 bits can count)");
  CHECK(one("U8", "4294967296,4294967296,0", "0,0", 0) == "");

  const auto two = [&](const std::string& a, const std::string& b, std::size_t bytes) {
    return reader.error(file_of("{\"a\":" + a + ",\"b\":" + b + "}", bytes));
  };
  CHECK(two(entry("U8", "4", "0,4"), entry("U8", "4", "4,8"), 8) == "");
  CHECK(two(entry("U8", "4", "0,4"), entry("U8", "4", "3,7"), 7) ==
        R"(tensor "b": data_offsets 3..7 begin inside tensor "a")");
  CHECK(two(entry("U8", "4", "0,4"), entry("U8", "4", "0,4"), 4) ==
        R"(tensor "b": data_offsets 0..4 begin inside tensor "a")");
  CHECK(two(entry("U8", "4", "0,4"), entry("U8", "0", "2,2"), 4) ==
        R"(tensor "b": data_offsets 2..2 begin inside tensor "a")");
  CHECK(two(entry("U8", "4", "0,4"), entry("U8", "4", "5,9"), 9) ==
        "bytes 4..5 of the data belong to no tensor");
  CHECK(one("U8", "4", "1,5", 5) == "bytes 0..1 of the data belong to no tensor");
  CHECK(one("U8", "4", "0,4", 5) == "bytes 4..5 of the data belong to no tensor");
  CHECK(reader.error(file_of("{}", 1)) == "bytes 0..1 of the data belong to no tensor");
}

TEST_CASE("safetensors: names of a hostile file stay on one short line") {
  const Reader reader;
  const std::string message = reader.error(file_of("{\"" + std::string(1000, 'x') + "\\n\":1}"));
  CHECK(message == "tensor \"" + std::string(80, 'x') + "\"... holds 1, expected an object");
  CHECK(reader.error(file_of("{\"a\\nb\\u0000\":1}")) ==
        R"(tensor "a\nb\u0000" holds 1, expected an object)");
}

TEST_CASE("safetensors: no cut and no changed byte of a file crashes the reader") {
  const TempFolder folder;
  SafeTensors content;
  content.tensors["weight"] = Tensor::from(std::vector<float>{1, 2});
  content.tensors["mask"] = Tensor::from(std::vector<std::uint8_t>{1});
  content.metadata["k"] = "v";
  write_safetensors(folder / "good", content);
  const std::string good = read_file(folder / "good");
  const std::size_t header_bytes = static_cast<unsigned char>(good[0]);
  const Reader reader;
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK(reader.error(good.substr(0, size)) != "");
  }
  CHECK(reader.error(good + " ") != "");
  // Written directly: a fresh file with fsync for each of 2,000 variants would take seconds.
  int refused = 0, accepted_data = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char mask : {'\x01', '\x02', '\x20', '\x80'}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ mask);
      std::filesystem::remove(folder / "bad");
      {
        FILE* file = std::fopen((folder / "bad").c_str(), "wb");
        REQUIRE(file != nullptr);
        REQUIRE(std::fwrite(bad.data(), 1, bad.size(), file) == bad.size());
        REQUIRE(std::fclose(file) == 0);
      }
      const bool ok = error_of([&] { (void)read_safetensors(folder / "bad"); }).empty();
      refused += !ok;
      if (at >= 8 + header_bytes) accepted_data += ok;
    }
  }
  CHECK(accepted_data == 9 * 4);  // numbers may be any
  CHECK(refused > static_cast<int>(good.size()));
}
