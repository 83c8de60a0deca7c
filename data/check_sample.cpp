#include <vector>

#include "data/joint_recall.h"
#include "engine/check.h"

namespace hax {
namespace {

// Reads a sample front to back. The nesting is in the recursion; the first fault ends it.
class Reader {
 public:
  Reader(const JointRecallTask& task, std::span<const std::int32_t> tokens)
      : task_(task), tokens_(tokens), seen_(static_cast<std::size_t>(task.levels)) {
    result_.sizes.fill(1);
    std::size_t blocks = 1;
    for (int level = 0; level < task.levels; ++level) {
      result_.sizes[index(level)] = 0;
      blocks *= static_cast<std::size_t>(task.range(level).hi);
      seen_[index(level)].resize(blocks);
    }
    table_.resize(blocks);
  }

  SampleCheck read() {
    const bool ok = expect(kBosToken, "bos") && half(0) && expect(kSepToken, "sep") && half(1) &&
                    (at_ == tokens_.size() || fault("the end"));
    if (!ok) result_.sizes.fill(0);
    return result_;
  }

 private:
  static std::size_t index(int level) { return static_cast<std::size_t>(level); }

  bool fault_at(std::size_t position, std::string what) {
    result_.fault = fmt::format("token {}: {}", position + 1, what);
    return false;
  }
  bool fault(std::string_view expected) {
    if (at_ >= tokens_.size()) {
      return fault_at(at_, fmt::format("the sample ends, expected {}", expected));
    }
    return fault_at(at_, fmt::format("{} ({}), expected {}", tokens_[at_],
                                     token_label(task_, tokens_[at_]), expected));
  }
  bool expect(std::int32_t token, std::string_view name) {
    if (at_ >= tokens_.size() || tokens_[at_] != token) return fault(name);
    ++at_;
    return true;
  }
  // The entry number of the next token when it belongs to `first .. first + count - 1`, else -1.
  std::int32_t entry(std::int32_t first, std::int32_t count) const {
    if (at_ >= tokens_.size()) return -1;
    const std::int64_t id = std::int64_t{tokens_[at_]} - first;
    return 0 <= id && id < count ? static_cast<std::int32_t>(id) : -1;
  }

  bool half(int which) {
    half_ = which;
    return blocks(0, 0);
  }

  // The blocks of one level; `row` numbers the block around them.
  bool blocks(int level, std::size_t row) {
    const bool keys = level == task_.levels - 1;
    const Range range = task_.range(level);
    std::int32_t count = 0;
    for (;; ++count) {
      const std::int32_t id = entry(task_.first_token(level), range.hi);
      if (id < 0) break;
      const std::size_t cell =
          row * static_cast<std::size_t>(range.hi) + static_cast<std::size_t>(id);
      std::uint8_t& seen = seen_[index(level)][cell];
      if (seen != half_) {
        return fault_at(at_, fmt::format("{} {}", token_label(task_, tokens_[at_]),
                                         half_ == seen - 1 ? "occurs twice in its block"
                                                           : "was not in the first half here"));
      }
      ++seen;
      ++at_;
      if (!(keys ? value(cell) : blocks(level + 1, cell))) return false;
    }
    std::int32_t& size = result_.sizes[index(level)];
    if (count == 0) return fault(keys ? "a key" : "a context");
    if (size == 0 && !range.contains(count)) {
      return fault_at(at_, fmt::format("a block of {} {}, expected {}", count,
                                       keys ? "keys" : "contexts", to_string(range)));
    }
    if (size == 0) size = count;
    return size == count || fault_at(at_, fmt::format("a block of {} {} after one of {}", count,
                                                      keys ? "keys" : "contexts", size));
  }

  bool value(std::size_t cell) {
    const std::int32_t value = entry(kFirstSymbol, task_.values);
    if (value < 0) return fault("a value");
    if (half_ == 1 && table_[cell] != value) {
      return fault_at(at_,
                      fmt::format("value {} where the first half has {}", value, table_[cell]));
    }
    table_[cell] = value;
    ++at_;
    return true;
  }

  const JointRecallTask& task_;
  std::span<const std::int32_t> tokens_;
  std::size_t at_ = 0;
  int half_ = 0;
  std::vector<std::vector<std::uint8_t>> seen_;  // per level and entry: in how many halves
  std::vector<std::int32_t> table_;
  SampleCheck result_;
};

}  // namespace

SampleCheck check_sample(const JointRecallTask& task, std::span<const std::int32_t> tokens) {
  return Reader(task, tokens).read();
}

}  // namespace hax
