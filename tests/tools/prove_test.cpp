// hax prove as a user runs it: what it claims, in text and as JSON.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/command.h"

using namespace hax::test;

namespace {

nlohmann::json prove(std::vector<std::string> flags) {
  flags.insert(flags.begin(), "prove");
  flags.emplace_back("--json");
  const CommandResult result = run_hax(flags);
  INFO(result.err);
  REQUIRE(result.code == 0);
  return nlohmann::json::parse(result.out);
}

// All that does not depend on the clock and the machine.
nlohmann::json without_times(nlohmann::json json) {
  for (auto& size : json["sizes"]) {
    for (auto& part : size) {
      if (part.is_object()) part.erase("seconds");
    }
  }
  for (const char* name : {"peak_bytes", "exponent_of_seconds"}) json.erase(name);
  return json;
}

}  // namespace

TEST_CASE("prove: the theorem holds, the others fail, the bounds are the paper's") {
  const nlohmann::json json = prove({"--entries", "64,4096"});
  for (const auto& size : json["sizes"]) {
    CHECK(size["lsh"]["accuracy"] == 1);
    CHECK(size["lsh"]["own_key_in_bin"] == 1);
    CHECK(size["lsh"]["own_key_seen"] == 1);
    CHECK(size["keys_kept"] == size["tokens"]);
    CHECK(size["lsh_centred"]["own_key_in_bin"].get<double>() < 0.02);
    CHECK(size["lsh_one_log"]["own_key_in_bin"] == 1);
    CHECK(size["lsh_one_log"]["other_keys_in_bin"] > size["lsh_two_logs"]["other_keys_in_bin"]);
  }
  const auto& small = json["sizes"][0];
  CHECK(small["table"] == "8 x 8");
  CHECK(small["tokens"] == 2 + 2 * (8 + 2 * 64));
  CHECK(small["tables"] == 64);
  CHECK(small["lsh"]["hash_bits"] == 18);
  CHECK(small["lsh_two_logs"]["hash_bits"] == 12);
  CHECK(small["lsh_one_log"]["hash_bits"] == 6);
  CHECK(small["fixed_state"]["accuracy_at_most"] == 1);
  CHECK(small["fixed_state"]["log2_all_right_at_most"] == 0);

  const auto& large = json["sizes"][1];
  for (const char* name : {"window", "dilated", "window_and_sink", "scan_alone", "fixed_state"}) {
    INFO(name);
    CHECK(large[name]["accuracy"].get<double>() < 0.12);
  }
  // n log2(n)^2 from 64 to 4096: 64 * 4 times as much.
  CHECK(json["exponent_of_n_log2_n_squared"].get<double>() == doctest::Approx(4.0 / 3));

  // 8 slots of 20 numbers and the scan's: far fewer bits than the table's 16384 * 10.
  const nlohmann::json wide =
      prove({"--entries", "16384", "--values", "1024", "--sparse_keys", "8"});
  const auto& size = wide["sizes"][0];
  CHECK(size["lsh"]["accuracy"] == 1);
  const double bits = 32.0 * (size["scan_state"].get<double>() + 8 * 20);
  CHECK(size["fixed_state"]["state_bits"] == bits);
  CHECK(size["fixed_state"]["log2_all_right_at_most"] == bits - 16384 * 10);
  const double most = size["fixed_state"]["accuracy_at_most"];
  CHECK(most > size["fixed_state"]["accuracy"].get<double>());
  CHECK(most < 0.2);
}

TEST_CASE("prove: what queries see is counted right when old keys are dropped") {
  const nlohmann::json json =
      prove({"--entries", "1024", "--num_hash", "30", "--sparse_keys", "1"});
  const auto& lsh = json["sizes"][0]["lsh"];
  INFO(lsh.dump());
  CHECK(lsh["own_key_seen"].get<double>() > 0.9);
  CHECK(lsh["keys_mean"].get<double>() >= lsh["own_key_seen"].get<double>());
  CHECK(lsh["keys_max"] == 1);
  CHECK(lsh["own_key_seen"].get<double>() <= lsh["accuracy"].get<double>());
}

TEST_CASE("prove: tables that do not split evenly get the entries asked for or a few more") {
  const nlohmann::json json = prove({"--entries", "1,2,20,100", "--levels", "3"});
  const std::vector<std::string> tables{"1 x 1 x 1", "1 x 1 x 2", "3 x 3 x 3", "5 x 5 x 4"};
  for (std::size_t i = 0; i < tables.size(); ++i) {
    CHECK(json["sizes"][i]["table"] == tables[i]);
    CHECK(json["sizes"][i]["lsh"]["accuracy"] == 1);
  }
  CHECK(json["sizes"][2]["entries"] == 27);
}

TEST_CASE("prove: equal seeds give equal answers, other seeds other tables") {
  const std::vector<std::string> flags{"--entries", "100", "--num_hash", "6", "--seed"};
  const auto with_seed = [&](const char* seed) {
    std::vector<std::string> all = flags;
    all.emplace_back(seed);
    return without_times(prove(all));
  };
  const nlohmann::json first = with_seed("7");
  CHECK(first == with_seed("7"));
  CHECK(first["sizes"] != with_seed("8")["sizes"]);
}

TEST_CASE("prove: text, and one table spelled out") {
  const CommandResult text = run_hax({"prove", "--entries", "16,64", "--sparse_keys", "1"});
  CHECK(text.code == 0);
  CHECK(text.out.find("8 x 8") != std::string::npos);
  CHECK(text.out.find("n log2(n)^2 as n^") != std::string::npos);
  CHECK(text.out.find("Peak memory") != std::string::npos);
  for (std::size_t begin = 0; begin < text.out.size();) {
    const std::size_t end = text.out.find('\n', begin);
    INFO(text.out.substr(begin, end - begin));
    CHECK(end - begin <= 100);
    begin = end + 1;
  }

  const CommandResult shown = run_hax({"prove", "--show"});
  CHECK(shown.code == 0);
  CHECK(shown.out.find("[A a 15 +1]") != std::string::npos);
  // A question has a second bin, its answer and what it sees; the next token is its value.
  std::istringstream lines(shown.out);
  std::string line, answer;
  int questions = 0;
  std::getline(lines, line);  // the head
  while (std::getline(lines, line)) {
    std::string position, token, key_bin, query_bin, key;
    std::istringstream(line) >> position >> token;
    if (!answer.empty()) CHECK(token == answer);
    answer.clear();
    if (std::istringstream(line.substr(line.find(']') + 1)) >> key_bin >> query_bin >> answer >>
        key) {
      ++questions;
    }
  }
  CHECK(questions == 4);
}
