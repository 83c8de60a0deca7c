// Internals of the emulated device.
#pragma once

#include <cstddef>
#include <functional>

namespace hax::emulation {

/// Queues work: runs it, or adds it to the graph that is being captured.
void submit(std::function<void()> work);
bool capturing();

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
