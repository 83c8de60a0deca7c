// Forward of ssd on CUDA (ssd.md, "On CUDA").

#include "ops/ssd/ssd_chunks.cuh"

namespace hax {

using namespace ssd_cuda;

namespace {

// y of one chunk and the block's heads: diag(a) C S + M X. states: before each chunk.
template <class T, int kColumns>
__global__ void read_kernel(Inputs<T> in, const float* states, T* y) {
  HAX_SHARED(decays, Decays);
  HAX_SHARED(stage, Stage);
  HAX_SHARED(weights, float[kChunk][kChunk + 1]);  // M
  const Work<T> work(in, blockIdx.y);
  if (work.len == 0) return;
  load_decays(in, work, decays);
  const int wanted = static_cast<int>(threadIdx.x) < work.len && decays.row[threadIdx.x] >= 0;
  if (__syncthreads_or(wanted) == 0) return;
  const std::int64_t begin = work.piece.begin;
  const auto C = [&](int i, std::int64_t n) {
    if (i >= work.len || decays.row[i] < 0) return 0.0f;
    return cuda::to_float(in.C[decays.row[i] * in.projected() + work.group * in.state + n]);
  };
  float correlation[kRows][kChunk / 16] = {};  // G
  add_product<false, false>(correlation, in.state, stage, C, [&](std::int64_t n, int j) {
    if (j >= work.len) return 0.0f;
    return cuda::to_float(in.B[(begin + j) * in.projected() + work.group * in.state + n]);
  });
  for (int h = 0; h < work.heads; ++h) {
    const std::int64_t head = work.first_head + h;
    const float skip = cuda::to_float(in.D[head]);
    __syncthreads();
    for (int r = 0; r < kRows; ++r) {
      const int i = row_of_sum(r);
      for (int c = 0; c < kChunk / 16; ++c) {
        const int j = column_of_sum(c);
        float m = 0;
        if (j <= i && i < work.len) {
          m = correlation[r][c] * decays.between(h, j, i) * decays.dt[h][j] +
              (i == j ? skip : 0.0f);
        }
        weights[i][j] = m;
      }
    }
    for (std::int64_t p0 = 0; p0 < in.head_dim; p0 += 16 * kColumns) {
      float sums[kRows][kColumns] = {};
      const float* state = states + (blockIdx.x * in.heads + head) * in.head_dim * in.state;
      add_product<false, false>(sums, in.state, stage, C, [&](std::int64_t n, int j) {
        return p0 + j < in.head_dim ? state[(p0 + j) * in.state + n] : 0.0f;
      });
      for (int r = 0; r < kRows; ++r) {
        const int i = row_of_sum(r);
        const float decay = i < work.len ? decays.from_start(h, i) : 0.0f;
        for (int c = 0; c < kColumns; ++c) sums[r][c] *= decay;
      }
      const std::int64_t first = head * in.head_dim + p0;
      add_product<false, true>(
          sums, work.len, stage, [&](int i, std::int64_t j) { return weights[i][j]; },
          [&](std::int64_t j, int p) {
            if (p0 + p >= in.head_dim) return 0.0f;
            return cuda::to_float(in.x[(begin + j) * in.channels() + first + p]);
          });
      for (int r = 0; r < kRows; ++r) {
        const int i = row_of_sum(r);
        if (i >= work.len || decays.row[i] < 0) continue;
        for (int c = 0; c < kColumns; ++c) {
          const int p = column_of_sum(c);
          if (p0 + p >= in.head_dim) continue;
          y[decays.row[i] * in.channels() + first + p] = cuda::from_float<T>(sums[r][c]);
        }
      }
    }
  }
}

template <class T>
void run(const SsdInputs& in, const Sequences& sequences, const SsdOptions& options, Tensor& y,
         Tensor& final_state, const Tensor& kept) {
  const std::int64_t tokens = in.x.size(0), places = ssd_blocks(Cuda{}, sequences);
  const Tensor row_of = in.rows.defined() ? cuda::row_of_token(in.rows, tokens) : Tensor{};
  const std::int64_t in_turn = heads_in_turn(places, options);
  const Inputs<T> inputs(in, sequences, options, row_of, in_turn);
  const Inputs<T> as_rows(in, sequences, options, row_of, heads_as_rows(in_turn, inputs.head_dim));
  const std::int64_t head_size = inputs.head_dim * inputs.state;
  const auto floats = [](Shape shape) { return Tensor::empty(shape, DType::float32, kCuda); };
  Tensor states = kept.defined() ? kept : floats({places, inputs.heads, head_size});
  Tensor totals = floats({places, inputs.heads});
  const T* none = nullptr;
  visit_columns(inputs.state, [&]<int kColumns>() {
    cuda::launch(chunk_state_kernel<T, false, kColumns>, {as_rows.grid(places), kThreads}, as_rows,
                 none, states.data<float>(), totals.data<float>());
  });
  cuda::launch(carry_kernel<T, false>, {cuda::blocks_for(final_state.numel(), 256), 256},
               inputs.pieces, totals.data<float>(),
               in.initial.defined() ? in.initial.data<T>() : none, inputs.heads, head_size,
               states.data<float>(), final_state.data<T>());
  visit_columns(inputs.head_dim, [&]<int kColumns>() {
    cuda::launch(read_kernel<T, kColumns>, {inputs.grid(places), kThreads}, inputs,
                 states.data<float>(), y.data<T>());
  });
}

}  // namespace

void ssd_forward(Cuda, const SsdInputs& in, const Sequences& sequences, const SsdOptions& options,
                 Tensor& y, Tensor& final_state, Tensor& states) {
  cuda::visit_storage("ssd", in.x.dtype(),
                      [&]<class T>() { run<T>(in, sequences, options, y, final_state, states); });
}

}  // namespace hax
