#include <cmath>

#include "engine/dispatch.h"
#include "engine/parallel.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace hax {

void rms_norm_forward(Cpu, const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                      Tensor& rstd) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), dim = x.size(1);
    const T* w = weight.data<T>();
    T* scales = rstd.data<T>();
    parallel_rows(rows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = x.data<T>() + r * dim;
        T* out = y.data<T>() + r * dim;
        T square = 0;
#pragma omp simd reduction(+ : square)
        for (std::int64_t d = 0; d < dim; ++d) square += in[d] * in[d];
        const T scale = 1 / std::sqrt(square / static_cast<T>(dim) + static_cast<T>(eps));
        scales[r] = scale;
#pragma omp simd
        for (std::int64_t d = 0; d < dim; ++d) out[d] = in[d] * scale * w[d];
      }
    });
  });
}

void rms_norm_backward(Cpu, const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& rstd, Tensor& dx, Tensor& dweight) {
  visit_float(x.dtype(), [&]<class T>() {
    const std::int64_t rows = x.size(0), dim = x.size(1);
    const T* w = weight.data<T>();
    sum_of_pieces(rows, dweight, [&](std::int64_t begin, std::int64_t end, Tensor& part) {
      T* dw = part.data<T>();
      for (std::int64_t r = begin; r < end; ++r) {
        const T* in = x.data<T>() + r * dim;
        const T* dout = dy.data<T>() + r * dim;
        T* din = dx.data<T>() + r * dim;
        const T scale = rstd.data<T>()[r];
        T dot = 0;  // sum over d of (dy w) x_hat
#pragma omp simd reduction(+ : dot)
        for (std::int64_t d = 0; d < dim; ++d) {
          const T normal = in[d] * scale;
          dot += dout[d] * w[d] * normal;
          dw[d] += dout[d] * normal;
        }
        const T mean = dot / static_cast<T>(dim);
#pragma omp simd
        for (std::int64_t d = 0; d < dim; ++d) {
          din[d] = scale * (dout[d] * w[d] - in[d] * scale * mean);
        }
      }
    });
  });
}

}  // namespace hax
