#include "engine/cuda/tensor_kernels.h"

#include <cstring>

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <class T>
__global__ void fill_kernel(T* data, std::int64_t count, T element) {
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) data[i] = element;
}

template <class T>
void fill_with(void* data, std::int64_t count, const void* element) {
  T value;
  std::memcpy(&value, element, sizeof(T));
  launch(fill_kernel<T>, {blocks_for(count, kThreads), kThreads}, static_cast<T*>(data), count,
         value);
}

template <class T>
__device__ T sum(T a, T b) {
  return a + b;
}
__device__ Bfloat16 sum(Bfloat16 a, Bfloat16 b) { return Bfloat16(to_float(a) + to_float(b)); }

// Additions that do not meet, as one launch's argument.
template <class T>
struct Group {
  static constexpr int kMost = 64;
  T* to[kMost];
  const T* from[kMost];
  std::int64_t count[kMost];
  int size = 0;

  bool meets(const T* begin, std::int64_t length) const {
    for (int i = 0; i < size; ++i) {
      if (begin < to[i] + count[i] && to[i] < begin + length) return true;
    }
    return false;
  }
};

// Row y of the grid does addition y.
template <class T>
__global__ void accumulate_kernel(Group<T> group) {
  T* to = group.to[blockIdx.y];
  const T* from = group.from[blockIdx.y];
  const std::int64_t count = group.count[blockIdx.y];
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) {
    to[i] = sum(to[i], from[i]);
  }
}

template <class T>
void accumulate_group(Group<T>& group) {
  std::int64_t most = 0;
  for (int i = 0; i < group.size; ++i) most = group.count[i] > most ? group.count[i] : most;
  // A few numbers a thread, so that the blocks of small tensors beside a large one cost little.
  const unsigned across = blocks_for(ceil_div(most, 4), kThreads);
  launch(accumulate_kernel<T>, {dim3(across, static_cast<unsigned>(group.size)), dim3(kThreads)},
         group);
  group.size = 0;
}

template <class From, class To>
__global__ void convert_kernel(const From* from, To* to, std::int64_t count) {
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) {
    to[i] = from_float<To>(to_float(from[i]));
  }
}

}  // namespace

void fill(void* data, std::int64_t count, const void* element, std::size_t element_bytes) {
  switch (element_bytes) {
    case 1:
      return fill_with<std::uint8_t>(data, count, element);
    case 2:
      return fill_with<std::uint16_t>(data, count, element);
    case 4:
      return fill_with<std::uint32_t>(data, count, element);
    case 8:
      return fill_with<std::uint64_t>(data, count, element);
    default:
      throw Error(fmt::format("fill: elements of {} bytes on cuda", element_bytes));
  }
}

void accumulate_all(std::span<const Addition> additions) {
  if (additions.empty()) return;
  const auto add = [&]<class T>() {
    Group<T> group;
    for (const Addition& addition : additions) {
      Tensor destination = addition.to;
      T* to = destination.data<T>();
      const std::int64_t count = destination.numel();
      if (count == 0) continue;
      if (group.size == Group<T>::kMost || group.meets(to, count)) accumulate_group(group);
      group.to[group.size] = to;
      group.from[group.size] = addition.from.data<T>();
      group.count[group.size++] = count;
    }
    if (group.size > 0) accumulate_group(group);
  };
  const DType dtype = additions.front().to.dtype();
  if (dtype == DType::float64) return add.operator()<double>();
  visit_storage("accumulate", dtype, add);
}

void convert(const Tensor& source, Tensor& result) {
  visit_storage("to", source.dtype(), [&]<class From>() {
    visit_storage("to", result.dtype(), [&]<class To>() {
      launch(convert_kernel<From, To>, {blocks_for(source.numel(), kThreads), kThreads},
             source.data<From>(), result.data<To>(), source.numel());
    });
  });
}

}  // namespace hax::cuda
