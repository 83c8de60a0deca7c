#include "engine/tensor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr DType kAllTypes[] = {DType::float32, DType::float64, DType::int32, DType::int64,
                               DType::uint8};

Tensor counting(Shape shape) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < shape.numel(); ++i) values.push_back(static_cast<double>(i));
  return Tensor::from(values, shape);
}

template <class T>
std::vector<T> numbers(const Tensor& tensor) {
  const std::span<const T> values = tensor.values<T>();
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("every element type has a size and a name, and dtype_of names its C++ type") {
  CHECK(size_of(DType::float32) == sizeof(float));
  CHECK(size_of(DType::float64) == sizeof(double));
  CHECK(size_of(DType::int32) == sizeof(std::int32_t));
  CHECK(size_of(DType::int64) == sizeof(std::int64_t));
  CHECK(size_of(DType::uint8) == 1);
  CHECK(dtype_of<float> == DType::float32);
  CHECK(dtype_of<double> == DType::float64);
  CHECK(dtype_of<std::int32_t> == DType::int32);
  CHECK(dtype_of<std::int64_t> == DType::int64);
  CHECK(dtype_of<std::uint8_t> == DType::uint8);
  CHECK(name_of(DType::float32) == "float32");
  CHECK(name_of(DType::uint8) == "uint8");
  CHECK(is_floating(DType::float64));
  CHECK_FALSE(is_floating(DType::int32));
}

TEST_CASE("devices are known by name") {
  CHECK(parse_device("cpu") == kCpu);
  CHECK(name_of(kCpu) == "cpu");
  CHECK(name_of(kCuda) == "cuda");
  CHECK_THROWS_AS(parse_device("gpu"), UsageError);
  if (!kHasCuda) {
    CHECK(error_of([] { parse_device("cuda"); }) ==
          "--device cuda: this build has no CUDA backend; use --device cpu");
    CHECK(error_of([] { Tensor::empty({2}, DType::float32, kCuda); }) ==
          "this build has no CUDA backend");
  }
}

TEST_CASE("from, zeros and full fill every element of every type") {
  for (const DType dtype : kAllTypes) {
    INFO(name_of(dtype));
    const Tensor zeros = Tensor::zeros({3, 5}, dtype), sevens = Tensor::full({3, 5}, 7, dtype);
    CHECK(zeros.dtype() == dtype);
    CHECK(zeros.bytes() == 15 * size_of(dtype));
    CHECK(numbers<double>(zeros.to(DType::float64)) == std::vector<double>(15, 0.0));
    CHECK(numbers<double>(sevens.to(DType::float64)) == std::vector<double>(15, 7.0));
  }
  const Tensor tensor = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(tensor.dtype() == DType::float32);
  CHECK(tensor.shape() == Shape{2, 3});
  CHECK(numbers<float>(tensor) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(Tensor::from(std::vector<std::int64_t>{4, 5}).shape() == Shape{2});
  CHECK(error_of([] {
          Tensor::from(std::vector<float>{1, 2, 3}, {2, 2});
        }) == "3 values do not fill a tensor of shape [2, 2]");
}

TEST_CASE("copies share, clones do not") {
  Tensor first = Tensor::zeros({4});
  CHECK(first.unique());
  Tensor shared = first;
  const Tensor cloned = first.clone();
  CHECK_FALSE(first.unique());
  CHECK(cloned.unique());
  shared.data<float>()[2] = 5;
  CHECK(first.data<float>()[2] == 5);
  CHECK(cloned.data<float>()[2] == 0);
  shared = {};
  CHECK(first.unique());
}

TEST_CASE("reshape, rows and flat are views of the same numbers") {
  Tensor tensor = counting({4, 3});
  const Tensor reshaped = tensor.reshape({2, 6});
  CHECK(reshaped.raw() == tensor.raw());
  CHECK(reshaped.shape() == Shape{2, 6});

  const Tensor rows = tensor.rows(1, 3);
  CHECK(rows.shape() == Shape{2, 3});
  CHECK(numbers<double>(rows) == std::vector<double>{3, 4, 5, 6, 7, 8});
  CHECK(numbers<double>(rows.rows(1, 2)) == std::vector<double>{6, 7, 8});
  CHECK(numbers<double>(tensor.flat(2, 5)) == std::vector<double>{2, 3, 4});
  CHECK(numbers<double>(rows.reshape({3, 2}).rows(2, 3)) == std::vector<double>{7, 8});
  CHECK_FALSE(tensor.unique());

  tensor.data<double>()[4] = 40;
  CHECK(rows.data<double>()[1] == 40);
  // The view keeps the numbers alive.
  tensor = {};
  CHECK(rows.clone().data<double>()[1] == 40);
}

TEST_CASE("views of nothing, and of tensors without elements") {
  const Tensor tensor = counting({4, 3});
  CHECK(tensor.rows(2, 2).shape() == Shape{0, 3});
  CHECK(tensor.rows(4, 4).numel() == 0);
  CHECK(tensor.flat(12, 12).shape() == Shape{0});
  const Tensor none = Tensor::zeros({0, 3});
  CHECK(none.defined());
  CHECK(none.rows(0, 0).shape() == Shape{0, 3});
  CHECK(none.reshape({5, 0}).numel() == 0);
  CHECK(none.clone().shape() == Shape{0, 3});
  CHECK(none.to(DType::int32).numel() == 0);
  CHECK(none.values<float>().empty());
  const Tensor no_columns = Tensor::zeros({3, 0});
  CHECK(no_columns.rows(1, 3).shape() == Shape{2, 0});
}

TEST_CASE("views refuse what does not exist") {
  const Tensor tensor = counting({4, 3});
  CHECK(error_of([&] { (void)tensor.reshape({5}); }) ==
        "cannot reshape [4, 3] to [5]: 12 and 5 elements");
  CHECK(error_of([&] { (void)tensor.rows(2, 5); }) ==
        "rows 2..5 of a tensor of shape [4, 3] do not exist");
  CHECK(error_of([&] { (void)tensor.rows(-1, 2); }) ==
        "rows -1..2 of a tensor of shape [4, 3] do not exist");
  CHECK(error_of([&] { (void)tensor.rows(3, 2); }) ==
        "rows 3..2 of a tensor of shape [4, 3] do not exist");
  CHECK(error_of([] { (void)Tensor::zeros({}).rows(0, 1); }) ==
        "rows 0..1 of a tensor of shape [] do not exist");
  CHECK(error_of([&] { (void)tensor.flat(0, 13); }) ==
        "rows 0..13 of a tensor of shape [12] do not exist");
}

TEST_CASE("numbers are accessed as what they are") {
  Tensor tensor = Tensor::zeros({2, 2}, DType::float32);
  CHECK(error_of([&] { (void)tensor.data<double>(); }) ==
        "tensor of type float32 and shape [2, 2] was accessed as float64");
  CHECK(error_of([&] { (void)tensor.values<std::int32_t>(); }) ==
        "tensor of type float32 and shape [2, 2] was accessed as int32");
}

TEST_CASE("an undefined tensor says so whatever is asked of it") {
  const Tensor none;
  CHECK_FALSE(none.defined());
  CHECK_FALSE(static_cast<bool>(none));
  CHECK(none.numel() == 0);
  const auto refuses = [](const std::function<void()>& body) {
    return error_of(body).find("undefined tensor") != std::string::npos;
  };
  CHECK(refuses([&] { (void)none.data<float>(); }));
  CHECK(refuses([&] { (void)none.raw(); }));
  CHECK(refuses([&] { (void)none.device(); }));
  CHECK(refuses([&] { (void)none.clone(); }));
  CHECK(refuses([&] { (void)none.reshape({0}); }));
  CHECK(refuses([&] { (void)none.to(DType::float32); }));
  CHECK(refuses([&] { (void)none.to(DType::int64); }));
  CHECK(refuses([&] { (void)none.to(kCpu); }));
  CHECK(refuses([&] { (void)none.item(); }));
}

TEST_CASE("conversion keeps what both types can hold") {
  for (const DType from : kAllTypes) {
    for (const DType to : kAllTypes) {
      INFO(name_of(from) << " to " << name_of(to));
      const Tensor values = Tensor::from(std::vector<double>{0, 1, 2, 127, 255}).to(from);
      CHECK(numbers<double>(values.to(to).to(DType::float64)) ==
            std::vector<double>{0, 1, 2, 127, 255});
      CHECK((values.to(to).raw() == values.raw()) == (from == to));  // shared when equal
    }
  }
  const Tensor fractions = Tensor::from(std::vector<float>{2.75f, -2.75f, -0.5f});
  CHECK(numbers<std::int32_t>(fractions.to(DType::int32)) == std::vector<std::int32_t>{2, -2, 0});
  CHECK(numbers<std::uint8_t>(fractions.rows(2, 3).to(DType::uint8)) ==
        std::vector<std::uint8_t>{0});
  CHECK(Tensor::from(std::vector<double>{0.1}).to(DType::float32).data<float>()[0] == 0.1f);
}

TEST_CASE("conversion to an integer type refuses what does not fit") {
  const auto error = [](auto value, DType to) {
    return error_of([&] { (void)Tensor::from(std::vector{value}).to(to); });
  };
  CHECK(error(std::int64_t{3'000'000'000}, DType::int32) ==
        "to: 3000000000 does not fit into int32");
  CHECK(error(std::int32_t{-1}, DType::uint8) == "to: -1 does not fit into uint8");
  CHECK(error(256.0, DType::uint8) == "to: 256 does not fit into uint8");
  CHECK(error(std::nan(""), DType::int64) == "to: nan does not fit into int64");
  CHECK(error(HUGE_VAL, DType::int64) == "to: inf does not fit into int64");
  CHECK(error(0x1p63, DType::int64) != "");
  CHECK(error(0x1p31f, DType::int32) != "");
  CHECK(error(-0x1p31f, DType::int32) == "");
  CHECK(error(-0x1p63, DType::int64) == "");
  CHECK(error(2147483647.9, DType::int32) == "");
  CHECK(error(255.9f, DType::uint8) == "");
  CHECK(error(-0.9f, DType::uint8) == "");
  Tensor bytes = Tensor::zeros({2}, DType::uint8);
  CHECK(error_of([&] { fill(bytes, 300); }) == "fill: 300 does not fit into uint8");
  CHECK(error_of([&] { fill(bytes, 255); }) == "");
}

TEST_CASE("item is the only element") {
  CHECK(Tensor::full({}, 2.5).item() == 2.5);
  CHECK(Tensor::full({1, 1}, 3, DType::int64).item() == 3);
  CHECK(error_of([] { (void)Tensor::zeros({2}).item(); }) ==
        "item() needs exactly one element, shape is [2]");
}

TEST_CASE("copy writes into a view, also of the tensor it reads") {
  Tensor tensor = counting({6});
  Tensor middle = tensor.rows(1, 3);
  copy(middle, Tensor::from(std::vector<double>{-1, -2}));
  CHECK(numbers<double>(tensor) == std::vector<double>{0, -1, -2, 3, 4, 5});
  Tensor tail = tensor.rows(1, 6);
  copy(tail, tensor.rows(0, 5));
  CHECK(numbers<double>(tensor) == std::vector<double>{0, 0, -1, -2, 3, 4});
  CHECK(error_of([&] { copy(tail, tensor); }) == "copy: float64 [6] into float64 [5]");
  Tensor floats = Tensor::zeros({6});
  CHECK(error_of([&] { copy(floats, tensor); }) == "copy: float64 [6] into float32 [6]");
}

TEST_CASE("accumulate adds in place, also a tensor to itself") {
  Tensor sum = counting({5});
  accumulate(sum, counting({5}));
  CHECK(numbers<double>(sum) == std::vector<double>{0, 2, 4, 6, 8});
  accumulate(sum, sum);
  CHECK(numbers<double>(sum) == std::vector<double>{0, 4, 8, 12, 16});
  CHECK(error_of([&] { accumulate(sum, counting({4})); }) ==
        "accumulate: float64 [4] on cpu into float64 [5] on cpu");
  Tensor integers = Tensor::zeros({2}, DType::int32);
  CHECK(error_of([&] { accumulate(integers, integers.clone()); }) ==
        "expected float32 or float64, got int32");
}

TEST_CASE("sizes that no memory can hold are refused, not wrapped around") {
  CHECK(error_of([] { Tensor::empty({std::int64_t{1} << 61}, DType::float64); }) ==
        "a tensor of shape [2305843009213693952] and type float64 has more bytes than 64 bits can "
        "count");
  CHECK(error_of([] { Tensor::empty({std::int64_t{1} << 60}, DType::float32); }) ==
        "out of memory: a tensor needs 4611686018427387904 bytes; use a smaller batch or model");
  CHECK(error_of([] { Tensor::empty({INT64_MAX}, DType::uint8); }) ==
        "out of memory: a tensor needs 9223372036854775807 bytes; use a smaller batch or model");
}
