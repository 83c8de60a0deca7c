// How long the device takes. No CUDA header needed.
#pragma once

namespace hax::cuda {

/// A place in the stream that knows when the device passed it, to about half a microsecond. The
/// emulation answers with the host's clock. Not in a capture, which would keep the place for
/// itself.
class TimeMark {
 public:
  TimeMark();
  ~TimeMark();
  TimeMark(const TimeMark&) = delete;
  TimeMark& operator=(const TimeMark&) = delete;

  /// Queues the place. Recorded again, it is the later one.
  void record();
  /// Seconds from `earlier` to here. Waits until the device has passed both. Throws Error when
  /// either was never recorded.
  double since(const TimeMark& earlier) const;

 private:
  void* event_;
  bool recorded_ = false;
};

}  // namespace hax::cuda
