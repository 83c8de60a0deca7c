// Arithmetic of full_attention, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"
#include "ops/full_attention/full_attention.h"

namespace hax {

/// Q [R, heads N], K [T, kv_heads N], V [T, kv_heads P], rows int32 [R] or undefined
/// -> y [R, heads P] and lse [R, heads], the log-sum-exp of a row's scaled scores. Throws Error
/// unless the rows are strictly increasing and exist.
void full_attention_forward(Cpu, const Tensor& Q, const Tensor& K, const Tensor& V,
                            const Tensor& rows, const Sequences& sequences,
                            const FullAttentionOptions& options, Tensor& y, Tensor& lse);
void full_attention_forward(Cuda, const Tensor& Q, const Tensor& K, const Tensor& V,
                            const Tensor& rows, const Sequences& sequences,
                            const FullAttentionOptions& options, Tensor& y, Tensor& lse);

/// dy, y [R, heads P], lse [R, heads], Q, K, V, rows as above -> dQ, dK, dV.
void full_attention_backward(Cpu, const Tensor& dy, const Tensor& Q, const Tensor& K,
                             const Tensor& V, const Tensor& rows, const Tensor& y,
                             const Tensor& lse, const Sequences& sequences,
                             const FullAttentionOptions& options, Tensor& dQ, Tensor& dK,
                             Tensor& dV);
void full_attention_backward(Cuda, const Tensor& dy, const Tensor& Q, const Tensor& K,
                             const Tensor& V, const Tensor& rows, const Tensor& y,
                             const Tensor& lse, const Sequences& sequences,
                             const FullAttentionOptions& options, Tensor& dQ, Tensor& dK,
                             Tensor& dV);

}  // namespace hax
