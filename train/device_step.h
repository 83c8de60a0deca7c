// Training steps on CUDA: gradients of all packs, clipping and update are queued, then the host
// asks for the sums. A step whose lengths have come before is a graph.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "train/optimizer.h"
#include "train/prefetch.h"

namespace hax {

class CachingPool;

struct StepOutcome {
  StepResult result;
  double norm = 0;          ///< of the gradients, before clipping
  bool bad_update = false;  ///< an updated parameter is not finite
};

struct UpdateOptions {
  std::int64_t step = 1;  ///< from 1 on
  double lr = 0, clip_norm = 0, gate_loss_weight = 0;
};

/// The steps of a run, in their order. Which kernels run, on what and in which order does not
/// depend on graphs, so results don't either.
class DeviceSteps {
 public:
  /// Graphs kept; lengths that come after so many have one are queued launch by launch.
  static constexpr std::size_t kMostGraphs = 64;

  /// All arguments stay with the caller, where they are. With `graphs` a step whose lengths were
  /// seen once before is captured, and replayed from then on.
  DeviceSteps(const Model& model, const Task& task, const PrefetchOptions& order, bool graphs,
              AdamW& optimizer, Parameters& gradients, Parameters& parameters);
  ~DeviceSteps();

  /// Runs the next step: the gradients become those of its packs, the optimiser clips them and
  /// updates the parameters; these stay as they were when a loss or gradient is not finite.
  StepOutcome next(const UpdateOptions& update);

  std::size_t graphs() const { return captured_; }
  /// Why there are no further graphs; "" while there may be.
  const std::string& why_no_graphs() const { return why_no_graphs_; }

 private:
  struct Known;  // lengths that have come

  void queue(const StepInputs& inputs, const UpdateOptions& update, StepSums& sums);
  StepOutcome outcome(const StepSums& sums, const std::vector<Batch>& packs,
                      const UpdateOptions& update) const;
  void capture(Known& known, const UpdateOptions& update);

  const Model& model_;
  std::vector<Draw> draws_;
  AdamW& optimizer_;
  Parameters &gradients_, &parameters_;
  Prefetcher prefetcher_;
  bool graphs_;
  std::string why_no_graphs_;
  std::size_t captured_ = 0;
  std::shared_ptr<CachingPool> pool_;  // of all graphs: they run one after the other
  std::map<std::vector<std::int64_t>, std::unique_ptr<Known>> known_;
};

}  // namespace hax
