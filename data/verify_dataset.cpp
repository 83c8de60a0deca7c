#include <algorithm>
#include <string>

#include "data/dataset.h"
#include "data/sample_scan.h"
#include "engine/check.h"

namespace hax {

void verify_dataset(const Dataset& dataset, const DataProgress& progress) {
  constexpr std::int64_t kBlock = 1 << 15;
  DuplicateFinder duplicates;
  std::vector<std::uint64_t> hashes;
  for (const Split split : kSplits) {
    const SplitFile& file = dataset.split(split);
    file.check_tokens();
    report(progress, split, 0, file.samples());
    for (std::int64_t first = 0; first < file.samples(); first += kBlock) {
      const std::int64_t last = std::min(first + kBlock, file.samples());
      hashes.resize(static_cast<std::size_t>(last - first));
      FirstFault fault;
#pragma omp parallel
      {
        std::vector<std::int32_t> tokens;
#pragma omp for schedule(dynamic, 64)
        for (std::int64_t i = first; i < last; ++i) {
          fault.guard(i, [&] {
            file.sample(i, tokens);
            const SampleCheck result = check_sample(file.task(), tokens);
            check(result.fault.empty(), "{}: sample {}: {}", file.path().string(), i, result.fault);
            const std::uint64_t hash = sample_hash(tokens);
            check(file.info().origin != Origin::generated || split_of(hash) == split,
                  "{}: sample {}: belongs to the split {} by its hash", file.path().string(), i,
                  name_of(split_of(hash)));
            hashes[static_cast<std::size_t>(i - first)] = hash;
          });
        }
      }
      fault.rethrow();
      for (std::int64_t i = first; i < last; ++i) {
        const auto before = duplicates.insert(split, hashes[static_cast<std::size_t>(i - first)]);
        check(!before, "{}: sample {}: is {} sample {} again", file.path().string(), i,
              before ? name_of(before->split) : "", before ? before->index : 0);
      }
      report(progress, split, last, file.samples());
    }
  }
}

}  // namespace hax
