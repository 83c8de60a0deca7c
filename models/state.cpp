#include "models/state.h"

#include "models/rows.h"
#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/join_rows/join_rows.h"

namespace hax {

ModelState::ModelState(std::int64_t layer_count, std::int64_t sequences)
    : seen(static_cast<std::size_t>(sequences)), layers(static_cast<std::size_t>(layer_count)) {
  const Sequences nothing =
      Sequences::of_lengths(std::vector<std::int64_t>(static_cast<std::size_t>(sequences)));
  for (MixerState& layer : layers) {
    for (ConvTail& tail : layer.conv) tail.sequences = nothing;
    layer.keys.sequences = nothing;
  }
}

std::int64_t ModelState::numbers() const {
  auto sum = static_cast<std::int64_t>(seen.size());
  for (const MixerState& layer : layers) {
    for (const ConvTail& tail : layer.conv) sum += tail.rows.value().numel();
    for (const Tensor& tensor :
         {layer.ssm.value(), layer.query_mean.sum, layer.key_mean.sum, layer.query_sum.value()}) {
      sum += tensor.numel();
    }
    sum += layer.keys.numbers();
  }
  return sum;
}

ModelState ModelState::detached() const {
  ModelState cut_off = *this;
  for (MixerState& layer : cut_off.layers) {
    for (ConvTail& tail : layer.conv) tail.rows = tail.rows.detach();
    for (Var* var : {&layer.ssm, &layer.keys.K, &layer.keys.V, &layer.query_sum}) {
      *var = var->detach();
    }
  }
  return cut_off;
}

Var convolve(const Var& x, const Var& weight, const Var& bias, const Sequences& sequences,
             ConvTail* tail) {
  if (tail == nullptr) return causal_conv1d(x, weight, bias, sequences);
  const Sequences joined = tail->sequences.joined(sequences);
  const bool first = tail->sequences.tokens() == 0;
  const Var rows = first ? x : join_rows(tail->rows, tail->sequences, x, sequences);
  const Var y = causal_conv1d(rows, weight, bias, joined);
  // The kernel reaches back over its width, as a window of keys does.
  const KeySet reach = window_keys(joined, weight.size(2));
  const Tensor last = surviving_rows(reach);
  const Tensor present = first ? Tensor{} : rows_after(tail->sequences, sequences, {});
  *tail = {surviving_sequences(joined, last), take_rows(rows, last)};
  return first ? y : take_rows(y, present);
}

}  // namespace hax
