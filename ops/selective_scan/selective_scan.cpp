#include "ops/selective_scan/selective_scan.h"

#include <algorithm>

#include "engine/dispatch.h"
#include "ops/selective_scan/selective_scan_kernels.h"

namespace hax {
namespace {

void check_inputs(const ScanInputs& in, const Tensor& initial, const Sequences& sequences) {
  const Shape &u = in.u.shape(), &A = in.A.shape(), &B = in.B.shape(), &C = in.C.shape();
  check(u.rank() == 2 && in.dt.shape() == u,
        "selective_scan: u is {} and dt is {}, expected [T, E] for both", u, in.dt.shape());
  check(A.rank() == 2 && A[0] == u[1], "selective_scan: A is {}, expected [E, N] with E = {}", A,
        u[1]);
  check(B == Shape{u[0], A[1]}, "selective_scan: B is {}, expected [T, N] = [{}, {}]", B, u[0],
        A[1]);
  check(in.D.shape() == Shape{u[1]}, "selective_scan: D is {}, expected [E] = [{}]", in.D.shape(),
        u[1]);
  if (in.rows.defined()) {
    check(in.rows.rank() == 1 && in.rows.dtype() == DType::int32,
          "selective_scan: rows is {} {}, expected int32 [R]", name_of(in.rows.dtype()),
          in.rows.shape());
  }
  const std::int64_t wanted = in.rows.defined() ? in.rows.size(0) : u[0];
  check(C == Shape{wanted, A[1]}, "selective_scan: C is {}, expected [R, N] = [{}, {}]", C, wanted,
        A[1]);
  check(is_floating(in.u.dtype()), "selective_scan: u is {}, expected float32 or float64",
        name_of(in.u.dtype()));
  const auto check_type = [&](const char* name, const Tensor& tensor) {
    check(tensor.dtype() == in.u.dtype(),
          "selective_scan: u is {} and {} is {}, expected equal types", name_of(in.u.dtype()), name,
          name_of(tensor.dtype()));
  };
  check_type("dt", in.dt);
  check_type("A", in.A);
  check_type("B", in.B);
  check_type("C", in.C);
  check_type("D", in.D);
  sequences.require_tokens("selective_scan", u[0]);
  if (!initial.defined()) return;
  const Shape state{sequences.count(), u[1], A[1]};
  check(initial.shape() == state, "selective_scan: initial_state is {}, expected [S, E, N] = {}",
        initial.shape(), state);
  check_type("initial_state", initial);
}

// Positions on another device were checked by whoever computed them.
void check_rows(const Tensor& rows, std::int64_t tokens) {
  if (!rows.defined() || !rows.device().is_cpu()) return;
  const auto wanted = rows.values<std::int32_t>();
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    const std::int32_t before = r == 0 ? -1 : wanted[r - 1];
    check(before < wanted[r] && wanted[r] < tokens,
          "selective_scan: rows[{}] is {}, expected at least {} and below {}: strictly increasing "
          "positions of the pack",
          r, wanted[r], before + 1, tokens);
  }
}

}  // namespace

std::int64_t scan_chunks(Cpu, const Sequences& sequences) {
  std::int64_t chunks = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    chunks += (sequences.length(s) + kScanChunk - 1) / kScanChunk;
  }
  return chunks;
}

std::int64_t scan_chunks(Cuda, const Sequences& sequences) {
  return sequences.tokens() / kScanChunk + sequences.count();
}

ScanResult selective_scan(const Var& u, const Var& dt, const Var& A, const Var& B, const Var& C,
                          const Var& D, const Sequences& sequences, const Tensor& rows,
                          const Var& initial_state) {
  const ScanInputs in{u.value(),
                      dt.value(),
                      A.value(),
                      B.value(),
                      C.value(),
                      D.value(),
                      to_device(rows, u.device())};
  check_inputs(in, initial_state.value(), sequences);
  check_rows(rows, in.u.size(0));

  const std::vector<Var> inputs{u, dt, A, B, C, D, initial_state};
  const std::int64_t dim = in.u.size(1), state = in.A.size(1);
  const auto new_tensor = [&](Shape shape) { return Tensor::empty(shape, u.dtype(), u.device()); };
  Tensor y = new_tensor({in.C.size(0), dim});
  Tensor final_state = new_tensor({sequences.count(), dim, state});
  Tensor states;  // a sixteenth of all states, but still more than any input: only if needed
  if (grad_enabled() && std::ranges::any_of(inputs, &Var::requires_grad)) {
    on_device(u.device(), [&](auto device) {
      states = Tensor::empty({scan_chunks(device, sequences), state, dim}, sum_type(u.dtype()),
                             u.device());
    });
  }
  on_device(u.device(), [&](auto device) {
    selective_scan_forward(device, in, initial_state.value(), sequences, y, final_state, states);
  });

  const auto gradient = [in, states, sequences,
                         from_state = initial_state.requires_grad()](std::span<const Tensor> dy) {
    const auto like = [](const Tensor& tensor) {
      return Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device());
    };
    ScanGradients out{like(in.u), like(in.dt), like(in.A), like(in.B), like(in.C), like(in.D), {}};
    if (from_state) {
      out.dinitial = Tensor::empty({sequences.count(), in.A.size(0), in.A.size(1)}, in.u.dtype(),
                                   in.u.device());
    }
    on_device(in.u.device(), [&](auto device) {
      selective_scan_backward(device, dy[0], dy[1], in, states, sequences, out);
    });
    return Grads{out.du, out.ddt, out.dA, out.dB, out.dC, out.dD, out.dinitial};
  };
  const std::vector<Var> results =
      record_many("selective_scan", {y, final_state}, inputs, gradient);
  return {results[0], results[1]};
}

}  // namespace hax
