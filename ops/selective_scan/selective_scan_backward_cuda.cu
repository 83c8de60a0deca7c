// Backward of selective_scan on CUDA (selective_scan.md, "On CUDA").

#include "engine/cuda/reduce.cuh"
#include "ops/selective_scan/selective_scan_pieces.cuh"

namespace hax {

using namespace scan_cuda;

namespace {

constexpr int kStage = static_cast<int>(kScanChunk);

// The gradient of the state after a piece that the piece alone makes of dy, carried to its begin ->
// carry [places, E, N]; steps [places, E].
template <class T>
__global__ void local_adjoint_kernel(Inputs<T> in, const T* dy, float* carry, float* steps) {
  Tiles<T, kStage> tile(in, cuda::dynamic_shared<float>());
  const Place<T> place(in);
  const cuda::Piece piece = in.pieces.at(blockIdx.x);
  const int channels = kThreads >> in.lane_bits;
  float rate[kStates], dh[kStates] = {}, sum_dt = 0;
  place.load_rates(in, rate);
  const std::int64_t chunks = cuda::ceil_div(piece.end - piece.begin, kScanChunk);
  for (std::int64_t c = chunks - 1; c >= 0; --c) {
    const std::int64_t t = piece.begin + c * kScanChunk;
    const int len = static_cast<int>(piece.end - t < kStage ? piece.end - t : kStage);
    __syncthreads();
    tile.template load<true>(in, t, len, dy);
    for (int i = len - 1; i >= 0; --i) {
      const float dt = tile.dt[i * channels + place.channel];
      const float g = tile.dy[i * channels + place.channel];
      const float4 C = reinterpret_cast<const float4*>(tile.C)[(i << in.lane_bits) + place.lane];
      dh[0] = exp2f(dt * rate[0]) * (dh[0] + g * C.x);
      dh[1] = exp2f(dt * rate[1]) * (dh[1] + g * C.y);
      dh[2] = exp2f(dt * rate[2]) * (dh[2] + g * C.z);
      dh[3] = exp2f(dt * rate[3]) * (dh[3] + g * C.w);
      sum_dt += dt;
    }
  }
  place.store(dh, carry + place.at(in, blockIdx.x));
  if (place.lane == 0 && place.e < in.dim) steps[blockIdx.x * in.dim + place.e] = sum_dt;
}

// Shares of the gradients that several blocks add to.
struct Shares {
  float *dB, *dC;  // [channel_blocks, T, N], [channel_blocks, R, N]
  float *dA, *dD;  // [places, E, N], [places, E]
};

// out [token, first_state + n] = sum over the block's channels of trace [token, channel, n] times
// factor [token, channel]: a thread has 4 states of a token, and if there are more threads than
// those, a part of the channels.
template <class T, class Factor>
__device__ void sum_channels(const Inputs<T>& in, const float4* trace, int len, Factor factor,
                             const std::int32_t* rows, std::int64_t first_row, float* out) {
  const int lanes = 1 << in.lane_bits, channels = kThreads >> in.lane_bits;
  const int parts = kStage * lanes < kThreads ? kThreads / (kStage * lanes) : 1;
  for (int item = static_cast<int>(threadIdx.x); item < kStage * lanes * parts; item += kThreads) {
    const int part = item % parts, lane = item / parts % lanes, i = item / parts / lanes;
    float sum[kStates] = {};
    if (i < len) {
      for (int c = part; c < channels; c += parts) {
        const float4 x = trace[i * kThreads + (c << in.lane_bits) + lane];
        const float f = factor(i * channels + c);
        sum[0] += f * x.x;
        sum[1] += f * x.y;
        sum[2] += f * x.z;
        sum[3] += f * x.w;
      }
    }
    for (int distance = 1; distance < parts; distance *= 2) {
      for (float& x : sum) x += __shfl_xor_sync(cuda::kAllLanes, x, distance);
    }
    if (i >= len || part != 0) continue;
    const std::int64_t row = rows == nullptr ? first_row + i : rows[i];
    if (row < 0) continue;
    const std::int64_t n = in.first_state + lane * kStates;
    for (int k = 0; k < kStates; ++k) {
      if (n + k < in.state) out[row * in.state + n + k] = sum[k];
    }
  }
}

template <class T>
__global__ void backward_kernel(Inputs<T> in, const T* dy, const T* dfinal, const float* carry,
                                const float* states, std::int64_t tokens, std::int64_t wanted,
                                T* du, T* ddt, T* dinitial, Shares shares) {
  // [tokens of a chunk][threads]: h after each token, then the gradient of that.
  float4* trace = cuda::dynamic_shared<float4>();
  Tiles<T, kStage> tile(in, reinterpret_cast<float*>(trace + kStage * kThreads));
  const Place<T> place(in);
  const cuda::Piece piece = in.pieces.at(blockIdx.x);
  const int channels = kThreads >> in.lane_bits;
  const bool writes = place.lane == 0 && place.e < in.dim, first_launch = in.first_state == 0;
  float rate[kStates], dh[kStates] = {}, dA[kStates] = {}, dD = 0;
  place.load_rates(in, rate);
  const float skip = place.e < in.dim && first_launch ? cuda::to_float(in.D[place.e]) : 0;
  if (carry != nullptr) {
    place.load(carry + place.at(in, blockIdx.x), dh);
  } else if (dfinal != nullptr) {
    place.load(dfinal + place.at(in, piece.sequence), dh);
  }
  float* dB = shares.dB + blockIdx.y * tokens * in.state;
  float* dC = shares.dC + blockIdx.y * wanted * in.state;
  const std::int64_t chunks = cuda::ceil_div(piece.end - piece.begin, kScanChunk);
  for (std::int64_t c = chunks - 1; c >= 0; --c) {
    const std::int64_t t = piece.begin + c * kScanChunk;
    const int len = static_cast<int>(piece.end - t < kStage ? piece.end - t : kStage);
    __syncthreads();
    tile.template load<true>(in, t, len, dy);
    float start[kStates], h[kStates];
    place.load(states + place.at(in, in.chunk_place(piece.sequence, t)), start);
    for (int k = 0; k < kStates; ++k) h[k] = start[k];
    for (int i = 0; i < len; ++i) {
      const float dt = tile.dt[i * channels + place.channel];
      const float drive = dt * tile.u[i * channels + place.channel];
      const float4 B = reinterpret_cast<const float4*>(tile.B)[(i << in.lane_bits) + place.lane];
      h[0] = exp2f(dt * rate[0]) * h[0] + drive * B.x;
      h[1] = exp2f(dt * rate[1]) * h[1] + drive * B.y;
      h[2] = exp2f(dt * rate[2]) * h[2] + drive * B.z;
      h[3] = exp2f(dt * rate[3]) * h[3] + drive * B.w;
      trace[i * kThreads + threadIdx.x] = make_float4(h[0], h[1], h[2], h[3]);
    }
    __syncthreads();
    const auto dy_at = [&](int i) { return tile.dy[i]; };
    sum_channels(in, trace, len, dy_at, tile.row, 0, dC);
    __syncthreads();
    for (int i = len - 1; i >= 0; --i) {
      const int at = i * channels + place.channel, column = (i << in.lane_bits) + place.lane;
      const float dt = tile.dt[at], u = tile.u[at], g = tile.dy[at];
      const float4 B = reinterpret_cast<const float4*>(tile.B)[column];
      const float4 C = reinterpret_cast<const float4*>(tile.C)[column];
      const float4 before = i > 0 ? trace[(i - 1) * kThreads + threadIdx.x]
                                  : make_float4(start[0], start[1], start[2], start[3]);
      dh[0] += g * C.x;
      dh[1] += g * C.y;
      dh[2] += g * C.z;
      dh[3] += g * C.w;
      trace[i * kThreads + threadIdx.x] = make_float4(dh[0], dh[1], dh[2], dh[3]);
      float dh_B = dh[0] * B.x + dh[1] * B.y + dh[2] * B.z + dh[3] * B.w, dexponent = 0;
      const float h_before[kStates] = {before.x, before.y, before.z, before.w};
      for (int k = 0; k < kStates; ++k) {
        dh[k] *= exp2f(dt * rate[k]);
        const float q = dh[k] * h_before[k];
        dexponent += q * rate[k];
        dA[k] += q * dt;
      }
      dh_B = channel_sum(dh_B, in.lane_bits);
      dexponent = channel_sum(dexponent, in.lane_bits);
      if (!writes) continue;
      dD += g * u;
      float new_du = dt * dh_B + skip * g;
      float new_ddt = u * dh_B + std::numbers::ln2_v<float> * dexponent;
      const std::int64_t to = (t + i) * in.dim + place.e;
      if (!first_launch) {
        new_du += cuda::to_float(du[to]);
        new_ddt += cuda::to_float(ddt[to]);
      }
      du[to] = cuda::from_float<T>(new_du);
      ddt[to] = cuda::from_float<T>(new_ddt);
    }
    __syncthreads();
    const auto drive_at = [&](int i) { return tile.dt[i] * tile.u[i]; };
    sum_channels(in, trace, len, drive_at, nullptr, t, dB);
  }
  place.store(dA, shares.dA + place.at(in, blockIdx.x));
  if (writes && first_launch) shares.dD[blockIdx.x * in.dim + place.e] = dD;
  if (dinitial != nullptr && piece.index == 0) {
    place.store(dh, dinitial + place.at(in, piece.sequence));
  }
}

// Few parts of many numbers: a thread adds the parts of one number in order.
template <class T>
__global__ void sum_parts_kernel(const float* partial, std::int64_t parts, std::int64_t count,
                                 T* out) {
  for (std::int64_t i = cuda::global_thread(); i < count; i += cuda::global_threads()) {
    float sum = 0;
    for (std::int64_t p = 0; p < parts; ++p) sum += partial[p * count + i];
    out[i] = cuda::from_float<T>(sum);
  }
}

template <class T>
void run(const Tensor& dy, const Tensor& dfinal, const ScanInputs& in, const Tensor& states,
         const Sequences& sequences, ScanGradients& out) {
  const std::int64_t tokens = in.u.size(0), dim = in.u.size(1), state = in.A.size(1);
  const std::int64_t wanted = in.C.size(0);
  const Plan plan = make_plan(tokens, sequences.count(), dim, state);
  const Tensor row_of = in.rows.defined() ? cuda::row_of_token(in.rows, tokens) : Tensor{};
  Inputs<T> inputs(in, sequences, plan, row_of);
  const auto floats = [](Shape shape) { return Tensor::empty(shape, DType::float32, kCuda); };
  const T* from_dy = dy.defined() ? dy.data<T>() : nullptr;
  const T* from_final = dfinal.defined() ? dfinal.data<T>() : nullptr;
  Tensor carries;
  if (plan.in_pieces) {
    carries = floats({plan.places, dim, state});
    Tensor steps = floats({plan.places, dim});
    const cuda::LaunchShape shape{plan.grid(), kThreads, Tiles<T, kStage>::bytes(plan.lane_bits)};
    for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
      cuda::launch(local_adjoint_kernel<T>, shape, inputs, from_dy, carries.data<float>(),
                   steps.data<float>());
    }
    cuda::launch(carry_kernel<T, true>,
                 {cuda::blocks_for(sequences.count() * dim * state, 256), 256}, inputs.pieces,
                 inputs.A, steps.data<float>(), from_final, dim, state, carries.data<float>());
  }
  Tensor dB = floats({plan.channel_blocks, tokens, state});
  Tensor dC = floats({plan.channel_blocks, wanted, state});
  Tensor dA = floats({plan.places, dim, state}), dD = floats({plan.places, dim});
  const Shares shares{dB.data<float>(), dC.data<float>(), dA.data<float>(), dD.data<float>()};
  const cuda::LaunchShape shape{
      plan.grid(), kThreads, Tiles<T, kStage>::bytes(plan.lane_bits, kStage * kThreads * kStates)};
  for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
    cuda::launch(backward_kernel<T>, shape, inputs, from_dy, from_final,
                 plan.in_pieces ? carries.data<float>() : nullptr, states.data<float>(), tokens,
                 wanted, out.du.data<T>(), out.ddt.data<T>(),
                 out.dinitial.defined() ? out.dinitial.data<T>() : nullptr, shares);
  }
  const auto sum_parts = [&](const Tensor& parts, Tensor& to) {
    cuda::launch(sum_parts_kernel<T>, {cuda::blocks_for(to.numel(), 256), 256}, parts.data<float>(),
                 plan.channel_blocks, to.numel(), to.data<T>());
  };
  sum_parts(dB, out.dB);
  sum_parts(dC, out.dC);
  cuda::sum_over_rows(plan.places, dim * state,
                      cuda::detail::ReadFloat{dA.data<float>(), dim * state}, out.dA.data<T>());
  cuda::sum_over_rows(plan.places, dim, cuda::detail::ReadFloat{dD.data<float>(), dim},
                      out.dD.data<T>());
}

}  // namespace

void selective_scan_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out) {
  cuda::visit_storage("selective_scan", in.u.dtype(),
                      [&]<class T>() { run<T>(dy, dfinal, in, states, sequences, out); });
}

}  // namespace hax
