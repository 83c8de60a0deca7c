// Rows of `hax bench`: a table that grows while it measures, or one JSON array at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tools/bench/statistics.h"

namespace hax::bench {

/// One line. What does not apply stays empty and is not printed. (`= {}`: a Row may be made from
/// its name alone.)
struct Row {
  std::string name = {};
  std::string label = {};  ///< what the table prints for the name, where that is shorter
  std::optional<double> median_s = {}, fastest_s = {}, floor_s = {}, ratio = {}, floor_full_s = {};
  std::optional<double> ns_per_token = {}, tokens_per_s = {}, rate = {}, error = {};
  std::optional<double> bytes = {}, predicted_bytes = {}, resident_bytes = {};
  std::optional<double> slope = {}, speedup = {}, cores = {}, hours = {};
  std::optional<double> peer_s = {}, peer_ratio = {};
  std::optional<double> ops = {}, ns_per_op = {};  ///< of graph bookkeeping
  /// Of the step, for graph bookkeeping; on a GPU the larger one of the next two.
  std::optional<double> share = {};
  std::optional<double> copy_share = {}, product_share = {};  ///< of the measured rates
  std::optional<double> target_share = {};                    ///< that the first of them should be
  std::optional<double> moved_bytes = {}, flops = {}, launches = {};  ///< counted, of one run
  std::optional<double> alone_s = {};     ///< median of the same where nothing runs beside it
  std::optional<double> launched_s = {};  ///< median launch by launch, where the rest is of a graph
  std::optional<double> runs = {}, threads = {}, tokens = {}, parameters = {};
  std::string unit = {};  ///< of `rate`
  std::string kernel = {}, peer = {}, peer_allocator = {};
  std::string note = {};     ///< printed under the row
  std::string skipped = {};  ///< why nothing was measured

  Row& time(const Timing& timing);
  /// A floor, and the median over it.
  Row& over(double floor_seconds);
  /// Time per token, from the median.
  Row& per_token(double count);
  /// Bytes and FLOPs of a run, and from the median its share of what copies and products reach.
  Row& counted(double bytes, double arithmetic, double bytes_per_s, double flops_per_s);
};

class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  /// Names the device of all rows to come in the JSON; that of the CPU has no name.
  void set_device(std::string name) { device_ = std::move(name); }

  /// Begins a part. `columns` are names of Row's fields, as in the JSON.
  void section(std::string part, std::string title, std::string explanation,
               std::vector<std::string> columns);
  void add(const Row& row);
  /// Everything below the rows that a person may want; not in the JSON.
  void remark(const std::string& text) const;
  /// Prints the JSON array.
  void finish() const;

 private:
  bool json_;
  std::string device_, part_;
  std::vector<std::string> columns_;
  int name_width_ = 0;
  std::vector<std::string> rows_;  // as JSON
};

/// "463", "64K", "1M": a length, in powers of 2 where it is one.
std::string length_text(std::int64_t length);
/// "12.3 ms", "1.18 GB", "203 ns": three digits and a unit.
std::string seconds_text(double seconds);
std::string bytes_text(double bytes);
std::string count_text(double count);

}  // namespace hax::bench
