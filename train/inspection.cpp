#include "train/inspection.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <unordered_map>

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/elementwise/elementwise.h"
#include "ops/embedding/embedding.h"
#include "train/inspection_pictures.h"
#include "train/optimizer.h"

namespace hax {
namespace {

double norm_of(const Tensor& tensor) { return stats_of(tensor).norm; }

// "backbone.layers.3.mixer" -> 3; -1 outside layers.
int layer_of(const std::string& scope) {
  constexpr std::string_view kLayers = "layers.";
  const std::size_t at = scope.find(kLayers);
  return at == std::string::npos ? -1 : std::atoi(scope.c_str() + at + kLayers.size());
}

// Writes down every op. Its own work is not counted in anybody's time.
class Recorder final : public Watcher {
 public:
  Recorder(Inspection& inspection, const Sequences& sequences)
      : inspection_(inspection), sequences_(sequences), last_(Clock::now()) {}

  // Pictures of attention are made later: the key sets are known after the forward pass.
  struct Attention {
    std::size_t op;
    Tensor Q, K;
  };
  std::vector<Attention> attention;

  void on_forward(const OpEvent& event, std::span<const Var> inputs,
                  std::span<const Tensor> outputs) override {
    InspectedOp op;
    op.forward_s = since_last();
    op.op = event.op;
    op.scope = event.scope;
    op.recorded = event.node != nullptr;
    for (const Var& input : inputs) {
      if (input.defined()) {
        op.inputs.push_back(source_of(input));
      } else {
        op.inputs.emplace_back();
      }
    }
    const auto index = static_cast<int>(inspection_.ops.size());
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const Tensor& y = outputs[o];
      op.outputs.push_back({y.shape(), y.dtype(), stats_of(y), {}});
      // Views of an earlier output keep pointing at the op that computed the numbers.
      if (y.numel() > 0) made_by_[y.raw()] = {index, static_cast<int>(o)};
      alive_.push_back(y);
    }
    if (event.node != nullptr) index_of_[event.node] = index;
    look_at(op, inputs);
    inspection_.ops.push_back(std::move(op));
    last_ = Clock::now();
  }

  void on_backward(const OpEvent& event, std::span<const Tensor> dy,
                   std::span<const Tensor> dx) override {
    const double seconds = since_last();
    const auto found = index_of_.find(event.node);
    if (found != index_of_.end()) {
      InspectedOp& op = inspection_.ops[static_cast<std::size_t>(found->second)];
      op.backward_s = seconds;
      op.backward_order = backwards_++;
      for (std::size_t o = 0; o < dy.size(); ++o) {
        if (dy[o].defined()) op.outputs[o].gradient = stats_of(dy[o]);
      }
      for (std::size_t i = 0; i < dx.size() && i < op.inputs.size(); ++i) {
        if (dx[i].defined()) op.inputs[i].gradient_norm = norm_of(dx[i]);
      }
    }
    last_ = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Place {
    int op, output;
  };

  double since_last() const { return std::chrono::duration<double>(Clock::now() - last_).count(); }

  InspectedInput source_of(const Var& input) const {
    InspectedInput source;
    source.shape = input.shape();
    if (input.node() != nullptr && input.node()->is_leaf) {
      source.parameter = input.node()->name;
    } else if (input.node() != nullptr) {
      const auto found = index_of_.find(input.node().get());
      if (found != index_of_.end()) source.op = found->second;
      source.output = input.output_index();
    } else if (input.value().numel() > 0) {
      const auto found = made_by_.find(input.value().raw());
      if (found != made_by_.end()) {
        source.op = found->second.op;
        source.output = found->second.output;
      }
    }
    return source;
  }

  void look_at(const InspectedOp& op, std::span<const Var> inputs) {
    const auto value = [&](std::size_t i) { return inputs[i].value(); };
    std::vector<MemoryPicture> pictures;
    if (op.op == "selective_scan") {
      pictures = scan_pictures(value(0), value(1), value(2), value(3), sequences_);
    } else if (op.op == "ssd") {
      pictures = ssd_pictures(value(0), value(1), value(2), value(3), inspection_.config.n_groups,
                              sequences_);
    } else if (op.op == "sparse_attention" || op.op == "full_attention") {
      attention.push_back({inspection_.ops.size(), value(0), value(1)});
    }
    for (MemoryPicture& picture : pictures) {
      picture.layer = layer_of(op.scope);
      picture.op = op.op;
      inspection_.memory.push_back(std::move(picture));
    }
  }

  Inspection& inspection_;
  Sequences sequences_;
  Clock::time_point last_;
  int backwards_ = 0;
  std::unordered_map<const Node*, int> index_of_;
  std::unordered_map<const void*, Place> made_by_;
  std::vector<Tensor> alive_;  // so that no other tensor gets an address in made_by_
};

void draw_attention(const Recorder& recorder, const Sequences& sequences,
                    const std::vector<LayerTrace>& traces, Inspection& inspection) {
  for (const Recorder::Attention& seen : recorder.attention) {
    const InspectedOp& op = inspection.ops[seen.op];
    const int layer = layer_of(op.scope);
    const LayerTrace& trace = traces[static_cast<std::size_t>(layer)];
    const bool sparse = op.scope.ends_with(".sparse");
    KeySet keys;
    AttentionForm form;
    if (sparse) {
      keys = trace.keys;
    } else {
      const auto& attn = *inspection.config.attn;
      form.heads = attn.num_heads;
      form.kv_heads = attn.num_kv_heads;
      form.scale = 1 / std::sqrt(static_cast<double>(seen.Q.size(1) / form.heads));
      keys = attn.window_size ? window_keys(sequences, *attn.window_size) : full_keys(sequences);
    }
    for (AttentionPicture& picture : attention_pictures(seen.Q, seen.K, keys, form)) {
      picture.layer = layer;
      picture.op = op.op;
      if (sparse && trace.key_score.defined()) {
        const Tensor scores = trace.key_score.to(DType::float64);
        const std::int64_t begin = sequences.begin(picture.sample);
        for (std::size_t t = 0; t < picture.queries.size(); ++t) {
          picture.key_score.push_back(scores.data<double>()[begin + static_cast<std::int64_t>(t)]);
        }
      }
      inspection.attention.push_back(std::move(picture));
    }
  }
}

// What the model says at every row that it is asked about.
void read_answers(const Batch& batch, const Tensor& target_logits, Inspection& inspection) {
  const Tensor logits = target_logits.to(DType::float64);
  const std::int64_t classes = logits.size(1);
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    for (std::int64_t r = batch.target_samples.begin(s); r < batch.target_samples.end(s); ++r) {
      InspectedTarget& target = inspection.targets.emplace_back();
      target.sample = s;
      target.position = batch.target_rows.data<std::int32_t>()[r] - batch.sequences.begin(s);
      target.label = batch.target_labels.data<std::int32_t>()[r];
      const double* row = logits.data<double>() + r * classes;
      const double* largest = std::max_element(row, row + classes);
      target.predicted = static_cast<std::int32_t>(largest - row);
      double sum = 0;
      for (std::int64_t v = 0; v < classes; ++v) sum += std::exp(row[v] - *largest);
      target.probability = std::exp(row[target.label] - *largest) / sum;
    }
  }
}

void look_at_parameters(const InspectionInput& input, const Parameters& gradients,
                        Inspection& inspection) {
  Parameters updated(input.model.parameters(), input.parameters.flat().dtype());
  copy(updated.flat(), input.parameters.flat());
  // AdamW works in float32; in float64 there is no update to show.
  const bool can_update = updated.flat().dtype() == DType::float32;
  if (can_update) AdamW(input.model.parameters()).update(1, input.lr, gradients, updated);
  for (std::size_t i = 0; i < gradients.specs().size(); ++i) {
    InspectedParameter& parameter = inspection.parameters.emplace_back();
    const Tensor before = input.parameters.view(i);
    parameter.name = gradients.specs()[i].name;
    parameter.tensor = {before.shape(), before.dtype(), stats_of(before),
                        stats_of(gradients.view(i))};
    Tensor change = updated.view(i).to(DType::float64).clone();
    const Tensor from = before.to(DType::float64);
    for (std::int64_t j = 0; j < change.numel(); ++j)
      change.data<double>()[j] -= from.data<double>()[j];
    const double moved = norm_of(change), size = parameter.tensor.value.norm;
    parameter.update_ratio = size > 0    ? moved / size
                             : moved > 0 ? std::numeric_limits<double>::infinity()
                                         : 0;
  }
}

}  // namespace

Inspection inspect_step(const InspectionInput& input) {
  const Batch& batch = input.batch;
  check(batch.target_rows.numel() > 0, "the batch has no token to predict");
  Inspection inspection;
  inspection.config = input.model.config();
  inspection.gate_loss_weight = input.gate_loss_weight;
  inspection.lr = input.lr;
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    const auto tokens = batch.tokens.rows(batch.sequences.begin(s), batch.sequences.end(s));
    const auto values = tokens.values<std::int32_t>();
    inspection.samples.emplace_back(values.begin(), values.end());
    inspection.padded.push_back(batch.sequences.padded(s));
  }

  Parameters gradients(input.model.parameters(), input.parameters.flat().dtype());
  const Leaves leaves(input.parameters, gradients);
  std::vector<LayerTrace> traces;
  const ForwardContext context{.parameters = leaves,
                               .random = input.random,
                               .sequences = batch.sequences,
                               .sequences_in_batch = static_cast<double>(batch.count()),
                               .trace = &traces};
  Recorder recorder(inspection, batch.sequences);
  {
    const Watch watch(recorder);
    const ForwardResult out = input.model.forward(context, batch.tokens);
    const Scope scope("loss");
    const Var target_logits = embedding(out.logits, batch.target_rows);
    const Var lm = cross_entropy(target_logits, batch.target_labels,
                                 static_cast<double>(batch.target_rows.numel()));
    const Var loss =
        out.aux_loss.defined() ? add(lm, scale(out.aux_loss, input.gate_loss_weight)) : lm;
    inspection.lm_loss = lm.value().item();
    inspection.gate_loss = out.aux_loss.defined() ? out.aux_loss.value().item() : 0;
    inspection.loss = loss.value().item();
    const Tensor shares =
        sample_accuracy(target_logits.value(), batch.target_labels, batch.target_samples);
    for (const double share : shares.values<double>()) {
      inspection.accuracy += share / static_cast<double>(shares.numel());
    }
    read_answers(batch, target_logits.value(), inspection);
    backward(loss);
  }
  draw_attention(recorder, batch.sequences, traces, inspection);
  look_at_parameters(input, gradients, inspection);
  return inspection;
}

}  // namespace hax
