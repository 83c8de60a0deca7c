// What a model is trained on: samples laid end to end, and the rows whose next token counts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/joint_recall.h"
#include "engine/sequences.h"
#include "engine/tensor.h"

namespace hax {

/// S sequences of T input tokens, R of them targets. All tensors int32, on the CPU.
struct Batch {
  Tensor tokens;             ///< [T] inputs: a sample without its last token
  Tensor labels;             ///< [T] the token that follows each input
  Sequences sequences;       ///< T tokens; padded to the task's fixed length - 1
  Tensor target_rows;        ///< [R] rows where the loss is taken, ascending
  Tensor target_labels;      ///< [R] labels at those rows
  Sequences target_samples;  ///< R targets: which rows belong to which sequence

  std::int64_t count() const { return sequences.count(); }
  /// Sequences first..last alone, rows counted from their beginning. Throws Error when they do not
  /// exist.
  Batch slice(std::int64_t first, std::int64_t last) const;
};

/// Packs unpadded samples of `task`: a sample of n tokens gives n-1 inputs; targets are the keys of
/// the second half. (The released script pads first and cuts then, so it also feeds the last token
/// of a shorter sample. No target comes after it; only means over the whole sequence, in norm_mode
/// released, could tell.) Throws Error for a sample of fewer than two tokens or more than the fixed
/// length.
Batch pack(const JointRecallTask& task, std::span<const std::vector<std::int32_t>> samples);

/// Packs padded arrays, all [B, L] (any integer type): inputs, labels, 1 where the loss is taken,
/// 1 where an input is not padding. Padding follows the tokens; every sequence is padded to L.
/// Throws Error when the shapes differ, a mask is not 0 or 1, padding lies between tokens, a target
/// lies in the padding, or a token is negative.
Batch pack_padded(const Tensor& tokens, const Tensor& labels, const Tensor& mask,
                  const Tensor& attention_mask);

}  // namespace hax
