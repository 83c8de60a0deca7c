#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/elementwise/elementwise_functors.h"
#include "ops/gate/gate_kernels.h"

namespace hax {

void gate_forward(Cpu, const Tensor& s, const Tensor& a, const Tensor& E, const Tensor& z,
                  Tensor& y) {
  visit_float(s.dtype(), [&]<class T>() {
    const std::int64_t dim = s.size(1);
    const T *scan = s.data<T>(), *attention = a.data<T>(), *weight = E.data<T>();
    const T* gates = z.data<T>();
    T* out = y.data<T>();
    parallel_rows(s.size(0), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin * dim; row < end * dim; row += dim) {
#pragma omp simd
        for (std::int64_t d = 0; d < dim; ++d) {
          out[row + d] = (scan[row + d] + weight[d] * attention[row + d]) *
                         functor::Silu{}.value(gates[row + d]);
        }
      }
    });
  });
}

void gate_backward(Cpu, const Tensor& dy, const Tensor& s, const Tensor& a, const Tensor& E,
                   const Tensor& z, Tensor& ds, Tensor& da, Tensor& dE, Tensor& dz) {
  visit_float(s.dtype(), [&]<class T>() {
    const std::int64_t rows = s.size(0), dim = s.size(1);
    const T *dout = dy.data<T>(), *scan = s.data<T>(), *attention = a.data<T>();
    const T *weight = E.data<T>(), *gates = z.data<T>();
    T *dscan = ds.data<T>(), *dattention = da.data<T>(), *dgates = dz.data<T>();
    sum_of_pieces(rows, dE, [&](std::int64_t begin, std::int64_t end, Tensor& sum) {
      T* dweight = sum.data<T>();
      for (std::int64_t row = begin * dim; row < end * dim; row += dim) {
#pragma omp simd
        for (std::int64_t d = 0; d < dim; ++d) {
          // silu and its derivative share the sigmoid.
          const T x = gates[row + d], sigma = fast_sigmoid(x), open = dout[row + d] * x * sigma;
          dscan[row + d] = open;
          dattention[row + d] = weight[d] * open;
          dweight[d] += attention[row + d] * open;
          dgates[row + d] = dout[row + d] * (scan[row + d] + weight[d] * attention[row + d]) *
                            (sigma * (1 + x * (1 - sigma)));
        }
      }
    });
  });
}

}  // namespace hax
