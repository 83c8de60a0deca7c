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

template <class T>
__global__ void accumulate_kernel(T* to, const T* from, std::int64_t count) {
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) {
    to[i] = sum(to[i], from[i]);
  }
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

void accumulate(Tensor& destination, const Tensor& source) {
  const auto add = [&]<class T>() {
    launch(accumulate_kernel<T>, {blocks_for(source.numel(), kThreads), kThreads},
           destination.data<T>(), source.data<T>(), source.numel());
  };
  if (destination.dtype() == DType::float64) return add.operator()<double>();
  visit_storage("accumulate", destination.dtype(), add);
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
