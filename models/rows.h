// The two mechanisms that skip work without changing results (DESIGN: "rows wanted").
//
// Rows wanted: a Tensor int32 [R] of pack rows that somebody will read; undefined means all.
// Indexed rows: a [T, D] value that has few distinct rows, kept as table + index while row-wise ops
// run on it.
#pragma once

#include <utility>

#include "engine/autograd.h"
#include "ops/embedding/embedding.h"

namespace hax {

/// x [T, D] at the rows wanted -> [R, D].
inline Var take_rows(const Var& x, const Tensor& rows) {
  return rows.defined() ? embedding(x, rows) : x;
}

/// Row t of the value is row index_t of table; without an index the table is the value itself.
class Rows {
 public:
  Rows(Var dense) : table_(std::move(dense)) {}  // NOLINT(google-explicit-constructor)
  Rows(Var table, Tensor index) : table_(std::move(table)), index_(std::move(index)) {}

  std::int64_t count() const { return index_.defined() ? index_.numel() : table_.size(0); }
  /// A row-wise function applied to the distinct rows only.
  template <class F>
  Rows map(F&& f) const {
    return {f(table_), index_};
  }
  Var dense() const { return index_.defined() ? embedding(table_, index_) : table_; }
  /// The rows wanted of f applied row by row, on whichever side of the selection has fewer rows.
  template <class F>
  Var map_at(const Tensor& rows, F&& f) const {
    if (!rows.defined()) return map(f).dense();
    if (!index_.defined()) return f(embedding(table_, rows));
    const Tensor wanted = compose(rows);
    if (table_.size(0) < wanted.numel()) return embedding(f(table_), wanted);
    return f(embedding(table_, wanted));
  }

 private:
  // index_[rows]
  Tensor compose(const Tensor& rows) const;

  Var table_;
  Tensor index_;
};

/// The rows of `table` named by tokens int32 [T]: indexed by the distinct tokens while these are
/// fewer than T.
Rows embed_tokens(const Var& table, const Tensor& tokens);

}  // namespace hax
