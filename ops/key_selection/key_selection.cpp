#include "ops/key_selection/key_selection.h"

#include "engine/dispatch.h"
#include "ops/key_selection/key_selection_kernels.h"

namespace hax {

KeySet key_selection_keys(const Tensor& score, const Sequences& sequences, std::int64_t keys) {
  check(is_floating(score.dtype()) && score.rank() == 1,
        "key_selection: the scores are {} {}, expected float32 or float64 [T]",
        name_of(score.dtype()), score.shape());
  check(keys >= 1, "key_selection: {} keys wanted, expected at least 1", keys);
  sequences.require_tokens("key_selection", score.size(0));

  KeySet set;
  set.sequences = sequences;
  set.death = Tensor::empty(score.shape(), DType::int32, score.device());
  on_device(score.device(),
            [&](auto device) { running_top_k(device, score, sequences, keys, set.death); });
  return set;
}

}  // namespace hax
