#include "ops/rotary/rotary.h"

#include <cmath>

#include "engine/dispatch.h"
#include "ops/rotary/rotary_kernels.h"

namespace hax {
namespace {

// Every integer up to here is exact in float64, and adding the length of a sequence overflows
// nothing.
constexpr std::int64_t kLastPosition = std::int64_t{1} << 52;

void check_inputs(const Tensor& x, const Sequences& sequences, const RotaryOptions& options) {
  const Shape& shape = x.shape();
  check(options.heads >= 1, "rotary: {} heads, expected at least one", options.heads);
  check(shape.rank() == 2 && shape[1] >= options.heads && shape[1] % options.heads == 0,
        "rotary: x is {}, expected [R, heads P] with {} heads and P >= 2", to_string(shape),
        options.heads);
  const std::int64_t head_dim = shape[1] / options.heads;
  check(head_dim % 2 == 0,
        "rotary: head size {} is odd, expected an even one: the first half of a head turns against "
        "its second half",
        head_dim);
  check(std::isfinite(options.theta) && options.theta > 0,
        "rotary: theta is {}, expected a positive number", options.theta);
  check(is_floating(x.dtype()), "rotary: x is {}, expected float32 or float64", name_of(x.dtype()));
  const auto count = static_cast<std::int64_t>(options.first.size());
  check(count == 0 || count == sequences.count(),
        "rotary: {} first positions for {} sequences, expected one each or none", count,
        sequences.count());
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t first = options.first[static_cast<std::size_t>(s)];
    check(0 <= first && first <= kLastPosition,
          "rotary: first position {} of sequence {}, expected 0 to {}", first, s, kLastPosition);
  }
  if (!options.rows.defined()) return sequences.require_tokens("rotary", shape[0]);
  const Tensor& rows = options.rows;
  check(rows.shape() == Shape{shape[0]} && rows.dtype() == DType::int32,
        "rotary: rows is {} {} and x is {}, expected int32 [R] and [R, heads P]",
        name_of(rows.dtype()), to_string(rows.shape()), to_string(shape));
  // Positions on another device were checked by whoever computed them.
  if (!rows.device().is_cpu()) return;
  const auto wanted = rows.values<std::int32_t>();
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    const std::int32_t before = r == 0 ? -1 : wanted[r - 1];
    check(
        before < wanted[r] && wanted[r] < sequences.tokens(),
        "rotary: rows[{}] is {}, expected at least {} and below {}: strictly increasing positions "
        "of the pack",
        r, wanted[r], before + 1, sequences.tokens());
  }
}

}  // namespace

Var rotary(const Var& x, const Sequences& sequences, std::int64_t heads, double theta,
           const std::vector<std::int64_t>& first, const Tensor& rows) {
  RotaryOptions options{heads, theta, first, rows};
  check_inputs(x.value(), sequences, options);
  options.rows = to_device(rows, x.device());
  if (!first.empty() && !x.device().is_cpu()) {
    options.first_on_device = Tensor::from(first).to(x.device());
  }

  const auto turn = [sequences, options](const Tensor& from, bool back) {
    Tensor to = Tensor::empty(from.shape(), from.dtype(), from.device());
    on_device(from.device(),
              [&](auto device) { rotary_turn(device, from, sequences, options, back, to); });
    return to;
  };
  return record("rotary", turn(x.value(), false), {x},
                [turn](const Tensor& dy) { return Grads{turn(dy, true)}; });
}

}  // namespace hax
