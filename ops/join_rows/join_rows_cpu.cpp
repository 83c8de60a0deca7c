#include "ops/join_rows/join_rows_kernels.h"

namespace hax {
namespace {

// Calls visit(rows of the joined pack, rows of a or b, whether of b) for every stretch that is
// contiguous on both sides.
template <class F>
void for_each_stretch(const Sequences& past, const Sequences& present, F visit) {
  std::int64_t at = 0;
  for (std::int64_t s = 0; s < past.count(); ++s) {
    for (const bool later : {false, true}) {
      const Sequences& pack = later ? present : past;
      if (pack.length(s) == 0) continue;
      visit(at, pack.begin(s), pack.length(s), later);
      at += pack.length(s);
    }
  }
}

}  // namespace

void join_row_tables(Cpu, const Tensor& a, const Sequences& past, const Tensor& b,
                     const Sequences& present, Tensor& joined) {
  for_each_stretch(past, present,
                   [&](std::int64_t to, std::int64_t from, std::int64_t count, bool later) {
                     Tensor part = joined.rows(to, to + count);
                     copy(part, (later ? b : a).rows(from, from + count));
                   });
}

void split_row_tables(Cpu, const Tensor& joined, const Sequences& past, const Sequences& present,
                      Tensor& a, Tensor& b) {
  for_each_stretch(past, present,
                   [&](std::int64_t from, std::int64_t to, std::int64_t count, bool later) {
                     Tensor part = (later ? b : a).rows(to, to + count);
                     copy(part, joined.rows(from, from + count));
                   });
}

}  // namespace hax
