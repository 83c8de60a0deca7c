// The inner loops of causal_conv1d on the CPU: some rows of one sequence, all channels. Included by
// causal_conv1d_cpu.cpp alone.
//
// Four rows at a time share the loads of the taps, of the inputs that their windows overlap in and
// of the sums of the taps' gradients. Every row's numbers come from the same operations in the same
// order, in whichever block it falls.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hax::conv {

/// Rows worked on at once.
inline constexpr int kRows = 4;

/// y[r] = act(bias + sum_i w[i] x[r + i]) for kCount rows; x begins with the row kTaps - 1 before
/// the first. w [kTaps, C]: the last tap goes with the row itself.
template <int kTaps, int kCount, class T, class Act>
void forward_rows(Act act, std::int64_t channels, const T* w, const T* bias, const T* x, T* y) {
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < kCount; ++r) {
      T sum = bias[c];
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) sum += w[i * channels + c] * x[(r + i) * channels + c];
      y[r * channels + c] = act.value(sum);
    }
  }
}

/// The backward of kCount rows: dx, and what they add to dw [kTaps, C] and dbias [C]. `after`
/// [kTaps - 1, C] holds the gradients of the pre-activations of the rows that follow, and then
/// those of the first rows of this block and what follows them.
template <int kTaps, int kCount, class T, class Act>
void backward_rows(Act act, std::int64_t channels, const T* w, const T* bias, const T* x,
                   const T* dy, T* after, T* dx, T* dw, T* dbias) {
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) {
    T g[kCount + kTaps];  // of the pre-activations of this block and of the rows after it
#pragma GCC unroll 8
    for (int j = 0; j < kTaps - 1; ++j) g[kCount + j] = after[j * channels + c];
    T db = dbias[c];
#pragma GCC unroll 8
    for (int r = kCount - 1; r >= 0; --r) {
      T sum = bias[c];
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) sum += w[i * channels + c] * x[(r + i) * channels + c];
      g[r] = dy[r * channels + c] * act.derivative(sum);
      db += g[r];
    }
    dbias[c] = db;
#pragma GCC unroll 8
    for (int i = 0; i < kTaps; ++i) {
      T sum = dw[i * channels + c];
#pragma GCC unroll 8
      for (int r = kCount - 1; r >= 0; --r) sum += g[r] * x[(r + i) * channels + c];
      dw[i * channels + c] = sum;
    }
#pragma GCC unroll 8
    for (int r = 0; r < kCount; ++r) {
      T sum = 0;
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) sum += w[(kTaps - 1 - i) * channels + c] * g[r + i];
      dx[r * channels + c] = sum;
    }
#pragma GCC unroll 8
    for (int j = 0; j < kTaps - 1; ++j) after[j * channels + c] = g[j];
  }
}

// The same for one row and any number of taps.

/// out = bias + sum_i w[i] x[i].
template <class T>
void weigh_row(std::int64_t taps, std::int64_t channels, const T* w, const T* bias, const T* x,
               T* out) {
  std::copy_n(bias, channels, out);
  for (std::int64_t i = 0; i < taps * channels; i += channels) {
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) out[c] += w[i + c] * x[i + c];
  }
}

template <class T, class Act>
void forward_row(Act act, std::int64_t taps, std::int64_t channels, const T* w, const T* bias,
                 const T* x, T* y) {
  weigh_row(taps, channels, w, bias, x, y);
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) y[c] = act.value(y[c]);
}

/// g = d loss / d pre-activation of the row.
template <class T, class Act>
void pre_gradient(Act act, std::int64_t taps, std::int64_t channels, const T* w, const T* bias,
                  const T* x, const T* dy, T* g) {
  weigh_row(taps, channels, w, bias, x, g);
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) g[c] = dy[c] * act.derivative(g[c]);
}

/// after [taps, C]: as in backward_rows, and room for one row more.
template <class T, class Act>
void backward_row(Act act, std::int64_t taps, std::int64_t channels, const T* w, const T* bias,
                  const T* x, const T* dy, T* after, T* dx, T* dw, T* dbias) {
  std::copy_backward(after, after + (taps - 1) * channels, after + taps * channels);
  pre_gradient(act, taps, channels, w, bias, x, dy, after);
  std::fill_n(dx, channels, T(0));
  for (std::int64_t i = 0; i < taps; ++i) {
    const T *weight = w + (taps - 1 - i) * channels, *g = after + i * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) dx[c] += weight[c] * g[c];
  }
  for (std::int64_t i = 0; i < taps * channels; i += channels) {
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) dw[i + c] += after[c] * x[i + c];
  }
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) dbias[c] += after[c];
}

}  // namespace hax::conv
