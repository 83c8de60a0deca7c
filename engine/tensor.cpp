#include "engine/tensor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/cuda/tensor_kernels.h"
#include "engine/dispatch.h"
#include "engine/memory.h"
#include "engine/recycle.h"

namespace hax {

struct Tensor::Storage {
  Storage(Device on, std::size_t size, const std::source_location& where)
      : device(on), bytes(size), memory(allocate(on, size, where)) {}
  ~Storage() { deallocate(device, memory, bytes); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device device;
  std::size_t bytes;
  void* memory;
};

Tensor Tensor::empty(Shape shape, DType dtype, Device device, const std::source_location& where) {
  Tensor tensor;
  tensor.numel_ = shape.numel();
  check(tensor.numel_ <= std::numeric_limits<std::int64_t>::max() / size_of(dtype),
        "a tensor of shape {} and type {} has more bytes than 64 bits can count", shape,
        name_of(dtype));
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.storage_ = std::allocate_shared<Storage>(Recycled<Storage>(), device,
                                                  static_cast<std::size_t>(tensor.bytes()), where);
  return tensor;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device, const std::source_location& where) {
  return full(shape, 0.0, dtype, device, where);
}

Tensor Tensor::full(Shape shape, double value, DType dtype, Device device,
                    const std::source_location& where) {
  Tensor tensor = empty(shape, dtype, device, where);
  fill(tensor, value);
  return tensor;
}

Device Tensor::device() const {
  check(defined(), "an undefined tensor has no device");
  return storage_->device;
}

void Tensor::require(DType wanted) const {
  if (defined() && dtype_ == wanted) return;  // every access comes by: names only for an error
  check(defined(), "an undefined tensor has no data");
  check(dtype_ == wanted, "tensor of type {} and shape {} was accessed as {}", name_of(dtype_),
        shape_, name_of(wanted));
}

void* Tensor::raw() {
  check(defined(), "an undefined tensor has no data");
  return static_cast<char*>(storage_->memory) + offset_ * size_of(dtype_);
}

const void* Tensor::raw() const {
  check(defined(), "an undefined tensor has no data");
  return static_cast<const char*>(storage_->memory) + offset_ * size_of(dtype_);
}

Tensor Tensor::reshape(Shape shape) const {
  check(defined(), "cannot reshape an undefined tensor to {}", shape);
  check(shape.numel() == numel_, "cannot reshape {} to {}: {} and {} elements", shape_, shape,
        numel_, shape.numel());
  Tensor tensor = *this;
  tensor.shape_ = shape;
  return tensor;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  check(rank() >= 1 && 0 <= begin && begin <= end && end <= size(0),
        "rows {}..{} of a tensor of shape {} do not exist", begin, end, shape_);
  std::array<std::int64_t, Shape::kMaxRank> sizes{};
  std::ranges::copy(shape_.sizes(), sizes.begin());
  const std::int64_t row = size(0) == 0 ? 0 : numel_ / size(0);
  sizes[0] = end - begin;
  Tensor tensor = *this;
  tensor.shape_ = Shape(std::span(sizes.data(), static_cast<std::size_t>(rank())));
  tensor.offset_ += begin * row;
  tensor.numel_ = tensor.shape_.numel();
  return tensor;
}

Tensor Tensor::flat(std::int64_t begin, std::int64_t end) const {
  return reshape({numel_}).rows(begin, end);
}

Tensor Tensor::viewed_as(DType dtype) const {
  check(defined() && size_of(dtype) == size_of(dtype_), "viewed_as: {} taken for {}",
        defined() ? name_of(dtype_) : "an undefined tensor", name_of(dtype));
  Tensor view = *this;
  view.dtype_ = dtype;
  return view;
}

Tensor Tensor::clone() const {
  Tensor tensor = empty(shape_, dtype_, device());
  copy(tensor, *this);
  return tensor;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor tensor = empty(shape_, dtype_, device);
  copy(tensor, *this);
  return tensor;
}

namespace {

template <class F>
void visit_any(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f.template operator()<float>();
    case DType::float64:
      return f.template operator()<double>();
    case DType::int32:
      return f.template operator()<std::int32_t>();
    case DType::int64:
      return f.template operator()<std::int64_t>();
    case DType::uint8:
      return f.template operator()<std::uint8_t>();
    case DType::bfloat16:
      return f.template operator()<Bfloat16>();
  }
}

// Conversion to an integer type truncates, and refuses what the type cannot hold (undefined
// behaviour in the language). To a floating type it rounds.
template <class To, class From>
To convert(From value, const char* what) {
  if constexpr (std::is_same_v<From, Bfloat16> && !std::is_same_v<To, Bfloat16>) {
    return convert<To>(static_cast<float>(value), what);
  } else if constexpr (std::is_same_v<To, Bfloat16> && !std::is_same_v<From, Bfloat16>) {
    return Bfloat16(static_cast<float>(value));
  } else if constexpr (std::is_floating_point_v<To> || std::is_same_v<To, From>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_floating_point_v<From>) {
    // The bounds are powers of two, hence exact in both types; NaN fails every comparison.
    const From above = std::ldexp(From{1}, std::numeric_limits<To>::digits);
    const From below = std::is_signed_v<To> ? -above : From{0};
    const From whole = std::trunc(value);
    check(whole >= below && whole < above, "{}: {} does not fit into {}", what, value,
          name_of(dtype_of<To>));
    return static_cast<To>(whole);
  } else {
    check(std::in_range<To>(value), "{}: {} does not fit into {}", what, value,
          name_of(dtype_of<To>));
    return static_cast<To>(value);
  }
}

}  // namespace

Tensor Tensor::to(DType dtype) const {
  check(defined(), "an undefined tensor cannot be converted to {}", name_of(dtype));
  if (dtype == dtype_) return *this;
  if constexpr (kHasCuda) {
    if (!device().is_cpu()) {
      const auto narrow = [](DType d) { return d == DType::float32 || d == DType::bfloat16; };
      if (!narrow(dtype_) || !narrow(dtype)) return to(kCpu).to(dtype).to(device());
      Tensor result = empty(shape_, dtype, device());
      cuda::convert(*this, result);
      return result;
    }
  }
  Tensor result = empty(shape_, dtype);
  visit_any(dtype_, [&]<class From>() {
    visit_any(dtype, [&]<class To>() {
      const From* from = data<From>();
      std::transform(from, from + numel_, result.data<To>(),
                     [](From value) { return convert<To>(value, "to"); });
    });
  });
  return result;
}

double Tensor::item() const {
  check(defined(), "item() of an undefined tensor");
  check(numel_ == 1, "item() needs exactly one element, shape is {}", shape_);
  return *to(kCpu).to(DType::float64).data<double>();
}

void fill(Tensor& tensor, double value) {
  visit_any(tensor.dtype(), [&]<class T>() {
    const T element = convert<T>(value, "fill");
    T* data = tensor.data<T>();
    if constexpr (kHasCuda) {
      if (!tensor.device().is_cpu()) return cuda::fill(data, tensor.numel(), &element, sizeof(T));
    }
    std::fill(data, data + tensor.numel(), element);
  });
}

void copy(Tensor& destination, const Tensor& source) {
  check(destination.shape() == source.shape() && destination.dtype() == source.dtype(),
        "copy: {} {} into {} {}", name_of(source.dtype()), source.shape(),
        name_of(destination.dtype()), destination.shape());
  copy_bytes(destination.device(), destination.raw(), source.device(), source.raw(),
             static_cast<std::size_t>(source.bytes()));
}

namespace {

void require_addable(const Tensor& destination, const Tensor& source) {
  check(destination.shape() == source.shape() && destination.dtype() == source.dtype() &&
            destination.device() == source.device(),
        "accumulate: {} {} on {} into {} {} on {}", name_of(source.dtype()), source.shape(),
        name_of(source.device()), name_of(destination.dtype()), destination.shape(),
        name_of(destination.device()));
}

}  // namespace

void accumulate_all(std::span<const Addition> additions) {
  for (std::size_t i = 0; i < additions.size(); ++i) {
    const Addition& addition = additions[i];
    if constexpr (kHasCuda) {
      if (!addition.to.device().is_cpu()) {
        require_addable(addition.to, addition.from);
        std::size_t end = i + 1;  // the following ones that can go with it
        for (; end < additions.size() && !additions[end].to.device().is_cpu() &&
               additions[end].to.dtype() == addition.to.dtype();
             ++end) {
          require_addable(additions[end].to, additions[end].from);
        }
        cuda::accumulate_all(additions.subspan(i, end - i));
        i = end - 1;
        continue;
      }
    }
    Tensor to = addition.to;
    accumulate(to, addition.from);
  }
}

void accumulate(Tensor& destination, const Tensor& source) {
  require_addable(destination, source);
  if constexpr (kHasCuda) {
    if (!destination.device().is_cpu()) {
      const Addition addition{destination, source};
      return cuda::accumulate_all({&addition, 1});
    }
  }
  visit_float(destination.dtype(), [&]<class T>() {
    T* to = destination.data<T>();
    const T* from = source.data<T>();
    const std::int64_t count = source.numel();
    for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
  });
}

}  // namespace hax
