// What the steps of a run on CUDA read, made by a thread of the host while the device is at work on
// earlier ones.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/pinned.h"
#include "train/step_inputs.h"
#include "train/task.h"

namespace hax {

struct PrefetchOptions {
  std::int64_t bsz = 1, packs = 1;  ///< samples of a pack, packs of a step
  std::int64_t first = 0;           ///< steps done before, so the number of the first in the order
  std::uint64_t seed = 0;           ///< of the draws
};

/// Steps one after the other. Not copied; one thread calls take() and give_back().
class Prefetcher {
 public:
  /// A step as the host has it.
  struct Step {
    std::vector<Batch> packs;
    std::unique_ptr<PinnedMemory> words;  ///< as write_step() left them
  };

  Prefetcher(const Task& task, std::vector<Draw> draws, const PrefetchOptions& options);
  ~Prefetcher();

  /// The next step. Rethrows what making it threw.
  Step& take();
  /// Its words are sent, its packs no longer needed: a later step may have its place.
  void give_back(Step& step);

 private:
  struct Slot : Step {
    std::exception_ptr error;
  };
  void make(Slot& slot, std::int64_t step) const;
  void work(std::int64_t step);

  const Task& task_;
  std::vector<Draw> draws_;
  PrefetchOptions options_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Slot*> empty_, ready_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace hax
