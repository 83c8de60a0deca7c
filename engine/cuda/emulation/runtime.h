// Internals of the emulated device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace hax::emulation {

/// Queues work: runs it, or adds it to the graph that is being captured.
void submit(std::function<void()> work);
bool capturing();

/// The order of the threads and blocks of later launches: 0 as they are numbered, anything else
/// picks a permutation. The environment variable HAX_EMULATE_ORDER gives the first.
void set_order(std::uint64_t seed);

/// While alive, device memory may be touched. Outside, host code that reads or writes it crashes,
/// as it would on a real device.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace hax::emulation
