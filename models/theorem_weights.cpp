#include "models/theorem_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "engine/random.h"

namespace hax {
namespace {

// O(log n) dimensions, enough that the vectors of a level point apart.
std::int64_t width_for(std::int64_t count) {
  return std::max<std::int64_t>(8, 2 * std::bit_width(static_cast<std::uint64_t>(count - 1)));
}

// A vector of length 1 without zero entries, drawn for a token.
void draw_unit_vector(std::uint64_t seed, std::int32_t token, std::span<float> out) {
  RandomStream stream(
      {.seed = seed, .sequence = static_cast<std::uint32_t>(token), .purpose = Purpose::init});
  double square = 0;
  for (float& x : out) {
    do x = stream.normal();
    while (x == 0);
    square += static_cast<double>(x) * x;
  }
  for (float& x : out) x = static_cast<float>(x / std::sqrt(square));
}

// Rows row .. row + count - 1 of a weight become `factor` times channels channel .. channel + count
// - 1.
void select(Tensor& weight, std::int64_t row, std::int64_t channel, std::int64_t count,
            float factor) {
  for (std::int64_t i = 0; i < count; ++i) {
    weight.data<float>()[(row + i) * weight.size(1) + channel + i] = factor;
  }
}

}  // namespace

TheoremChannels::TheoremChannels(const RecallTokens& tokens) {
  check(!tokens.levels.empty(), "theorem: no levels, expected at least one");
  const auto require_tokens = [&](const char* what, RecallTokens::Range range) {
    check(range.first >= 0 && range.count >= 1 && range.first <= tokens.vocabulary - range.count,
          "theorem: {}: {} tokens from {}, expected one or more inside the vocabulary of "
          "{}",
          what, range.count, range.first, tokens.vocabulary);
  };
  for (const RecallTokens::Range& range : tokens.levels) require_tokens("a level", range);
  require_tokens("values", tokens.values);
  std::int64_t next = 0;
  for (const RecallTokens::Range& range : tokens.levels) {
    level.push_back(next);
    next += width_for(range.count);
  }
  level.push_back(next);
  is_value = next + width_for(tokens.values.count);
  classes = is_value + 1;
  count = classes + class_count();
}

TheoremWeights::TheoremWeights(const RecallTokens& tokens, const TheoremChannels& at,
                               std::int64_t hash_bits, std::uint64_t seed) {
  const std::int64_t w = at.levels(), E = at.count, G = at.class_count(), N = at.query_width();

  embedding = Tensor::zeros({tokens.vocabulary, E});
  const auto row_of = [&](std::int64_t token) { return embedding.data<float>() + token * E; };
  for (std::int64_t token = 0; token < tokens.vocabulary; ++token) {
    row_of(token)[at.is_value] = -1;
    row_of(token)[at.classes + w + 1] = 1;
  }
  for (std::int64_t part = 0; part <= w; ++part) {  // the levels, then the values
    const auto l = static_cast<std::size_t>(part);
    const RecallTokens::Range range = part < w ? tokens.levels[l] : tokens.values;
    const std::int64_t end = part < w ? at.level[l + 1] : at.is_value;
    for (std::int32_t token = range.first; token < range.first + range.count; ++token) {
      float* row = row_of(token);
      draw_unit_vector(seed, token,
                       {row + at.level[l], static_cast<std::size_t>(end - at.level[l])});
      if (part == w) row[at.is_value] = 1;
      row[at.classes + w + 1] = 0;
      row[at.classes + part] = 1;
    }
  }

  // dt = softplus(step) on a token of the channel's own class, softplus(-step) = 0 on others; value
  // sign and indicators are overwritten by every token.
  const auto step = static_cast<float>(kStep);
  x_proj = Tensor::zeros({G + 2, E});
  select(x_proj, 0, at.classes, G, 1);
  std::fill_n(x_proj.data<float>() + G * E + at.classes, G, 1 / step);    // B
  std::fill_n(x_proj.data<float>() + (G + 1) * E + at.classes, G, 1.0F);  // C
  dt_weight = Tensor::zeros({E, G});
  dt_bias = Tensor::full({E}, kStep);
  for (std::int64_t e = 0; e < at.is_value; ++e) {
    const auto part = std::ranges::upper_bound(at.level, e) - at.level.begin() - 1;
    dt_bias.data<float>()[e] = -step;
    dt_weight.data<float>()[e * G + part] = 2 * step;
  }
  A_log = Tensor::zeros({E, 1});
  D = Tensor::zeros({E});

  const auto sharpness = static_cast<float>(kSharpness);
  W_Q = Tensor::zeros({N, E});
  select(W_Q, 0, 0, N - 1, sharpness);
  b_Q = Tensor::zeros({N});
  b_Q.data<float>()[N - 1] = sharpness;
  W_K = Tensor::zeros({N, E});
  select(W_K, 0, 0, N - 1, 1);
  select(W_K, N - 1, at.is_value, 1, 1);
  W_V = Tensor::zeros({at.value_width(), E});
  select(W_V, 0, at.values(), at.value_width(), 1);
  hash = Tensor::empty({N, hash_bits});
  fill_normal(hash, {.seed = seed, .purpose = Purpose::hash});

  values = Tensor::empty({tokens.values.count, at.value_width()});
  for (std::int32_t v = 0; v < tokens.values.count; ++v) {
    std::copy_n(row_of(tokens.values.first + v) + at.values(), at.value_width(),
                values.data<float>() + v * at.value_width());
  }
}

}  // namespace hax
