// The device behind Device::Kind::cuda, as host code sees it: no CUDA header needed. Two
// implementations: nvidia/ on the CUDA runtime, emulation/ on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hax::cuda {

/// Blocks of a kernel that strides over its grid: enough to fill any device, few enough that the
/// two stages of a reduction stay cheap.
inline constexpr std::int64_t kMaxStridingBlocks = 4096;

struct DeviceInfo {
  std::string name;
  int multiprocessors = 0;
  int major = 0, minor = 0;  ///< compute capability
  std::int64_t memory_bytes = 0;
  std::int64_t shared_bytes_per_block = 0;  ///< that a launch may ask for
};

/// "" when there is a device to use, else why there is none.
const std::string& why_no_device();
/// Throws Error when there is no device.
const DeviceInfo& device_info();

/// Work is queued on one stream, that of this thread's lane (lane.h) where it has one. This waits
/// for all of it. Throws Error for what failed on the device since.
void synchronize();

/// Launches so far in this process, of kernels and of cuBLAS; replays of a graph do not count.
std::int64_t launch_count();
void count_launch();

// Below: what the engine's memory and tensors are made of.

/// Device memory from the system; null when there is none left.
void* system_allocate(std::size_t bytes);
void system_free(void* memory) noexcept;
struct FreeMemory {
  std::int64_t free = 0, total = 0;
};
FreeMemory free_memory();

/// A new tensor's memory: the emulation fills it with NaN, so that reading it before writing shows.
void mark_uninitialized(void* memory, std::size_t bytes);
void wait_for_stream();

/// Copies in the order of the stream. The two with the host return when the host's memory may be
/// used again; they throw Error while a graph is captured.
void copy_to_device(void* destination, const void* host, std::size_t bytes);
void copy_to_host(void* host, const void* source, std::size_t bytes);
/// Not overlapping.
void copy_on_device(void* destination, const void* source, std::size_t bytes);

/// Host memory that a copy may read while the host goes on.
void* pinned_allocate(std::size_t bytes);
void pinned_free(void* memory) noexcept;
/// From pinned memory, in the order of the stream; returns at once.
void copy_pinned_to_device(void* destination, const void* pinned, std::size_t bytes);

/// A place in the stream, for threads of the host to wait for.
void* make_event();
void free_event(void* event) noexcept;
void record_event(void* event);
/// Returns when the work queued before the place is done; at once when none was recorded.
void wait_for_event(void* event);

/// A stream for use_queue(). Throws Error when there is no device.
void* make_queue();
/// Waits for what is queued there.
void free_queue(void* queue) noexcept;
/// From now on this thread's work goes there; null: to the stream of all that chose none.
void use_queue(void* queue) noexcept;

/// What is queued in between is recorded instead of run (graph.h).
void begin_capture();
void* end_capture();
/// Ends a capture whose work failed and forgets it.
void abandon_capture() noexcept;
void replay_capture(void* capture);
void free_capture(void* capture) noexcept;

}  // namespace hax::cuda
