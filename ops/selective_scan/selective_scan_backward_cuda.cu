// Backward of selective_scan on CUDA (selective_scan.md, "On CUDA").

#include "engine/cuda/reduce.cuh"
#include "ops/selective_scan/selective_scan_stage.cuh"

namespace hax {

using namespace scan_cuda;

namespace {

constexpr int kStage = static_cast<int>(kScanChunk);
constexpr int kPart = 8;  // tokens of a chunk whose shares of dB and dC are summed up at once
static_assert(kStage == 2 * kPart);

// The gradient of the state after a piece that the piece alone makes of dy, carried to its begin ->
// carry [places, E, N]; steps [places, E].
template <class T, int kLaneBits>
__global__ void __launch_bounds__(kThreads)
    local_adjoint_kernel(Inputs<T> in, const T* dy, float* carry, float* steps) {
  Stage<T, kStage, true, true> stage(in, dy, cuda::dynamic_shared<float>());
  const Place<T> place(in);
  const std::int64_t at = block_place(in);
  const cuda::Piece piece = in.pieces.at(at);
  const int lane_bits = kLaneBits < 0 ? in.lane_bits : kLaneBits, channels = kThreads >> lane_bits;
  const std::int64_t chunks = cuda::ceil_div(piece.end - piece.begin, kStage);
  const auto begin_of = [&](std::int64_t k) { return piece.begin + (chunks - 1 - k) * kStage; };
  stage.start(chunks, piece.end, begin_of);
  float rate[kStates], dh[kStates] = {}, sum_dt = 0;
  place.load_rates(in, rate);
  for (std::int64_t k = 0; k < chunks; ++k) {
    const Chunk<kStage> chunk = stage.next(k, chunks, piece.end, begin_of);
    HAX_UNROLL_BY(8)
    for (int i = kStage - 1; i >= 0; --i) {
      const float dt = chunk.dt[i * channels + place.channel];
      const float g = chunk.dy[i * channels + place.channel];
      const float4 C = reinterpret_cast<const float4*>(chunk.C)[(i << lane_bits) + place.lane];
      dh[0] = cuda::fast_exp2(dt * rate[0]) * (dh[0] + g * C.x);
      dh[1] = cuda::fast_exp2(dt * rate[1]) * (dh[1] + g * C.y);
      dh[2] = cuda::fast_exp2(dt * rate[2]) * (dh[2] + g * C.z);
      dh[3] = cuda::fast_exp2(dt * rate[3]) * (dh[3] + g * C.w);
      sum_dt += dt;
    }
  }
  place.store_own(in, dh, carry + place.at(in, at));
  if (place.lane == 0 && place.e < in.dim) steps[at * in.dim + place.e] = sum_dt;
}

// Shares of the gradients that several blocks add to.
struct Shares {
  float *dB, *dC;  // [channel_blocks, T, N], [channel_blocks, R, N]
  float *dA, *dD;  // [places, E, N], [places, E]
};

// A block's shared memory beside the stage: h and its gradient after the tokens of a chunk, a
// column a thread, and dt u.
struct Traces {
  float4* h;     // [kStage][kThreads]
  float4* dh;    // [kPart][kThreads]
  float* drive;  // [kStage, channels]

  static constexpr int floats(int lane_bits) {
    return 4 * (kStage + kPart) * kThreads + kStage * (kThreads >> lane_bits);
  }
  __device__ explicit Traces(float* memory)
      : h(reinterpret_cast<float4*>(memory)),
        dh(h + kStage * kThreads),
        drive(reinterpret_cast<float*>(dh + kPart * kThreads)) {}
};

// For kPart tokens of the chunk from `first` on, of which it has `len`: dC [row] = sum over the
// block's channels of dy h, dB [token] = sum of dh dt u. A thread has 4 states of a token, of dC or
// dB, and where that leaves threads over, a part of the channels.
template <class T>
__device__ void sum_channels(const Inputs<T>& in, int lane_bits, const Chunk<kStage>& chunk,
                             const Traces& traces, int first, int len, std::int64_t begin,
                             float* dB, float* dC) {
  const int channels = kThreads >> lane_bits;
  const int part_bits = lane_bits < 3 ? 3 - lane_bits : 0, parts = 1 << part_bits;
  static_assert(2 * kPart << 3 == kThreads);
  for (int item = static_cast<int>(threadIdx.x); item < 2 * kPart << (lane_bits + part_bits);
       item += kThreads) {
    const int lane = item & ((1 << lane_bits) - 1), part = item >> lane_bits & (parts - 1);
    const int token = item >> (lane_bits + part_bits) & (kPart - 1), i = first + token;
    const bool of_C = item >> (lane_bits + part_bits) < kPart;
    const float4* trace = of_C ? traces.h + i * kThreads : traces.dh + token * kThreads;
    const float* factors = (of_C ? chunk.dy : traces.drive) + i * channels;
    float4 sum = make_float4(0, 0, 0, 0);
    HAX_UNROLL_BY(4)
    for (int c = part; c < channels; c += parts) {
      const float4 x = trace[(c << lane_bits) + lane];
      const float f = factors[c];
      sum.x += f * x.x;
      sum.y += f * x.y;
      sum.z += f * x.z;
      sum.w += f * x.w;
    }
    for (int distance = 1 << lane_bits; distance < 1 << (lane_bits + part_bits); distance *= 2) {
      sum.x += __shfl_xor_sync(cuda::kAllLanes, sum.x, distance);
      sum.y += __shfl_xor_sync(cuda::kAllLanes, sum.y, distance);
      sum.z += __shfl_xor_sync(cuda::kAllLanes, sum.z, distance);
      sum.w += __shfl_xor_sync(cuda::kAllLanes, sum.w, distance);
    }
    const std::int64_t row = of_C ? std::int64_t{chunk.row[i]} : begin + i;
    const std::int64_t n = in.first_state + lane * kStates;
    if (part != 0 || i >= len || row < 0 || n >= in.state) continue;
    float* to = (of_C ? dC : dB) + row * in.state + n;
    if (in.state % kStates == 0) {
      *reinterpret_cast<float4*>(to) = sum;
      continue;
    }
    const float four[kStates] = {sum.x, sum.y, sum.z, sum.w};
    for (int k = 0; k < kStates; ++k) {
      if (n + k < in.state) to[k] = four[k];
    }
  }
}

template <class T, int kLaneBits>
__global__ void __launch_bounds__(kThreads, 3)
    backward_kernel(Inputs<T> in, const T* dy, const T* dfinal, const float* carry,
                    const float* states, std::int64_t tokens, std::int64_t wanted, T* du, T* ddt,
                    T* dinitial, Shares shares) {
  const int lane_bits = kLaneBits < 0 ? in.lane_bits : kLaneBits;
  const int channels = kThreads >> lane_bits, lanes = 1 << lane_bits;
  const int me = static_cast<int>(threadIdx.x);
  auto* memory = cuda::dynamic_shared<float>();
  const Traces traces(memory);
  Stage<T, kStage, true, true> stage(in, dy, memory + Traces::floats(lane_bits));
  const Place<T> place(in);
  const std::int64_t at = block_place(in);
  const cuda::Piece piece = in.pieces.at(at);
  const std::int64_t chunks = cuda::ceil_div(piece.end - piece.begin, kStage);
  const auto begin_of = [&](std::int64_t k) { return piece.begin + (chunks - 1 - k) * kStage; };
  const auto states_before = [&](std::int64_t k) {
    return states + place.at(in, in.chunk_place(piece.sequence, begin_of(k)));
  };
  stage.start(chunks, piece.end, begin_of);
  const bool exists = place.e < in.dim, first_launch = in.first_state == 0;
  float rate[kStates], dh[kStates] = {}, dA[kStates] = {}, dD = 0, start[kStates] = {};
  place.load_rates(in, rate);
  const float skip = exists && first_launch ? cuda::to_float(in.D[place.e]) : 0;
  if (carry != nullptr) {
    place.load_own(in, carry + place.at(in, at), dh);
  } else if (dfinal != nullptr) {
    place.load(dfinal + place.at(in, piece.sequence), dh);
  }
  float* dB = shares.dB + blockIdx.y * tokens * in.state;
  float* dC = shares.dC + blockIdx.y * wanted * in.state;
  if (chunks > 0) place.load_own(in, states_before(0), start);
  for (std::int64_t k = 0; k < chunks; ++k) {
    const Chunk<kStage> chunk = stage.next(k, chunks, piece.end, begin_of);
    const std::int64_t t = begin_of(k);
    const int len = static_cast<int>(piece.end - t < kStage ? piece.end - t : kStage);
    float4 h = make_float4(start[0], start[1], start[2], start[3]);
    const float4 at_begin = h;
    if (k + 1 < chunks) place.load_own(in, states_before(k + 1), start);  // until then it arrives
    HAX_UNROLL_BY(8)
    for (int i = 0; i < kStage; ++i) {
      const float dt = chunk.dt[i * channels + place.channel];
      const float drive = dt * chunk.u[i * channels + place.channel];
      const float4 B = reinterpret_cast<const float4*>(chunk.B)[(i << lane_bits) + place.lane];
      h.x = cuda::fast_exp2(dt * rate[0]) * h.x + drive * B.x;
      h.y = cuda::fast_exp2(dt * rate[1]) * h.y + drive * B.y;
      h.z = cuda::fast_exp2(dt * rate[2]) * h.z + drive * B.z;
      h.w = cuda::fast_exp2(dt * rate[3]) * h.w + drive * B.w;
      traces.h[i * kThreads + me] = h;
      if (place.lane == 0) traces.drive[i * channels + place.channel] = drive;
    }
    for (int first = kStage - kPart; first >= 0; first -= kPart) {
      for (int from = first + kPart - 4; from >= first; from -= 4) {
        TokenSums<kLaneBits> dh_B{}, dexponent{};
        HAX_UNROLL
        for (int j = 3; j >= 0; --j) {
          const int i = from + j, column = (i << lane_bits) + place.lane;
          const float dt = chunk.dt[i * channels + place.channel];
          const float g = chunk.dy[i * channels + place.channel];
          const float4 B = reinterpret_cast<const float4*>(chunk.B)[column];
          const float4 C = reinterpret_cast<const float4*>(chunk.C)[column];
          const float4 before = i > 0 ? traces.h[(i - 1) * kThreads + me] : at_begin;
          dh[0] += g * C.x;
          dh[1] += g * C.y;
          dh[2] += g * C.z;
          dh[3] += g * C.w;
          traces.dh[(i - first) * kThreads + me] = make_float4(dh[0], dh[1], dh[2], dh[3]);
          dh_B.x[j] = dh[0] * B.x + dh[1] * B.y + dh[2] * B.z + dh[3] * B.w;
          const float h_before[kStates] = {before.x, before.y, before.z, before.w};
          for (int s = 0; s < kStates; ++s) {
            dh[s] *= cuda::fast_exp2(dt * rate[s]);
            const float q = dh[s] * h_before[s];
            dexponent.x[j] += q * rate[s];
            dA[s] += q * dt;
          }
        }
        dh_B.join(place.lane, lane_bits);
        dexponent.join(place.lane, lane_bits);
        for (int j = place.lane; j < 4; j += lanes) {
          const int i = from + j, own = i * channels + place.channel;
          if (i >= len || !exists) continue;
          const float u = chunk.u[own], g = chunk.dy[own];
          dD += g * u;
          float new_du = chunk.dt[own] * dh_B.of(j) + skip * g;
          float new_ddt = u * dh_B.of(j) + std::numbers::ln2_v<float> * dexponent.of(j);
          const std::int64_t to = (t + i) * in.dim + place.e;
          if (!first_launch) {
            new_du += cuda::to_float(du[to]);
            new_ddt += cuda::to_float(ddt[to]);
          }
          du[to] = cuda::from_float<T>(new_du);
          ddt[to] = cuda::from_float<T>(new_ddt);
        }
      }
      __syncthreads();
      sum_channels(in, lane_bits, chunk, traces, first, len, t, dB, dC);
      if (first > 0) __syncthreads();
    }
  }
  place.store_own(in, dA, shares.dA + place.at(in, at));
  for (int distance = 1; distance < lanes; distance *= 2) {
    dD += __shfl_xor_sync(cuda::kAllLanes, dD, distance);
  }
  if (place.lane == 0 && exists && first_launch) shares.dD[at * in.dim + place.e] = dD;
  if (dinitial != nullptr && piece.index == 0) {
    place.store(dh, dinitial + place.at(in, piece.sequence));
  }
  for_each_left_over(in, tokens, [&](std::int64_t token, std::int64_t row) {
    const std::int64_t e = static_cast<std::int64_t>(blockIdx.y) * channels + me;
    if (me < channels && e < in.dim) {
      du[token * in.dim + e] = ddt[token * in.dim + e] = cuda::from_float<T>(0);
    }
    for (std::int64_t n = me; n < in.state; n += kThreads) {
      dB[token * in.state + n] = 0;
      if (row >= 0) dC[row * in.state + n] = 0;
    }
  });
}

// Sums over parts [parts, count] -> out [count], of all gradients that blocks have shares of.
template <class T>
struct Sum {
  const float* partial;
  std::int64_t parts, count;
  T* out;
};
template <class T>
__global__ void sums_kernel(Sum<T> first, Sum<T> second, Sum<T> third, Sum<T> fourth) {
  const Sum<T> all = blockIdx.y == 0   ? first
                     : blockIdx.y == 1 ? second
                     : blockIdx.y == 2 ? third
                                       : fourth;
  for (std::int64_t i = cuda::global_thread(); i < all.count; i += cuda::global_threads()) {
    float sum = 0;
    HAX_UNROLL_BY(8)
    for (std::int64_t p = 0; p < all.parts; ++p) sum += all.partial[p * all.count + i];
    all.out[i] = cuda::from_float<T>(sum);
  }
}

template <class T>
void run(const Tensor& dy, const Tensor& dfinal, const ScanInputs& in, const Tensor& states,
         const Sequences& sequences, ScanGradients& out) {
  const std::int64_t tokens = in.u.size(0), dim = in.u.size(1), state = in.A.size(1);
  const std::int64_t wanted = in.C.size(0);
  const Plan plan = make_plan(tokens, sequences.count(), dim, state);
  const Tensor row_of = in.rows.defined() ? cuda::row_of_token(in.rows, tokens) : Tensor{};
  using Staged = Stage<T, kStage, true, true>;
  Inputs<T> inputs(in, sequences, plan, row_of);
  const auto floats = [](Shape shape) { return Tensor::empty(shape, DType::float32, kCuda); };
  const T* from_dy = dy.defined() ? dy.data<T>() : nullptr;
  inputs.in_quads = inputs.in_quads && cuda::starts_at_quad(from_dy);
  const T* from_final = dfinal.defined() ? dfinal.data<T>() : nullptr;
  Tensor carries;
  if (plan.in_pieces) {
    carries = floats({plan.places, dim, state});
    Tensor steps = floats({plan.places, dim});
    const cuda::LaunchShape shape{plan.grid(), kThreads, Staged::bytes(plan.lane_bits)};
    visit_lane_bits(plan.lane_bits, [&](auto lane_bits) {
      for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
        cuda::launch(local_adjoint_kernel<T, lane_bits.value>, shape, inputs, from_dy,
                     carries.data<float>(), steps.data<float>());
      }
    });
    cuda::launch(carry_kernel<T, true>,
                 {cuda::blocks_for(sequences.count() * dim * state, 256), 256}, inputs.pieces,
                 inputs.A, steps.data<float>(), from_final, dim, state, carries.data<float>());
  }
  Tensor dB = floats({plan.channel_blocks, tokens, state});
  Tensor dC = floats({plan.channel_blocks, wanted, state});
  Tensor dA = floats({plan.places, dim, state}), dD = floats({plan.places, dim});
  const Shares shares{dB.data<float>(), dC.data<float>(), dA.data<float>(), dD.data<float>()};
  const std::size_t bytes =
      Staged::bytes(plan.lane_bits) +
      sizeof(float) * static_cast<std::size_t>(Traces::floats(plan.lane_bits));
  visit_lane_bits(plan.lane_bits, [&](auto lane_bits) {
    for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
      cuda::launch(backward_kernel<T, lane_bits.value>, {plan.grid(), kThreads, bytes}, inputs,
                   from_dy, from_final, plan.in_pieces ? carries.data<float>() : nullptr,
                   states.data<float>(), tokens, wanted, out.du.data<T>(), out.ddt.data<T>(),
                   out.dinitial.defined() ? out.dinitial.data<T>() : nullptr, shares);
    }
  });
  const auto sum = [](const Tensor& parts, std::int64_t count, Tensor& to) {
    return Sum<T>{parts.data<float>(), count, to.numel(), to.data<T>()};
  };
  const Sum<T> of_B = sum(dB, plan.channel_blocks, out.dB), of_A = sum(dA, plan.places, out.dA);
  const Sum<T> of_C = sum(dC, plan.channel_blocks, out.dC), of_D = sum(dD, plan.places, out.dD);
  // One thread would take long to add up many parts.
  const bool all = plan.places <= 128;
  const std::int64_t most = std::max(of_B.count, all ? of_A.count : 0);
  cuda::launch(sums_kernel<T>, {dim3(cuda::blocks_for(most, 256), all ? 4 : 2), 256}, of_B, of_C,
               of_A, of_D);
  if (all) return;
  for (const Sum<T>& of : {of_A, of_D}) {
    cuda::sum_over_rows(of.parts, of.count, cuda::detail::ReadFloat{of.partial, of.count}, of.out);
  }
}

}  // namespace

void selective_scan_backward(Cuda, const Tensor& dy, const Tensor& dfinal, const ScanInputs& in,
                             const Tensor& states, const Sequences& sequences, ScanGradients& out) {
  cuda::visit_storage("selective_scan", in.u.dtype(),
                      [&]<class T>() { run<T>(dy, dfinal, in, states, sequences, out); });
}

}  // namespace hax
