#include "ops/ssd/ssd.h"

#include <algorithm>

#include "engine/dispatch.h"
#include "ops/ssd/ssd_kernels.h"

namespace hax {
namespace {

void check_types(const SsdInputs& in) {
  check(is_floating(in.x.dtype()), "ssd: x is {}, expected float32 or float64",
        name_of(in.x.dtype()));
  const auto check_type = [&](const char* name, const Tensor& tensor) {
    check(tensor.dtype() == in.x.dtype(), "ssd: x is {} and {} is {}, expected equal types",
          name_of(in.x.dtype()), name, name_of(tensor.dtype()));
  };
  check_type("dt", in.dt);
  check_type("A", in.A);
  check_type("B", in.B);
  check_type("C", in.C);
  check_type("D", in.D);
  if (in.initial.defined()) check_type("initial_state", in.initial);
}

void check_inputs(const SsdInputs& in, const Sequences& sequences, const SsdOptions& options) {
  const std::int64_t heads = options.heads, groups = options.groups;
  check(heads >= 1 && groups >= 1 && heads % groups == 0,
        "ssd: {} heads in {} groups, expected at least one group and a multiple of the groups",
        heads, groups);
  check(options.chunk >= 1, "ssd: chunk is {}, expected at least 1", options.chunk);
  const Shape &x = in.x.shape(), &B = in.B.shape();
  check(x.rank() == 2 && x[1] >= heads && x[1] % heads == 0,
        "ssd: x is {}, expected [T, heads P] with {} heads and P >= 1", to_string(x), heads);
  check(in.dt.shape() == Shape{x[0], heads}, "ssd: dt is {}, expected [T, heads] = [{}, {}]",
        to_string(in.dt.shape()), x[0], heads);
  check(in.A.shape() == Shape{heads} && in.D.shape() == Shape{heads},
        "ssd: A is {} and D is {}, expected [heads] = [{}] for both", to_string(in.A.shape()),
        to_string(in.D.shape()), heads);
  check(B.rank() == 2 && B[0] == x[0] && B[1] >= groups && B[1] % groups == 0,
        "ssd: B is {}, expected [T, groups N] with T = {}, {} groups and N >= 1", to_string(B),
        x[0], groups);
  if (in.rows.defined()) {
    check(in.rows.rank() == 1 && in.rows.dtype() == DType::int32,
          "ssd: rows is {} {}, expected int32 [R]", name_of(in.rows.dtype()),
          to_string(in.rows.shape()));
  }
  const std::int64_t wanted = in.rows.defined() ? in.rows.size(0) : x[0];
  check(in.C.shape() == Shape{wanted, B[1]}, "ssd: C is {}, expected [R, groups N] = [{}, {}]",
        to_string(in.C.shape()), wanted, B[1]);
  sequences.require_tokens("ssd", x[0]);
  if (in.initial.defined()) {
    const Shape state{sequences.count(), heads, x[1] / heads, B[1] / groups};
    check(in.initial.shape() == state, "ssd: initial_state is {}, expected [S, heads, P, N] = {}",
          to_string(in.initial.shape()), to_string(state));
  }
  check_types(in);
}

// Positions on another device were checked by whoever computed them.
void check_rows(const Tensor& rows, std::int64_t tokens) {
  if (!rows.defined() || !rows.device().is_cpu()) return;
  const auto wanted = rows.values<std::int32_t>();
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    const std::int32_t before = r == 0 ? -1 : wanted[r - 1];
    check(
        before < wanted[r] && wanted[r] < tokens,
        "ssd: rows[{}] is {}, expected at least {} and below {}: strictly increasing positions of "
        "the pack",
        r, wanted[r], before + 1, tokens);
  }
}

}  // namespace

std::int64_t ssd_blocks(Cpu, const Sequences& sequences) {
  std::int64_t blocks = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    blocks += (sequences.length(s) + kSsdBlock - 1) / kSsdBlock;
  }
  return blocks;
}

std::int64_t ssd_blocks(Cuda, const Sequences& sequences) {
  return sequences.tokens() / kSsdCudaChunk + sequences.count();
}

SsdResult ssd(const Var& x, const Var& dt, const Var& A, const Var& B, const Var& C, const Var& D,
              const Sequences& sequences, const SsdOptions& options, const Tensor& rows,
              const Var& initial_state) {
  const SsdInputs in{x.value(),
                     dt.value(),
                     A.value(),
                     B.value(),
                     C.value(),
                     D.value(),
                     initial_state.value(),
                     to_device(rows, x.device())};
  check_inputs(in, sequences, options);
  check_rows(rows, in.x.size(0));

  const std::vector<Var> inputs{x, dt, A, B, C, D, initial_state};
  const std::int64_t head_dim = x.size(1) / options.heads, state = B.size(1) / options.groups;
  const auto new_tensor = [&](Shape shape) { return Tensor::empty(shape, x.dtype(), x.device()); };
  Tensor y = new_tensor({in.C.size(0), x.size(1)});
  Tensor final_state = new_tensor({sequences.count(), options.heads, head_dim, state});
  Tensor states;  // for the backward only
  if (grad_enabled() && std::ranges::any_of(inputs, &Var::requires_grad)) {
    on_device(x.device(), [&](auto device) {
      states = Tensor::empty({ssd_blocks(device, sequences), options.heads, state, head_dim},
                             sum_type(x.dtype()), x.device());
    });
  }
  on_device(x.device(), [&](auto device) {
    ssd_forward(device, in, sequences, options, y, final_state, states);
  });

  const auto gradient = [in, states, sequences, options](std::span<const Tensor> dy) {
    const auto like = [](const Tensor& tensor) {
      return tensor.defined() ? Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device())
                              : Tensor{};
    };
    SsdGradients out{like(in.x), like(in.dt), like(in.A),      like(in.B),
                     like(in.C), like(in.D),  like(in.initial)};
    on_device(in.x.device(), [&](auto device) {
      ssd_backward(device, dy[0], dy[1], in, states, sequences, options, out);
    });
    return Grads{out.dx, out.ddt, out.dA, out.dB, out.dC, out.dD, out.dinitial};
  };
  const std::vector<Var> results = record_many("ssd", {y, final_state}, inputs, gradient);
  return {results[0], results[1]};
}

}  // namespace hax
