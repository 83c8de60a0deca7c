// Starting kernels: one function instead of <<<...>>>. Include kernel.cuh.
#pragma once

#include <cstddef>
#include <source_location>
#include <tuple>
#include <utility>

namespace hax::cuda {

/// How a kernel is launched: launch(kernel, {blocks, threads, shared_bytes}, arguments...).
struct LaunchShape {
  // NOLINTNEXTLINE(google-explicit-constructor)
  LaunchShape(dim3 blocks_, dim3 threads_, std::size_t shared_bytes_ = 0,
              std::source_location where_ = std::source_location::current())
      : blocks(blocks_), threads(threads_), shared_bytes(shared_bytes_), where(where_) {}

  dim3 blocks, threads;
  std::size_t shared_bytes;
  std::source_location where;  ///< names the kernel in errors
};

/// Checks a shape; false when there is no block, so nothing to launch. Counts the launch.
bool prepare_launch(std::uint64_t blocks, std::uint64_t threads, const LaunchShape& shape);

#ifdef __CUDACC__
void launch_on_device(const void* kernel, const LaunchShape& shape, void** arguments);
#else
void launch_emulated(const LaunchShape& shape, std::function<void()> body);
#endif

/// A one-dimensional number of blocks.
inline unsigned blocks(std::int64_t count) {
  check(0 <= count && count < (std::int64_t{1} << 31), "cuda: {} blocks in a launch", count);
  return static_cast<unsigned>(count);
}

/// Runs `kernel` on the stream of this thread. Arguments are copied. A block's threads are a
/// multiple of 32; a grid without blocks is no launch. Throws Error naming the place of the launch
/// when the device refuses it.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  const dim3 &b = shape.blocks, &t = shape.threads;
  if (!prepare_launch(std::uint64_t{b.x} * b.y * b.z, std::uint64_t{t.x} * t.y * t.z, shape))
    return;
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
#ifdef __CUDACC__
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)..., nullptr};
        launch_on_device(reinterpret_cast<const void*>(kernel), shape, pointers);
      },
      values);
#else
  launch_emulated(shape, [kernel, values] { std::apply(kernel, values); });
#endif
}

/// Blocks for `count` elements with `threads` threads each, in a kernel that strides over its grid.
inline unsigned blocks_for(std::int64_t count, unsigned threads) {
  const std::int64_t wanted = (count + threads - 1) / threads;
  return static_cast<unsigned>(wanted < kMaxStridingBlocks ? wanted : kMaxStridingBlocks);
}

}  // namespace hax::cuda
