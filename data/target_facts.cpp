#include "data/target_facts.h"

#include <map>

#include "engine/check.h"

namespace hax {
namespace {

// The contexts that a token stands under, from the outermost level to the key itself.
class Path {
 public:
  explicit Path(const JointRecallTask& task) : task_(task), tokens_(levels()) {}

  /// Takes a token in; true when it is a key, so that tokens() names an entry of the table.
  bool take(std::int32_t token) {
    for (std::size_t level = 0; level < levels(); ++level) {
      const std::int32_t first = task_.first_token(static_cast<int>(level));
      const std::int32_t width = task_.range(static_cast<int>(level)).hi;
      if (token < first || token >= first + width) continue;
      tokens_[level] = token;
      innermost_ += level + 2 == levels() ? 1 : 0;
      return level + 1 == levels();
    }
    return false;  // a value, bos, sep
  }
  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  /// Contexts of the innermost level taken so far.
  std::int64_t innermost() const { return innermost_; }

 private:
  std::size_t levels() const { return static_cast<std::size_t>(task_.levels); }

  const JointRecallTask& task_;
  std::vector<std::int32_t> tokens_;
  std::int64_t innermost_ = 0;
};

}  // namespace

std::vector<TargetFacts> target_facts(const JointRecallTask& task, const Batch& batch) {
  const auto tokens = batch.tokens.values<std::int32_t>();
  const auto targets = batch.target_rows.values<std::int32_t>();
  std::vector<TargetFacts> facts;
  facts.reserve(targets.size());
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    const std::int64_t first = batch.target_samples.begin(s), last = batch.target_samples.end(s);
    std::map<std::vector<std::int32_t>, std::int64_t> table;
    Path path(task);
    std::int64_t contexts = 0;
    std::int64_t next = first;
    for (std::int64_t row = batch.sequences.begin(s); row < batch.sequences.end(s); ++row) {
      const bool is_key = path.take(tokens[static_cast<std::size_t>(row)]);
      const bool is_target = next < last && targets[static_cast<std::size_t>(next)] == row;
      if (!is_target) {
        if (is_key) table[path.tokens()] = row;
        if (next == first) contexts = path.innermost();
        continue;
      }
      if (next == first && task.levels > 1) --contexts;  // the question's own first context
      const auto found = table.find(path.tokens());
      check(is_key && found != table.end(), "sample {} asks at token {} for what its table lacks",
            s, row - batch.sequences.begin(s));
      const std::int64_t groups = task.levels > 1 ? contexts : 1;
      facts.push_back({groups, (last - first) / groups, row - found->second});
      ++next;
    }
  }
  return facts;
}

}  // namespace hax
