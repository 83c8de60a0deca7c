// Numbers too small to be normal (below 1.2e-38 in float32) cost some hundred cycles each on most
// processors. A state or gradient that decays along a sequence gets there soon, and none of them
// matters.
#pragma once

#include <cstdint>

namespace hax {

/// While alive, this thread treats denormal numbers as zero, on input and on output.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  std::uint64_t before_;
};

}  // namespace hax
