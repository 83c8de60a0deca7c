#include "models/rows.h"

#include <algorithm>
#include <vector>

namespace hax {

Tensor Rows::compose(const Tensor& rows) const {
  Tensor result = Tensor::empty(rows.shape(), DType::int32);
  const auto index = index_.values<std::int32_t>();
  const auto wanted = rows.values<std::int32_t>();
  for (std::size_t r = 0; r < wanted.size(); ++r) {
    result.data<std::int32_t>()[r] = index[static_cast<std::size_t>(wanted[r])];
  }
  return result;
}

Rows embed_tokens(const Var& table, const Tensor& tokens) {
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
