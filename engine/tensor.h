// A tensor: storage, shape, type. It knows no graph; Var (autograd.h) does.
#pragma once

#include <cstdint>
#include <memory>
#include <source_location>
#include <span>
#include <vector>

#include "engine/check.h"
#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/shape.h"

namespace hax {

/// A handle on contiguous row-major numbers. Copying a Tensor shares the storage; clone() copies
/// the numbers. A default-constructed Tensor is undefined: it stands for "none" (no gradient, all
/// rows).
class Tensor {
 public:
  Tensor() = default;
  /// Throws OutOfMemory, which names the op that asked, when there is no room.
  static Tensor empty(Shape shape, DType dtype = DType::float32, Device device = kCpu,
                      const std::source_location& where = std::source_location::current());
  static Tensor zeros(Shape shape, DType dtype = DType::float32, Device device = kCpu,
                      const std::source_location& where = std::source_location::current());
  static Tensor full(Shape shape, double value, DType dtype = DType::float32, Device device = kCpu,
                     const std::source_location& where = std::source_location::current());
  /// A CPU tensor with a copy of `values`, in row-major order. Throws Error unless the counts
  /// agree.
  template <class T>
  static Tensor from(std::span<const T> values, Shape shape);
  template <class T>
  static Tensor from(const std::vector<T>& values, Shape shape) {
    return from(std::span<const T>(values), shape);
  }
  /// Rank-1 CPU tensor with a copy of `values`.
  template <class T>
  static Tensor from(const std::vector<T>& values) {
    return from(values, Shape{static_cast<std::int64_t>(values.size())});
  }

  bool defined() const { return storage_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  std::int64_t size(int axis) const { return shape_[axis]; }
  int rank() const { return shape_.rank(); }
  std::int64_t numel() const { return numel_; }
  std::int64_t bytes() const { return numel_ * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const;

  /// The numbers. Throws Error when T is not the element type or the tensor is undefined.
  template <class T>
  T* data() {
    require(dtype_of<T>);
    return static_cast<T*>(raw());
  }
  template <class T>
  const T* data() const {
    require(dtype_of<T>);
    return static_cast<const T*>(raw());
  }
  /// The numbers, for a loop on the host: throws Error, too, when they are on another device.
  template <class T>
  std::span<const T> values() const {
    check(device().is_cpu(), "values() of a tensor on {}: copy it to the cpu first",
          name_of(device()));
    return {data<T>(), static_cast<std::size_t>(numel_)};
  }
  void* raw();
  const void* raw() const;

  /// The same numbers under another shape of equally many elements; shares storage.
  Tensor reshape(Shape shape) const;
  /// Entries begin..end of the first axis; shares storage.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  /// Elements begin..end as a rank-1 tensor; shares storage.
  Tensor flat(std::int64_t begin, std::int64_t end) const;
  /// The same bits taken for another type of the same size; shares storage. Throws Error when the
  /// sizes differ.
  Tensor viewed_as(DType dtype) const;
  Tensor clone() const;
  /// Converted copy (or this very tensor when nothing changes), on the same device. To an integer
  /// type fractions are cut off; throws Error when a value does not fit into it.
  Tensor to(DType dtype) const;
  /// Copy on another device (or this very tensor when it is there already).
  Tensor to(Device device) const;
  /// The only element, as double. Throws Error when there is not exactly one.
  double item() const;
  /// True when no other tensor shares the storage.
  bool unique() const { return storage_.use_count() == 1; }

 private:
  struct Storage;
  void require(DType wanted) const;

  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;  // in elements
  std::int64_t numel_ = 0;
  Shape shape_;
  DType dtype_ = DType::float32;
};

/// Sets every element to `value`. Throws Error when an integer type cannot hold it.
void fill(Tensor& tensor, double value);
/// Copies numbers; shapes and types must be equal, devices may differ. Views of one storage may
/// overlap.
void copy(Tensor& destination, const Tensor& source);
/// destination += source; same shape, floating type and device; not overlapping unless equal.
void accumulate(Tensor& destination, const Tensor& source);
/// One accumulate() that is still to be done.
struct Addition {
  Tensor to, from;
};
/// accumulate() for each, in their order; on CUDA in few launches. No `from` overlaps a `to`.
void accumulate_all(std::span<const Addition> additions);

template <class T>
Tensor Tensor::from(std::span<const T> values, Shape shape) {
  check(static_cast<std::int64_t>(values.size()) == shape.numel(),
        "{} values do not fill a tensor of shape {}", values.size(), shape);
  Tensor tensor = empty(shape, dtype_of<T>);
  T* out = tensor.data<T>();
  for (std::size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return tensor;
}

/// x.to(device); an undefined tensor stays undefined.
inline Tensor to_device(const Tensor& x, Device device) {
  return x.defined() ? x.to(device) : Tensor{};
}

}  // namespace hax
