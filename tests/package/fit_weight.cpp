// Fits the weight of rms_norm by gradient descent, to outputs made with the weight (3, -1).
#include <cstdio>

#include "ops/rms_norm/rms_norm.h"

int main() {
  const hax::Tensor x = hax::Tensor::from<float>({1, 2, 3, -4, -5, 6}, {3, 2});
  const hax::Var wanted = rms_norm(x, hax::Tensor::from<float>({3, -1}, {2}));
  hax::Tensor w = hax::Tensor::zeros({2});
  for (int step = 0; step < 100; ++step) {
    const hax::Var weight = hax::Var::leaf(w), y = rms_norm(x, weight);
    hax::Tensor dy = y.value().clone();  // the gradient of half the squared error
    for (int i = 0; i < 6; ++i) dy.data<float>()[i] -= wanted.value().data<float>()[i];
    backward(y, dy);
    for (int i = 0; i < 2; ++i) w.data<float>()[i] -= 0.2f * weight.grad().data<float>()[i];
  }
  std::printf("weight %.3f %.3f\n", w.data<float>()[0], w.data<float>()[1]);
}
