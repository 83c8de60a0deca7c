#include <omp.h>

#include <algorithm>
#include <new>

#include "data/dataset.h"
#include "data/hash_set.h"
#include "data/sample_scan.h"
#include "engine/check.h"

namespace hax {
namespace {

// Samples are drawn in blocks of at most this size. A block ends with a barrier, which is dear on a
// busy machine, so blocks are large.
constexpr std::int64_t kBlockBytes = 16 << 20;

// Consecutive samples as they go into the file. Sizes are known before anything is drawn.
struct Block {
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> begins;  // in tokens, one more than samples
  std::vector<std::byte> bytes;
  std::vector<std::uint64_t> hashes;
};

class SplitGenerator {
 public:
  SplitGenerator(const GenerateOptions& options, Split split, SplitWriter& writer)
      : split_(split),
        count_(static_cast<std::int64_t>(options.samples[static_cast<std::size_t>(split)])),
        threads_(options.threads > 0 ? options.threads : omp_get_max_threads()),
        bytes_(token_bytes(options.task)),
        block_(std::max<std::int64_t>(kBlockBytes / (options.task.fixed_length() * bytes_), 1)),
        writer_(writer),
        workers_(static_cast<std::size_t>(threads_), Worker(options.task, options.seed)),
        // No more combinations than slots are met.
        lengths_(static_cast<std::size_t>(
            std::min(options.task.size_count(), std::max<std::int64_t>(count_, 1)))) {
    for (std::size_t c = 0; c < lengths_.size(); ++c) {
      const TableSizes sizes = options.task.sizes(static_cast<std::int64_t>(c));
      lengths_[c] = static_cast<std::int32_t>(options.task.length(sizes));
    }
  }

  void reserve() {
    const auto combinations = static_cast<std::int64_t>(lengths_.size());
    std::int64_t tokens = 0;
    for (std::int64_t c = 0; c < combinations; ++c) {
      const std::int64_t slots = count_ / combinations + (c < count_ % combinations);
      tokens += slots * lengths_[static_cast<std::size_t>(c)];
    }
    writer_.reserve(count_, tokens);
  }

  void run(const DataProgress& progress) {
    HashSet seen(static_cast<std::uint64_t>(count_));
    report(progress, split_, 0, count_);
    Block blocks[2];  // one is drawn while the other is written
    int turn = 0;
    for (std::int64_t first = 0; first < count_; first += block_, turn = 1 - turn) {
      const std::int64_t last = std::min(first + block_, count_);
      plan(blocks[turn], first, last);
      fill(blocks[turn], first, blocks[1 - turn]);
      replace_repeated(blocks[turn], first, seen);
      report(progress, split_, last, count_);
    }
    writer_.append(blocks[1 - turn].bytes, blocks[1 - turn].lengths);
  }

 private:
  // What belongs to one thread.
  struct Worker {
    Worker(const JointRecallTask& task, std::uint64_t seed) : generator(task, seed) {}
    SampleGenerator generator;
    std::vector<std::int32_t> tokens;
  };

  void plan(Block& block, std::int64_t first, std::int64_t last) const {
    block.lengths.clear();
    block.begins.assign(1, 0);
    std::size_t combination = static_cast<std::size_t>(first) % lengths_.size();
    for (std::int64_t slot = first; slot < last; ++slot) {
      block.lengths.push_back(lengths_[combination]);
      block.begins.push_back(block.begins.back() + lengths_[combination]);
      if (++combination == lengths_.size()) combination = 0;
    }
    block.bytes.resize(static_cast<std::size_t>(block.begins.back() * bytes_));
    block.hashes.resize(block.lengths.size());
  }

  void store(const Worker& worker, Block& block, std::int64_t i) const {
    narrow(worker.tokens, bytes_,
           block.bytes.data() + block.begins[static_cast<std::size_t>(i)] * bytes_);
  }

  // Draws a block in parallel; one thread first writes the block before it.
  void fill(Block& block, std::int64_t first, const Block& before) {
    const auto count = static_cast<std::int64_t>(block.lengths.size());
    FirstFault fault;
#pragma omp parallel num_threads(threads_)
    {
      Worker& worker = workers_[static_cast<std::size_t>(omp_get_thread_num())];
#pragma omp single nowait
      fault.guard(-1, [&] { writer_.append(before.bytes, before.lengths); });
#pragma omp for schedule(dynamic, 64)
      for (std::int64_t i = 0; i < count; ++i) {
        fault.guard(i, [&] {
          worker.generator.start(static_cast<std::uint64_t>(first + i));
          block.hashes[static_cast<std::size_t>(i)] = worker.generator.draw(split_, worker.tokens);
          store(worker, block, i);
        });
      }
    }
    fault.rethrow();
  }

  // In the order of slots: a sample that occurred before gives way to the next one of its slot.
  void replace_repeated(Block& block, std::int64_t first, HashSet& seen) {
    constexpr std::size_t kAhead = 16;
    Worker& worker = workers_[0];
    const std::size_t count = block.hashes.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (i + kAhead < count) seen.prefetch(block.hashes[i + kAhead]);
      if (seen.insert(block.hashes[i])) continue;
      worker.generator.start(static_cast<std::uint64_t>(first) + i);
      while (!seen.insert(worker.generator.draw(split_, worker.tokens))) {
      }
      store(worker, block, static_cast<std::int64_t>(i));
    }
  }

  Split split_;
  std::int64_t count_;
  int threads_;
  int bytes_;           // of a stored token
  std::int64_t block_;  // samples drawn at a time
  SplitWriter& writer_;
  std::vector<Worker> workers_;
  std::vector<std::int32_t> lengths_;  // of each combination of sizes
};

}  // namespace

void generate_dataset(const std::filesystem::path& folder, const GenerateOptions& options,
                      const DataProgress& progress) {
  options.task.validate();
  // Times the longest sample, in bytes, this is still a 64-bit number.
  constexpr std::uint64_t kMost = std::uint64_t{1} << 32;
  for (const Split split : kSplits) {
    const std::uint64_t count = options.samples[static_cast<std::size_t>(split)];
    check_usage(count <= kMost, "--{} {}: at most {} samples", name_of(split), count, kMost);
  }
  check_usage(options.samples != SplitCounts{}, "no samples were asked for");
  require_supply(options.task, options.samples);
  DatasetWriter writer(folder, {.task = options.task, .seed = options.seed}, options.replace);
  try {
    std::vector<SplitGenerator> generators;
    for (const Split split : kSplits) generators.emplace_back(options, split, writer.split(split));
    for (SplitGenerator& generator : generators) generator.reserve();
    for (SplitGenerator& generator : generators) generator.run(progress);
  } catch (const std::bad_alloc&) {
    throw Error("not enough memory for the hashes that find repeated samples; ask for fewer");
  }
  writer.publish();
}

}  // namespace hax
