#include "data/batch.h"

#include <algorithm>

#include "engine/check.h"

namespace hax {
namespace {

// Collects the targets of one sequence after the other.
struct Targets {
  std::vector<std::int32_t> rows, labels;
  std::vector<std::int64_t> offsets{0};

  void add(std::int64_t row, std::int32_t label) {
    rows.push_back(static_cast<std::int32_t>(row));
    labels.push_back(label);
  }
  void end_sequence() { offsets.push_back(static_cast<std::int64_t>(rows.size())); }
  void move_into(Batch& batch) {
    batch.target_rows = Tensor::from(rows);
    batch.target_labels = Tensor::from(labels);
    batch.target_samples = Sequences(std::move(offsets));
  }
};

}  // namespace

Batch Batch::slice(std::int64_t first, std::int64_t last) const {
  Batch part;
  part.sequences = sequences.slice(first, last);
  const std::int64_t begin = first == count() ? sequences.tokens() : sequences.begin(first);
  const std::int64_t end = begin + part.sequences.tokens();
  part.tokens = tokens.flat(begin, end);
  part.labels = labels.flat(begin, end);
  part.target_samples = target_samples.slice(first, last);
  const std::int64_t from =
      first == count() ? target_samples.tokens() : target_samples.begin(first);
  const std::int64_t to = from + part.target_samples.tokens();
  part.target_rows = target_rows.flat(from, to).clone();
  std::int32_t* rows = part.target_rows.data<std::int32_t>();
  for (std::int64_t i = 0; i < to - from; ++i) rows[i] -= static_cast<std::int32_t>(begin);
  part.target_labels = target_labels.flat(from, to);
  return part;
}

Batch pack(const JointRecallTask& task, std::span<const std::vector<std::int32_t>> samples) {
  const std::int64_t padded = task.fixed_length() - 1;
  std::vector<std::int64_t> lengths;
  for (const auto& sample : samples) {
    const auto size = static_cast<std::int64_t>(sample.size());
    check(2 <= size && size <= padded + 1, "pack: a sample of {} tokens, expected 2 to {}", size,
          padded + 1);
    lengths.push_back(size - 1);
  }
  Batch batch;
  batch.sequences = Sequences::of_lengths(lengths, std::vector(lengths.size(), padded));
  const Shape shape{batch.sequences.tokens()};
  check(shape[0] <= INT32_MAX, "pack: {} tokens, rows are numbered by 32 bits", shape[0]);
  batch.tokens = Tensor::empty(shape, DType::int32);
  batch.labels = Tensor::empty(shape, DType::int32);
  auto* tokens = batch.tokens.data<std::int32_t>();
  auto* labels = batch.labels.data<std::int32_t>();
  Targets targets;
  std::int64_t row = 0;
  for (const auto& sample : samples) {
    std::copy(sample.begin(), sample.end() - 1, tokens + row);
    std::copy(sample.begin() + 1, sample.end(), labels + row);
    const auto sep = std::find(sample.begin(), sample.end() - 1, kSepToken);
    for (auto token = sep; token != sample.end() - 1; ++token) {
      if (task.is_key(*token)) targets.add(row + (token - sample.begin()), *(token + 1));
    }
    targets.end_sequence();
    row += static_cast<std::int64_t>(sample.size()) - 1;
  }
  targets.move_into(batch);
  return batch;
}

Batch pack_padded(const Tensor& tokens, const Tensor& labels, const Tensor& mask,
                  const Tensor& attention_mask) {
  check(tokens.rank() == 2, "pack_padded: tokens are {}, expected [B, L]", tokens.shape());
  for (const Tensor* tensor : {&tokens, &labels, &mask, &attention_mask}) {
    check(tensor->shape() == tokens.shape(), "pack_padded: shapes {} and {}, expected equal ones",
          tokens.shape(), tensor->shape());
    check(!is_floating(tensor->dtype()), "pack_padded: type {}, expected integers",
          name_of(tensor->dtype()));
  }
  const std::int64_t batch_size = tokens.size(0), padded = tokens.size(1);
  // int64 holds every integer type, so nothing is cut before it is checked.
  const Tensor wide[] = {tokens.to(DType::int64), labels.to(DType::int64), mask.to(DType::int64),
                         attention_mask.to(DType::int64)};
  std::vector<std::int32_t> inputs, next;
  std::vector<std::int64_t> lengths;
  Targets targets;
  const auto token_of = [](std::int64_t value, std::int64_t b, std::int64_t i) {
    check(0 <= value && value <= INT32_MAX, "pack_padded: token {} at [{}, {}]", value, b, i);
    return static_cast<std::int32_t>(value);
  };
  for (std::int64_t b = 0; b < batch_size; ++b) {
    std::int64_t length = 0;
    for (std::int64_t i = 0; i < padded; ++i) {
      const auto at = [&](int which) { return wide[which].data<std::int64_t>()[b * padded + i]; };
      const std::int64_t target = at(2), real = at(3);
      check((target == 0 || target == 1) && (real == 0 || real == 1),
            "pack_padded: masks {} and {} at [{}, {}], expected 0 or 1", target, real, b, i);
      check(real == 0 || length == i, "pack_padded: token after padding at [{}, {}]", b, i);
      check(real == 1 || target == 0, "pack_padded: target in the padding at [{}, {}]", b, i);
      if (real == 0) continue;
      const auto row = static_cast<std::int64_t>(inputs.size());
      inputs.push_back(token_of(at(0), b, i));
      next.push_back(token_of(at(1), b, i));
      if (target == 1) targets.add(row, next.back());
      ++length;
    }
    lengths.push_back(length);
    targets.end_sequence();
  }
  Batch batch;
  batch.tokens = Tensor::from(inputs);
  batch.labels = Tensor::from(next);
  batch.sequences = Sequences::of_lengths(lengths, std::vector(lengths.size(), padded));
  targets.move_into(batch);
  return batch;
}

}  // namespace hax
