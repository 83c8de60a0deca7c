#include "models/rows.h"

#include <algorithm>
#include <vector>

#include "ops/select_rows/select_rows.h"

namespace hax {

Tensor Rows::compose(const Tensor& rows) const { return select_rows(index_, rows); }

namespace {

// Sorting tokens is the host's work, and how many differ would decide the sizes of tensors. On
// another device the table is the whole vocabulary where that is shorter: sizes depend on the
// number of tokens alone, and nothing waits.
Rows embed_on_device(const Var& table, const Tensor& tokens) {
  if (tokens.device().is_cpu()) {
    for (const std::int32_t token : tokens.values<std::int32_t>()) {
      check(0 <= token && token < table.size(0), "embedding: index {}, the table has rows 0..{}",
            token, table.size(0) - 1);
    }
  }
  const Tensor index = tokens.to(table.device());
  if (table.size(0) < tokens.numel()) return {table, index};
  return Rows(embedding(table, index));
}

}  // namespace

Rows embed_tokens(const Var& table, const Tensor& tokens) {
  if (!table.device().is_cpu()) return embed_on_device(table, tokens);
  const auto values = tokens.values<std::int32_t>();
  std::vector<std::int32_t> distinct(values.begin(), values.end());
  std::ranges::sort(distinct);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  if (distinct.size() == values.size()) return Rows(embedding(table, tokens));

  Tensor index = Tensor::empty(tokens.shape(), DType::int32);
  for (std::size_t t = 0; t < values.size(); ++t) {
    const auto at = std::ranges::lower_bound(distinct, values[t]);
    index.data<std::int32_t>()[t] = static_cast<std::int32_t>(at - distinct.begin());
  }
  return {embedding(table, Tensor::from(distinct)), index};
}

}  // namespace hax
