#include "ops/gate/gate.h"

#include "engine/dispatch.h"
#include "ops/gate/gate_kernels.h"

namespace hax {

Var gate(const Var& s, const Var& a, const Var& E, const Var& z) {
  check(s.shape().rank() == 2 && a.shape() == s.shape() && z.shape() == s.shape() &&
            E.shape() == Shape{s.size(1)},
        "gate: s is {}, a is {}, z is {} and E is {}, expected [R, D] three times and [D]",
        s.shape(), a.shape(), z.shape(), E.shape());
  check(is_floating(s.dtype()) && a.dtype() == s.dtype() && z.dtype() == s.dtype() &&
            E.dtype() == s.dtype(),
        "gate: s is {}, a is {}, z is {} and E is {}, expected float32 or float64 for all",
        name_of(s.dtype()), name_of(a.dtype()), name_of(z.dtype()), name_of(E.dtype()));

  const Tensor st = s.value(), at = a.value(), Et = E.value(), zt = z.value();
  Tensor y = Tensor::empty(s.shape(), s.dtype(), s.device());
  on_device(s.device(), [&](auto device) { gate_forward(device, st, at, Et, zt, y); });

  const auto gradient = [st, at, Et, zt](const Tensor& dy) {
    const auto like = [](const Tensor& x) {
      return Tensor::empty(x.shape(), x.dtype(), x.device());
    };
    Tensor ds = like(st), da = like(at), dE = like(Et), dz = like(zt);
    on_device(st.device(),
              [&](auto device) { gate_backward(device, dy, st, at, Et, zt, ds, da, dE, dz); });
    return Grads{ds, da, dE, dz};
  };
  return record("gate", y, {s, a, E, z}, gradient);
}

}  // namespace hax
