#include "ops/lsh/lsh.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

namespace {

using Rows = std::vector<std::vector<double>>;
constexpr LshCenter kCenters[] = {LshCenter::causal, LshCenter::sequence, LshCenter::none};
constexpr NormMode kNorms[] = {NormMode::causal, NormMode::released};
constexpr LshRule kRules[] = {LshRule::argmax, LshRule::sign_bits};

// One sequence with its pads as real zero vectors: centred, normalised and projected as the paper
// and the released code say, without shortcuts.
std::vector<std::int64_t> naive_sequence(Rows rows, std::size_t length, const Tensor& hash,
                                         LshRule rule, LshCenter center, NormMode norm) {
  const std::size_t padded = rows.size(), dim = static_cast<std::size_t>(hash.size(0));
  const auto columns = static_cast<std::size_t>(hash.size(1));
  const Rows x = rows;
  for (std::size_t f = 0; f < dim; ++f) {
    for (std::size_t t = 0; t < padded; ++t) {
      const std::size_t count = center == LshCenter::causal ? t + 1 : padded;
      double mean = 0;
      for (std::size_t u = 0; u < count; ++u) mean += x[u][f] / static_cast<double>(count);
      if (center != LshCenter::none) rows[t][f] = x[t][f] - mean;
    }
    if (center == LshCenter::causal && padded > 0) rows[0][f] = 0;
  }
  const Rows centred = rows;
  for (std::size_t t = 0; t < padded; ++t) {
    for (std::size_t f = 0; f < dim; ++f) {
      double square = 0;
      if (norm == NormMode::causal) {
        for (std::size_t g = 0; g < dim; ++g) square += centred[t][g] * centred[t][g];
      } else {
        for (std::size_t u = 0; u < padded; ++u) square += centred[u][f] * centred[u][f];
      }
      rows[t][f] = centred[t][f] / std::max(std::sqrt(square), 1e-12);
    }
  }
  std::vector<std::int64_t> bins;
  for (std::size_t t = 0; t < length; ++t) {
    std::vector<double> projection(columns);
    std::int64_t bits = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      for (std::size_t f = 0; f < dim; ++f) {
        projection[c] += rows[t][f] * hash.data<double>()[f * columns + c];
      }
      if (projection[c] > 0) bits += std::int64_t{1} << c;
    }
    const auto first_largest = std::ranges::max_element(projection) - projection.begin();
    bins.push_back(rule == LshRule::argmax ? first_largest : bits);
  }
  return bins;
}

std::vector<std::int64_t> naive(const Tensor& x, const Tensor& hash, const Sequences& sequences,
                                LshRule rule, LshCenter center, NormMode norm) {
  std::vector<std::int64_t> bins;
  const std::int64_t dim = x.size(1);
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    Rows rows(static_cast<std::size_t>(sequences.padded(s)),
              std::vector<double>(static_cast<std::size_t>(dim)));
    for (std::int64_t t = 0; t < sequences.length(s); ++t) {
      const double* row = x.data<double>() + (sequences.begin(s) + t) * dim;
      rows[static_cast<std::size_t>(t)].assign(row, row + dim);
    }
    const auto found = naive_sequence(
        std::move(rows), static_cast<std::size_t>(sequences.length(s)), hash, rule, center, norm);
    bins.insert(bins.end(), found.begin(), found.end());
  }
  return bins;
}

std::vector<std::int64_t> values(const Tensor& bins) {
  const auto span = bins.values<std::int64_t>();
  return {span.begin(), span.end()};
}

// The most recent `keys` keys of the query's bin, looked for backwards.
std::vector<std::vector<std::int32_t>> naive_keys(const Tensor& query_bin, const Tensor& key_bin,
                                                  const Sequences& sequences, std::size_t keys) {
  std::vector<std::vector<std::int32_t>> lists;
  for (std::int64_t s = 0; s < sequences.count(); ++s) {
    const std::int64_t* q = query_bin.data<std::int64_t>() + sequences.begin(s);
    const std::int64_t* k = key_bin.data<std::int64_t>() + sequences.begin(s);
    for (std::int64_t i = 0; i < sequences.length(s); ++i) {
      auto& list = lists.emplace_back();
      for (std::int64_t j = i; j >= 0 && list.size() < keys; --j) {
        if (k[j] == q[i]) list.push_back(static_cast<std::int32_t>(j));
      }
      std::ranges::reverse(list);
    }
  }
  return lists;
}

Tensor random_bins(std::int64_t tokens, std::uint32_t bins, std::uint64_t seed,
                   std::int64_t scale = 1, std::int64_t offset = 0) {
  RandomStream random({.seed = seed});
  Tensor tensor = Tensor::empty({tokens}, DType::int64);
  for (std::int64_t t = 0; t < tokens; ++t) {
    tensor.data<std::int64_t>()[t] = offset + scale * random.below(bins);
  }
  return tensor;
}

}  // namespace

TEST_CASE("lsh_bins follows the definition for every rule, centre and norm") {
  const Sequences packs[] = {Sequences::of_lengths({0, 5, 1, 40, 0}, {2, 5, 9, 61, 0}),
                             Sequences::of_lengths({17, 16, 3}), Sequences::single(0)};
  for (const Sequences& sequences : packs) {
    for (const auto& [dim, columns] : {std::pair{16, 8}, std::pair{1, 1}, std::pair{5, 33}}) {
      // An offset gives the centre something to remove.
      Tensor x = random_tensor({sequences.tokens(), dim}, 1);
      for (std::int64_t i = 0; i < x.numel(); ++i)
        x.data<double>()[i] += 0.7 + 0.1 * double(i % dim);
      const Tensor hash = random_tensor({dim, columns}, 2);
      for (const LshRule rule : kRules) {
        for (const LshCenter center : kCenters) {
          for (const NormMode norm : kNorms) {
            CAPTURE(dim);
            CAPTURE(static_cast<int>(rule));
            CAPTURE(static_cast<int>(center));
            CAPTURE(static_cast<int>(norm));
            CHECK(values(lsh_bins(x, hash, sequences, rule, center, norm)) ==
                  naive(x, hash, sequences, rule, center, norm));
            const Tensor x32 = x.to(DType::float32), hash32 = hash.to(DType::float32);
            CHECK(values(lsh_bins(x32, hash32, sequences, rule, center, norm)) ==
                  naive(x32.to(DType::float64), hash32.to(DType::float64), sequences, rule, center,
                        norm));
          }
        }
      }
    }
  }
}

TEST_CASE("the released norm and the padding change bins") {
  // Otherwise the comparison above would not see them.
  const Tensor x = random_tensor({60, 4}, 1), hash = random_tensor({4, 8}, 2);
  const auto bins = [&](std::int64_t padded, NormMode norm) {
    return values(lsh_bins(x, hash, Sequences({0, 60}, {padded}), LshRule::sign_bits,
                           LshCenter::sequence, norm));
  };
  CHECK(bins(60, NormMode::causal) != bins(60, NormMode::released));
  CHECK(bins(60, NormMode::released) != bins(90, NormMode::released));
}

TEST_CASE("with the causal centre, position 0 and repeated tokens have bin 0") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor hash = random_tensor({16, 62}, 3, dtype);
    const auto two = Sequences::of_lengths({9, 4});
    const Tensor x = random_tensor({13, 16}, 4, dtype);
    for (const LshRule rule : kRules) {
      const Tensor bins = lsh_bins(x, hash, two, rule, LshCenter::causal, NormMode::causal);
      CHECK(bins.data<std::int64_t>()[0] == 0);
      CHECK(bins.data<std::int64_t>()[9] == 0);
    }
  }
  // float32 sums are exact in double, so that equal tokens centre to exactly zero.
  Tensor same = Tensor::empty({1000, 2});
  for (std::int64_t i = 0; i < 2000; ++i) same.data<float>()[i] = i % 2 == 0 ? 0.1F : -7.3F;
  const Tensor bins =
      lsh_bins(same, random_tensor({2, 8}, 5, DType::float32), Sequences::single(1000),
               LshRule::sign_bits, LshCenter::causal, NormMode::causal);
  CHECK(std::ranges::all_of(values(bins), [](std::int64_t bin) { return bin == 0; }));
}

TEST_CASE("causal bins do not look ahead and do not depend on the pack") {
  const std::int64_t length = 50, cut = 23;
  const Tensor hash = random_tensor({16, 20}, 6, DType::float32);
  Tensor x = random_tensor({length, 16}, 7, DType::float32);
  const auto bins = [&](const Tensor& rows, const Sequences& sequences) {
    return values(
        lsh_bins(rows, hash, sequences, LshRule::sign_bits, LshCenter::causal, NormMode::causal));
  };
  const auto before = bins(x, Sequences::single(length));
  const auto alone = bins(x.rows(0, cut), Sequences::single(cut));
  CHECK(std::equal(alone.begin(), alone.end(), before.begin()));
  for (std::int64_t i = cut * 16; i < length * 16; ++i) x.data<float>()[i] = 1e6F;
  const auto after = bins(x, Sequences::of_lengths({cut, length - cut}));
  CHECK(std::equal(alone.begin(), alone.end(), after.begin()));
}

TEST_CASE("bins of pieces are those of one piece when the mean is carried, to the bit") {
  const std::vector<std::int64_t> lengths{37, 0, 1, 20};
  const auto sequences = Sequences::of_lengths(lengths);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor hash = random_tensor({5, 24}, 2, dtype);
    Tensor wide = random_tensor({58, 5}, 1);
    for (std::int64_t i = 0; i < wide.numel(); ++i) wide.data<double>()[i] += 0.7;
    const Tensor x = wide.to(dtype);
    for (const LshRule rule : kRules) {
      const auto whole =
          values(lsh_bins(x, hash, sequences, rule, LshCenter::causal, NormMode::causal));
      for (const std::vector<std::int64_t>& steps :
           {std::vector<std::int64_t>{1}, {16}, {3, 0, 17}, {36, 1}, {40}}) {
        CAPTURE(steps[0]);
        CarriedMean carried;
        std::vector<std::int64_t> done(4, 0), bins(whole.size(), -1);
        for (std::size_t step = 0; done != lengths; ++step) {
          std::vector<std::int64_t> count, place;
          for (std::size_t s = 0; s < 4; ++s) {
            count.push_back(std::min(lengths[s] - done[s], steps[step % steps.size()]));
            for (std::int64_t t = done[s]; t < done[s] + count[s]; ++t) {
              place.push_back(sequences.begin(static_cast<std::int64_t>(s)) + t);
            }
            done[s] += count[s];
          }
          Tensor piece = Tensor::empty({static_cast<std::int64_t>(place.size()), 5}, dtype);
          for (std::size_t j = 0; j < place.size(); ++j) {
            const auto at = static_cast<std::int64_t>(j);
            Tensor row = piece.rows(at, at + 1);
            copy(row, x.rows(place[j], place[j] + 1));
          }
          const auto found = values(lsh_bins(piece, hash, Sequences::of_lengths(count), rule,
                                             LshCenter::causal, NormMode::causal, &carried));
          for (std::size_t j = 0; j < place.size(); ++j) bins[place[j]] = found[j];
          CHECK(carried.rows == done);
        }
        CHECK(bins == whole);
        CarriedMean at_once;
        lsh_bins(x, hash, sequences, rule, LshCenter::causal, NormMode::causal, &at_once);
        CHECK(same_bits(carried.sum, at_once.sum));
      }
    }
  }
}

TEST_CASE("a carried mean changes bins, and is what came before") {
  // Otherwise the comparison above would not see it.
  const Tensor x = random_tensor({30, 4}, 1), hash = random_tensor({4, 20}, 2);
  const auto bins = [&](CarriedMean* carried) {
    return values(lsh_bins(x, hash, Sequences::single(30), LshRule::sign_bits, LshCenter::causal,
                           NormMode::causal, carried));
  };
  CarriedMean carried;
  CHECK(bins(&carried) == bins(nullptr));
  const CarriedMean first = carried;
  for (std::int64_t f = 0; f < 4; ++f) {
    double sum = 0;
    for (std::int64_t t = 0; t < 30; ++t) sum += x.data<double>()[t * 4 + f];
    CHECK(carried.sum.data<double>()[f] == sum);
  }
  CHECK(carried.rows == std::vector<std::int64_t>{30});
  // The second piece starts from a new sum: a copy kept of the first stays what it was.
  const Tensor before = first.sum.clone();
  CHECK(bins(&carried) != bins(nullptr));
  CHECK(same_bits(first.sum, before));
  CHECK_FALSE(same_bits(carried.sum, before));
  CHECK(carried.rows == std::vector<std::int64_t>{60});
}

TEST_CASE("without a centre a carried mean is left alone") {
  const Tensor x = random_tensor({30, 4}, 1), hash = random_tensor({4, 20}, 2);
  CarriedMean carried{random_tensor({1, 4}, 3), {7}};
  const Tensor before = carried.sum.clone();
  const auto bins = [&](CarriedMean* mean) {
    return values(lsh_bins(x, hash, Sequences::single(30), LshRule::sign_bits, LshCenter::none,
                           NormMode::causal, mean));
  };
  CHECK(bins(&carried) == bins(nullptr));
  CHECK(same_bits(carried.sum, before));
  CHECK(carried.rows == std::vector<std::int64_t>{7});
}

TEST_CASE("lsh_bins refuses a carried mean that does not fit, and leaves it alone") {
  const auto sequences = Sequences::of_lengths({3, 1});
  const Tensor x = random_tensor({4, 3}, 1), hash = random_tensor({3, 2}, 2);
  const auto error = [&](CarriedMean carried, LshCenter center = LshCenter::causal,
                         NormMode norm = NormMode::causal) {
    const CarriedMean before = carried;
    const std::string what =
        error_of([&] { lsh_bins(x, hash, sequences, LshRule::argmax, center, norm, &carried); });
    if (!what.empty()) CHECK(carried.rows == before.rows);
    return what;
  };
  const Tensor sum = Tensor::zeros({2, 3}, DType::float64);
  CHECK(error({}) == "");
  CHECK(error({sum, {0, 5}}) == "");
  CHECK(error({}, LshCenter::sequence) ==
        "lsh_bins: a mean is carried, but the sequence centre needs the whole sequence, expected "
        "the causal centre (or none) and the causal norm");
  CHECK(error({sum, {0, 5}}, LshCenter::causal, NormMode::released) ==
        "lsh_bins: a mean is carried, but the released norm needs the whole sequence, expected "
        "the causal centre (or none) and the causal norm");
  CHECK(error({}, LshCenter::none, NormMode::released).starts_with("lsh_bins: a mean is carried"));
  CHECK(error({sum, {}}) ==
        "lsh_bins: the carried mean has a sum for 0 counts of rows, expected both or neither");
  CHECK(error({{}, {1, 2}}) ==
        "lsh_bins: the carried mean has no sum for 2 counts of rows, expected both or neither");
  CHECK(error({Tensor::zeros({2, 4}, DType::float64), {0, 5}}) ==
        "lsh_bins: the carried sum is float64 [2, 4], expected float64 [S, N] = [2, 3]");
  CHECK(error({Tensor::zeros({2, 3}), {0, 5}}) ==
        "lsh_bins: the carried sum is float32 [2, 3], expected float64 [S, N] = [2, 3]");
  CHECK(error({sum, {0, 5, 1}}) ==
        "lsh_bins: the carried mean counts the rows of 3 sequences, expected 2");
  CHECK(error({sum, {0, -5}}) == "lsh_bins: the carried mean is of -5 rows, expected at least 0");
}

TEST_CASE("sign_bits uses 62 columns, argmax any number") {
  const auto sequences = Sequences::single(1);
  const Tensor x = Tensor::full({1, 1}, 1.0, DType::float64);
  const auto bin = [&](const Tensor& hash, LshRule rule) {
    return lsh_bins(x, hash, sequences, rule, LshCenter::none, NormMode::causal)
        .data<std::int64_t>()[0];
  };
  CHECK(bin(Tensor::full({1, 62}, 1.0, DType::float64), LshRule::sign_bits) ==
        (std::int64_t{1} << 62) - 1);
  Tensor hash = Tensor::full({1, 200}, 0.5, DType::float64);
  hash.data<double>()[150] = hash.data<double>()[170] = 2;
  CHECK(bin(hash, LshRule::argmax) == 150);  // the first of equals
  hash = Tensor::full({1, 3}, -1.0, DType::float64);
  hash.data<double>()[1] = 0;
  CHECK(bin(hash, LshRule::sign_bits) == 0);  // zero is not positive
}

TEST_CASE("lsh_bins refuses what does not fit") {
  const auto sequences = Sequences::single(4);
  const auto error = [&](const Tensor& x, const Tensor& hash, LshRule rule = LshRule::argmax) {
    return error_of([&] { lsh_bins(x, hash, sequences, rule, LshCenter::none, NormMode::causal); });
  };
  const Tensor x = random_tensor({4, 3}, 1);
  CHECK(error(x, random_tensor({2, 5}, 1)) ==
        "lsh_bins: x is [4, 3] and hash is [2, 5], expected [T, N] and [N, h] with N and h >= 1");
  CHECK(error(x, random_tensor({3, 0}, 1)) ==
        "lsh_bins: x is [4, 3] and hash is [3, 0], expected [T, N] and [N, h] with N and h >= 1");
  CHECK(error(x, random_tensor({3, 5}, 1, DType::float32)) ==
        "lsh_bins: x is float64 and hash is float32, expected equal floating-point types");
  CHECK(error(x, random_tensor({3, 63}, 1), LshRule::sign_bits) ==
        "lsh_bins: 63 hash columns do not fit the bits of a bin, expected at most 62");
  CHECK(error(random_tensor({5, 3}, 1), random_tensor({3, 2}, 1)) ==
        "lsh_bins: 5 rows for a pack of 4 tokens");
}

TEST_CASE("lsh_keys are the most recent of the query's bin") {
  const auto sequences = Sequences::of_lengths({0, 1, 70, 3, 0, 600});
  const std::int64_t tokens = sequences.tokens();
  struct Codes {
    std::uint32_t bins;
    std::int64_t scale, offset;
  };
  // One bin, few, more than a byte holds, and codes that fill 62 bits or are negative.
  for (const Codes codes : {Codes{1, 1, 5}, Codes{4, 1, 0}, Codes{700, 1, -350},
                            Codes{37, (std::int64_t{1} << 56) + 12345, 0},
                            Codes{3, std::int64_t{1} << 61, -(std::int64_t{1} << 61)}}) {
    for (const std::int64_t keys : {1, 2, 9, 10000}) {
      CAPTURE(codes.bins);
      CAPTURE(keys);
      const Tensor q = random_bins(tokens, codes.bins, 1, codes.scale, codes.offset);
      const Tensor k = random_bins(tokens, codes.bins, 2, codes.scale, codes.offset);
      const KeySet set = lsh_keys(q, k, sequences, keys);
      validate(set);
      CHECK(to_lists(set) == naive_keys(q, k, sequences, static_cast<std::size_t>(keys)));
    }
  }
}

TEST_CASE("lsh_keys sees nothing by position and gives every key its expiry") {
  const Tensor key_bin = Tensor::from<std::int64_t>({3, 1, 3, 3, 1, 3});
  const KeySet set = lsh_keys(key_bin, key_bin, Sequences::single(6), 2);
  const auto column = [](const Tensor& tensor) {
    const auto span = tensor.values<std::int32_t>();
    return std::vector<std::int32_t>(span.begin(), span.end());
  };
  constexpr std::int32_t kForever = KeySet::kForever;
  CHECK(column(set.death) == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(column(set.order) == std::vector<std::int32_t>{1, 4, 0, 2, 3, 5});
  CHECK(column(set.expire) ==
        std::vector<std::int32_t>{3, kForever, 5, kForever, kForever, kForever});
}

TEST_CASE("lsh_keys refuses what does not fit") {
  const auto sequences = Sequences::single(3);
  const Tensor bins = random_bins(3, 2, 1);
  CHECK(error_of([&] { lsh_keys(bins, bins, sequences, 0); }) ==
        "lsh_keys: 0 keys wanted, expected at least 1");
  CHECK(error_of([&] { lsh_keys(bins, random_bins(4, 2, 1), sequences, 1); }) ==
        "lsh_keys: 4 rows for a pack of 3 tokens");
  CHECK(error_of([&] { lsh_keys(Tensor::zeros({3}, DType::int32), bins, sequences, 1); }) ==
        "lsh_keys: bins are int32 [3], expected int64 [T]");
}
