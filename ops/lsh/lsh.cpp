#include "ops/lsh/lsh.h"

#include <utility>

#include "engine/dispatch.h"
#include "ops/lsh/lsh_kernels.h"

namespace hax {
namespace {

void check_carried(const CarriedMean& carried, const Shape& sums, LshCenter center, NormMode norm) {
  check(center != LshCenter::sequence && norm == NormMode::causal,
        "lsh_bins: a mean is carried, but {} needs the whole sequence, expected the causal centre "
        "(or none) and the causal norm",
        center == LshCenter::sequence ? "the sequence centre" : "the released norm");
  if (center == LshCenter::none) return;
  check(carried.sum.defined() == !carried.rows.empty() || sums[0] == 0,
        "lsh_bins: the carried mean has {} sum for {} counts of rows, expected both or neither",
        carried.sum.defined() ? "a" : "no", carried.rows.size());
  if (!carried.sum.defined()) return;
  check(carried.sum.shape() == sums && carried.sum.dtype() == DType::float64,
        "lsh_bins: the carried sum is {} {}, expected float64 [S, N] = {}",
        name_of(carried.sum.dtype()), carried.sum.shape(), sums);
  check(static_cast<std::int64_t>(carried.rows.size()) == sums[0],
        "lsh_bins: the carried mean counts the rows of {} sequences, expected {}",
        carried.rows.size(), sums[0]);
  for (const std::int64_t rows : carried.rows) {
    check(rows >= 0, "lsh_bins: the carried mean is of {} rows, expected at least 0", rows);
  }
}

// A complete copy: whoever shares the sum keeps theirs.
CarriedMean copy_of(const CarriedMean& carried, const Shape& sums, Device device) {
  if (!carried.sum.defined()) {
    return {Tensor::zeros(sums, DType::float64, device), std::vector<std::int64_t>(sums[0])};
  }
  return {carried.sum.clone(), carried.rows};
}

}  // namespace

Tensor lsh_bins(const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
                LshCenter center, NormMode norm, CarriedMean* carried) {
  check(x.rank() == 2 && hash.rank() == 2 && x.size(1) == hash.size(0) && hash.numel() > 0,
        "lsh_bins: x is {} and hash is {}, expected [T, N] and [N, h] with N and h >= 1", x.shape(),
        hash.shape());
  check(is_floating(x.dtype()) && x.dtype() == hash.dtype(),
        "lsh_bins: x is {} and hash is {}, expected equal floating-point types", name_of(x.dtype()),
        name_of(hash.dtype()));
  check(rule != LshRule::sign_bits || hash.size(1) <= 62,
        "lsh_bins: {} hash columns do not fit the bits of a bin, expected at most 62",
        hash.size(1));
  sequences.require_tokens("lsh_bins", x.size(0));

  const Shape sums{sequences.count(), x.size(1)};
  if (carried != nullptr) check_carried(*carried, sums, center, norm);

  const bool carry = carried != nullptr && center == LshCenter::causal;
  CarriedMean mean;
  if (carry) mean = copy_of(*carried, sums, x.device());
  Tensor bins = Tensor::empty({x.size(0)}, DType::int64, x.device());
  on_device(x.device(), [&](auto device) {
    hash_rows(device, x, hash, sequences, rule, center, norm, carry ? &mean : nullptr, bins);
  });
  if (carry) *carried = std::move(mean);
  return bins;
}

KeySet lsh_keys(const Tensor& query_bin, const Tensor& key_bin, const Sequences& sequences,
                std::int64_t keys) {
  check(keys >= 1, "lsh_keys: {} keys wanted, expected at least 1", keys);
  for (const Tensor* bin : {&query_bin, &key_bin}) {
    check(bin->dtype() == DType::int64 && bin->rank() == 1,
          "lsh_keys: bins are {} {}, expected int64 [T]", name_of(bin->dtype()), bin->shape());
    sequences.require_tokens("lsh_keys", bin->size(0));
  }
  check(query_bin.device() == key_bin.device(), "lsh_keys: query bins are on {}, key bins on {}",
        name_of(query_bin.device()), name_of(key_bin.device()));

  KeySet set;
  set.sequences = sequences;
  set.query_bin = query_bin;
  set.key_bin = key_bin;
  for (Tensor* column : {&set.death, &set.expire, &set.order}) {
    *column = Tensor::empty(key_bin.shape(), DType::int32, key_bin.device());
  }
  on_device(key_bin.device(), [&](auto device) {
    band_of_bins(device, key_bin, sequences, keys, set.death, set.expire, set.order);
  });
  return set;
}

}  // namespace hax
