#include "train/device_step.h"

#include <cmath>
#include <optional>

#include "engine/graph.h"
#include "engine/memory.h"
#include "train/pack_step.h"

namespace hax {
namespace {

// More lengths than these are not remembered: they hardly come again.
constexpr std::size_t kMostKnown = 4096;

// All that shapes, grids and derived tables of a step depend on.
std::vector<std::int64_t> lengths_of(const std::vector<Batch>& packs) {
  std::vector<std::int64_t> lengths;
  for (const Batch& pack : packs) {
    lengths.push_back(pack.count());
    for (std::int64_t s = 0; s < pack.count(); ++s) {
      lengths.push_back(pack.sequences.length(s));
      lengths.push_back(pack.sequences.padded(s));
      lengths.push_back(pack.target_samples.length(s));
    }
  }
  return lengths;
}

}  // namespace

struct DeviceSteps::Known {
  std::optional<StepInputs> inputs;  // from the second time on
  std::optional<StepSums> sums;
  std::unique_ptr<Graph> graph;  // last: it uses the others
};

DeviceSteps::DeviceSteps(const Model& model, const Task& task, const PrefetchOptions& order,
                         bool graphs, AdamW& optimizer, Parameters& gradients,
                         Parameters& parameters)
    : model_(model),
      draws_(draws_of(model.config())),
      optimizer_(optimizer),
      gradients_(gradients),
      parameters_(parameters),
      prefetcher_(task, draws_, order),
      graphs_(graphs) {}

DeviceSteps::~DeviceSteps() = default;

// What all steps of these lengths have in common; the learning rate is not among it.
void DeviceSteps::queue(const StepInputs& inputs, const UpdateOptions& update, StepSums& sums) {
  Divisors divisors{0, 0};
  for (const Batch& pack : inputs.packs()) {
    divisors.targets += static_cast<double>(pack.target_rows.numel());
    divisors.sequences += static_cast<double>(pack.count());
  }
  check(divisors.targets > 0, "the batch has no token to predict");
  const PackContext context{model_,   Leaves(parameters_, gradients_), inputs.random(),
                            divisors, update.gate_loss_weight,         true};
  fill(sums.tensor(), 0);
  fill(gradients_.flat(), 0);
  std::int64_t first = 0;
  for (const Batch& pack : inputs.packs()) {
    queue_pack(context, pack, first, sums);
    first += pack.count();
  }
  optimizer_.queue_update(gradients_, parameters_, sums);
}

StepOutcome DeviceSteps::outcome(const StepSums& sums, const std::vector<Batch>& packs,
                                 const UpdateOptions& update) const {
  const StepSums::Values values = sums.read();
  return {result_of(values, packs, update.gate_loss_weight), std::sqrt(values.square),
          values.bad_update != 0};
}

// A step that can't be captured is no failure: it has just run.
void DeviceSteps::capture(Known& known, const UpdateOptions& update) {
  try {
    known.graph =
        std::make_unique<Graph>([&] { queue(*known.inputs, update, *known.sums); }, pool_);
    pool_ = known.graph->pool();
    ++captured_;
  } catch (const Error& error) {  // out of memory, too: without graphs a step needs less
    why_no_graphs_ = error.what();
    graphs_ = false;
    known.inputs.reset();
    known.sums.reset();
  }
}

StepOutcome DeviceSteps::next(const UpdateOptions& update) {
  Prefetcher::Step& step = prefetcher_.take();
  const std::vector<Batch> packs = step.packs;  // handles
  optimizer_.set_factors(update.step, update.lr, update.clip_norm);
  const auto send = [&](StepInputs& inputs) {
    step.words->send(inputs.words());
    prefetcher_.give_back(step);
  };

  Known* known = nullptr;
  bool again = false;
  if (graphs_ || captured_ > 0) {
    const auto [entry, inserted] = known_.try_emplace(lengths_of(packs));
    if (inserted) entry->second = std::make_unique<Known>();
    known = entry->second.get();
    again = !inserted;
    if (inserted && known_.size() > kMostKnown) known_.erase(entry), known = nullptr;
  }
  if (known != nullptr && known->graph) {
    send(*known->inputs);
    known->graph->replay();
    return outcome(*known->sums, packs, update);
  }
  if (known != nullptr && again && graphs_ && captured_ < kMostGraphs) {
    known->inputs.emplace(packs, draws_);
    known->sums.emplace(parameters_.device());
    send(*known->inputs);
    queue(*known->inputs, update, *known->sums);  // makes what is derived from the lengths
    StepOutcome result = outcome(*known->sums, packs, update);
    capture(*known, update);
    return result;
  }
  StepInputs inputs(packs, draws_);
  StepSums sums(parameters_.device());
  send(inputs);
  queue(inputs, update, sums);
  return outcome(sums, packs, update);
}

}  // namespace hax
