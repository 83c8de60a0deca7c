#include "engine/cuda/reduce.cuh"
#include "ops/causal_conv1d/causal_conv1d_device.cuh"

namespace hax {

using cuda::kWarp;

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kRun = 16;     // tokens of one channel that a thread takes at a time
constexpr int kLanes = 8;             // threads of a block that share a channel
constexpr std::int64_t kParts = 512;  // at most, of the weights' gradients

// The gradient of one run of one channel, from its last token to its first: g slides along in
// registers, and so does the window of x that p is computed from again. sums: of the taps, then of
// the bias.
template <int kTaps, class T, class Act>
__device__ void backward_run(const conv::Input<T>& in, Act act, const T* dy, std::int64_t first,
                             std::int64_t c, const float (&w)[kTaps], T* dx,
                             float (&sums)[kTaps + 1]) {
  const std::int64_t end = first + kRun < in.tokens ? first + kRun : in.tokens;
  std::int64_t s = conv::sequence_of(in.offsets, in.sequences, end - 1);
  std::int64_t begin = in.offsets[s];
  // The tokens after the run whose g reaches into it.
  std::int64_t last = s + 1 < in.sequences ? in.offsets[s + 1] : in.tokens;
  last = last < end + kTaps - 1 ? last : end + kTaps - 1;
  const float bias = in.start(c);
  float g[kTaps] = {}, window[kTaps];  // g[j] = g_{t+j}, window[j] = x_{t-(W-1)+j}
  for (int j = 0; j < kTaps; ++j) {
    const std::int64_t at = last - 1 - (kTaps - 1) + j;
    window[j] = at >= begin ? in.at(at, c) : 0;
  }
  for (std::int64_t t = last - 1; t >= first; --t) {
    if (t < begin) {
      while (t < begin) begin = in.offsets[--s];
      for (int j = 0; j < kTaps; ++j) {
        g[j] = 0;
        const std::int64_t at = t - (kTaps - 1) + j;
        window[j] = at >= begin ? in.at(at, c) : 0;
      }
    }
    float p = bias;
    for (int j = 0; j < kTaps; ++j) p += w[j] * window[j];
    for (int j = kTaps - 1; j > 0; --j) g[j] = g[j - 1];
    g[0] = cuda::to_float(dy[t * in.channels + c]) * act.derivative(p);
    if (t < end) {
      float sum = 0;
      for (int j = 0; j < kTaps; ++j) {
        sum += w[kTaps - 1 - j] * g[j];
        sums[j] += g[0] * window[j];
      }
      sums[kTaps] += g[0];
      dx[t * in.channels + c] = cuda::from_float<T>(sum);
    }
    for (int j = kTaps - 1; j > 0; --j) window[j] = window[j - 1];
    window[0] = t - kTaps >= begin ? in.at(t - kTaps, c) : 0;
  }
}

// A block takes 32 channels; 8 threads of a channel take runs in turn, and their sums are added in
// their order. partial [parts, W + 1, C].
template <int kTaps, class T, class Act>
__global__ void backward_kernel(conv::Input<T> in, Act act, const T* dy, T* dx, float* partial) {
  HAX_SHARED(shares, float[kTaps + 1][kLanes][kWarp]);
  const int column = static_cast<int>(threadIdx.x) % kWarp;
  const int lane = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * kWarp + column;
  float sums[kTaps + 1] = {};
  if (c < in.channels) {
    float w[kTaps];
    for (int j = 0; j < kTaps; ++j) w[j] = in.tap(c, j);
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.y) * kLanes * kRun;
    for (std::int64_t first = (static_cast<std::int64_t>(blockIdx.y) * kLanes + lane) * kRun;
         first < in.tokens; first += stride) {
      backward_run<kTaps>(in, act, dy, first, c, w, dx, sums);
    }
  }
  for (int j = 0; j <= kTaps; ++j) shares[j][lane][column] = sums[j];
  __syncthreads();
  if (lane > kTaps || c >= in.channels) return;
  float total = 0;
  for (int other = 0; other < kLanes; ++other) total += shares[lane][other][column];
  partial[(blockIdx.y * (kTaps + 1) + lane) * in.channels + c] = total;
}

// partial [parts, W + 1, C] -> dweight [C, W], dbias [C] unless null. As in reduce.cuh.
template <class T>
__global__ void finish_kernel(const float* partial, std::int64_t parts, std::int64_t channels,
                              std::int64_t width, T* dweight, T* dbias) {
  HAX_SHARED(lanes, float[kLanes][kWarp]);
  const int column = static_cast<int>(threadIdx.x) % kWarp;
  const int lane = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t size = (width + 1) * channels;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarp + column;
  float sum = 0;
  if (i < size) {
    for (std::int64_t part = lane; part < parts; part += kLanes) sum += partial[part * size + i];
  }
  lanes[lane][column] = sum;
  __syncthreads();
  if (lane != 0 || i >= size) return;
  for (int other = 1; other < kLanes; ++other) sum += lanes[other][column];
  const std::int64_t tap = i / channels, c = i % channels;
  if (tap < width) {
    dweight[c * width + tap] = cuda::from_float<T>(sum);
  } else if (dbias != nullptr) {
    dbias[c] = cuda::from_float<T>(sum);
  }
}

// Any other width, plainly: g first, then what follows from it.

template <class T, class Act>
__global__ void slope_kernel(conv::Input<T> in, Act act, const T* dy, float* g) {
  const std::int64_t count = in.tokens * in.channels;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t t = i / in.channels, c = i % in.channels;
    const std::int64_t begin = in.offsets[conv::sequence_of(in.offsets, in.sequences, t)];
    g[i] = cuda::to_float(dy[i]) * act.derivative(in.pre_activation(begin, t, c));
  }
}

template <class T>
__global__ void input_gradient_kernel(conv::Input<T> in, const float* g, T* dx) {
  const std::int64_t count = in.tokens * in.channels;
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    const std::int64_t t = i / in.channels, c = i % in.channels;
    const std::int64_t s = conv::sequence_of(in.offsets, in.sequences, t);
    const std::int64_t end = s + 1 < in.sequences ? in.offsets[s + 1] : in.tokens;
    float sum = 0;
    for (std::int64_t j = 0; j < in.width && t + j < end; ++j) {
      sum += in.tap(c, in.width - 1 - j) * g[(t + j) * in.channels + c];
    }
    dx[i] = cuda::from_float<T>(sum);
  }
}

// What token t adds to number d of dweight [C, W].
template <class T>
struct TapGradient {
  conv::Input<T> in;
  const float* g;
  __device__ float operator()(std::int64_t t, std::int64_t d) const {
    const std::int64_t c = d / in.width, at = t - (in.width - 1) + d % in.width;
    const std::int64_t begin = in.offsets[conv::sequence_of(in.offsets, in.sequences, t)];
    return at < begin ? 0 : g[t * in.channels + c] * in.at(at, c);
  }
};
struct BiasGradient {
  const float* g;
  std::int64_t channels;
  __device__ float operator()(std::int64_t t, std::int64_t c) const { return g[t * channels + c]; }
};

template <class T, class Act>
void backward_of_any_width(const conv::Input<T>& in, Act act, const Tensor& dy, Tensor& dx,
                           Tensor& dweight, Tensor& dbias) {
  Tensor slope = Tensor::empty(dy.shape(), DType::float32, kCuda);
  float* g = slope.data<float>();
  const dim3 across(cuda::blocks_for(dy.numel(), kThreads)), threads(kThreads);
  cuda::launch(slope_kernel<T, Act>, {across, threads}, in, act, dy.data<T>(), g);
  cuda::launch(input_gradient_kernel<T>, {across, threads}, in, g, dx.data<T>());
  cuda::sum_over_rows(in.tokens, in.channels * in.width, TapGradient<T>{in, g}, dweight.data<T>());
  if (dbias.defined()) {
    cuda::sum_over_rows(in.tokens, in.channels, BiasGradient{g, in.channels}, dbias.data<T>());
  }
}

template <int kTaps, class T, class Act>
void backward_of_width(const conv::Input<T>& in, Act act, const Tensor& dy, Tensor& dx,
                       Tensor& dweight, Tensor& dbias) {
  std::int64_t parts = cuda::ceil_div(in.tokens, kRun * kLanes);
  parts = parts < 1 ? 1 : (parts > kParts ? kParts : parts);
  Tensor partial = Tensor::empty({parts, kTaps + 1, in.channels}, DType::float32, kCuda);
  cuda::launch(backward_kernel<kTaps, T, Act>,
               {dim3(cuda::blocks(cuda::ceil_div(in.channels, kWarp)), cuda::blocks(parts)),
                dim3(kLanes * kWarp)},
               in, act, dy.data<T>(), dx.data<T>(), partial.data<float>());
  cuda::launch(finish_kernel<T>,
               {cuda::blocks(cuda::ceil_div(in.channels * (kTaps + 1), kWarp)), kLanes * kWarp},
               partial.data<float>(), parts, in.channels, in.width, dweight.data<T>(),
               dbias.defined() ? dbias.data<T>() : nullptr);
}

}  // namespace

void causal_conv1d_backward(Cuda, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& bias, const Sequences& sequences, Activation activation,
                            Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const Tensor offsets = sequences.offsets_on(kCuda);
  cuda::visit_storage("causal_conv1d", x.dtype(), [&]<class T>() {
    const conv::Input<T> in = conv::input_of<T>(x, weight, bias, offsets, sequences);
    conv::visit_activation(activation, [&]<class Act>(Act act) {
      conv::visit_width(in.width, [&]<int kTaps>() {
        if constexpr (kTaps == 0) {
          backward_of_any_width<T>(in, act, dy, dx, dweight, dbias);
        } else {
          backward_of_width<kTaps, T>(in, act, dy, dx, dweight, dbias);
        }
      });
    });
  });
}

}  // namespace hax
