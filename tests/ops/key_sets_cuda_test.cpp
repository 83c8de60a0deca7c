// Key sets made on CUDA are those made on the CPU, to the bit: fixed patterns, bins, their bands,
// key selection, and all of it captured.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/cuda/memory.h"
#include "engine/cuda/runtime.h"
#include "ops/key_selection/key_selection.h"
#include "ops/lsh/lsh.h"
#include "tests/support/compare.h"
#include "tests/support/cuda.h"

using namespace hax;
using namespace hax::test;

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

const std::vector<Sequences>& packs() {
  static const std::vector<Sequences> all{
      Sequences::single(0), Sequences::single(1), Sequences::of_lengths({130, 33}),
      Sequences::of_lengths({0, 6, 1, 70, 0, 31}, {4, 9, 1, 90, 0, 33})};
  return all;
}

bool same(const Tensor& there, const Tensor& here) {
  return there.defined() == here.defined() && (!here.defined() || same_bits(there.to(kCpu), here));
}
bool same(const KeySet& there, const KeySet& here) {
  return same(there.death, here.death) && same(there.query_bin, here.query_bin) &&
         same(there.key_bin, here.key_bin) && same(there.expire, here.expire) &&
         same(there.order, here.order);
}

template <class T, class F>
Tensor made_of(std::int64_t tokens, F element) {
  std::vector<T> values;
  for (std::int64_t t = 0; t < tokens; ++t) values.push_back(static_cast<T>(element(t)));
  return Tensor::from(values);
}

Tensor random_bins(std::int64_t tokens, std::uint32_t bins, std::uint64_t seed,
                   std::int64_t scale = 1, std::int64_t offset = 0) {
  RandomStream random({.seed = seed});
  return made_of<std::int64_t>(
      tokens, [&](std::int64_t) { return offset + scale * std::int64_t{random.below(bins)}; });
}

}  // namespace

TEST_CASE("fixed patterns and unions made on CUDA equal the CPU's") {
  if (!cuda_is_here()) return;
  for (const Sequences& pack : packs()) {
    const auto compare = [&](auto make) {
      const KeySet there = make(kCuda);
      CHECK(there.death.device() == kCuda);
      CHECK(same(there, make(kCpu)));
    };
    compare([&](Device device) { return full_keys(pack, device); });
    for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{5}, kMost}) {
      compare([&](Device device) { return window_keys(pack, keys, {}, device); });
      compare([&](Device device) { return sink_keys(pack, keys, {}, device); });
      for (const std::int64_t dilation : {std::int64_t{1}, std::int64_t{7}, kMost}) {
        compare([&](Device device) { return dilated_keys(pack, dilation, keys, {}, device); });
      }
    }
    compare([&](Device device) {
      return unite(sink_keys(pack, 2, {}, device), window_keys(pack, 3, {}, device));
    });
    const Tensor bins = random_bins(pack.tokens(), 3, 1);
    compare([&](Device device) {
      return unite(window_keys(pack, 3, {}, device),
                   lsh_keys(bins.to(device), bins.to(device), pack, 2));
    });
  }
  // By true positions, which the host reads.
  const Sequences pack = Sequences::of_lengths({3, 2});
  const Tensor position = Tensor::from<std::int64_t>({1, 4, 5, 0, 9});
  CHECK(same(window_keys(pack, 4, position, kCuda), window_keys(pack, 4, position)));
}

TEST_CASE("bins hashed on CUDA equal the CPU's for every rule, centre and norm") {
  if (!cuda_is_here()) return;
  for (const Sequences& pack : packs()) {
    for (const std::int64_t dim : {1, 16, 33, 190}) {
      if (dim > 33 && pack.count() != 2) continue;  // one pack with more than shared memory holds
      Tensor x = random_tensor({pack.tokens(), dim}, 1, DType::float32);
      if (pack.count() == 6) fill(x, 0.7);  // equal rows centre to exactly zero
      for (const std::int64_t columns : {1, 8, 62}) {
        const Tensor hash = random_tensor({dim, columns}, 2, DType::float32);
        for (const LshRule rule : {LshRule::argmax, LshRule::sign_bits}) {
          for (const LshCenter center : {LshCenter::causal, LshCenter::sequence, LshCenter::none}) {
            for (const NormMode norm : {NormMode::causal, NormMode::released}) {
              INFO(pack.tokens() << " x " << dim << ", " << columns << " columns, rule "
                                 << static_cast<int>(rule) << ", centre "
                                 << static_cast<int>(center) << ", norm "
                                 << static_cast<int>(norm));
              CHECK(same(lsh_bins(x.to(kCuda), hash.to(kCuda), pack, rule, center, norm),
                         lsh_bins(x, hash, pack, rule, center, norm)));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("a carried mean on CUDA goes on as the CPU's, to the bit") {
  if (!cuda_is_here()) return;
  const Tensor x = random_tensor({90, 5}, 3, DType::float32),
               hash = random_tensor({5, 8}, 4, DType::float32);
  CarriedMean here, there;
  std::int64_t begin = 0;
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{3, 0, 40}, {33, 1, 0}, {0, 0, 13}}) {
    const Sequences piece = Sequences::of_lengths(lengths);
    const Tensor rows = x.rows(begin, begin + piece.tokens());
    begin += piece.tokens();
    const Tensor expected =
        lsh_bins(rows, hash, piece, LshRule::sign_bits, LshCenter::causal, NormMode::causal, &here);
    CHECK(same(lsh_bins(rows.to(kCuda), hash.to(kCuda), piece, LshRule::sign_bits,
                        LshCenter::causal, NormMode::causal, &there),
               expected));
    CHECK(same(there.sum, here.sum));
    CHECK(there.rows == here.rows);
  }
}

TEST_CASE("bands sorted on CUDA equal the CPU's, whatever the codes") {
  if (!cuda_is_here()) return;
  std::vector<Sequences> all = packs();
  all.push_back(Sequences::of_lengths({600, 513, 512}));  // beyond what a block takes at once
  for (const Sequences& pack : all) {
    const std::int64_t tokens = pack.tokens();
    const Tensor codes[] = {
        random_bins(tokens, 5, 1),
        random_bins(tokens, 256, 2),
        random_bins(tokens, 300, 3, 1, -150),                         // two bytes, some negative
        random_bins(tokens, 40, 4, (std::int64_t{1} << 57) + 12345),  // all eight bytes
        random_bins(tokens, 2, 5, kMost, -kMost / 2),
        made_of<std::int64_t>(tokens, [](std::int64_t) { return -7; }),
        made_of<std::int64_t>(tokens, [](std::int64_t t) { return -t; }),
    };
    const Tensor queries = random_bins(tokens, 5, 6);
    for (std::size_t i = 0; i < std::size(codes); ++i) {
      for (const std::int64_t keys : {std::int64_t{1}, std::int64_t{40}, kMost}) {
        INFO(tokens << " tokens, codes " << i << ", keys " << keys);
        const KeySet there = lsh_keys(queries.to(kCuda), codes[i].to(kCuda), pack, keys);
        CHECK(same(there, lsh_keys(queries, codes[i], pack, keys)));
      }
    }
  }
}

TEST_CASE("bands of long sequences, sorted by several blocks, equal the CPU's") {
  if (!cuda_is_here()) return;
  for (const Sequences& pack :
       {Sequences::single(8200), Sequences::of_lengths({4096, 0, 30000, 5})}) {
    for (const Tensor& code : {random_bins(pack.tokens(), 200, 1),
                               random_bins(pack.tokens(), 900, 2, std::int64_t{1} << 12, -70000)}) {
      const KeySet there = lsh_keys(code.to(kCuda), code.to(kCuda), pack, 32);
      CHECK(same(there, lsh_keys(code, code, pack, 32)));
    }
  }
}

TEST_CASE("keys selected on CUDA are the CPU's: random, rising, falling and tied scores") {
  if (!cuda_is_here()) return;
  const auto scores_of = [](std::int64_t tokens) {
    const float infinity = std::numeric_limits<float>::infinity();
    return std::vector<Tensor>{
        random_tensor({tokens}, 1, DType::float32),
        made_of<float>(tokens, [](std::int64_t t) { return t; }),
        made_of<float>(tokens, [](std::int64_t t) { return -t; }),
        made_of<float>(tokens, [](std::int64_t t) { return t % 3; }),
        made_of<float>(tokens, [](std::int64_t t) { return t % 2 == 0 ? 0.0F : -0.0F; }),
        made_of<float>(tokens,
                       [&](std::int64_t t) {
                         return t % 3 == 0 ? infinity : t % 3 == 1 ? -infinity : 1.0F;
                       }),
    };
  };
  const auto compare = [&](const Sequences& pack, std::initializer_list<std::int64_t> wanted) {
    const std::vector<Tensor> orders = scores_of(pack.tokens());
    for (std::size_t i = 0; i < orders.size(); ++i) {
      for (const std::int64_t keys : wanted) {
        INFO(pack.tokens() << " tokens, order " << i << ", keys " << keys);
        const KeySet there = key_selection_keys(orders[i].to(kCuda), pack, keys);
        CHECK(same(there, key_selection_keys(orders[i], pack, keys)));
      }
    }
  };
  for (const Sequences& pack : packs()) compare(pack, {1, 2, 31, 64, kMost});
  compare(Sequences::of_lengths({1400, 3}), {1, 20});  // more than a tile of scores
  // On average longer than what is followed in one go: chunks, and a short sequence among them.
  compare(Sequences::single(4100), {1, 50});
  compare(Sequences::of_lengths({9000, 0, 5000, 10}), {7});
  compare(Sequences::single(4200), {1300, kMost});  // chunks longer than usual; one for all
  compare(Sequences::single(7000), {2500});         // lists beyond shared memory
}

TEST_CASE("on CUDA a score that is no number counts as the smallest") {
  if (!cuda_is_here()) return;
  const float nan = std::nanf(""), least = -std::numeric_limits<float>::infinity();
  const auto death = [](float stand_in, std::int64_t tokens, Device device) {
    const Tensor score = made_of<float>(
        tokens, [&](std::int64_t t) { return t % 5 == 2 ? stand_in : static_cast<float>(t % 7); });
    return key_selection_keys(score.to(device), Sequences::single(tokens), 6).death.to(kCpu);
  };
  for (const std::int64_t tokens : {40, 4500}) {
    CHECK(same_bits(death(nan, tokens, kCuda), death(least, tokens, kCpu)));
  }
}

TEST_CASE(
    "what finds keys is captured once and serves other numbers in sequences of other lengths") {
  if (!cuda_is_here()) return;
  if constexpr (kHasCuda) {
    const std::vector<std::int64_t> lengths[] = {{40, 0, 17, 33}, {9, 61, 1, 19}};
    const Tensor hash = random_tensor({4, 8}, 1, DType::float32).to(kCuda);
    const auto keys_of = [&](const Tensor& x, const Tensor& score, const Tensor& matrix,
                             const Sequences& pack) {
      const Tensor bins =
          lsh_bins(x, matrix, pack, LshRule::sign_bits, LshCenter::causal, NormMode::causal);
      return unite(lsh_keys(bins, bins, pack, 3), key_selection_keys(score, pack, 3));
    };
    const Sequences captured = Sequences::of_lengths(lengths[0]);
    Tensor x = Tensor::zeros({90, 4}, DType::float32, kCuda),
           score = Tensor::zeros({90}, DType::float32, kCuda);
    Tensor offsets = captured.offsets_on(kCuda);
    const cuda::PrivatePool pool;
    cuda::begin_capture();
    const KeySet there = keys_of(x, score, hash, captured);
    void* graph = cuda::end_capture();
    for (std::uint64_t run = 0; run < 2; ++run) {
      const Sequences pack = Sequences::of_lengths(lengths[run]);
      const Tensor x_here = random_tensor({90, 4}, 10 + run, DType::float32),
                   score_here = random_tensor({90}, 20 + run, DType::float32);
      copy(x, x_here.to(kCuda));
      copy(score, score_here.to(kCuda));
      copy(offsets, pack.offsets_on(kCuda));
      cuda::replay_capture(graph);
      CHECK(same(there, keys_of(x_here, score_here, hash.to(kCpu), pack)));
    }
    cuda::free_capture(graph);
  }
}
