// Forward of selective_scan on CUDA (selective_scan.md, "On CUDA").

#include "ops/selective_scan/selective_scan_stage.cuh"

namespace hax {

using namespace scan_cuda;

namespace {

constexpr int kStage = 32;  // tokens in shared memory at once
static_assert(kStage % kScanChunk == 0);

// kLocal: what the piece makes of a state of zero -> carry and steps [places, E], nothing else.
// Otherwise from carry, or, where that is null, from initial, which may be null too.
template <class T, bool kLocal, int kLaneBits>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Inputs<T> in, std::int64_t tokens, const T* initial, float* carry, float* steps,
                   T* y, T* final_state, float* states) {
  Stage<T, kStage, !kLocal, false> stage(in, nullptr, cuda::dynamic_shared<float>());
  const Place<T> place(in);
  const std::int64_t at = block_place(in);
  const cuda::Piece piece = in.pieces.at(at);
  const int lane_bits = kLaneBits < 0 ? in.lane_bits : kLaneBits;
  const int channels = kThreads >> lane_bits, lanes = 1 << lane_bits;
  const std::int64_t chunks = cuda::ceil_div(piece.end - piece.begin, kStage);
  const auto begin_of = [&](std::int64_t k) { return piece.begin + k * kStage; };
  stage.start(chunks, piece.end, begin_of);
  float rate[kStates], h[kStates] = {}, sum_dt = 0;
  place.load_rates(in, rate);
  const float skip = place.e < in.dim && in.first_state == 0 ? cuda::to_float(in.D[place.e]) : 0;
  if (!kLocal && carry != nullptr) {
    place.load_own(in, carry + place.at(in, at), h);
  } else if (!kLocal && initial != nullptr) {
    place.load(initial + place.at(in, piece.sequence), h);
  }
  for (std::int64_t k = 0; k < chunks; ++k) {
    const Chunk<kStage> chunk = stage.next(k, chunks, piece.end, begin_of);
    const std::int64_t t = begin_of(k);
    const int len = static_cast<int>(piece.end - t < kStage ? piece.end - t : kStage);
    for (int from = 0; from < len; from += 4) {
      if (!kLocal && states != nullptr && from % kScanChunk == 0) {
        place.store_own(in, h, states + place.at(in, in.chunk_place(piece.sequence, t + from)));
      }
      TokenSums<kLaneBits> read{};
      HAX_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int i = from + j;
        const float dt = chunk.dt[i * channels + place.channel];
        const float drive = dt * chunk.u[i * channels + place.channel];
        const int column = (i << lane_bits) + place.lane;
        const float4 B = reinterpret_cast<const float4*>(chunk.B)[column];
        h[0] = cuda::fast_exp2(dt * rate[0]) * h[0] + drive * B.x;
        h[1] = cuda::fast_exp2(dt * rate[1]) * h[1] + drive * B.y;
        h[2] = cuda::fast_exp2(dt * rate[2]) * h[2] + drive * B.z;
        h[3] = cuda::fast_exp2(dt * rate[3]) * h[3] + drive * B.w;
        if constexpr (kLocal) {
          sum_dt += dt;
        } else {
          const float4 C = reinterpret_cast<const float4*>(chunk.C)[column];
          read.x[j] = C.x * h[0] + C.y * h[1] + C.z * h[2] + C.w * h[3];
        }
      }
      if constexpr (kLocal) continue;
      read.join(place.lane, lane_bits);
      for (int j = place.lane; j < 4; j += lanes) {
        const std::int64_t row = chunk.row[from + j];
        if (row < 0 || place.e >= in.dim) continue;
        const float sum = read.of(j) + skip * chunk.u[(from + j) * channels + place.channel];
        T& to = y[row * in.dim + place.e];
        to = cuda::from_float<T>(in.first_state == 0 ? sum : sum + cuda::to_float(to));
      }
    }
  }
  if constexpr (!kLocal) {
    const int e = static_cast<int>(blockIdx.y) * channels + static_cast<int>(threadIdx.x);
    for_each_left_over(in, tokens, [&](std::int64_t, std::int64_t row) {
      if (row < 0 || static_cast<int>(threadIdx.x) >= channels || e >= in.dim) return;
      y[row * in.dim + e] = cuda::from_float<T>(0);
    });
  }
  if constexpr (kLocal) {
    place.store_own(in, h, carry + place.at(in, at));
    if (place.lane == 0 && place.e < in.dim) steps[at * in.dim + place.e] = sum_dt;
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
  float *carry = nullptr, *steps = nullptr;
  Tensor carries, sums;
  const auto launch = [&](auto local, auto lane_bits) {
    using Staged = Stage<T, kStage, !local.value, false>;
    const cuda::LaunchShape shape{plan.grid(), kThreads, Staged::bytes(plan.lane_bits)};
    for (inputs.first_state = 0; inputs.first_state < state; inputs.first_state += kMaxStates) {
      cuda::launch(forward_kernel<T, local.value, lane_bits.value>, shape, inputs, tokens, from,
                   carry, steps, to_y, to_final, to_states);
    }
  };
  visit_lane_bits(plan.lane_bits, [&](auto lane_bits) {
    if (plan.in_pieces) {
      carries = Tensor::empty({plan.places, dim, state}, DType::float32, kCuda);
      sums = Tensor::empty({plan.places, dim}, DType::float32, kCuda);
      carry = carries.data<float>();
      steps = sums.data<float>();
      launch(std::true_type{}, lane_bits);
      cuda::launch(carry_kernel<T, false>, {cuda::blocks_for(final_state.numel(), 256), 256},
                   inputs.pieces, inputs.A, steps, from, dim, state, carry);
    }
    launch(std::false_type{}, lane_bits);
  });
}

}  // namespace

void selective_scan_forward(Cuda, const ScanInputs& in, const Tensor& initial,
                            const Sequences& sequences, Tensor& y, Tensor& final_state,
                            Tensor& states) {
  cuda::visit_storage("selective_scan", in.u.dtype(),
                      [&]<class T>() { run<T>(in, initial, sequences, y, final_state, states); });
}

}  // namespace hax
