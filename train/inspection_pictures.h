// What the inspector computes again from the inputs of attention and of scans, plainly and in
// double.
#pragma once

#include <span>

#include "train/inspection.h"

namespace hax {

/// The form of softmax attention that an op computed.
struct AttentionForm {
  std::int64_t heads = 1, kv_heads = 1;
  double scale = 1;
};

/// One picture a sample. Q [T, heads N], K [T, kv_heads N]; `keys`: what each query may see.
std::vector<AttentionPicture> attention_pictures(const Tensor& Q, const Tensor& K,
                                                 const KeySet& keys, const AttentionForm& form);

/// One picture a sample. u, dt [T, E], A [E, N], B [T, N].
std::vector<MemoryPicture> scan_pictures(const Tensor& u, const Tensor& dt, const Tensor& A,
                                         const Tensor& B, const Sequences& sequences);
/// x [T, heads P], dt [T, heads], A [heads], B [T, groups N].
std::vector<MemoryPicture> ssd_pictures(const Tensor& x, const Tensor& dt, const Tensor& A,
                                        const Tensor& B, std::int64_t groups,
                                        const Sequences& sequences);

}  // namespace hax
