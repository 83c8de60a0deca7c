#include "ops/causal_conv1d/causal_conv1d_device.cuh"

namespace hax {

namespace {

constexpr unsigned kThreads = 256;
constexpr std::int64_t kRun = 8;  // tokens of one channel that a thread takes

// Neighbouring threads take neighbouring channels. The window moves along in registers, so that
// every x is read once, and W-1 once more a run.
template <int kTaps, class T, class Act>
__global__ void forward_kernel(conv::Input<T> in, Act act, T* y) {
  const std::int64_t runs = cuda::ceil_div(in.tokens, kRun);
  for (std::int64_t i = cuda::global_thread(); i < runs * in.channels;
       i += cuda::global_threads()) {
    const std::int64_t run = i / in.channels, c = i - run * in.channels, first = run * kRun;
    const std::int64_t end = first + kRun < in.tokens ? first + kRun : in.tokens;
    std::int64_t s = conv::sequence_of(in.offsets, in.sequences, first);
    if constexpr (kTaps == 0) {
      for (std::int64_t t = first; t < end; ++t) {
        while (s + 1 < in.sequences && t >= in.offsets[s + 1]) ++s;
        y[t * in.channels + c] =
            cuda::from_float<T>(act.value(in.pre_activation(in.offsets[s], t, c)));
      }
    } else {
      float w[kTaps], window[kTaps];  // window[j] = x_{t-(W-1)+j}
      for (int j = 0; j < kTaps; ++j) {
        w[j] = in.tap(c, j);
        const std::int64_t before = first - kTaps + j;  // one place behind: the loop moves it on
        window[j] = before >= in.offsets[s] ? in.at(before, c) : 0;
      }
      const float bias = in.start(c);
      for (int k = 0; k < static_cast<int>(kRun); ++k) {
        const std::int64_t t = first + k;
        if (t >= end) break;
        bool entered = false;
        while (s + 1 < in.sequences && t >= in.offsets[s + 1]) {
          ++s;
          entered = true;
        }
        for (int j = 0; j + 1 < kTaps; ++j) window[j] = entered ? 0 : window[j + 1];
        window[kTaps - 1] = in.at(t, c);
        float sum = bias;
        for (int j = 0; j < kTaps; ++j) sum += w[j] * window[j];
        y[t * in.channels + c] = cuda::from_float<T>(act.value(sum));
      }
    }
  }
}

}  // namespace

void causal_conv1d_forward(Cuda, const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Sequences& sequences, Activation activation, Tensor& y) {
  if (y.numel() == 0) return;
  const Tensor offsets = sequences.offsets_on(kCuda);
  const std::int64_t count = cuda::ceil_div(x.size(0), kRun) * x.size(1);
  cuda::visit_storage("causal_conv1d", x.dtype(), [&]<class T>() {
    const conv::Input<T> in = conv::input_of<T>(x, weight, bias, offsets, sequences);
    conv::visit_activation(activation, [&]<class Act>(Act act) {
      conv::visit_width(in.width, [&]<int kTaps>() {
        cuda::launch(forward_kernel<kTaps, T, Act>, {cuda::blocks_for(count, kThreads), kThreads},
                     in, act, y.data<T>());
      });
    });
  });
}

}  // namespace hax
