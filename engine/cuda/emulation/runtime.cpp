// The emulated device: what is queued on its stream runs at once, or is recorded by a capture.
#include "engine/cuda/emulation/runtime.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "engine/cuda/kernel.cuh"

namespace hax {
namespace {

using Recording = std::vector<std::function<void()>>;

// The capture that is under way in this thread.
thread_local std::unique_ptr<Recording> recording;  // NOLINT

std::atomic<std::uint64_t>& order_seed() {
  static std::atomic<std::uint64_t> seed = [] {
    const char* text = std::getenv("HAX_EMULATE_ORDER");
    return text == nullptr ? std::uint64_t{0} : std::strtoull(text, nullptr, 10);
  }();
  return seed;
}

void refuse_in_capture(const char* what) {
  check(!recording, "cuda: {} while a graph is captured", what);
}

}  // namespace

namespace emulation {

void submit(std::function<void()> work) {
  if (recording) {
    recording->push_back(std::move(work));
  } else {
    const DeviceAccess access;
    work();
  }
}

bool capturing() { return recording != nullptr; }

void set_order(std::uint64_t seed) { order_seed() = seed; }

}  // namespace emulation

namespace cuda {

const std::string& why_no_device() {
  static const std::string none;
  return none;
}

const DeviceInfo& device_info() {
  static const DeviceInfo info{.name = "emulated",
                               .multiprocessors = 4,
                               .major = 8,
                               .minor = 0,
                               .memory_bytes = free_memory().total,
                               .shared_bytes_per_block = 227 << 10};
  return info;
}

void wait_for_stream() { refuse_in_capture("waiting for the device"); }

void launch_emulated(const LaunchShape& shape, std::function<void()> body) {
  const emulation::Grid grid{shape.blocks, shape.threads, shape.shared_bytes, shape.where};
  emulation::submit([grid, body = std::move(body)] {
    emulation::BlockRunner::current().run(grid, body, order_seed());
  });
}

void copy_to_device(void* destination, const void* host, std::size_t bytes) {
  refuse_in_capture("a copy from the host");
  const emulation::DeviceAccess access;
  std::memcpy(destination, host, bytes);
}

void copy_to_host(void* host, const void* source, std::size_t bytes) {
  refuse_in_capture("a copy to the host");
  const emulation::DeviceAccess access;
  std::memcpy(host, source, bytes);
}

void copy_on_device(void* destination, const void* source, std::size_t bytes) {
  emulation::submit([=] { std::memcpy(destination, source, bytes); });
}

void* pinned_allocate(std::size_t bytes) { return std::malloc(bytes); }
void pinned_free(void* memory) noexcept { std::free(memory); }
void copy_pinned_to_device(void* destination, const void* pinned, std::size_t bytes) {
  copy_to_device(destination, pinned, bytes);
}

// Nothing is ever waiting.
void* make_event() { return nullptr; }
void free_event(void*) noexcept {}
void record_event(void*) { refuse_in_capture("an event"); }
void wait_for_event(void*) {}

// Work runs at once, in whatever thread.
void* make_queue() { return nullptr; }
void free_queue(void*) noexcept {}
void use_queue(void*) noexcept {}

void begin_capture() {
  refuse_in_capture("a second capture");
  recording = std::make_unique<Recording>();
}

void* end_capture() { return recording.release(); }

void abandon_capture() noexcept { recording.reset(); }

void replay_capture(void* capture) {
  refuse_in_capture("a replay");
  const emulation::DeviceAccess access;
  for (const auto& work : *static_cast<Recording*>(capture)) work();
}

void free_capture(void* capture) noexcept { delete static_cast<Recording*>(capture); }

}  // namespace cuda
}  // namespace hax
