#include "tools/bench/memory_use.h"

#include <malloc.h>

#include <fstream>
#include <string>

#include "engine/memory.h"

namespace hax::bench {
namespace {

// "VmHWM:   1234 kB" of a file under /proc, in bytes.
std::optional<double> kilobytes_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return 1024 * std::stod(line.substr(key.size() + 1));
  }
  return std::nullopt;
}

}  // namespace

MemoryWatch::MemoryWatch(Device device) : device_(device) {
  release_cached_memory(device);
  ::malloc_trim(0);
  reset_peak_memory(device);
  before_ = static_cast<double>(memory_stats(device).bytes_in_use);
  std::ofstream peak(
      "/proc/self/clear_refs");  // 5: the peak resident size starts from the present one
  peak << 5 << std::flush;
  resident_known_ = peak.good();
}

MemoryUse MemoryWatch::read() const {
  return {static_cast<double>(memory_stats(device_).peak_bytes_in_use) - before_,
          resident_known_ ? kilobytes_of("/proc/self/status", "VmHWM") : std::nullopt};
}

std::optional<double> available_memory() { return kilobytes_of("/proc/meminfo", "MemAvailable"); }

}  // namespace hax::bench
