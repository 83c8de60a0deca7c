// Batches of a run, made by a thread of the host while the device is at work on earlier ones.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/device_batch.h"
#include "train/task.h"

namespace hax {

/// The samples of one step on CUDA, cut into packs.
struct DeviceBatches {
  std::vector<Batch> packs;
  std::int64_t sequences = 0, targets = 0;  ///< of all packs
};

/// Steps one after the other. Not copied; one thread calls next().
class Prefetcher {
 public:
  /// Steps of packs x bsz samples of the training order, from step `first` (counted from 0) on.
  Prefetcher(const Task& task, std::int64_t bsz, std::int64_t packs, std::int64_t first);
  ~Prefetcher();

  /// The next step's samples, on their way to the device. Rethrows what making them threw.
  DeviceBatches next();

 private:
  struct Slot {
    std::vector<Batch> packs;
    std::vector<std::unique_ptr<PinnedMemory>> memory;  // one a pack, kept and grown
    std::exception_ptr error;
  };
  void make(Slot& slot, std::int64_t step) const;
  void work(std::int64_t step);

  const Task& task_;
  std::int64_t bsz_, packs_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slot*> empty_, ready_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace hax
