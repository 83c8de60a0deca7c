#include <algorithm>
#include <vector>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/causal_conv1d/causal_conv1d_kernels.h"
#include "ops/causal_conv1d/causal_conv1d_rows.h"
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

// Calls f.operator()<kTaps>() for the widths that have loops of their own, and <0>() for others.
template <class F>
void visit_width(std::int64_t width, F&& f) {
  if (width == 4) return f.template operator()<4>();
  if (width == 3) return f.template operator()<3>();
  if (width == 2) return f.template operator()<2>();
  if (width == 1) return f.template operator()<1>();
  f.template operator()<0>();
}

// [C, W] -> [W, C] or back, so that a tap's weights are contiguous over the channels.
template <class T>
void transpose(const T* from, std::int64_t rows, std::int64_t columns, T* to) {
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * columns + c];
  }
}

// What both directions read. The rows before a sequence are zero.
template <class T>
struct Inputs {
  std::int64_t channels, width;
  Tensor taps, start;  // [W, C], [C]
  const T *x, *w, *bias;

  Inputs(const Tensor& input, const Tensor& weight, const Tensor& given_bias)
      : channels(input.size(1)),
        width(weight.size(2)),
        taps(Tensor::empty({width, channels}, input.dtype())),
        start(given_bias.defined() ? given_bias : Tensor::zeros({channels}, input.dtype())),
        x(input.data<T>()),
        w(taps.data<T>()),
        bias(start.data<T>()) {
    transpose(weight.data<T>(), channels, width, taps.data<T>());
  }

  // Row t - width + 1 and those after it up to row t + count - 1 of a sequence from `begin` on: in
  // place, or where the window reaches back beyond the sequence, copied into `room`.
  const T* window(std::int64_t begin, std::int64_t t, std::int64_t count,
                  std::vector<T>& room) const {
    const std::int64_t before = width - 1, missing = before - (t - begin);
    if (missing <= 0) return x + (t - before) * channels;
    room.assign(static_cast<std::size_t>((before + count) * channels), T(0));
    std::copy_n(x + begin * channels, (t + count - begin) * channels,
                room.data() + missing * channels);
    return room.data();
  }
};

// Calls f.operator()<kCount>(t) for blocks of rows begin..end-1: of kRows rows, and the rest
// singly.
template <class F>
void for_each_block(std::int64_t begin, std::int64_t end, F&& f) {
  std::int64_t t = begin;
  for (; t + conv::kRows <= end; t += conv::kRows) f.template operator()<conv::kRows>(t);
  for (; t < end; ++t) f.template operator()<1>(t);
}

// The same from the last block to the first.
template <class F>
void for_each_block_reversed(std::int64_t begin, std::int64_t end, F&& f) {
  std::int64_t t = end;
  for (; (t - begin) % conv::kRows != 0; --t) f.template operator()<1>(t - 1);
  for (; t > begin; t -= conv::kRows) f.template operator()<conv::kRows>(t - conv::kRows);
}

}  // namespace

void causal_conv1d_forward(Cpu, const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Sequences& sequences, Activation activation, Tensor& y) {
  visit_float(x.dtype(), [&]<class T>() {
    const Inputs<T> in(x, weight, bias);
    T* out = y.data<T>();
    visit_activation(activation, [&](const auto act) {
      visit_width(in.width, [&]<int kTaps>() {
        for (std::int64_t s = 0; s < sequences.count(); ++s) {
          const std::int64_t first = sequences.begin(s);
          parallel_rows(sequences.length(s), [&](std::int64_t begin, std::int64_t end) {
            std::vector<T> room;
            for_each_block(first + begin, first + end, [&]<int kCount>(std::int64_t t) {
              const T* window = in.window(first, t, kCount, room);
              T* row = out + t * in.channels;
              if constexpr (kTaps > 0) {
                conv::forward_rows<kTaps, kCount>(act, in.channels, in.w, in.bias, window, row);
              } else {
                for (int r = 0; r < kCount; ++r) {
                  conv::forward_row(act, in.width, in.channels, in.w, in.bias,
                                    window + r * in.channels, row + r * in.channels);
                }
              }
            });
          });
        }
      });
    });
  });
}

void causal_conv1d_backward(Cpu, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& bias, const Sequences& sequences, Activation activation,
                            Tensor& dx, Tensor& dweight, Tensor& dbias) {
  visit_float(x.dtype(), [&]<class T>() {
    const Inputs<T> in(x, weight, bias);
    const std::int64_t channels = in.channels, width = in.width;
    const T* dout = dy.data<T>();
    T* din = dx.data<T>();
    // The taps' gradients, then the bias's.
    Tensor sums = Tensor::zeros({width + 1, channels}, x.dtype());

    visit_activation(activation, [&](const auto act) {
      visit_width(width, [&]<int kTaps>() {
        for (std::int64_t s = 0; s < sequences.count(); ++s) {
          const std::int64_t first = sequences.begin(s), last = sequences.end(s);
          Tensor of_sequence = Tensor::empty(sums.shape(), x.dtype());
          sum_of_pieces(
              sequences.length(s), of_sequence,
              [&](std::int64_t piece_begin, std::int64_t piece_end, Tensor& sum) {
                const std::int64_t begin = first + piece_begin, end = first + piece_end;
                T *dw = sum.data<T>(), *db = dw + width * channels;
                std::vector<T> room, after(static_cast<std::size_t>(width * channels));
                // Gradients of the pre-activations that the next piece begins with.
                for (std::int64_t t = std::min(last, end + width - 1) - 1; t >= end; --t) {
                  conv::pre_gradient(act, width, channels, in.w, in.bias,
                                     in.window(first, t, 1, room), dout + t * channels,
                                     after.data() + (t - end) * channels);
                }
                for_each_block_reversed(begin, end, [&]<int kCount>(std::int64_t t) {
                  const T* window = in.window(first, t, kCount, room);
                  const std::int64_t at = t * channels;
                  if constexpr (kTaps > 0) {
                    conv::backward_rows<kTaps, kCount>(act, channels, in.w, in.bias, window,
                                                       dout + at, after.data(), din + at, dw, db);
                  } else {
                    for (std::int64_t r = kCount - 1; r >= 0; --r) {
                      conv::backward_row(act, width, channels, in.w, in.bias, window + r * channels,
                                         dout + at + r * channels, after.data(),
                                         din + at + r * channels, dw, db);
                    }
                  }
                });
              });
          accumulate(sums, of_sequence);
        }
      });
    });
    transpose(sums.data<T>(), width, channels, dweight.data<T>());
    if (dbias.defined()) copy(dbias, sums.rows(width, width + 1).reshape({channels}));
  });
}

}  // namespace hax
