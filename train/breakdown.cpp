#include "train/breakdown.h"

#include <nlohmann/json.hpp>

#include "engine/check.h"

namespace hax {

std::pair<std::int64_t, std::int64_t> distance_class(std::int64_t distance) {
  check(distance >= 1, "a distance of {} tokens: an answer lies before its question", distance);
  std::int64_t octave = 1;
  while (octave <= distance / 2) octave *= 2;
  const std::int64_t middle = octave + octave / 2;
  if (octave == 1) return {1, 2};
  return distance < middle ? std::pair{octave, middle} : std::pair{middle, 2 * octave};
}

void Breakdown::add(const Batch& batch, std::span<const TargetFacts> facts,
                    std::span<const double> hits) {
  if (facts.empty()) return;
  check(facts.size() == hits.size(), "breakdown: {} facts for {} targets", facts.size(),
        hits.size());
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    const std::int64_t first = batch.target_samples.begin(s), last = batch.target_samples.end(s);
    double right = 0;
    for (std::int64_t t = first; t < last; ++t) {
      const auto target = static_cast<std::size_t>(t);
      right += hits[target];
      Count& at = distances_[distance_class(facts[target].distance).first];
      ++at.count;
      at.right += hits[target];
    }
    if (first == last) continue;
    const TargetFacts& sample = facts[static_cast<std::size_t>(first)];
    Count& size = sizes_[{sample.contexts, sample.keys}];
    ++size.count;
    size.right += right / static_cast<double>(last - first);
  }
}

std::string Breakdown::to_json() const {
  using Json = nlohmann::json;
  const auto share = [](const Count& c) { return c.right / static_cast<double>(c.count); };
  Json sizes = Json::array(), distances = Json::array();
  for (const auto& [size, count] : sizes_) {
    sizes.push_back({{"contexts", size.first},
                     {"keys", size.second},
                     {"samples", count.count},
                     {"accuracy", share(count)}});
  }
  for (const auto& [from, count] : distances_) {
    distances.push_back({{"from", from},
                         {"below", distance_class(from).second},
                         {"targets", count.count},
                         {"accuracy", share(count)}});
  }
  return Json{{"by_size", sizes}, {"by_distance", distances}}.dump(1) + "\n";
}

}  // namespace hax
