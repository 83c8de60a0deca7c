#include "train/step_work.h"

#include <algorithm>
#include <utility>

namespace hax {

Work operator+(const Work& a, const Work& b) {
  return {a.products + b.products, a.other + b.other, a.exps + b.exps, a.numbers + b.numbers};
}

Work operator*(double factor, const Work& a) {
  return {factor * a.products, factor * a.other, factor * a.exps, factor * a.numbers};
}

// A product of a row with a matrix is 2 FLOPs an entry; its backward makes two such products.
OpWork linear_work(std::string op, double inputs, double outputs, WorkRows rows) {
  const double flops = 2 * inputs * outputs;
  return {std::move(op), {.products = flops}, {.products = 2 * flops}, rows};
}

OpWork norm_work(double D) { return {"norm", {.other = 4 * D}, {.other = 8 * D}}; }

// Four taps, bias and SiLU; the backward recomputes the pre-activation.
OpWork conv_work(double channels) {
  return {"conv + silu",
          {.other = 10 * channels, .exps = channels, .numbers = 2 * channels},
          {.other = 22 * channels, .exps = channels, .numbers = 3 * channels}};
}

// h = exp(dt A) h + dt u B: 4 FLOPs and an exponential a state; the backward runs it again.
OpWork scan_state_work(double E, double N) {
  return {"scan: state", {.other = 4 * E * N, .exps = E * N}, {.other = 15 * E * N, .exps = E * N}};
}

// y = C h, and its two products in the backward.
OpWork scan_output_work(double E, double N) {
  return {"scan: output", {.other = 2 * E * N}, {.other = 4 * E * N}, WorkRows::read};
}

// One exponential a head; the rest of a state's update is 3 FLOPs.
OpWork ssd_state_work(double E, double N, double heads) {
  return {"ssd: state",
          {.other = 3 * E * N, .exps = heads, .numbers = 2 * E + 2 * N + heads},
          {.other = 12 * E * N, .exps = heads, .numbers = 5 * E + 4 * N + 2 * heads}};
}

OpWork ssd_output_work(double E, double N) {
  return {"ssd: output", {.other = 2 * E * N}, {.other = 4 * E * N}, WorkRows::read};
}

OpWork attention_work(double keys, double N, double E, double heads) {
  return {"attention",
          {.other = keys * (2 * N + 2 * E), .exps = keys * heads, .numbers = 2 * N + 2 * E},
          {.other = keys * (6 * N + 6 * E), .exps = keys * heads, .numbers = 4 * N + 4 * E},
          WorkRows::read};
}

double mean_keys(const ModelConfig& config, const Sequences& sequences) {
  double sum = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t i = 1; i <= sequences.length(s); ++i) {  // i positions to choose from
      std::int64_t keys = 0;
      for (const std::string& component : config.sparse_components()) {
        if (component == "full") {
          keys += i;
        } else {
          const std::int64_t there = component == "dilated" ? i / config.dilation() : i;
          keys += std::min(there, config.keys_per_component());
        }
      }
      sum += static_cast<double>(std::min(keys, i));
    }
  }
  return sum / static_cast<double>(std::max<std::int64_t>(1, sequences.tokens()));
}

namespace {

OpWork plain(std::string op, const Work& forward, const Work& backward,
             WorkRows rows = WorkRows::every) {
  return {std::move(op), forward, backward, rows};
}

void add_sparse(const ModelConfig& c, const Sequences& sequences, std::vector<OpWork>& ops) {
  const auto E = static_cast<double>(c.intermediate_size), N = static_cast<double>(c.state_size);
  OpWork projection = linear_work("xx_proj", E, 2 * N);
  projection.forward.numbers = 2 * N;
  projection.backward.numbers = 2 * N + 2 * E;
  ops.push_back(projection);
  const bool hashed = c.hashes();
  const bool scored = c.uses("key_selection");
  if (hashed || scored) ops.push_back(plain("selector's reading", {.numbers = 2 * N}, {}));
  // Neither has a backward: what they choose is discrete.
  if (hashed) {
    const auto columns = static_cast<double>(c.hash_columns());
    ops.push_back(plain("hashing of Q and K",
                        {.products = 4 * N * columns, .other = 6 * N + 30, .numbers = 2}, {}));
  }
  if (scored) {
    ops.push_back(
        plain("running sum, scores, top-k",
              {.products = 2 * (2 * 4 * N * N + 2 * N), .other = 6 * N + 30, .numbers = 1}, {}));
    // Every key's sigmoid against the candidates; the network's own training, on the candidates
    // alone, is too little to count.
    const auto candidates = static_cast<double>(c.keys_per_component());
    ops.push_back(plain("ranking loss",
                        {.other = 2 * N * candidates + 2 * candidates, .exps = candidates}, {}));
  }
  ops.push_back(attention_work(mean_keys(c, sequences), N, E));
}

std::vector<OpWork> mamba_layer(const ModelConfig& c) {
  const auto D = static_cast<double>(c.hidden_size), E = static_cast<double>(c.intermediate_size);
  const auto N = static_cast<double>(c.state_size), rank = static_cast<double>(c.time_step_rank);
  OpWork norm = norm_work(D);
  norm.forward.numbers = D + 2 * E;  // norm and in_proj as one op
  norm.backward.numbers = 2 * E + 3 * D;
  OpWork state = scan_state_work(E, N);
  state.forward.numbers = 3 * E + rank + 2 * N;
  state.backward.numbers = 7 * E + 2 * (rank + 2 * N);
  OpWork low = linear_work("x_proj", E, rank + 2 * N);
  low.forward.numbers = rank + 2 * N;
  low.backward.numbers = 2 * (rank + 2 * N) + E;
  return {norm,
          linear_work("in_proj: x", D, E, WorkRows::distinct),
          linear_work("in_proj: z", D, E, WorkRows::distinct_read),
          conv_work(E),
          low,
          linear_work("dt_proj", rank, E),
          plain("softplus", {.other = 4 * E, .exps = 2 * E}, {.other = 6 * E, .exps = 2 * E}),
          state,
          scan_output_work(E, N),
          plain("gate, residual", {.other = 6 * E, .exps = E, .numbers = E + 2 * D},
                {.other = 12 * E, .exps = E, .numbers = 3 * E + D}, WorkRows::read),
          linear_work("out_proj", E, D, WorkRows::read)};
}

std::vector<OpWork> mamba2_layer(const ModelConfig& c) {
  const auto D = static_cast<double>(c.hidden_size), E = static_cast<double>(c.intermediate_size);
  const auto N = static_cast<double>(c.state_size), heads = static_cast<double>(c.num_heads);
  const double mixed = E + 2 * static_cast<double>(c.n_groups) * N;
  OpWork norm = norm_work(D);
  norm.forward.numbers = D + E + mixed + heads;
  norm.backward.numbers = E + mixed + heads + 3 * D;
  return {norm,
          linear_work("in_proj: x, B, C, dt", D, mixed + heads, WorkRows::distinct),
          linear_work("in_proj: z", D, E, WorkRows::distinct_read),
          conv_work(mixed),
          ssd_state_work(E, N, heads),
          ssd_output_work(E, N),
          plain("gate, norm, residual", {.other = 12 * E, .exps = E, .numbers = 2 * E + 2 * D},
                {.other = 24 * E, .exps = E, .numbers = 4 * E + D}, WorkRows::read),
          linear_work("out_proj", E, D, WorkRows::read)};
}

// Rotary attention over a window.
std::vector<OpWork> attention_layer(const ModelConfig& c, const Sequences& sequences) {
  const auto D = static_cast<double>(c.hidden_size);
  const auto heads = static_cast<double>(c.attn->num_heads);
  const double kv = D / heads * static_cast<double>(c.attn->num_kv_heads);
  double keys = 0;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    for (std::int64_t i = 1; i <= sequences.length(s); ++i) {
      keys += static_cast<double>(std::min(i, c.attn->window_size.value_or(i)));
    }
  }
  keys /= static_cast<double>(std::max<std::int64_t>(1, sequences.tokens()));
  OpWork norm = norm_work(D);
  norm.forward.numbers = 2 * D + 2 * kv;
  norm.backward.numbers = 4 * D + 2 * kv;
  return {norm,
          linear_work("k_proj, v_proj", D, 2 * kv),
          linear_work("q_proj", D, D, WorkRows::read),
          plain("rotary of K", {.other = 3 * kv}, {.other = 3 * kv}),
          plain("rotary of Q", {.other = 3 * D}, {.other = 3 * D}, WorkRows::read),
          attention_work(keys, D, D, heads),
          linear_work("o_proj", D, D, WorkRows::read)};
}

void add_mlp(const ModelConfig& c, std::vector<OpWork>& ops) {
  const auto D = static_cast<double>(c.hidden_size);
  const auto width = static_cast<double>(c.mlp_width());
  OpWork norm = norm_work(D);
  norm.op = "mlp: norm";
  norm.rows = WorkRows::read;
  norm.forward.numbers = 2 * D;
  norm.backward.numbers = 3 * D;
  ops.push_back(norm);
  ops.push_back(linear_work("mlp: gate, up, down", D, 3 * width, WorkRows::read));
  ops.push_back(plain("mlp: silu", {.other = 6 * width, .exps = width, .numbers = 3 * width},
                      {.other = 12 * width, .exps = width, .numbers = 5 * width}, WorkRows::read));
}

}  // namespace

std::vector<OpWork> layer_work(const ModelConfig& config, int layer, const Sequences& sequences) {
  const bool attention = config.is_attention(layer);
  std::vector<OpWork> ops = attention                       ? attention_layer(config, sequences)
                            : config.model_type == "mamba2" ? mamba2_layer(config)
                                                            : mamba_layer(config);
  if (!attention && config.sparse_arch != "none") add_sparse(config, sequences, ops);
  if (config.has_mlp()) add_mlp(config, ops);
  return ops;
}

Work step_work(const ModelConfig& config, const Sequences& sequences, std::int64_t targets,
               bool removed) {
  const auto tokens = static_cast<double>(sequences.tokens());
  Work sum;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool first = layer == 0, last = layer + 1 == config.num_hidden_layers;
    for (const OpWork& op : layer_work(config, layer, sequences)) {
      double rows = tokens;
      if (removed && last && (op.rows == WorkRows::read || op.rows == WorkRows::distinct_read)) {
        rows = static_cast<double>(targets);
      }
      if (removed && first &&
          (op.rows == WorkRows::distinct || op.rows == WorkRows::distinct_read)) {
        rows = 0;
      }
      Work work = rows * op.both();
      work.exps = tokens * op.both().exps;
      sum = sum + work;
    }
  }
  // Logits at the targets.
  const OpWork head = linear_work("logits", static_cast<double>(config.hidden_size),
                                  static_cast<double>(config.vocab_size));
  return sum + static_cast<double>(targets) * head.both();
}

double floor_seconds(const Work& work, const MachineLimits& limits) {
  return work.products / limits.products + work.other / limits.other + work.exps / limits.exps;
}

}  // namespace hax
