#include "models/config.h"

#include <doctest/doctest.h>

#include "models/architectures.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("a configuration survives its JSON text") {
  for (const std::string& arch : sparse_arch_names()) {
    ModelConfig config = named_config("mamba", arch);
    config.norm_mode = NormMode::released;
    config.lsh_center = LshCenter::none;
    config.resolve();
    const std::string text = to_json(config);
    CHECK(to_json(parse_config(text, "copy")) == text);
  }
}

TEST_CASE("names are found in any case, misspelt ones are answered with the nearest") {
  CHECK(named_config("Mamba", "None").sparse_arch == "none");
  CHECK(named_config("MAMBA", "Sign_Bin_LSH").sparse_arch == "sign_bin_lsh");
  CHECK(error_of([] { named_config("mambo", "none"); }) ==
        "unknown base_arch 'mambo'; did you mean 'mamba'?");
  CHECK(error_of([] { named_config("mamba", "key_selction"); }) ==
        "unknown sparse_arch 'key_selction'; did you mean 'key_selection'?");
  CHECK(error_of([] { named_config("mamba", "zzzzzzzzzzzzzzzzz"); }).find("expected one of none") !=
        std::string::npos);
}

TEST_CASE("defaults are the paper's") {
  ModelConfig c = named_config("mamba", "sign_bin_lsh+key_selection");
  c.resolve();
  CHECK(c.hidden_size == 64);
  CHECK(c.intermediate_size == 128);
  CHECK(c.state_size == 16);
  CHECK(c.time_step_rank == 8);
  CHECK(c.keys_per_component() == 32);
  CHECK(c.hash_columns() == 8);
  CHECK(c.center() == LshCenter::causal);
  ModelConfig argmax = named_config("mamba", "argmax_lsh");
  argmax.resolve();
  CHECK(argmax.hash_columns() == 64);
  argmax.sparse_keys = 16;
  CHECK(argmax.hash_columns() == 16);
  ModelConfig dilated = named_config("mamba", "sliding_window+dilated");
  dilated.resolve();
  CHECK(dilated.dilation() == 64);
  CHECK(parse_config("{\"time_step_rank\": \"auto\"}", "t").time_step_rank == 4);
}

TEST_CASE("bad configurations are refused by key") {
  struct Case {
    const char* json;
    const char* error;
  };
  const Case cases[] = {
      {"[]", "t: expected a JSON object"},
      {"{\"hidden_sise\": 3}", "t: unknown key 'hidden_sise'; did you mean 'hidden_size'?"},
      {"{\"hidden_size\": \"a\"}", "t: hidden_size is \"a\", expected an integer"},
      {"{\"hidden_size\": 1.5}", "t: hidden_size is 1.5, expected an integer"},
      {"{\"hidden_size\": 0}", "t: hidden_size is 0, expected an integer from 1 to 1073741824"},
      {"{\"use_bias\": 1}", "t: use_bias is 1, expected true or false"},
      {"{\"hidden_act\": \"gelu\"}", "t: hidden_act is \"gelu\", expected one of silu, swish"},
      {"{\"norm_mode\": \"free\"}", "t: norm_mode is \"free\", expected one of causal, released"},
      {"{\"layer_norm_epsilon\": 0}", "t: layer_norm_epsilon is 0, expected a positive number"},
      {"{\"model_type\": \"gpt\"}",
       "t: model_type is 'gpt', expected one of mamba, mamba2, samba, transformer"},
      {"{\"time_step_min\": 0.5}", "t: time_step_min 0.5 exceeds time_step_max 0.1"},
      {"{\"sparse_arch\": \"sign_bin_lsh\", \"num_hash\": 99}",
       "t: num_hash is 99, expected 1 to 62 hash bits for sign_bin_lsh"},
      {"{\"sparse_arch\": \"dilated\", \"data_max_length\": 8}",
       "t: data_max_length is 8, expected at least the 64 keys of the dilated pattern"},
      {"{\"sparse_arch\": \"sliding_window+sink\", \"sparse_keys\": 1}",
       "t: sparse_keys is 1, expected an integer from 2 to 1073741824"},
  };
  for (const Case& c : cases) {
    CHECK(error_of([&] { parse_config(c.json, "t"); }) == c.error);
  }
  CHECK(error_of([] { parse_config("{", "t"); }).starts_with("t: not valid JSON"));
}

TEST_CASE("a Transformer's configuration: attention everywhere, said or not") {
  const auto parsed = [](const std::string& rest) {
    return parse_config("{\"model_type\": \"transformer\"" + rest + "}", "t");
  };
  for (const char* attn :
       {"", ", \"attn\": {}", ", \"attn\": {\"layers\": []}", ", \"attn\": {\"layers\": [1, 0]}"}) {
    const ModelConfig c = parsed(attn);
    INFO(attn);
    CHECK(c.is_attention(0));
    CHECK(c.is_attention(1));
    CHECK(!c.has_scan());
    CHECK(c.attn->num_kv_heads == 4);
    CHECK(!c.attn->window_size);
    CHECK(c.mlp_width() == 128);  // twice the hidden size
    CHECK(to_json(parse_config(to_json(c), "copy")) == to_json(c));
  }
  const ModelConfig c =
      parsed(", \"intermediate_size\": 96, \"attn\": {\"num_kv_heads\": 2, \"window_size\": 9}");
  CHECK(c.mlp_width() == 96);
  CHECK(c.attn->num_kv_heads == 2);
  CHECK(c.attn->window_size == 9);
  // Nothing of a scan in its file.
  CHECK(to_json(c).find("state_size") == std::string::npos);
  CHECK(named_config("samba", "none").mlp_width() == 256);

  const auto refused = [&](const std::string& rest) { return error_of([&] { parsed(rest); }); };
  CHECK(refused(", \"attn\": {\"layers\": [1]}") ==
        "t: attn.layers names 1 of 2 layers, expected all of a transformer's, or no attn.layers");
  CHECK(refused(", \"attn\": {\"layers\": [0, 2]}") ==
        "t: attn.layers names layer 2, there are 2 layers from 0");
  CHECK(refused(", \"hidden_size\": 20") ==
        "t: hidden_size 20 and attn.num_heads 4 give heads of size 5, rotary embeddings need an "
        "even size; change either");
  CHECK(refused(", \"sparse_arch\": \"full\"") ==
        "t: sparse_arch is full, expected none: every layer of this transformer is attention, "
        "there is no scan for a sparse branch to join");
  CHECK(refused(", \"num_heads\": 8") ==
        "t: num_heads has no meaning for a transformer; intermediate_size is the width of its "
        "MLP, attn holds its heads");
  CHECK(refused(", \"hidden_ratio\": 4").starts_with("t: hidden_ratio has no meaning"));
}

TEST_CASE("Samba takes a sparse branch while one of its layers has a scan") {
  ModelConfig c = named_config("samba", "key_selection");
  c.resolve();
  CHECK(c.has_scan());
  c.attn->layers = {0, 1, 2, 3};
  CHECK(error_of([&] { c.resolve(); }).starts_with("sparse_arch is key_selection, expected none"));
  c.sparse_arch = "none";
  c.resolve();
  CHECK(error_of([] { parse_config("{\"model_type\": \"mamba\", \"attn\": {}}", "t"); }) ==
        "t: attn is given, but model_type is mamba, expected samba or transformer");
}
