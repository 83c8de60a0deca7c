// Accuracy apart by the size of the table and by the distance to the answer.
#pragma once

#include <map>
#include <span>
#include <string>
#include <utility>

#include "data/target_facts.h"

namespace hax {

/// Counts right answers. What it tells depends on the answers alone, not on how they came in
/// batches.
class Breakdown {
 public:
  /// A batch with the facts and the hits (1 right, 0 wrong) of its targets; nothing is counted
  /// where a task knows no facts. Throws Error when they are not one a target.
  void add(const Batch& batch, std::span<const TargetFacts> facts, std::span<const double> hits);
  bool empty() const { return sizes_.empty(); }

  /// {"by_size": [{"contexts", "keys", "samples", "accuracy"}...], by samples as the accuracy of
  /// training is, "by_distance": [{"from", "below", "targets", "accuracy"}...], by targets, in
  /// classes of half an octave}, both ascending.
  std::string to_json() const;

 private:
  struct Count {
    std::int64_t count = 0;
    double right = 0;
  };
  std::map<std::pair<std::int64_t, std::int64_t>, Count> sizes_;
  std::map<std::int64_t, Count> distances_;  // by the first distance of the class
};

/// The class of distances that holds `distance` >= 1: from the first number to below the second, of
/// 1, 2, 3, 4, 6, 8, 12, 16, 24, ...
std::pair<std::int64_t, std::int64_t> distance_class(std::int64_t distance);

}  // namespace hax
