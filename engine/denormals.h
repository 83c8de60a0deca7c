// Numbers too small to be normal (below 1.2e-38 in float32) cost some hundred cycles each on most
// processors. A state or gradient that decays along a sequence gets there soon, and none of them
// matters.
#pragma once

#include <cstdint>

namespace hax {

/// How a thread treats denormal numbers, to hand on to another thread.
class DenormalMode {
 public:
  static DenormalMode current();
  void apply() const;

 private:
  std::uint64_t word_ = 0;
};

/// While alive, this thread treats denormal numbers as zero, on input and on output.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  DenormalMode before_;
};

}  // namespace hax
