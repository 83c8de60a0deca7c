#include "train/step_memory.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "engine/memory.h"
#include "engine/memory_trace.h"
#include "train/step.h"

namespace hax {
namespace {

constexpr std::int64_t kTokens = 1024;  // of the shorter of two traced sequences
// Ops that keep something for every so many tokens round up; no count of ours does by more.
constexpr std::int64_t kTokenStep = 256;

// `distinct` tokens in turn, targets evenly spread.
Batch sequence_of(const SequenceSizes& sizes) {
  std::vector<std::int32_t> tokens, rows, labels;
  for (std::int64_t t = 0; t < sizes.tokens; ++t) {
    tokens.push_back(static_cast<std::int32_t>(t % sizes.distinct));
  }
  for (std::int64_t r = 0; r < sizes.targets; ++r) {
    rows.push_back(static_cast<std::int32_t>(r * sizes.tokens / sizes.targets));
    labels.push_back(0);
  }
  Batch batch;
  batch.tokens = batch.labels = Tensor::from(tokens);
  batch.sequences = Sequences::single(sizes.tokens);
  batch.target_rows = Tensor::from(rows);
  batch.target_labels = Tensor::from(labels);
  batch.target_samples = Sequences::single(sizes.targets);
  return batch;
}

// What one sequence takes and returns, its shard's buffer of gradients aside.
std::vector<MemoryTrace::Block> traced(const Model& model, const Parameters& parameters,
                                       const SequenceSizes& sizes) {
  const Batch batch = sequence_of(sizes);
  Parameters gradients(model.parameters());
  const MemoryTrace trace;
  step_gradients(model, parameters, batch, DrawnInputs(0, 0), {.shards = 1}, gradients);
  std::vector<MemoryTrace::Block> blocks = trace.blocks();
  check(!blocks.empty() && blocks.front().bytes == gradients.flat().bytes(),
        "memory of a step: the first block of a shard is not its gradients");
  blocks.erase(blocks.begin());
  return blocks;
}

std::int64_t pool_bytes(std::int64_t bytes) {
  return static_cast<std::int64_t>(block_bytes(static_cast<std::size_t>(bytes)));
}

// Calls visit(block, true) when a block is taken and visit(block, false) when it is returned, in
// order.
template <class Block, class F>
void replay(const std::vector<Block>& blocks, F&& visit) {
  std::map<std::int64_t, std::pair<const Block*, bool>> events;
  for (const Block& block : blocks) {
    events[block.taken] = {&block, true};
    if (block.returned != MemoryTrace::kStays) events[block.returned] = {&block, false};
  }
  for (const auto& [time, event] : events) visit(*event.first, event.second);
}

}  // namespace

std::int64_t StepMemoryModel::Block::bytes(const SequenceSizes& sizes) const {
  const double sum = fixed + token * static_cast<double>(sizes.tokens) +
                     target * static_cast<double>(sizes.targets) +
                     distinct * static_cast<double>(sizes.distinct);
  return std::max<std::int64_t>(0, std::llround(sum));
}

StepMemoryModel::StepMemoryModel(const Model& model)
    : flat_bytes_(4 * model.parameters().flat_size()), vocabulary_(model.config().vocab_size) {
  // Quarters of the vocabulary, so that all of it is there; as few as make a difference.
  const std::int64_t some = std::clamp<std::int64_t>(vocabulary_ / 4, 1, 32);
  few_distinct_ = fit(model, {kTokens, 4 * some, some}, {kTokens, 4 * some, some});
  many_distinct_ = fit(model, {kTokens, std::max<std::int64_t>(1, some / 2), some},
                       {kTokens, std::max<std::int64_t>(1, some / 4), some});
}

// Nothing when the traces do not fit together.
std::optional<StepMemoryModel::Blocks> StepMemoryModel::fit(const Model& model,
                                                            const SequenceSizes& at,
                                                            const SequenceSizes& step) const {
  Parameters parameters(model.parameters());
  parameters.initialize(0);
  const auto base = traced(model, parameters, at);
  bool same_order = true;
  const auto slope = [&](SequenceSizes sizes, std::int64_t difference) {
    const auto other = traced(model, parameters, sizes);
    const auto same_time = [](const MemoryTrace::Block& a, const MemoryTrace::Block& b) {
      return a.taken == b.taken && a.returned == b.returned;
    };
    std::vector<double> slopes(base.size());
    if (!std::ranges::equal(base, other, same_time)) {
      same_order = false;
      return slopes;
    }
    for (std::size_t i = 0; i < base.size(); ++i) {
      slopes[i] =
          static_cast<double>(other[i].bytes - base[i].bytes) / static_cast<double>(difference);
    }
    return slopes;
  };
  const auto more = [&](std::int64_t SequenceSizes::*what) {
    SequenceSizes sizes = at;
    sizes.*what += step.*what;
    return slope(sizes, step.*what);
  };
  const std::vector<double> token = more(&SequenceSizes::tokens),
                            target = more(&SequenceSizes::targets),
                            distinct = at.distinct + step.distinct <= vocabulary_
                                           ? more(&SequenceSizes::distinct)
                                           : std::vector<double>(base.size());
  if (!same_order) return std::nullopt;
  Blocks blocks;
  for (std::size_t i = 0; i < base.size(); ++i) {
    Block block{0, token[i], target[i], distinct[i], base[i].taken, base[i].returned};
    block.fixed = static_cast<double>(base[i].bytes) - static_cast<double>(block.bytes(at));
    blocks.push_back(block);
  }
  return blocks;
}

const StepMemoryModel::Blocks& StepMemoryModel::blocks_at(const SequenceSizes& sizes) const {
  return sizes.distinct < sizes.targets ? *few_distinct_ : *many_distinct_;
}

StepMemory StepMemoryModel::predict(const StepSizes& sizes) const {
  require_predictable();
  StepMemory memory;
  const std::int64_t buffer = pool_bytes(flat_bytes_);
  memory.parameters = 4 * buffer;
  memory.shards = std::min(sizes.shards, sizes.batch) * buffer;
  memory.batch = 2 * pool_bytes(4 * sizes.batch * sizes.most.tokens) +
                 2 * pool_bytes(4 * sizes.batch * sizes.most.targets);
  memory.at_once = std::min({sizes.threads, sizes.shards, sizes.batch});
  std::int64_t now = 0;
  replay(blocks_at(sizes.most), [&](const Block& block, bool taken) {
    const std::int64_t bytes = pool_bytes(block.bytes(sizes.most));
    now += taken ? bytes : -bytes;
    memory.sequence = std::max(memory.sequence, now);
  });
  for (const Count& count : needed(sizes)) memory.reserved += count.bytes * count.count;
  memory.reserved += memory.parameters;
  return memory;
}

std::vector<StepMemoryModel::Count> StepMemoryModel::needed(const StepSizes& sizes) const {
  SequenceSizes least = sizes.least, most = sizes.most;
  least.tokens = least.tokens / kTokenStep * kTokenStep;
  most.tokens = (most.tokens + kTokenStep - 1) / kTokenStep * kTokenStep;

  // The most blocks of each class alive at once in a sequence, a block counting for every class
  // that it falls into at some length.
  std::map<std::int64_t, std::int64_t> counts;
  const auto classes = [](std::int64_t low, std::int64_t high, auto&& visit) {
    for (std::int64_t bytes = pool_bytes(low); bytes <= pool_bytes(high);
         bytes = pool_bytes(bytes + 1)) {
      visit(bytes);
    }
  };
  for (const bool few : {true, false}) {
    // Sequences of this kind are there only if some size has fewer, or no fewer, distinct tokens
    // than targets.
    if (few ? least.distinct >= most.targets : most.distinct < least.targets) continue;
    std::map<std::int64_t, std::int64_t> alive;
    replay(few ? *few_distinct_ : *many_distinct_, [&](const Block& block, bool taken) {
      classes(block.bytes(least), block.bytes(most), [&](std::int64_t bytes) {
        alive[bytes] += taken ? 1 : -1;
        counts[bytes] = std::max(counts[bytes], alive[bytes]);
      });
    });
  }
  const std::int64_t at_once = std::min({sizes.threads, sizes.shards, sizes.batch});
  for (auto& [bytes, count] : counts) count *= at_once;
  counts[pool_bytes(flat_bytes_)] += std::min(sizes.shards, sizes.batch);
  const auto add_batch = [&](std::int64_t low, std::int64_t high) {
    classes(4 * sizes.batch * low, 4 * sizes.batch * high,
            [&](std::int64_t bytes) { counts[bytes] += 2; });
  };
  add_batch(sizes.least.tokens, sizes.most.tokens);
  add_batch(sizes.least.targets, sizes.most.targets);

  std::vector<Count> result;
  for (const auto& [bytes, count] : counts) result.push_back({bytes, count});
  return result;
}

void StepMemoryModel::require_predictable() const {
  check(predicts(), "memory of a step: sequences of other sizes ask the pool in another order");
}

void StepMemoryModel::reserve(const StepSizes& sizes) const {
  require_predictable();
  for (const Count& count : needed(sizes)) {
    reserve_memory(kCpu, static_cast<std::size_t>(count.bytes), count.count);
  }
}

}  // namespace hax
