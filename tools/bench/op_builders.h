// Ops of any size as cases of `hax bench`: data, what is run, how much work that is.
#pragma once

#include <optional>

#include "tools/bench/op_cases.h"

namespace hax::bench {

using Vars = std::span<const Var>;

/// A function of rows [T, width]; numbers are read and written once, in the backward with dy and
/// dx.
OpCase rows_case(std::string name, std::int64_t width, std::function<Var(Vars)> run, Work forward,
                 Work backward);
/// A function of two equal tables of rows [T, width].
OpCase pair_case(std::string name, std::int64_t width, std::function<Var(Vars)> run, Work forward,
                 Work backward, double backward_numbers);
OpCase linear_case(std::string name, std::int64_t inputs, std::int64_t outputs);
OpCase norm_case(std::string name, std::int64_t width);
OpCase conv_case(std::string name, std::int64_t channels);
OpCase ssd_case(std::string name, std::int64_t heads, std::int64_t head_dim, std::int64_t states);
/// HAX: 32 keys by hash bin and 32 by score.
OpCase sparse_attention_case(std::string name, std::int64_t states, std::int64_t values);
/// `width` in all heads together; without a window over everything so far.
OpCase full_attention_case(std::string name, std::int64_t heads, std::int64_t width,
                           std::optional<std::int64_t> window);
/// (s + E a) silu(z)
OpCase gate_case(std::string name, std::int64_t width);
OpCase rotary_case(std::string name, std::int64_t width, std::int64_t heads);
OpCase embedding_case(std::string name, std::int64_t vocabulary, std::int64_t width);
/// The first half of every sequence before the second.
OpCase join_case(std::string name, std::int64_t width);
OpCase running_sum_case(std::string name, std::int64_t width);
OpCase ranking_case(std::string name, std::int64_t states, std::int64_t candidates);
OpCase bins_case(std::string name, std::int64_t states, std::int64_t columns);
/// The `keys` latest of 256 random bins.
OpCase bin_keys_case(std::string name, std::int64_t keys);
/// The `keys` best of random scores.
OpCase key_selection_case(std::string name, std::int64_t keys);

}  // namespace hax::bench
