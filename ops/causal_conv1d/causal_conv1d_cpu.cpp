#include <algorithm>

#include "engine/dispatch.h"
#include "ops/causal_conv1d/causal_conv1d_kernels.h"
#include "ops/elementwise/elementwise_functors.h"

namespace hax {
namespace {

struct Identity {
  template <class T>
  constexpr T value(T x) const {
    return x;
  }
  template <class T>
  constexpr T derivative(T) const {
    return 1;
  }
};

template <class F>
void visit_activation(Activation activation, F&& f) {
  if (activation == Activation::silu) return f(functor::Silu{});
  f(Identity{});
}

// [C, W] -> [W, C] or back, so that a tap's weights are contiguous over the channels.
template <class T>
void transpose(const T* from, std::int64_t rows, std::int64_t columns, T* to) {
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * columns + c];
  }
}

// A dot product along time for every channel: out[c] = start[c] + sum_i weights[i, c] x[i, c], i
// below `taps`. `step`, +-channels, goes from one tap's weights to the next. out may be start, or a
// row of x.
template <class T>
struct Taps {
  std::int64_t channels, step;

  template <int kTaps>
  void add(const T* start, const T* weights, const T* x, T* out) const {
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      T sum = start[c];
      for (int i = 0; i < kTaps; ++i) sum += weights[i * step + c] * x[i * channels + c];
      out[c] = sum;
    }
  }

  // Any number of taps, four at a time.
  void add(std::int64_t taps, const T* start, const T* weights, const T* x, T* out) const {
    for (; taps > 4; taps -= 4, start = out, weights += 4 * step, x += 4 * channels) {
      add<4>(start, weights, x, out);
    }
    if (taps == 4) return add<4>(start, weights, x, out);
    if (taps == 3) return add<3>(start, weights, x, out);
    if (taps == 2) return add<2>(start, weights, x, out);
    add<1>(start, weights, x, out);
  }
};

}  // namespace

void causal_conv1d_forward(Cpu, const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Sequences& sequences, Activation activation, Tensor& y) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t channels = x.size(1), width = weight.size(2);
    Tensor taps = Tensor::empty({width, channels}, x.dtype());
    T* w = taps.data<T>();
    transpose(weight.data<T>(), channels, width, w);
    const Tensor start = bias.defined() ? bias : Tensor::zeros({channels}, x.dtype());
    const T *in = x.data<T>(), *first = start.data<T>();
    T* out = y.data<T>();
    const Taps<T> forward{channels, channels};
    visit_activation(activation, [&](const auto act) {
      for (std::int64_t s = 0; s < sequences.count(); ++s) {
        for (std::int64_t t = sequences.begin(s); t < sequences.end(s); ++t) {
          const std::int64_t count = std::min(width, t - sequences.begin(s) + 1);
          T* row = out + t * channels;
          forward.add(count, first, w + (width - count) * channels, in + (t - count + 1) * channels,
                      row);
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) row[c] = act.value(row[c]);
        }
      }
    });
  });
}

void causal_conv1d_backward(Cpu, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& bias, const Sequences& sequences, Activation activation,
                            Tensor& dx, Tensor& dweight, Tensor& dbias) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t channels = x.size(1), width = weight.size(2);
    Tensor taps = Tensor::empty({width, channels}, x.dtype());
    T* w = taps.data<T>();
    transpose(weight.data<T>(), channels, width, w);
    const Tensor zeros = Tensor::zeros({channels}, x.dtype());
    const Tensor start = bias.defined() ? bias : zeros;
    Tensor dtaps = Tensor::zeros(taps.shape(), x.dtype());
    if (dbias.defined()) fill(dbias, 0);
    const T *in = x.data<T>(), *dout = dy.data<T>();
    const T *first = start.data<T>(), *zero = zeros.data<T>();
    T *din = dx.data<T>(), *dw = dtaps.data<T>();
    T* db = dbias.defined() ? dbias.data<T>() : nullptr;
    const Taps<T> forward{channels, channels}, reversed{channels, -channels};

    visit_activation(activation, [&](const auto act) {
      for (std::int64_t s = 0; s < sequences.count(); ++s) {
        const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
        // The gradients of the pre-activations wait in dx.
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int64_t count = std::min(width, t - begin + 1);
          const std::int64_t skipped = (width - count) * channels;
          const T *window = in + (t - count + 1) * channels, *dy_row = dout + t * channels;
          T* g = din + t * channels;
          forward.add(count, first, w + skipped, window, g);
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) g[c] = dy_row[c] * act.derivative(g[c]);
          for (std::int64_t i = 0; i < count * channels; i += channels) {
            T* row = dw + skipped + i;
#pragma omp simd
            for (std::int64_t c = 0; c < channels; ++c) row[c] += g[c] * window[i + c];
          }
          if (db == nullptr) continue;
#pragma omp simd
          for (std::int64_t c = 0; c < channels; ++c) db[c] += g[c];
        }
        // x_t went into the outputs t, t+1, ... through the last tap, the one before, ...: row t
        // needs the gradients from t on, so it can take the place of its own.
        const T* last_tap = w + (width - 1) * channels;
        for (std::int64_t t = begin; t < end; ++t) {
          T* row = din + t * channels;
          reversed.add(std::min(width, end - t), zero, last_tap, row, row);
        }
      }
    });
    transpose(dtaps.data<T>(), width, channels, dweight.data<T>());
  });
}

}  // namespace hax
