// Backward of ssd on CUDA (ssd.md, "On CUDA").

#include "engine/cuda/reduce.cuh"
#include "ops/ssd/ssd_chunks.cuh"

namespace hax {

using namespace ssd_cuda;

namespace {

// What crosses from a token, or from before the chunk, to a token, or to after it: row i < 64 to
// token i, row 64 to after; column 0 from before, column j + 1 from token j, without its dt.
using Crossings = float[kChunk + 1][kChunk + 3];

// f(i) over the thread's row: the sum over the 16 threads of a row, the same bits in each.
__device__ float row_sum(float value) {
  for (int distance = 8; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(cuda::kAllLanes, value, distance);
  }
  return value;
}

// dlog alpha of every token from what crosses it: everything from before it to itself or later ->
// ddt, and the head's share of dA.
template <class T>
__device__ void add_up_crossings(const Inputs<T>& in, const Work<T>& work, const Decays& decays,
                                 int h, Crossings& cross, T* ddt, float* dA) {
  const int k = static_cast<int>(threadIdx.x);
  float direct = 0;
  if (k < work.len) {
    for (int i = 0; i <= kChunk; ++i) direct += cross[i][k + 1];
  }
  __syncthreads();
  if (k <= kChunk) {  // sums along a row
    float sum = cross[k][0];
    for (int j = 0; j < kChunk; ++j) {
      sum += cross[k][j + 1] * decays.dt[h][j];
      cross[k][j + 1] = sum;
    }
  }
  __syncthreads();
  const std::int64_t head = work.first_head + h;
  float share = 0;
  if (k < work.len) {
    float dlog = 0;
    for (int i = k; i <= kChunk; ++i) dlog += cross[i][k];
    share = decays.dt[h][k] * dlog;
    ddt[(work.piece.begin + k) * in.heads + head] =
        cuda::from_float<T>(cuda::to_float(in.A[head]) * dlog + direct);
  }
  share = cuda::block_sum(share);
  if (k == 0) dA[blockIdx.x * in.heads + head] = share;
}

struct Buffers {
  const float *states, *dstates;  // [places, heads, P, N]: S before, dS after each chunk
  float* dG;                      // [places, groups * sets, 64, 64]
  float *dA, *dD;                 // [places, heads]
};

// dx, ddt and the shares of dG, dA and dD of one chunk and the block's heads.
template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads, 2)
    backward_kernel(Inputs<T> in, const T* dy, Buffers to, T* dx, T* ddt) {
  HAX_SHARED(decays, Decays);
  HAX_SHARED(stage, Stage);
  HAX_SHARED(cross, Crossings);  // M, then the crossings
  const Work<T> work(in, blockIdx.y);
  if (work.len == 0) {
    if (static_cast<int>(threadIdx.x) < work.heads) {
      const std::int64_t at = blockIdx.x * in.heads + work.first_head + threadIdx.x;
      to.dA[at] = to.dD[at] = 0;
    }
    return;
  }
  load_decays(in, work, decays);
  const std::int64_t begin = work.piece.begin, P = in.head_dim, N = in.state;
  const auto B = [&](int j, std::int64_t n) {
    if (j >= work.len) return 0.0f;
    return cuda::to_float(in.B[(begin + j) * in.projected() + work.group * N + n]);
  };
  const auto C = [&](int i, std::int64_t n) {
    if (i >= work.len || decays.row[i] < 0) return 0.0f;
    return cuda::to_float(in.C[decays.row[i] * in.projected() + work.group * N + n]);
  };
  float G[kRows][kChunk / 16] = {}, dG[kRows][kChunk / 16] = {};
  add_product<false, false>(G, N, stage, C, [&](std::int64_t n, int j) { return B(j, n); });
  for (int h = 0; h < work.heads; ++h) {
    const std::int64_t head = work.first_head + h, first = head * P;
    const float* S = to.states + (blockIdx.x * in.heads + head) * P * N;
    const float* dS = to.dstates + (blockIdx.x * in.heads + head) * P * N;
    const float skip = cuda::to_float(in.D[head]);
    const auto x = [&](std::int64_t j, std::int64_t p) {
      if (j >= work.len || p >= P) return 0.0f;
      return cuda::to_float(in.x[(begin + j) * in.channels() + first + p]);
    };
    const auto g = [&](std::int64_t i, std::int64_t p) {
      if (i >= work.len || p >= P || dy == nullptr || decays.row[i] < 0) return 0.0f;
      return cuda::to_float(dy[decays.row[i] * in.channels() + first + p]);
    };
    float inside[kRows][kChunk / 16] = {};  // dM, then what crosses
    add_product<false, false>(inside, P, stage, g, [&](std::int64_t p, int j) { return x(j, p); });
    __syncthreads();
    for (int r = 0; r < kRows; ++r) {
      const int i = row_of_sum(r);
      for (int c = 0; c < kChunk / 16; ++c) {
        const int j = column_of_sum(c);
        float L = 0, dt = 0;
        if (j <= i && i < work.len) {
          L = decays.between(h, j, i);
          dt = decays.dt[h][j];
        }
        cross[i][j] = G[r][c] * L * dt + (i == j && i < work.len ? skip : 0.0f);
        dG[r][c] += inside[r][c] * L * dt;
        inside[r][c] *= G[r][c] * L;
      }
    }
    float from_before[kRows] = {}, to_after[kRows] = {}, dD = 0;  // by row
    for (std::int64_t p0 = 0; p0 < P; p0 += 16 * kColumns) {
      float sums[kRows][kColumns] = {};
      add_product<false, false>(sums, N, stage, C, [&](std::int64_t n, int p) {
        return p0 + p < P ? S[(p0 + p) * N + n] : 0.0f;
      });
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kColumns; ++c) {
          from_before[r] += sums[r][c] * g(row_of_sum(r), p0 + column_of_sum(c));
          sums[r][c] = 0;
        }
      }
      add_product<false, false>(sums, N, stage, B, [&](std::int64_t n, int p) {
        return p0 + p < P ? dS[(p0 + p) * N + n] : 0.0f;
      });
      for (int r = 0; r < kRows; ++r) {
        const int j = row_of_sum(r);
        const float decay = j < work.len ? decays.to_end(h, j, work.len) : 0.0f;
        for (int c = 0; c < kColumns; ++c) {
          const std::int64_t p = p0 + column_of_sum(c);
          const float value = x(j, p);
          sums[r][c] *= decay;
          to_after[r] += sums[r][c] * value;
          dD += value * g(j, p);
          sums[r][c] *= decays.dt[h][j];
        }
      }
      add_product<true, true>(
          sums, work.len, stage, [&](int j, std::int64_t i) { return cross[i][j]; },
          [&](std::int64_t i, int p) { return g(i, p0 + p); });
      for (int r = 0; r < kRows; ++r) {
        const int j = row_of_sum(r);
        for (int c = 0; c < kColumns; ++c) {
          const std::int64_t p = p0 + column_of_sum(c);
          if (j >= work.len || p >= P) continue;
          dx[(begin + j) * in.channels() + first + p] = cuda::from_float<T>(sums[r][c]);
        }
      }
    }
    dD = cuda::block_sum(dD);
    float across = 0;
    for (std::int64_t i = threadIdx.x; i < P * N; i += kThreads) across += S[i] * dS[i];
    across = cuda::block_sum(across);
    __syncthreads();
    for (int r = 0; r < kRows; ++r) {
      const int i = row_of_sum(r);
      for (int c = 0; c < kChunk / 16; ++c) cross[i][column_of_sum(c) + 1] = inside[r][c];
      const float before = row_sum(from_before[r]), after = row_sum(to_after[r]);
      if (threadIdx.x % 16 != 0) continue;
      cross[i][0] = i < work.len ? before * decays.from_start(h, i) : 0.0f;
      cross[kChunk][i + 1] = after;
    }
    if (threadIdx.x == 0) {
      to.dD[blockIdx.x * in.heads + head] = dD;
      cross[kChunk][0] = across * decays.from_start(h, work.len - 1);
    }
    __syncthreads();
    add_up_crossings(in, work, decays, h, cross, ddt, to.dA);
  }
  float* out = to.dG + (blockIdx.x * gridDim.y + blockIdx.y) * kChunk * kChunk;
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kChunk / 16; ++c) out[row_of_sum(r) * kChunk + column_of_sum(c)] = dG[r][c];
  }
}

// dC (kOfC) or dB of one chunk and a group: the sum over the heads is part of a product whose depth
// is all channels of the group's heads; then what comes by way of G.
template <class T, bool kOfC, int kColumns>
__global__ void projection_kernel(Inputs<T> in, const T* dy, Buffers from, T* out) {
  HAX_SHARED(decays, Decays);
  HAX_SHARED(stage, Stage);
  HAX_SHARED(weights, float[kHeads][kChunk]);
  const std::int64_t group = blockIdx.y, N = in.state;
  const float* states = kOfC ? from.states : from.dstates;
  for (std::int64_t n0 = 0; n0 < N; n0 += 16 * kColumns) {
    float sums[kRows][kColumns] = {};
    for (std::int64_t set = 0; set < in.sets; ++set) {
      const Work<T> work(in, group * in.sets + set);
      if (work.len == 0) return;
      __syncthreads();
      load_decays(in, work, decays);
      for (int item = static_cast<int>(threadIdx.x); item < work.heads * kChunk; item += kThreads) {
        const int h = item / kChunk, i = item % kChunk;
        if (i >= work.len) continue;
        weights[h][i] =
            kOfC ? decays.from_start(h, i) : decays.to_end(h, i, work.len) * decays.dt[h][i];
      }
      const std::int64_t first = work.first_head * in.head_dim;
      const auto left = [&](int i, std::int64_t k) {
        if (i >= work.len || (kOfC && (dy == nullptr || decays.row[i] < 0))) return 0.0f;
        const std::int64_t row = kOfC ? decays.row[i] : work.piece.begin + i;
        const float value = cuda::to_float((kOfC ? dy : in.x)[row * in.channels() + first + k]);
        return value * weights[k / in.head_dim][i];
      };
      const auto right = [&](std::int64_t k, int j) {
        const std::int64_t n = n0 + j;
        return n < N ? states[(blockIdx.x * in.channels() + first + k) * N + n] : 0.0f;
      };
      add_product<false, true>(sums, work.heads * in.head_dim, stage, left, right);
    }
    const Work<T> work(in, group * in.sets);
    const float* dG = from.dG + (blockIdx.x * in.groups + group) * in.sets * kChunk * kChunk;
    const auto left = [&](int i, std::int64_t k) {
      float sum = 0;
      for (std::int64_t set = 0; set < in.sets; ++set) {
        sum += dG[set * kChunk * kChunk + (kOfC ? i * kChunk + k : k * kChunk + i)];
      }
      return sum;
    };
    const auto right = [&](std::int64_t k, int j) {
      const std::int64_t n = n0 + j, row = kOfC ? work.piece.begin + k : decays.row[k];
      if (n >= N || row < 0) return 0.0f;
      return cuda::to_float((kOfC ? in.B : in.C)[row * in.projected() + group * N + n]);
    };
    add_product<!kOfC, true>(sums, work.len, stage, left, right);
    for (int r = 0; r < kRows; ++r) {
      const int i = row_of_sum(r);
      if (i >= work.len || (kOfC && decays.row[i] < 0)) continue;
      const std::int64_t row = kOfC ? decays.row[i] : work.piece.begin + i;
      for (int c = 0; c < kColumns; ++c) {
        const std::int64_t n = n0 + column_of_sum(c);
        if (n < N) out[row * in.projected() + group * N + n] = cuda::from_float<T>(sums[r][c]);
      }
    }
  }
}

template <class T>
void run(const Tensor& dy, const Tensor& dfinal, const SsdInputs& in, const Tensor& states,
         const Sequences& sequences, const SsdOptions& options, SsdGradients& out) {
  const std::int64_t tokens = in.x.size(0), places = ssd_blocks(Cuda{}, sequences);
  const Tensor row_of = in.rows.defined() ? cuda::row_of_token(in.rows, tokens) : Tensor{};
  const std::int64_t in_turn = heads_in_turn(places, options);
  const Inputs<T> inputs(in, sequences, options, row_of, in_turn);
  const Inputs<T> as_rows(in, sequences, options, row_of, heads_as_rows(in_turn, inputs.head_dim));
  const std::int64_t heads = inputs.heads, head_size = inputs.head_dim * inputs.state;
  const auto floats = [](Shape shape) { return Tensor::empty(shape, DType::float32, kCuda); };
  const auto pointer = [](const Tensor& x) { return x.defined() ? x.data<T>() : nullptr; };
  const T *from_dy = pointer(dy), *from_final = pointer(dfinal);
  T* to_initial = out.dinitial.defined() ? out.dinitial.data<T>() : nullptr;
  Tensor dstates = floats({places, heads, head_size}), totals = floats({places, heads});
  Tensor dG = floats({places, inputs.groups * inputs.sets, kChunk * kChunk});
  Tensor dA = floats({places, heads}), dD = floats({places, heads});
  visit_columns(inputs.state, [&]<int kColumns>() {
    cuda::launch(chunk_state_kernel<T, true, kColumns>, {as_rows.grid(places), kThreads}, as_rows,
                 from_dy, dstates.data<float>(), totals.data<float>());
  });
  cuda::launch(carry_kernel<T, true>,
               {cuda::blocks_for(sequences.count() * heads * head_size, 256), 256}, inputs.pieces,
               totals.data<float>(), from_final, heads, head_size, dstates.data<float>(),
               to_initial);
  const Buffers buffers{states.data<float>(), dstates.data<float>(), dG.data<float>(),
                        dA.data<float>(), dD.data<float>()};
  visit_columns(inputs.head_dim, [&]<int kColumns>() {
    cuda::launch(backward_kernel<T, kColumns>, {inputs.grid(places), kThreads}, inputs, from_dy,
                 buffers, out.dx.data<T>(), out.ddt.data<T>());
  });
  const dim3 grid(cuda::blocks(places), cuda::blocks(inputs.groups));
  visit_columns(inputs.state, [&]<int kColumns>() {
    cuda::launch(projection_kernel<T, false, kColumns>, {grid, kThreads}, inputs, from_dy, buffers,
                 out.dB.data<T>());
    cuda::launch(projection_kernel<T, true, kColumns>, {grid, kThreads}, inputs, from_dy, buffers,
                 out.dC.data<T>());
  });
  cuda::sum_over_rows(places, heads, cuda::detail::ReadFloat{dA.data<float>(), heads},
                      out.dA.data<T>());
  cuda::sum_over_rows(places, heads, cuda::detail::ReadFloat{dD.data<float>(), heads},
                      out.dD.data<T>());
}

}  // namespace

void ssd_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const SsdInputs& in,
                  const Tensor& states, const Sequences& sequences, const SsdOptions& options,
                  SsdGradients& out) {
  cuda::visit_storage("ssd", in.x.dtype(),
                      [&]<class T>() { run<T>(dy, dfinal, in, states, sequences, options, out); });
}

}  // namespace hax
