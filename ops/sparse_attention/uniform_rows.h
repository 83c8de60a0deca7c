// The released code's answer to queries without keys: equal weights p = 1 / padded for every padded
// position of the sequence, where K and V of the pads are zero. All such rows share their weights,
// so one pass over the sequence serves them together: O(L N E) instead of O(L) a row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace hax {

/// The empty rows of one sequence. K is [L, N], V is [L, E].
template <class T>
class UniformRows {
 public:
  UniformRows(std::int64_t states, std::int64_t channels)
      : states_(states), channels_(channels), mean_(size(channels)) {}

  /// Starts a sequence. Nothing is computed until a row asks.
  void enter(const T* K, const T* V, std::int64_t length, std::int64_t padded) {
    K_ = K;
    V_ = V;
    length_ = length;
    padded_ = padded;
    has_mean_ = has_rows_ = false;
  }

  /// y = sum_j V_j / padded.
  void forward(T* y) {
    if (!has_mean_) find_mean();
    std::ranges::copy(mean_, y);
  }

  /// Takes up one row's gradient and returns its dq.
  void backward(const T* q, const T* dy, T* dq);
  /// Adds what the rows taken up send to dK and dV.
  void leave(T* dK, T* dV) const;

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
  T weight() const { return 1 / static_cast<T>(padded_); }
  void find_mean();
  void start_backward();

  std::int64_t states_, channels_, length_ = 0, padded_ = 0;
  const T *K_ = nullptr, *V_ = nullptr;
  bool has_mean_ = false, has_rows_ = false;
  std::vector<T> mean_;             // [E]
  std::vector<T> value_key_;        // [E, N]: sum_j V_j K_j^T
  std::vector<T> key_sum_;          // [N]: sum_j K_j
  std::vector<T> gradient_sum_;     // [E]: sum_r dy_r
  std::vector<T> gradient_query_;   // [E, N]: sum_r dy_r Q_r^T
  std::vector<T> projected_query_;  // [N]: sum_r (dy_r . y_r) Q_r
};

/// outer[e][n] += a[e] * b[n]
template <class T>
void add_outer(const T* a, std::int64_t rows, const T* b, std::int64_t columns, T* outer) {
  for (std::int64_t e = 0; e < rows; ++e) {
#pragma omp simd
    for (std::int64_t n = 0; n < columns; ++n) outer[e * columns + n] += a[e] * b[n];
  }
}

/// y[n] += scale * sum_e a[e] * matrix[e][n]
template <class T>
void add_product(T scale, const T* a, const T* matrix, std::int64_t rows, std::int64_t columns,
                 T* y) {
  for (std::int64_t e = 0; e < rows; ++e) {
    const T factor = scale * a[e];
#pragma omp simd
    for (std::int64_t n = 0; n < columns; ++n) y[n] += factor * matrix[e * columns + n];
  }
}

template <class T>
void UniformRows<T>::find_mean() {
  std::vector<double> sum(mean_.size());
  for (std::int64_t j = 0; j < length_; ++j) {
    for (std::size_t e = 0; e < sum.size(); ++e) sum[e] += V_[j * channels_ + std::int64_t(e)];
  }
  for (std::size_t e = 0; e < sum.size(); ++e) {
    mean_[e] = static_cast<T>(sum[e] / static_cast<double>(padded_));
  }
  has_mean_ = true;
}

template <class T>
void UniformRows<T>::start_backward() {
  if (!has_mean_) find_mean();
  for (auto* matrix : {&value_key_, &gradient_query_}) matrix->assign(size(channels_ * states_), 0);
  for (auto* vector : {&key_sum_, &projected_query_}) vector->assign(size(states_), 0);
  gradient_sum_.assign(size(channels_), 0);
  for (std::int64_t j = 0; j < length_; ++j) {
    const T* key = K_ + j * states_;
    add_outer(V_ + j * channels_, channels_, key, states_, value_key_.data());
    for (std::int64_t n = 0; n < states_; ++n) key_sum_[size(n)] += key[n];
  }
  has_rows_ = true;
}

template <class T>
void UniformRows<T>::backward(const T* q, const T* dy, T* dq) {
  if (!has_rows_) start_backward();
  const T* y = mean_.data();
  T projection = 0;
#pragma omp simd reduction(+ : projection)
  for (std::int64_t e = 0; e < channels_; ++e) projection += dy[e] * y[e];
  for (std::int64_t n = 0; n < states_; ++n) {
    projected_query_[size(n)] += projection * q[n];
    dq[n] = -weight() * projection * key_sum_[size(n)];
  }
  add_product(weight(), dy, value_key_.data(), channels_, states_, dq);
  add_outer(dy, channels_, q, states_, gradient_query_.data());
  for (std::int64_t e = 0; e < channels_; ++e) gradient_sum_[size(e)] += dy[e];
}

template <class T>
void UniformRows<T>::leave(T* dK, T* dV) const {
  if (!has_rows_) return;
  for (std::int64_t j = 0; j < length_; ++j) {
    T* dkey = dK + j * states_;
    T* dvalue = dV + j * channels_;
    add_product(weight(), V_ + j * channels_, gradient_query_.data(), channels_, states_, dkey);
    for (std::int64_t n = 0; n < states_; ++n) dkey[n] -= weight() * projected_query_[size(n)];
    for (std::int64_t e = 0; e < channels_; ++e) dvalue[e] += weight() * gradient_sum_[size(e)];
  }
}

}  // namespace hax
