#include "tools/bench/op_builders.h"

#include <cmath>
#include <utility>

#include "ops/causal_conv1d/causal_conv1d.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/embedding/embedding.h"
#include "ops/full_attention/full_attention.h"
#include "ops/gate/gate.h"
#include "ops/join_rows/join_rows.h"
#include "ops/matmul/matmul.h"
#include "ops/ranking_loss/ranking_loss.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rotary/rotary.h"
#include "ops/running_sum/running_sum.h"
#include "ops/selective_scan/selective_scan.h"
#include "ops/sparse_attention/sparse_attention.h"
#include "ops/ssd/ssd.h"
#include "tools/bench/inputs.h"

namespace hax::bench {
namespace {

double number(std::int64_t count) { return static_cast<double>(count); }

// Work of a row in each direction, and numbers read and written there.
struct RowWork {
  Work forward, backward;
  double forward_numbers = 0, backward_numbers = 0;
};

OpInstance instance(std::vector<Tensor> inputs, std::function<Var(Vars)> run, std::int64_t rows,
                    RowWork work) {
  work.forward.numbers = work.forward_numbers;
  work.backward.numbers = work.backward_numbers;
  return {std::move(inputs), std::move(run), number(rows), number(rows) * work.forward,
          number(rows) * work.backward};
}

// One whose result has no gradient.
OpInstance forward_only(std::vector<Tensor> inputs, std::function<Var(Vars)> run, std::int64_t rows,
                        Work forward, double numbers) {
  OpInstance made =
      instance(std::move(inputs), std::move(run), rows, {std::move(forward), {}, numbers, 0});
  made.differentiable = false;
  return made;
}

// Number `i` of an op's inputs.
Tensor input(const OpSetting& setting, int i, Shape shape, double deviation = 1) {
  return random_tensor(shape, setting.seed + static_cast<std::uint64_t>(i), deviation,
                       setting.device);
}

Tensor ones(const OpSetting& setting, Shape shape) {
  return Tensor::full(shape, 1, DType::float32, setting.device);
}

// int32 [count] below `bound`.
Tensor indices(const OpSetting& setting, std::int64_t count, std::int64_t bound) {
  Tensor index = Tensor::empty({count}, DType::int32);
  RandomStream stream({.seed = setting.seed});
  for (std::int64_t t = 0; t < count; ++t) {
    index.data<std::int32_t>()[t] =
        static_cast<std::int32_t>(stream.below(static_cast<std::uint32_t>(bound)));
  }
  return index.to(setting.device);
}

// Time steps as a fresh model has them, log-uniform between 1e-3 and 0.1.
Tensor time_steps(const OpSetting& setting, int i, Shape shape) {
  Tensor dt = Tensor::empty(shape);
  fill_uniform(dt, {.seed = setting.seed + static_cast<std::uint64_t>(i)}, std::log(1e-3),
               std::log(.1));
  float* value = dt.data<float>();
  for (std::int64_t n = 0; n < dt.numel(); ++n) value[n] = std::exp(value[n]);
  return dt.to(setting.device);
}

// -1, -2, ..., -last, again and again.
Tensor decays(const OpSetting& setting, Shape shape, std::int64_t last) {
  Tensor A = Tensor::empty(shape);
  for (std::int64_t n = 0; n < A.numel(); ++n) {
    A.data<float>()[n] = -static_cast<float>(n % last + 1);
  }
  return A.to(setting.device);
}

// What a key costs in the backward when y is not computed again: scores, dp, dV, dQ and dK.
Work attention_backward(double keys, double states, double values, double heads) {
  return {.other = keys * (6 * states + 4 * values), .exps = keys * heads};
}

// One tensor of a set of keys stands for it.
Var result_of(const KeySet& keys) { return Var(keys.banded() ? keys.expire : keys.death); }

}  // namespace

OpCase rows_case(std::string name, std::int64_t width, std::function<Var(Vars)> run, Work forward,
                 Work backward) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            return instance({input(s, 0, {T, width})}, run, T,
                            {forward, backward, 2 * number(width), 3 * number(width)});
          }};
}

OpCase pair_case(std::string name, std::int64_t width, std::function<Var(Vars)> run, Work forward,
                 Work backward, double backward_numbers) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            return instance({input(s, 0, {T, width}), input(s, 1, {T, width})}, run, T,
                            {forward, backward, 3 * number(width), backward_numbers});
          }};
}

OpCase linear_case(std::string name, std::int64_t inputs, std::int64_t outputs) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double i = number(inputs), o = number(outputs);
            const OpWork work = linear_work("", i, o);
            return instance(
                {input(s, 0, {T, inputs}), input(s, 1, {outputs, inputs}, 1 / std::sqrt(i))},
                [](Vars v) { return linear(v[0], v[1]); }, T,
                {work.forward, work.backward, i + o, 2 * i + o});
          }};
}

OpCase norm_case(std::string name, std::int64_t width) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const OpWork work = norm_work(number(width));
            return instance({input(s, 0, {T, width}), ones(s, {width})},
                            [](Vars v) { return rms_norm(v[0], v[1]); }, T,
                            {work.forward, work.backward, 2 * number(width), 3 * number(width)});
          }};
}

OpCase conv_case(std::string name, std::int64_t channels) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const OpWork work = conv_work(number(channels));
            return instance(
                {input(s, 0, {T, channels}), input(s, 1, {channels, 1, 4}, .3),
                 input(s, 2, {channels})},
                [pack = s.sequences](Vars v) { return causal_conv1d(v[0], v[1], v[2], pack); }, T,
                {work.forward, work.backward, work.forward.numbers, work.backward.numbers});
          }};
}

OpCase scan_case(std::string name, std::int64_t channels, std::int64_t states) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double E = number(channels), N = number(states);
            const OpWork state = scan_state_work(E, N), output = scan_output_work(E, N);
            return instance({input(s, 0, {T, channels}), time_steps(s, 1, {T, channels}),
                             decays(s, {channels, states}, states), input(s, 2, {T, states}),
                             input(s, 3, {T, states}), ones(s, {channels})},
                            [pack = s.sequences](Vars v) {
                              return selective_scan(v[0], v[1], v[2], v[3], v[4], v[5], pack).y;
                            },
                            T,
                            {state.forward + output.forward, state.backward + output.backward,
                             3 * E + 2 * N, 5 * E + 4 * N});
          }};
}

OpCase ssd_case(std::string name, std::int64_t heads, std::int64_t head_dim, std::int64_t states) {
  return {
      std::move(name), [=](const OpSetting& s) {
        const std::int64_t T = s.sequences.tokens(), channels = heads * head_dim;
        const double E = number(channels), N = number(states), H = number(heads);
        const OpWork state = ssd_state_work(E, N, H), output = ssd_output_work(E, N);
        return instance(
            {input(s, 0, {T, channels}), time_steps(s, 1, {T, heads}), decays(s, {heads}, heads),
             input(s, 2, {T, states}), input(s, 3, {T, states}), ones(s, {heads})},
            [pack = s.sequences, heads](Vars v) {
              return ssd(v[0], v[1], v[2], v[3], v[4], v[5], pack, {.heads = heads}).y;
            },
            T,
            {state.forward + output.forward, state.backward + output.backward,
             state.forward.numbers, state.backward.numbers});
      }};
}

OpCase sparse_attention_case(std::string name, std::int64_t states, std::int64_t values) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double N = number(states), E = number(values);
            // Which keys: always from the CPU, which every build can.
            const Tensor Q = random_tensor({T, states}, s.seed),
                         K = random_tensor({T, states}, s.seed + 1, .25);
            const KeySet here = hax_keys(Q, K, random_tensor({T}, s.seed + 2), s.sequences);
            const double seen = count_pairs(here) / number(T);
            const KeySet keys = to_device(here, s.device);
            return instance({Q.to(s.device), K.to(s.device), input(s, 3, {T, values})},
                            [keys](Vars v) { return sparse_attention(v[0], v[1], v[2], keys); }, T,
                            {attention_work(seen, N, E).forward, attention_backward(seen, N, E, 1),
                             2 * N + 2 * E, 4 * N + 4 * E});
          }};
}

OpCase full_attention_case(std::string name, std::int64_t heads, std::int64_t width,
                           std::optional<std::int64_t> window) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double D = number(width), H = number(heads);
            const KeySet keys = window ? window_keys(s.sequences, *window) : full_keys(s.sequences);
            const double seen = count_pairs(keys) / number(T);
            const FullAttentionOptions options{
                .heads = heads, .kv_heads = heads, .scale = 1 / std::sqrt(D / H), .window = window};
            const Shape shape{T, width};
            return instance({input(s, 0, shape), input(s, 1, shape), input(s, 2, shape)},
                            [pack = s.sequences, options](Vars v) {
                              return full_attention(v[0], v[1], v[2], pack, options);
                            },
                            T,
                            {attention_work(seen, D, D, H).forward,
                             attention_backward(seen, D, D, H), 4 * D, 8 * D});
          }};
}

OpCase gate_case(std::string name, std::int64_t width) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double w = number(width);
            return instance(
                {input(s, 0, {T, width}), input(s, 1, {T, width}), ones(s, {width}),
                 input(s, 2, {T, width})},
                [](Vars v) { return gate(v[0], v[1], v[2], v[3]); }, T,
                {{.other = 6 * w, .exps = w}, {.other = 14 * w, .exps = w}, 4 * w, 7 * w});
          }};
}

OpCase rotary_case(std::string name, std::int64_t width, std::int64_t heads) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double w = number(width);
            return instance(
                {input(s, 0, {T, width})},
                [pack = s.sequences, heads](Vars v) { return rotary(v[0], pack, heads); }, T,
                {{.other = 3 * w}, {.other = 3 * w}, 2 * w, 2 * w});
          }};
}

OpCase embedding_case(std::string name, std::int64_t vocabulary, std::int64_t width) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double w = number(width);
            return instance(
                {input(s, 0, {vocabulary, width})},
                [index = indices(s, T, vocabulary)](Vars v) { return embedding(v[0], index); }, T,
                {{}, {.other = w}, w, w});
          }};
}

OpCase join_case(std::string name, std::int64_t width) {
  return {std::move(name), [=](const OpSetting& s) {
            std::vector<std::int64_t> first, second;
            for (std::int64_t q = 0; q < s.sequences.count(); ++q) {
              const std::int64_t length = s.sequences.length(q);
              first.push_back(length / 2);
              second.push_back(length - length / 2);
            }
            const Sequences past = Sequences::of_lengths(first),
                            present = Sequences::of_lengths(second);
            const double w = number(width);
            return instance(
                {input(s, 0, {past.tokens(), width}), input(s, 1, {present.tokens(), width})},
                [past, present](Vars v) { return join_rows(v[0], past, v[1], present); },
                s.sequences.tokens(), {{}, {}, 2 * w, 2 * w});
          }};
}

OpCase loss_case(std::string name, std::int64_t classes) {
  return {std::move(name), [=](const OpSetting& s) {
            const double V = number(classes);
            return instance({input(s, 0, {s.targets, classes})},
                            [labels = indices(s, s.targets, classes)](Vars v) {
                              return cross_entropy(v[0], labels, 7056);
                            },
                            s.targets,
                            {{.other = 3 * V, .exps = V}, {.other = 3 * V, .exps = V}, V, 2 * V});
          }};
}

OpCase running_sum_case(std::string name, std::int64_t width) {
  return {
      std::move(name), [=](const OpSetting& s) {
        const std::int64_t T = s.sequences.tokens();
        return forward_only(
            {input(s, 0, {T, width})},
            [pack = s.sequences](Vars v) {
              return Var(normalized_running_sum(v[0].detach(), pack, NormMode::causal).y.value());
            },
            T, {.other = 4 * number(width)}, 2 * number(width));
      }};
}

OpCase ranking_case(std::string name, std::int64_t states, std::int64_t candidates) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            std::vector<std::int32_t> positions;
            std::vector<std::int64_t> counts;
            double pairs = 0;  // a candidate's queries are those after it
            for (std::int64_t q = 0; q < s.sequences.count(); ++q) {
              const std::int64_t length = s.sequences.length(q);
              counts.push_back(std::min(candidates, length));
              for (std::int64_t c = 0; c < counts.back(); ++c) {
                positions.push_back(static_cast<std::int32_t>(c * length / counts.back()));
              }
              pairs += number(length) * number(counts.back()) / 2;
            }
            const double seen = pairs / number(T), N = number(states);
            return forward_only(
                {input(s, 0, {T, states}), input(s, 1, {T, states}, .25)},
                [pack = s.sequences, chosen = Tensor::from(positions).to(s.device),
                 groups = Sequences::of_lengths(counts)](Vars v) {
                  return Var(ranking_target(v[0].value(), v[1].value(), chosen, groups, pack));
                },
                T, {.other = seen * (2 * N + 2), .exps = seen}, 2 * N);
          }};
}

OpCase bins_case(std::string name, std::int64_t states, std::int64_t columns) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const double N = number(states), h = number(columns);
            return forward_only(
                {input(s, 0, {T, states}), input(s, 1, {states, columns})},
                [pack = s.sequences](Vars v) {
                  return Var(lsh_bins(v[0].value(), v[1].value(), pack, LshRule::sign_bits,
                                      LshCenter::causal, NormMode::causal));
                },
                T, {.products = 2 * N * h, .other = 3 * N + 2 * h - 1}, N + 2);
          }};
}

OpCase bin_keys_case(std::string name, std::int64_t keys) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            const auto bins = [&](std::uint64_t seed) {
              Tensor bin = Tensor::empty({T}, DType::int64);
              RandomStream stream({.seed = seed});
              for (std::int64_t t = 0; t < T; ++t) bin.data<std::int64_t>()[t] = stream.below(256);
              return bin.to(s.device);
            };
            // Two bins of 8 bytes; when a key expires and its place in the order.
            return forward_only(
                {},
                [pack = s.sequences, keys, query = bins(s.seed), key = bins(s.seed + 1)](Vars) {
                  return result_of(lsh_keys(query, key, pack, keys));
                },
                T, {}, 6);
          }};
}

OpCase key_selection_case(std::string name, std::int64_t keys) {
  return {std::move(name), [=](const OpSetting& s) {
            const std::int64_t T = s.sequences.tokens();
            return forward_only(
                {input(s, 0, {T})},
                [pack = s.sequences, keys](Vars v) {
                  return result_of(key_selection_keys(v[0].value(), pack, keys));
                },
                T, {}, 2);
          }};
}

}  // namespace hax::bench
