// What both directions of causal_conv1d share on CUDA.
#pragma once

#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "ops/causal_conv1d/causal_conv1d_kernels.h"

namespace hax::conv {

/// The sequence that token t belongs to: the last one that begins at or before it. offsets [S+1].
/// Tokens after the last sequence count as its own, so that a pack may be shorter than its tensors.
__device__ inline std::int64_t sequence_of(const std::int32_t* offsets, std::int64_t count,
                                           std::int64_t t) {
  std::int64_t low = 0, high = count - 1;
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (offsets[middle] <= t) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

struct Identity {
  __device__ float value(float p) const { return p; }
  __device__ float derivative(float) const { return 1; }
};
struct Silu {
  __device__ float value(float p) const { return p / (1 + expf(-p)); }
  __device__ float derivative(float p) const {
    const float s = 1 / (1 + expf(-p));
    return s * (1 + p * (1 - s));
  }
};

template <class F>
void visit_activation(Activation activation, F&& f) {
  if (activation == Activation::silu) return f(Silu{});
  f(Identity{});
}

/// Calls f.operator()<kTaps>() for the widths whose windows fit into registers, and <0>() for
/// others.
template <class F>
void visit_width(std::int64_t width, F&& f) {
  if (width == 4) return f.template operator()<4>();
  if (width == 3) return f.template operator()<3>();
  if (width == 2) return f.template operator()<2>();
  if (width == 1) return f.template operator()<1>();
  f.template operator()<0>();
}

/// What all kernels read. bias: null where there is none.
template <class T>
struct Input {
  const T *x, *weight, *bias;
  const std::int32_t* offsets;  ///< [S+1]
  std::int64_t sequences, tokens, channels, width;

  __device__ float at(std::int64_t t, std::int64_t c) const {
    return cuda::to_float(x[t * channels + c]);
  }
  __device__ float tap(std::int64_t c, std::int64_t i) const {
    return cuda::to_float(weight[c * width + i]);
  }
  __device__ float start(std::int64_t c) const {
    return bias == nullptr ? 0 : cuda::to_float(bias[c]);
  }
  /// p_t of a sequence from `begin` on, for any width.
  __device__ float pre_activation(std::int64_t begin, std::int64_t t, std::int64_t c) const {
    float sum = start(c);
    std::int64_t i = width - 1 - (t - begin);
    for (i = i < 0 ? 0 : i; i < width; ++i) sum += tap(c, i) * at(t - (width - 1) + i, c);
    return sum;
  }
};

template <class T>
Input<T> input_of(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& offsets,
                  const Sequences& sequences) {
  return {x.data<T>(),
          weight.data<T>(),
          bias.defined() ? bias.data<T>() : nullptr,
          offsets.data<std::int32_t>(),
          sequences.count(),
          x.size(0),
          x.size(1),
          weight.size(2)};
}

}  // namespace hax::conv
