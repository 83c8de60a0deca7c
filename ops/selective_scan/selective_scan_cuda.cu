// Forward of selective_scan on CUDA (selective_scan.md, "On CUDA").

#include "ops/selective_scan/selective_scan_pieces.cuh"

namespace hax {

using namespace scan_cuda;

namespace {

constexpr int kStage = 32;  // tokens in shared memory at once

// kLocal: what the piece makes of a state of zero -> carry and steps [places, E], nothing else.
// Otherwise from carry, or, where that is null, from initial, which may be null too.
template <class T, bool kLocal>
__global__ void forward_kernel(Inputs<T> in, const T* initial, float* carry, float* steps, T* y,
                               T* final_state, float* states) {
  Tiles<T, kStage> tile(in, cuda::dynamic_shared<float>());
  const Place<T> place(in);
  const cuda::Piece piece = in.pieces.at(blockIdx.x);
  const int channels = kThreads >> in.lane_bits;
  float rate[kStates], h[kStates] = {}, sum_dt = 0;
  place.load_rates(in, rate);
  const float skip = place.e < in.dim && in.first_state == 0 ? cuda::to_float(in.D[place.e]) : 0;
  if (!kLocal && carry != nullptr) {
    place.load(carry + place.at(in, blockIdx.x), h);
  } else if (!kLocal && initial != nullptr) {
    place.load(initial + place.at(in, piece.sequence), h);
  }
  for (std::int64_t t = piece.begin; t < piece.end; t += kStage) {
    const int len = static_cast<int>(piece.end - t < kStage ? piece.end - t : kStage);
    __syncthreads();
    tile.template load<!kLocal>(in, t, len, nullptr);
    for (int i = 0; i < len; ++i) {
      if (!kLocal && states != nullptr && i % kScanChunk == 0) {
        place.store(h, states + place.at(in, in.chunk_place(piece.sequence, t + i)));
      }
      const float dt = tile.dt[i * channels + place.channel];
      const float u = tile.u[i * channels + place.channel], drive = dt * u;
      const int column = (i << in.lane_bits) + place.lane;
      const float4 B = reinterpret_cast<const float4*>(tile.B)[column];
      h[0] = exp2f(dt * rate[0]) * h[0] + drive * B.x;
      h[1] = exp2f(dt * rate[1]) * h[1] + drive * B.y;
      h[2] = exp2f(dt * rate[2]) * h[2] + drive * B.z;
      h[3] = exp2f(dt * rate[3]) * h[3] + drive * B.w;
      if (kLocal) {
        sum_dt += dt;
        continue;
      }
      const std::int64_t row = tile.row[i];
      if (row < 0) continue;
      const float4 C = reinterpret_cast<const float4*>(tile.C)[column];
      float read = C.x * h[0] + C.y * h[1] + C.z * h[2] + C.w * h[3];
      read = channel_sum(read, in.lane_bits) + skip * u;
      if (place.lane != 0 || place.e >= in.dim) continue;
      T& to = y[row * in.dim + place.e];
      to = cuda::from_float<T>(in.first_state == 0 ? read : read + cuda::to_float(to));
    }
  }
  if (kLocal) {
    place.store(h, carry + place.at(in, blockIdx.x));
    if (place.lane == 0 && place.e < in.dim) steps[blockIdx.x * in.dim + place.e] = sum_dt;
  } else if (piece.last) {
    place.store(h, final_state + place.at(in, piece.sequence));
  }
}

template <class T>
void run(const ScanInputs& in, const Tensor& initial, const Sequences& sequences, Tensor& y,
         Tensor& final_state, Tensor& states) {
  const std::int64_t tokens = in.u.size(0), dim = in.u.size(1), state = in.A.size(1);
  const Plan plan = make_plan(tokens, sequences.count(), dim, state);
  const Tensor row_of = in.rows.defined() ? cuda::row_of_token(in.rows, tokens) : Tensor{};
  Inputs<T> inputs(in, sequences, plan, row_of);
  const T* from = initial.defined() ? initial.data<T>() : nullptr;
  T *to_y = y.data<T>(), *to_final = final_state.data<T>();
  float* to_states = states.defined() ? states.data<float>() : nullptr;
  const cuda::LaunchShape shape{plan.grid(), kThreads, Tiles<T, kStage>::bytes(plan.lane_bits)};
  float *carry = nullptr, *steps = nullptr;
  Tensor carries, sums;
  if (plan.in_pieces) {
    carries = Tensor::empty({plan.places, dim, state}, DType::float32, kCuda);
    sums = Tensor::empty({plan.places, dim}, DType::float32, kCuda);
    carry = carries.data<float>();
    steps = sums.data<float>();
    for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
      cuda::launch(forward_kernel<T, true>, shape, inputs, from, carry, steps, to_y, to_final,
                   to_states);
    }
    cuda::launch(carry_kernel<T, false>, {cuda::blocks_for(final_state.numel(), 256), 256},
                 inputs.pieces, inputs.A, steps, from, dim, state, carry);
  }
  for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
    cuda::launch(forward_kernel<T, false>, shape, inputs, from, carry, steps, to_y, to_final,
                 to_states);
  }
}

}  // namespace

void selective_scan_forward(Cuda, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states) {
  cuda::visit_storage("selective_scan", in.u.dtype(),
                      [&]<class T>() { run<T>(in, initial, sequences, y, final_state, states); });
}

}  // namespace hax
