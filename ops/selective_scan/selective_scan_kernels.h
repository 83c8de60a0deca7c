// Arithmetic of selective_scan, once for each device.
#pragma once

#include "engine/device.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// Tokens from one saved state to the next; counting starts anew with every sequence.
inline constexpr std::int64_t kScanChunk = 16;
/// Places for saved states. On the CPU the chunks of all sequences of a pack; the last one of a
/// sequence may be shorter.
std::int64_t scan_chunks(Cpu, const Sequences& sequences);
/// On CUDA T / kScanChunk + S, from the totals alone: sequence s has the places from
/// begin(s) / kScanChunk + s on, and some stay empty.
std::int64_t scan_chunks(Cuda, const Sequences& sequences);

/// u, dt [T, E], A [E, N], B [T, N], C [R, N], D [E]; rows int32 [R], or undefined: all.
struct ScanInputs {
  Tensor u, dt, A, B, C, D, rows;
};
/// The gradient of each input, in its shape, and of the initial state [S, E, N], undefined: not
/// wanted.
struct ScanGradients {
  Tensor du, ddt, dA, dB, dC, dD, dinitial;
};

/// initial [S, E, N], undefined: zero (none of ScanInputs: the backward finds it among the states)
/// -> y [R, E]; final_state [S, E, N]; states [scan_chunks, N, E] = h before each chunk (on CUDA
/// each [E, N] and always float32), undefined: not wanted.
void selective_scan_forward(Cpu, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states);
void selective_scan_forward(Cuda, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states);

/// dy [R, E] and dfinal [S, E, N], either undefined: zero; states of the forward -> all gradients.
void selective_scan_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out);
void selective_scan_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out);

}  // namespace hax
