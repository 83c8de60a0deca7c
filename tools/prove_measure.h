// What `hax prove` measures: one way to look back, on fresh tables of one size.
#pragma once

#include <cstdint>

#include "data/joint_recall.h"
#include "models/theorem.h"

namespace hax {

/// A table of `entries` entries or, where these cannot be split evenly, a few more: every outer
/// level has their `levels`-th root, rounded, and the last as many keys as are then needed.
JointRecallTask table_of(std::int64_t entries, std::int32_t levels, std::int32_t values);
/// As in "32 x 32".
std::string shape_of(const JointRecallTask& table);
/// The parts that a table's tokens play.
RecallTokens tokens_of(const JointRecallTask& table);

struct Measurement {
  std::int64_t entries = 0, tokens = 0, tables = 0;  ///< entries and tokens of one table
  std::int64_t hash_bits = 0;
  std::int64_t state = 0;  ///< numbers of the scan's state
  std::int64_t fixed = 0;  ///< numbers of the second scan's state, with LookBack::fixed_state
  std::int64_t kept = 0;   ///< keys that the attention kept at the end
  double accuracy = 0;     ///< share of all entries, each asked once
  double seconds = 0;      ///< a table, from tokens to answers
  double keys_mean = 0;    ///< keys that a query sees
  std::int64_t keys_max = 0;
  double right_seen = 0;    ///< share of queries that see the key of their own entry
  double same_bin = 0;      ///< share of queries whose own entry's key has their bin
  double wrong_in_bin = 0;  ///< other keys of the query's bin, seen or not, a query
};

/// Builds the model and answers every entry of as many fresh tables as make 4096 entries (at most
/// 256, at least one), each prefilled in at most 16 pieces.
Measurement measure(const JointRecallTask& table, const TheoremOptions& options);

}  // namespace hax
