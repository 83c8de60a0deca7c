#include "models/costs.h"

#include <doctest/doctest.h>

#include "models/architectures.h"
#include "models/model.h"
#include "ops/key_selection/key_selection.h"
#include "ops/key_set/key_set.h"
#include "ops/lsh/lsh.h"
#include "tests/support/compare.h"
#include "tests/support/models.h"

using namespace hax;
using namespace hax::test;

namespace {

ModelConfig resolved(const std::string& base, const std::string& sparse) {
  ModelConfig config = named_config(base, sparse);
  config.resolve();
  return config;
}

Tensor bins_in_turn(std::int64_t length, std::int64_t bins) {
  Tensor bin = Tensor::empty({length}, DType::int64);
  for (std::int64_t t = 0; t < length; ++t) bin.data<std::int64_t>()[t] = t % bins;
  return bin;
}

// The key sets that the branch makes, hashing and scoring on made-up content.
KeySet keys_of(const ModelConfig& c, std::int64_t length, std::int64_t bins) {
  const Sequences sequence = Sequences::single(length);
  const std::int64_t keys = c.keys_per_component();
  KeySet all;
  for (const std::string& name : c.sparse_components()) {
    KeySet one;
    if (name == "full") {
      one = full_keys(sequence);
    } else if (name == "sliding_window") {
      one = window_keys(sequence, keys);
    } else if (name == "sink") {
      one = sink_keys(sequence, keys);
    } else if (name == "dilated") {
      one = dilated_keys(sequence, c.dilation(), keys);
    } else if (name == "key_selection") {
      one = key_selection_keys(random_tensor({length}, 3), sequence, keys);
    } else {
      one = lsh_keys(bins_in_turn(length, bins), bins_in_turn(length, bins), sequence, keys);
    }
    all = all.death.defined() ? unite(all, one) : one;
  }
  return all;
}

// Keys before `length` that a query from `query` on sees in `keys`, whatever its own bin.
std::int64_t still_visible(const KeySet& keys, std::int64_t length, std::int64_t query) {
  std::int64_t count = 0;
  for (std::int64_t j = 0; j < length; ++j) {
    const bool by_position = keys.death.data<std::int32_t>()[j] > query;
    const bool by_bin = keys.banded() && keys.expire.data<std::int32_t>()[j] > query;
    count += by_position || by_bin ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("state: Mamba by hand") {
  const StateNumbers plain = state_terms(resolved("mamba", "none"), 1058);
  CHECK(plain.convolution == 2 * 3 * 128);
  CHECK(plain.scan == 2 * 128 * 16);
  CHECK(plain.total() == 4864);
  // It does not grow, but for the first tokens of the convolution.
  CHECK(state_numbers(resolved("mamba", "none"), 1 << 30) == 4864);
  CHECK(state_terms(resolved("mamba", "none"), 2).convolution == 2 * 2 * 128);

  // A key: K 16, V 128, position; here also score and bin. 32 keys of 256 bins are more than 1058.
  const StateNumbers hax = state_terms(resolved("mamba", "sign_bin_lsh+key_selection"), 1058);
  CHECK(hax.keys == 2 * 1058 * (16 + 128 + 3));
  CHECK(hax.running_sums == 2 * 3 * 16);
  CHECK(hax.total() == 4864 + 2 * 1058 * 147 + 96);
  CHECK(state_terms(resolved("mamba", "sign_bin_lsh+key_selection"), 1 << 20).keys ==
        2 * (256 * 32 + 32) * 147);
  CHECK(state_terms(resolved("mamba", "argmax_lsh"), 1 << 20).keys == 2 * 64 * 64 * 146);
  CHECK(state_terms(resolved("mamba", "key_selection"), 1058).keys == 2 * 64 * 146);
  CHECK(state_terms(resolved("mamba", "sliding_window"), 1058).keys == 2 * 63 * 145);
  CHECK(state_terms(resolved("mamba", "sliding_window+sink"), 1058).keys == 2 * (31 + 32) * 145);
  CHECK(state_terms(resolved("mamba", "sliding_window+dilated"), 1058).keys == 2 * (31 + 16) * 145);
  CHECK(state_terms(resolved("mamba", "full"), 1058).keys == 2 * 1058 * 145);
  CHECK(state_terms(resolved("mamba", "sliding_window"), 10).keys == 2 * 10 * 145);

  ModelConfig uncentred = resolved("mamba", "sign_bin_lsh");
  CHECK(state_terms(uncentred, 9).running_sums == 2 * 2 * 16);
  uncentred.lsh_center = LshCenter::none;
  CHECK(state_terms(uncentred, 9).running_sums == 0);
  uncentred.num_hash = 62;  // 2^62 bins must not overflow
  CHECK(state_terms(uncentred, 1 << 30).keys == 2 * (std::int64_t{1} << 30) * 146);
}

TEST_CASE("state: Mamba2, Samba and the Transformer by hand") {
  const StateNumbers mamba2 = state_terms(resolved("mamba2", "none"), 1058);
  CHECK(mamba2.convolution == 2 * 3 * (128 + 2 * 32));
  CHECK(mamba2.scan == 2 * 8 * 16 * 32);
  ModelConfig grouped = resolved("mamba2", "none");
  grouped.n_groups = 4;
  CHECK(state_terms(grouped, 1058).convolution == 2 * 3 * (128 + 2 * 4 * 32));

  const StateNumbers samba = state_terms(resolved("samba", "key_selection"), 1058);
  CHECK(samba.convolution == 2 * 3 * 64);
  CHECK(samba.keys == 2 * 64 * (16 + 64 + 2));
  CHECK(samba.attention == 2 * 63 * 2 * 32);
  CHECK(state_terms(resolved("samba", "none"), 5).attention == 2 * 5 * 2 * 32);

  ModelConfig transformer = resolved("transformer", "none");
  CHECK(state_numbers(transformer, 1058) == 2 * 1058 * 2 * 64);
  transformer.attn->num_kv_heads = 2;
  CHECK(state_numbers(transformer, 1058) == 2 * 1058 * 2 * 32);
  transformer.attn->window_size = 1;  // sees itself only
  CHECK(state_numbers(transformer, 1058) == 0);
}

TEST_CASE("the keys of the state are those that later queries see in the key sets") {
  for (const std::string& sparse : sparse_arch_names()) {
    if (sparse == "none") continue;
    ModelConfig c = small_config(sparse);
    c.num_hash = 2;
    c.resolve();
    const bool hashes = c.uses("argmax_lsh") || c.uses("sign_bin_lsh");
    const bool scores = c.uses("key_selection");
    const std::int64_t bins = c.uses("sign_bin_lsh") ? 4 : 2;
    const std::int64_t numbers_a_key = 2 * (8 + 48 + 1 + (hashes ? 1 : 0) + (scores ? 1 : 0));
    std::int64_t largest_gap = 0;
    for (std::int64_t length = 1; length <= 150; ++length) {
      INFO(sparse << " after " << length);
      // The next token may push a key out by its own score or bin, or may not: ask the last query.
      const std::int64_t query = hashes || scores ? length - 1 : length;
      const std::int64_t seen = still_visible(keys_of(c, 151, bins), length, query);
      const StateNumbers state = state_terms(c, length);
      CHECK(state.keys % numbers_a_key == 0);
      CHECK(state.keys / numbers_a_key >= seen);
      largest_gap = std::max(largest_gap, state.keys / numbers_a_key - seen);
    }
    INFO(sparse);
    // A dilated key may just have been seen for the last time; parts of a union may share keys.
    const bool united = c.sparse_components().size() > 1;
    CHECK(largest_gap <= (united ? c.keys_per_component() : c.uses("dilated") ? 1 : 0));
  }
}

TEST_CASE("mean and largest numbers of visible keys are those of the key sets") {
  for (const std::string& sparse : sparse_arch_names()) {
    for (const std::int64_t wanted : {2, 7, 16, 60}) {
      ModelConfig c = small_config(sparse);
      c.sparse_keys = wanted;
      c.resolve();
      for (const std::int64_t length : {1, 2, 3, 31, 64, 65, 150}) {
        INFO(sparse << ", k " << wanted << ", length " << length);
        if (sparse == "none") {
          CHECK(mean_visible_keys(c, length) == 0);
          CHECK(most_visible_keys(c, length) == 0);
          continue;
        }
        double sum = 0;
        std::int64_t most = 0;
        for (const auto& keys : to_lists(keys_of(c, length, 1))) {
          sum += static_cast<double>(keys.size());
          most = std::max(most, static_cast<std::int64_t>(keys.size()));
        }
        const double mean = sum / static_cast<double>(length);
        if (sparse == "sign_bin_lsh+key_selection") {  // components that agree here and there
          CHECK(mean_visible_keys(c, length) >= mean);
        } else {
          CHECK(mean_visible_keys(c, length) == doctest::Approx(mean).epsilon(1e-12));
        }
        CHECK(mean_visible_keys(c, length) <=
              static_cast<double>(std::min(length, wanted)) + (sparse == "full" ? 1e9 : 0.0));
        CHECK(most_visible_keys(c, length) >= most);
        CHECK(most_visible_keys(c, length) <= (sparse == "full" ? length : wanted));
      }
    }
  }
  CHECK(most_visible_keys(resolved("transformer", "none"), 1058) == 1058);
  CHECK(most_visible_keys(resolved("samba", "none"), 1058) == 64);
  CHECK(most_visible_keys(resolved("samba", "full"), 1058) == 1058);
}

TEST_CASE("work: every weight of a linear map is one multiply-add a token") {
  for (const auto& [arch, small] : all_small_configs()) {
    INFO(arch);
    const Model model(small);
    const TokenFlops flops = flop_terms(model.config(), 100);
    double linear = 0, convolution = 0, scoring = 0;
    for (const ParamSpec& spec : model.parameters().specs()) {
      const double flop = 2 * static_cast<double>(spec.shape.numel());
      if (spec.name.ends_with("_proj.weight") || spec.name.ends_with("embeddings.weight")) {
        linear += flop;
      } else if (spec.name.ends_with("conv1d.weight")) {
        convolution += flop;
      } else if (spec.name.find("dx_proj_") != std::string::npos && spec.name.ends_with("weight")) {
        scoring += flop;
      }
    }
    CHECK(flops.projections + flops.mlp + flops.logits == linear);
    CHECK(flops.convolution == convolution);
    CHECK(flops.scoring == scoring);
    CHECK(flops.total() == flops_per_token(model.config(), 100));
  }
}

TEST_CASE("work: scans, attention and hashing by hand") {
  const TokenFlops hax = flop_terms(resolved("mamba", "sign_bin_lsh+key_selection"), 1058);
  CHECK(hax.scan == 2 * 7 * 128 * 16);
  CHECK(hax.hashing == 2 * 2 * (2 * 16 * 8));
  // 64 keys but for the first 63 queries, which see 1, ..., 63.
  const double mean = (1058 * 64 - 63 * 32) / 1058.0;
  CHECK(hax.attention == doctest::Approx(2 * mean * (2 * 16 + 2 * 128 + 1)));
  CHECK(flop_terms(resolved("mamba2", "none"), 7).scan == 2 * 5 * 8 * 16 * 32);

  const TokenFlops transformer = flop_terms(resolved("transformer", "none"), 1058);
  CHECK(transformer.projections == 2 * 4 * 2 * 64 * 64);
  CHECK(transformer.attention == doctest::Approx(2 * 529.5 * 4 * (4 * 16 + 1)));
  CHECK(transformer.mlp == 2 * 3 * 2 * 64 * 128);
  CHECK(transformer.logits == 2 * 64 * 100);
  CHECK(transformer.scan + transformer.convolution + transformer.hashing == 0);

  // A window of 64 in 2 of 4 layers.
  CHECK(flop_terms(resolved("samba", "none"), 1058).attention ==
        doctest::Approx(2 * mean * 4 * (4 * 8 + 1)));
  // What a window saves shows at length; the work of a full branch grows with it.
  const auto growth = [](const char* arch) {
    const ModelConfig c = resolved("mamba", arch);
    return flops_per_token(c, 100000) / flops_per_token(c, 10000);
  };
  CHECK(growth("sliding_window") < 1.01);
  CHECK(growth("full") > 5);
}

TEST_CASE("costs refuse lengths out of range and modes without a state") {
  const ModelConfig c = resolved("mamba", "key_selection");
  const std::string range = ", expected an integer from 1 to 1073741824";
  CHECK(error_of([&] { state_numbers(c, 0); }) == "length is 0" + range);
  CHECK(error_of([&] { flops_per_token(c, 0); }) == "length is 0" + range);
  CHECK(error_of([&] { most_visible_keys(c, (1 << 30) + 1); }) == "length is 1073741825" + range);
  ModelConfig released = c;
  released.norm_mode = NormMode::released;
  CHECK(error_of([&] { state_numbers(released, 9); }).starts_with("norm_mode is released"));
  released.sparse_arch = "none";
  CHECK(state_numbers(released, 9) == 4864);
  ModelConfig centred = resolved("mamba", "sign_bin_lsh");
  centred.lsh_center = LshCenter::sequence;
  CHECK(error_of([&] { state_numbers(centred, 9); }).starts_with("lsh_center is sequence"));
}
