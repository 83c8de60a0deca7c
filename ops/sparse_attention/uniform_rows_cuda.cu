#include "ops/sparse_attention/uniform_rows_cuda.h"

#include "ops/sparse_attention/attention_keys.cuh"

namespace hax {
namespace {

using attention::Keys;
using cuda::to_float;

constexpr unsigned kThreads = 256;

// Sums over a sequence of products of two of its rows, as three tables in one row of `sums`:
// [E, N] of left x right, [E] of left, [N] of right times a factor.
struct SumsLayout {
  std::int64_t channels, states;
  __host__ __device__ std::int64_t size() const { return channels * states + channels + states; }
  __device__ std::int64_t left() const { return channels * states; }
  __device__ std::int64_t right() const { return left() + channels; }
};

// sums [S, size]: of the tokens, with V left and K right; or of the rows without a key, with dy
// left and Q right, which is then multiplied by `projection` [R].
template <class T>
__global__ void sums_kernel(Keys keys, SumsLayout layout, std::int64_t rows, const T* left,
                            const T* right, const float* softmax, const float* projection,
                            float* sums) {
  const std::int64_t s = blockIdx.x;
  std::int64_t first = keys.offsets[s], last = keys.offsets[s + 1];
  if (softmax) {
    first = keys.row_at(first, rows);
    last = keys.row_at(last, rows);
  }
  for (std::int64_t i = blockIdx.y * blockDim.x + threadIdx.x; i < layout.size();
       i += std::int64_t{gridDim.y} * blockDim.x) {
    const std::int64_t column = i - layout.right();
    double sum = 0;
    for (std::int64_t r = first; r < last; ++r) {
      if (softmax && softmax[2 * r + 1] != 0) continue;
      const T *a = left + r * layout.channels, *b = right + r * layout.states;
      if (i < layout.left()) {
        sum += static_cast<double>(to_float(a[i / layout.states])) * to_float(b[i % layout.states]);
      } else if (column < 0) {
        sum += to_float(a[i - layout.left()]);
      } else {
        sum += to_float(b[column]) * (projection ? projection[r] : 1.0f);
      }
    }
    sums[s * layout.size() + i] = static_cast<float>(sum);
  }
}

template <class T>
__global__ void mean_kernel(Keys keys, SumsLayout layout, const std::int32_t* padded,
                            std::int64_t rows, const float* softmax, const float* sums, T* y) {
  for (std::int64_t i = cuda::global_thread(); i < rows * layout.channels;
       i += cuda::global_threads()) {
    const std::int64_t row = i / layout.channels, channel = i % layout.channels;
    if (softmax[2 * row + 1] != 0) continue;
    const std::int64_t s = keys.sequence_of(keys.token_of(row));
    y[i] = cuda::from_float<T>(sums[s * layout.size() + layout.left() + channel] /
                               static_cast<float>(padded[s]));
  }
}

// dq_n = p (sum_e g_e (sum_j V_j K_j^T)_en - (g . y) (sum_j K_j)_n). projection [R]: g . y.
template <class T>
__global__ void query_kernel(Keys keys, SumsLayout layout, const std::int32_t* padded,
                             std::int64_t rows, const float* softmax, const float* sums,
                             const T* dy, float* projection, T* dQ) {
  for (std::int64_t i = cuda::global_thread(); i < rows * layout.states;
       i += cuda::global_threads()) {
    const std::int64_t row = i / layout.states, state = i % layout.states;
    if (softmax[2 * row + 1] != 0) continue;
    const std::int64_t s = keys.sequence_of(keys.token_of(row));
    const float p = 1 / static_cast<float>(padded[s]), *sum = sums + s * layout.size();
    const T* g = dy + row * layout.channels;
    float mean = 0, moved = 0;
    for (std::int64_t e = 0; e < layout.channels; ++e) {
      mean += to_float(g[e]) * sum[layout.left() + e] * p;
      moved += to_float(g[e]) * sum[e * layout.states + state];
    }
    dQ[i] = cuda::from_float<T>(p * (moved - mean * sum[layout.right() + state]));
    if (state == 0) projection[row] = mean;
  }
}

template <class T>
__global__ void key_kernel(Keys keys, SumsLayout layout, const std::int32_t* padded,
                           std::int64_t tokens, const float* sums, const T* V, T* dK, T* dV) {
  const std::int64_t width = layout.states + layout.channels;
  for (std::int64_t i = cuda::global_thread(); i < tokens * width; i += cuda::global_threads()) {
    const std::int64_t u = i / width, column = i % width, s = keys.sequence_of(u);
    const float p = 1 / static_cast<float>(padded[s]), *sum = sums + s * layout.size();
    float add = 0;
    if (column < layout.states) {
      for (std::int64_t e = 0; e < layout.channels; ++e) {
        add += to_float(V[u * layout.channels + e]) * sum[e * layout.states + column];
      }
      add -= sum[layout.right() + column];
    } else {
      add = sum[layout.left() + column - layout.states];
    }
    T& target = column < layout.states ? dK[u * layout.states + column]
                                       : dV[u * layout.channels + column - layout.states];
    target = cuda::from_float<T>(to_float(target) + p * add);
  }
}

template <class T>
Tensor sums_of(const Keys& keys, const SumsLayout& layout, std::int64_t rows, const T* left,
               const T* right, const float* softmax, const float* projection) {
  Tensor sums = Tensor::empty({keys.sequences, layout.size()}, DType::float32, kCuda);
  const std::int64_t chunks = cuda::ceil_div(layout.size(), kThreads);
  cuda::launch(
      sums_kernel<T>,
      {dim3(cuda::blocks(keys.sequences), cuda::blocks(chunks < 64 ? chunks : 64)), kThreads}, keys,
      layout, rows, left, right, softmax, projection, sums.data<float>());
  return sums;
}

}  // namespace

void uniform_rows_forward(const Tensor& V, const Sequences& sequences, const Tensor& rows,
                          const Tensor& softmax, Tensor& y) {
  const Keys keys = attention::window_view(sequences, 1, rows);
  const SumsLayout layout{V.size(1), 0};
  const Tensor padded = sequences.padded_on(kCuda);
  cuda::visit_storage("sparse_attention", V.dtype(), [&]<class T>() {
    const Tensor sums = sums_of<T>(keys, layout, V.size(0), V.data<T>(), nullptr, nullptr, nullptr);
    cuda::launch(mean_kernel<T>, {cuda::blocks_for(y.numel(), kThreads), kThreads}, keys, layout,
                 padded.data<std::int32_t>(), y.size(0), softmax.data<float>(), sums.data<float>(),
                 y.data<T>());
  });
}

void uniform_rows_backward(const Tensor& dy, const Tensor& Q, const Tensor& K, const Tensor& V,
                           const Sequences& sequences, const Tensor& rows, const Tensor& softmax,
                           Tensor& dQ, Tensor& dK, Tensor& dV) {
  const Keys keys = attention::window_view(sequences, 1, rows);
  const SumsLayout layout{V.size(1), K.size(1)};
  const Tensor padded = sequences.padded_on(kCuda);
  const std::int64_t count = Q.size(0), tokens = K.size(0);
  Tensor projection = Tensor::empty({count}, DType::float32, kCuda);
  cuda::visit_storage("sparse_attention", V.dtype(), [&]<class T>() {
    const Tensor of_tokens =
        sums_of<T>(keys, layout, tokens, V.data<T>(), K.data<T>(), nullptr, nullptr);
    cuda::launch(query_kernel<T>, {cuda::blocks_for(Q.numel(), kThreads), kThreads}, keys, layout,
                 padded.data<std::int32_t>(), count, softmax.data<float>(), of_tokens.data<float>(),
                 dy.data<T>(), projection.data<float>(), dQ.data<T>());
    const Tensor of_rows = sums_of<T>(keys, layout, count, dy.data<T>(), Q.data<T>(),
                                      softmax.data<float>(), projection.data<float>());
    cuda::launch(key_kernel<T>, {cuda::blocks_for(K.numel() + V.numel(), kThreads), kThreads}, keys,
                 layout, padded.data<std::int32_t>(), tokens, of_rows.data<float>(), V.data<T>(),
                 dK.data<T>(), dV.data<T>());
  });
}

}  // namespace hax
