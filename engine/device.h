// Where a tensor lives, and the tag types that choose a kernel.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hax {

/// Tags: every kernel is declared once for each, as its first parameter.
struct Cpu {};
struct Cuda {};

/// Whether this build contains the CUDA backend.
inline constexpr bool kHasCuda = HAX_HAS_CUDA != 0;

struct Device {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;

  bool is_cpu() const { return kind == Kind::cpu; }
  bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{Device::Kind::cpu};
inline constexpr Device kCuda{Device::Kind::cuda};

/// "cpu" or "cuda".
std::string_view name_of(Device device);
/// The device called `name`. Throws UsageError for other names and for cuda in a build or on a
/// machine without it.
Device parse_device(std::string_view name);

}  // namespace hax
