#include "ops/join_rows/join_rows.h"

#include <vector>

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

void require_fit(const Tensor& a, const Sequences& past, const Tensor& b,
                 const Sequences& present) {
  bool fits = a.rank() >= 1 && a.rank() == b.rank() && a.dtype() == b.dtype();
  for (int axis = 1; fits && axis < a.rank(); ++axis) fits = a.size(axis) == b.size(axis);
  check(fits, "join_rows: {} {} and {} {}, expected one type and rows of one shape",
        name_of(a.dtype()), a.shape(), name_of(b.dtype()), b.shape());
  check(past.count() == present.count(), "join_rows: {} sequences cannot be followed by {}",
        past.count(), present.count());
  past.require_tokens("join_rows", a.size(0));
  present.require_tokens("join_rows", b.size(0));
}

}  // namespace

Tensor join_tensors(const Tensor& a, const Sequences& past, const Tensor& b,
                    const Sequences& present) {
  require_fit(a, past, b, present);
  std::vector<std::int64_t> sizes;
  for (int axis = 0; axis < a.rank(); ++axis) sizes.push_back(a.size(axis));
  sizes[0] += b.size(0);
  Tensor joined = Tensor::empty(Shape(std::span<const std::int64_t>(sizes)), a.dtype(), a.device());
  for_each_stretch(past, present,
                   [&](std::int64_t to, std::int64_t from, std::int64_t count, bool later) {
                     Tensor part = joined.rows(to, to + count);
                     copy(part, (later ? b : a).rows(from, from + count));
                   });
  return joined;
}

Var join_rows(const Var& a, const Sequences& past, const Var& b, const Sequences& present) {
  const auto gradient = [past, present, a_shape = a.shape(),
                         b_shape = b.shape()](const Tensor& dy) {
    Tensor da = Tensor::empty(a_shape, dy.dtype(), dy.device());
    Tensor db = Tensor::empty(b_shape, dy.dtype(), dy.device());
    for_each_stretch(past, present,
                     [&](std::int64_t from, std::int64_t to, std::int64_t count, bool later) {
                       Tensor part = (later ? db : da).rows(to, to + count);
                       copy(part, dy.rows(from, from + count));
                     });
    return Grads{da, db};
  };
  return record("join_rows", join_tensors(a.value(), past, b.value(), present), {a, b}, gradient);
}

}  // namespace hax
