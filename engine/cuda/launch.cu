#include <atomic>

#include "engine/cuda/kernel.cuh"

namespace hax::cuda {
namespace {

std::atomic<std::int64_t> launches = 0;

}  // namespace

std::int64_t launch_count() { return launches; }
void count_launch() { ++launches; }

bool prepare_launch(std::uint64_t blocks, std::uint64_t threads, const LaunchShape& shape) {
  if (blocks == 0) return false;
  check(threads > 0 && threads <= 1024 && threads % kWarp == 0,
        "kernel launched at {}:{}: {} threads in a block, expected a multiple of 32 up to 1024",
        shape.where.file_name(), shape.where.line(), threads);
  check(shape.blocks.y <= 65535 && shape.blocks.z <= 65535 && shape.blocks.x <= 0x7fffffffu,
        "kernel launched at {}:{}: a grid of {} x {} x {} blocks", shape.where.file_name(),
        shape.where.line(), shape.blocks.x, shape.blocks.y, shape.blocks.z);
  const std::int64_t shared = device_info().shared_bytes_per_block;
  check(static_cast<std::int64_t>(shape.shared_bytes) <= shared,
        "kernel launched at {}:{}: {} bytes of shared memory, the device has {} for a block",
        shape.where.file_name(), shape.where.line(), shape.shared_bytes, shared);
  count_launch();
  return true;
}

}  // namespace hax::cuda
