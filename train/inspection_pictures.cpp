#include "train/inspection_pictures.h"

#include <algorithm>
#include <cmath>

#include "ops/vector_math.h"

namespace hax {
namespace {

constexpr float kForgotten = 1e-3F;

std::int64_t shown(const Sequences& sequences, std::int64_t s) {
  return std::min(sequences.length(s), Inspection::kMostTokens);
}

// Weights of one query over `keys`, averaged over heads. q [heads dim]; K: the sequence's first.
void weigh(const double* q, const double* K, std::int64_t dim, const AttentionForm& form,
           std::vector<AttendedKey>& keys) {
  std::vector<double> score(keys.size()), mean(keys.size());
  for (std::int64_t h = 0; h < form.heads; ++h) {
    const double* query = q + h * dim;
    const std::int64_t shared = h / (form.heads / form.kv_heads);
    for (std::size_t z = 0; z < keys.size(); ++z) {
      const double* key = K + (keys[z].key * form.kv_heads + shared) * dim;
      score[z] = 0;
      for (std::int64_t n = 0; n < dim; ++n) score[z] += form.scale * query[n] * key[n];
    }
    const double largest = *std::ranges::max_element(score);
    double sum = 0;
    for (double& s : score) sum += s = std::exp(s - largest);
    for (std::size_t z = 0; z < keys.size(); ++z) {
      mean[z] += score[z] / sum / static_cast<double>(form.heads);
    }
  }
  for (std::size_t z = 0; z < keys.size(); ++z) keys[z].weight = static_cast<float>(mean[z]);
}

// A recurrence: every drive (a channel, or a head) has a dt of its own, some decay rates, and for
// each rate as many states.
struct Recurrence {
  std::int64_t drives, rates_each, states_each;
  const double* rate;  // [drives, rates_each]: log decay for each unit of dt

  double rate_of(std::int64_t state) const {
    const std::int64_t drive = state / states_each, in_drive = state % states_each;
    return rate[drive * rates_each + (rates_each > 1 ? in_drive : 0)];
  }
};

// The mean over drives and rates of exp(passed rate), in float: a picture needs no more.
float mean_kept(const Recurrence& states, const std::vector<float>& passed,
                const std::vector<float>& rate) {
  float sum = 0;
  for (std::int64_t g = 0; g < states.drives; ++g) {
    const float p = passed[static_cast<std::size_t>(g)];
    const float* r = rate.data() + g * states.rates_each;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t n = 0; n < states.rates_each; ++n) sum += fast_exp(p * r[n]);
  }
  return sum / static_cast<float>(rate.size());
}

// dt [length, drives]; write(t, i): what token t writes into state i for each unit of dt.
template <class Write>
MemoryPicture picture_of(std::int64_t length, const double* dt, const Recurrence& states,
                         Write write) {
  MemoryPicture picture;
  const std::int64_t drives = states.drives, width = drives * states.states_each;
  std::vector<double> h(static_cast<std::size_t>(width));
  for (std::int64_t t = 0; t < length; ++t) {
    const double* row = dt + t * drives;
    const auto [least, most] = std::minmax_element(row, row + drives);
    double sum = 0, square = 0;
    for (std::int64_t g = 0; g < drives; ++g) sum += row[g];
    picture.dt_least.push_back(*least);
    picture.dt_most.push_back(*most);
    picture.dt_mean.push_back(sum / static_cast<double>(drives));
    for (std::int64_t i = 0; i < width; ++i) {
      const double step = row[i / states.states_each];
      double& state = h[static_cast<std::size_t>(i)];
      state = std::exp(step * states.rate_of(i)) * state + step * write(t, i);
      square += state * state;
    }
    picture.state_norm.push_back(std::sqrt(square));
  }
  const std::vector<float> rate(states.rate, states.rate + drives * states.rates_each);
  std::vector<float> passed(static_cast<std::size_t>(drives));  // dt from j + 1 to t
  for (std::int64_t t = 0; t < length; ++t) {
    std::vector<float>& kept = picture.kept.emplace_back();
    std::ranges::fill(passed, 0.0F);
    for (std::int64_t j = t; j >= 0; --j) {
      const float mean = mean_kept(states, passed, rate);
      if (mean < kForgotten) break;
      kept.push_back(mean);
      for (std::int64_t g = 0; g < drives; ++g) {
        passed[static_cast<std::size_t>(g)] += static_cast<float>(dt[j * drives + g]);
      }
    }
  }
  return picture;
}

}  // namespace

std::vector<AttentionPicture> attention_pictures(const Tensor& Q, const Tensor& K,
                                                 const KeySet& keys, const AttentionForm& form) {
  const Tensor queries = Q.to(kCpu).to(DType::float64), all_keys = K.to(kCpu).to(DType::float64);
  const std::int64_t dim = Q.size(1) / form.heads;
  const auto lists = to_lists(keys);
  std::vector<AttentionPicture> pictures;
  for (std::int64_t s = 0; s < keys.sequences.count(); ++s) {
    AttentionPicture& picture = pictures.emplace_back();
    picture.sample = s;
    const std::int64_t begin = keys.sequences.begin(s);
    for (std::int64_t i = 0; i < shown(keys.sequences, s); ++i) {
      std::vector<AttendedKey>& seen = picture.queries.emplace_back();
      for (const std::int32_t j : lists[static_cast<std::size_t>(begin + i)]) seen.push_back({j});
      if (seen.empty()) continue;
      weigh(queries.data<double>() + (begin + i) * Q.size(1),
            all_keys.data<double>() + begin * K.size(1), dim, form, seen);
    }
    if (!keys.banded()) continue;
    for (std::int64_t t = begin; t < begin + shown(keys.sequences, s); ++t) {
      picture.query_bin.push_back(keys.query_bin.data<std::int64_t>()[t]);
      picture.key_bin.push_back(keys.key_bin.data<std::int64_t>()[t]);
    }
  }
  return pictures;
}

std::vector<MemoryPicture> scan_pictures(const Tensor& u, const Tensor& dt, const Tensor& A,
                                         const Tensor& B, const Sequences& sequences) {
  const Tensor in = u.to(DType::float64), step = dt.to(DType::float64);
  const Tensor rate = A.to(DType::float64), column = B.to(DType::float64);
  const std::int64_t dim = A.size(0), state = A.size(1);
  const Recurrence states{dim, state, state, rate.data<double>()};
  std::vector<MemoryPicture> pictures;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s);
    const double* x = in.data<double>() + begin * dim;
    const double* b = column.data<double>() + begin * state;
    pictures.push_back(picture_of(shown(sequences, s), step.data<double>() + begin * dim, states,
                                  [&](std::int64_t t, std::int64_t i) {
                                    return b[t * state + i % state] * x[t * dim + i / state];
                                  }));
    pictures.back().sample = s;
  }
  return pictures;
}

std::vector<MemoryPicture> ssd_pictures(const Tensor& x, const Tensor& dt, const Tensor& A,
                                        const Tensor& B, std::int64_t groups,
                                        const Sequences& sequences) {
  const Tensor in = x.to(DType::float64), step = dt.to(DType::float64);
  const Tensor rate = A.to(DType::float64), column = B.to(DType::float64);
  const std::int64_t heads = A.size(0), dim = x.size(1) / heads, state = B.size(1) / groups;
  const Recurrence states{heads, 1, dim * state, rate.data<double>()};
  std::vector<MemoryPicture> pictures;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t begin = sequences.begin(s);
    const double* inputs = in.data<double>() + begin * x.size(1);
    const double* columns = column.data<double>() + begin * B.size(1);
    pictures.push_back(picture_of(
        shown(sequences, s), step.data<double>() + begin * heads, states,
        [&](std::int64_t t, std::int64_t at) {
          const std::int64_t h = at / (dim * state), p = at / state % dim, n = at % state;
          const std::int64_t group = h / (heads / groups);
          return columns[t * B.size(1) + group * state + n] * inputs[t * x.size(1) + h * dim + p];
        }));
    pictures.back().sample = s;
  }
  return pictures;
}

}  // namespace hax
