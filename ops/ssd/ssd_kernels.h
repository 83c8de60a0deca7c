// Arithmetic of ssd, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"
#include "ops/ssd/ssd.h"

namespace hax {

/// Tokens from one saved state to the next; counting starts anew with every sequence.
inline constexpr std::int64_t kSsdBlock = 128, kSsdCudaChunk = 64;
/// Places for saved states. On the CPU the blocks of all sequences of a pack; the last one of a
/// sequence may be shorter.
std::int64_t ssd_blocks(Cpu, const Sequences& sequences);
/// On CUDA T / kSsdCudaChunk + S, from the totals alone: sequence s has the places from
/// begin(s) / kSsdCudaChunk + s on, and some stay empty.
std::int64_t ssd_blocks(Cuda, const Sequences& sequences);

/// x [T, heads P], dt [T, heads], A [heads], B [T, groups N], C [R, groups N], D [heads]; initial
/// [S, heads, P, N], or undefined: zero; rows int32 [R], or undefined: all.
struct SsdInputs {
  Tensor x, dt, A, B, C, D, initial, rows;
};
/// The gradient of each input, in its shape; dinitial is undefined where initial is.
struct SsdGradients {
  Tensor dx, ddt, dA, dB, dC, dD, dinitial;
};

/// -> y [R, heads P]; final_state [S, heads, P, N]; states [ssd_blocks, heads, N, P], the state
/// before each block (on CUDA each [P, N] and always float32), undefined: not wanted.
void ssd_forward(Cpu, const SsdInputs& in, const Sequences& sequences, const SsdOptions& options,
                 Tensor& y, Tensor& final_state, Tensor& states);
void ssd_forward(Cuda, const SsdInputs& in, const Sequences& sequences, const SsdOptions& options,
                 Tensor& y, Tensor& final_state, Tensor& states);

/// dy [R, heads P] and dfinal [S, heads, P, N], either undefined: zero; states of the forward ->
/// all gradients.
void ssd_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const SsdInputs& in,
                  const Tensor& states, const Sequences& sequences, const SsdOptions& options,
                  SsdGradients& out);
void ssd_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const SsdInputs& in,
                  const Tensor& states, const Sequences& sequences, const SsdOptions& options,
                  SsdGradients& out);

}  // namespace hax
