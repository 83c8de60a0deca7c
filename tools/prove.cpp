// hax prove: Propositions 3.2 and C.1 of the paper, run with weights set by hand; docs/theory.md.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/check.h"
#include "tools/commands.h"
#include "tools/data_flags.h"
#include "tools/prove_measure.h"
#include "tools/prove_show.h"
#include "tools/prove_theory.h"

namespace hax {
namespace {

using Json = nlohmann::ordered_json;

// 16.8 M tokens: some 9 GB, and 4 minutes.
constexpr std::int64_t kMostEntries = std::int64_t{1} << 22;

struct ProveFlags {
  std::vector<std::int64_t> entries;
  std::int32_t levels = 2, values = 16;
  std::optional<std::int64_t> num_hash;
  std::int64_t sparse_keys = 64, seed = 1;
  bool json = false, show = false;
};

// ---- One size ----

// log2(n), rounded up: as many bins as entries.
std::int64_t log2_of(std::int64_t entries) {
  return std::max<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(entries - 1)), 1);
}

struct Size {
  JointRecallTask table;
  TheoremOptions options;
  Measurement theorem;
  Measurement two_logs, one_log;  // other numbers of hash bits
  Measurement centred;
  Measurement window, dilated, scan_alone, fixed_state;
  std::optional<Measurement> window_and_sink;

  double entries() const { return static_cast<double>(theorem.entries); }
  /// Of the reader without attention.
  double state_bits() const {
    return 32 * static_cast<double>(fixed_state.state + fixed_state.fixed);
  }
};

Size size_of(const ProveFlags& flags, std::int64_t entries) {
  Size size;
  size.table = table_of(entries, flags.levels, flags.values);
  const std::int64_t n = size.table.entries(size.table.sizes(0));
  size.options.hash_bits = flags.num_hash.value_or(std::min<std::int64_t>(3 * log2_of(n), 62));
  size.options.keys = flags.sparse_keys;
  size.options.seed = static_cast<std::uint64_t>(flags.seed);
  // So that the grid reaches back to the beginning.
  size.options.dilation = (size.table.fixed_length() + flags.sparse_keys - 1) / flags.sparse_keys;
  return size;
}

void measure_bins(Size& size) {
  TheoremOptions options = size.options;
  options.hash_bits = std::min<std::int64_t>(2 * log2_of(size.theorem.entries), 62);
  size.two_logs = measure(size.table, options);
  options.hash_bits = log2_of(size.theorem.entries);
  size.one_log = measure(size.table, options);
  options = size.options;
  options.center = LshCenter::causal;
  size.centred = measure(size.table, options);
}

void measure_others(Size& size) {
  const auto looking_back = [&](LookBack look_back) {
    TheoremOptions options = size.options;
    options.look_back = look_back;
    return measure(size.table, options);
  };
  size.window = looking_back(LookBack::window);
  size.dilated = looking_back(LookBack::dilated);
  if (size.options.keys >= 2) size.window_and_sink = looking_back(LookBack::window_and_sink);
  size.scan_alone = looking_back(LookBack::nothing);
  size.fixed_state = looking_back(LookBack::fixed_state);
}

// ---- Theory ----

struct Fit {
  double seconds, growth;  // exponents of n
};

// Over the sizes above one entry; none unless there are two.
std::optional<Fit> fit(const std::vector<Size>& sizes) {
  std::vector<double> n, seconds, expected;
  for (const Size& size : sizes) {
    if (size.theorem.entries < 2) continue;
    n.push_back(size.entries());
    seconds.push_back(size.theorem.seconds);
    expected.push_back(growth(size.theorem.entries));
  }
  if (n.empty() || std::ranges::min(n) == std::ranges::max(n)) return {};
  return Fit{fitted_exponent(n, seconds), fitted_exponent(n, expected)};
}

double most_accurate(const Size& size) {
  return hax::most_accurate(size.state_bits() / size.entries(), size.table.values);
}

double all_right_bits(const Size& size) {
  return hax::all_right_bits(size.state_bits(), size.entries(), size.table.values);
}

std::int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{1024} * usage.ru_maxrss;
}

// ---- A table for the eye ----

// Cut off, not rounded: 100 % is said of all entries only.
std::string percent(double share) {
  return fmt::format("{:.2f} %", std::floor(share * 1e4 + 1e-9) / 100);
}

void print_theorem_head(const ProveFlags& flags) {
  fmt::print(
      "Proposition {} with weights set by hand: {} level{}, {} values, {} keys a query, seed {}\n"
      "\n{:>42}{:>9}{:>6}{:>12}{:>28}\n"
      "{:>9}  {:<20}{:>5}{:>6}{:>9}{:>6}{:>7}{:>5}{:>10}{:>9}{:>9}\n",
      flags.levels <= 2 ? "3.2" : "C.1", flags.levels, flags.levels == 1 ? "" : "s", flags.values,
      flags.sparse_keys, flags.seed, "scan", "keys", "hash", "keys seen", "ns per", "entries",
      "table", "", "state", "kept", "bits", "mean", "max", "accuracy", "seconds", "n log2^2");
}

void print_theorem(const Size& size) {
  const Measurement& m = size.theorem;
  const std::string per_growth =
      m.entries < 2 ? "-" : fmt::format("{:.1f}", 1e9 * m.seconds / growth(m.entries));
  fmt::print("{:>9}  {:<25}{:>6}{:>9}{:>6}{:>7.2f}{:>5}{:>10}{:>9.3g}{:>9}\n", m.entries,
             shape_of(size.table), m.state, m.kept, size.options.hash_bits, m.keys_mean, m.keys_max,
             percent(m.accuracy), m.seconds, per_growth);
  std::fflush(stdout);
}

void print_fit(const std::vector<Size>& sizes) {
  const std::optional<Fit> fitted = fit(sizes);
  if (!fitted) return;
  fmt::print("\nOver these sizes time grows as n^{:.3f}, n log2(n)^2 as n^{:.3f}.\n",
             fitted->seconds, fitted->growth);
}

void print_bins_head() {
  fmt::print(
      "\nThe bins: is the key of its entry in a query's bin, and how many others are\n\n"
      "{:>9}{:>22}{:>22}{:>22}{:>22}\n{:>9}{:>12}{:>10}{:>12}{:>10}{:>12}{:>10}{:>12}{:>10}\n",
      "", "as above", "2 log2(n) bits", "log2(n) bits", "centred", "entries", "own key", "others",
      "others", "accuracy", "others", "accuracy", "own key", "accuracy");
}

void print_bins(const Size& size) {
  const Measurement &two = size.two_logs, &one = size.one_log, &centred = size.centred;
  fmt::print("{:>9}{:>12}{:>10.3g}{:>12.3g}{:>10}{:>12.3g}{:>10}{:>12}{:>10}\n",
             size.theorem.entries, percent(size.theorem.same_bin), size.theorem.wrong_in_bin,
             two.wrong_in_bin, percent(two.accuracy), one.wrong_in_bin, percent(one.accuracy),
             percent(centred.same_bin), percent(centred.accuracy));
  std::fflush(stdout);
}

void print_others_head(const ProveFlags& flags) {
  const std::int64_t k = flags.sparse_keys;
  fmt::print(
      "\nThe same weights looking back otherwise (guessing: {}), and what the fixed state allows:\n"
      "its bits, the accuracy they allow at most, log2 of the probability that all answers are "
      "right\n\n"
      "{:>9}{:>11}{:>11}{:>13}{:>11}{:>12}{:>9}{:>10}{:>12}\n"
      "{:>9}{:>11}{:>11}{:>13}{:>11}{:>12}{:>9}{:>10}{:>12}\n",
      percent(1.0 / flags.values), "", "latest", "dilated", "latest+first", "scan", "fixed state",
      "", "", "log2", "entries", k, k, fmt::format("{}+{}", k - k / 2, k / 2), "alone",
      fmt::format("{} slots", k), "bits", "at most", "Pr all");
}

void print_others(const Size& size) {
  fmt::print("{:>9}{:>11}{:>11}{:>13}{:>11}{:>12}{:>9}{:>10}{:>12.0f}\n", size.theorem.entries,
             percent(size.window.accuracy), percent(size.dilated.accuracy),
             size.window_and_sink ? percent(size.window_and_sink->accuracy) : "-",
             percent(size.scan_alone.accuracy), percent(size.fixed_state.accuracy),
             size.state_bits(), percent(most_accurate(size)), all_right_bits(size));
  std::fflush(stdout);
}

// ---- JSON ----

Json to_json(const Measurement& m) { return {{"accuracy", m.accuracy}, {"seconds", m.seconds}}; }

Json with_keys(const Measurement& m) {
  Json json = to_json(m);
  json["keys_mean"] = m.keys_mean;
  json["keys_max"] = m.keys_max;
  json["own_key_seen"] = m.right_seen;
  return json;
}

Json with_bins(const Measurement& m) {
  Json json = with_keys(m);
  json["hash_bits"] = m.hash_bits;
  json["own_key_in_bin"] = m.same_bin;
  json["other_keys_in_bin"] = m.wrong_in_bin;
  return json;
}

Json to_json(const Size& size) {
  const Measurement& m = size.theorem;
  Json fixed_state = to_json(size.fixed_state);
  fixed_state["state_bits"] = size.state_bits();
  fixed_state["accuracy_at_most"] = most_accurate(size);
  fixed_state["log2_all_right_at_most"] = all_right_bits(size);
  Json json{{"entries", m.entries},
            {"table", shape_of(size.table)},
            {"tables", m.tables},
            {"tokens", m.tokens},
            {"scan_state", m.state},
            {"keys_kept", m.kept},
            {"lsh", with_bins(m)},
            {"lsh_two_logs", with_bins(size.two_logs)},
            {"lsh_one_log", with_bins(size.one_log)},
            {"lsh_centred", with_bins(size.centred)},
            {"window", with_keys(size.window)},
            {"dilated", with_keys(size.dilated)},
            {"scan_alone", to_json(size.scan_alone)},
            {"fixed_state", fixed_state}};
  if (size.window_and_sink) json["window_and_sink"] = with_keys(*size.window_and_sink);
  return json;
}

void print_json(const ProveFlags& flags, const std::vector<Size>& sizes) {
  Json json{{"levels", flags.levels},
            {"values", flags.values},
            {"sparse_keys", flags.sparse_keys},
            {"seed", flags.seed},
            {"sizes", Json::array()}};
  for (const Size& size : sizes) json["sizes"].push_back(to_json(size));
  if (const std::optional<Fit> fitted = fit(sizes)) {
    json["exponent_of_seconds"] = fitted->seconds;
    json["exponent_of_n_log2_n_squared"] = fitted->growth;
  }
  json["peak_bytes"] = peak_bytes();
  fmt::print("{}\n", json.dump(2));
}

// ---- The command ----

std::vector<std::int64_t> default_entries(const ProveFlags& flags) {
  if (flags.show) return {4};
  std::vector<std::int64_t> entries;
  for (std::int64_t n = 16; n <= 65536; n *= 4) entries.push_back(n);
  return entries;
}

void run_prove(const ProveFlags& flags) {
  if (flags.show) {
    check_usage(!flags.json, "--json does not go with --show, which prints text");
    check_usage(flags.entries.size() == 1, "--entries: --show is for one table, {} are given",
                flags.entries.size());
    check_usage(flags.entries.front() <= 16, "--entries {}: --show is for at most 16 entries",
                flags.entries.front());
    const Size size = size_of(flags, flags.entries.front());
    return show_theorem(size.table, size.options);
  }
  std::vector<Size> sizes;
  for (const std::int64_t entries : flags.entries) sizes.push_back(size_of(flags, entries));
  const auto table = [&](auto head, auto measure_one, auto print_row) {
    if (!flags.json) head();
    for (Size& size : sizes) {
      measure_one(size);
      if (!flags.json) print_row(size);
    }
  };
  table([&] { print_theorem_head(flags); },
        [](Size& size) { size.theorem = measure(size.table, size.options); }, print_theorem);
  if (!flags.json) print_fit(sizes);
  table(print_bins_head, measure_bins, print_bins);
  table([&] { print_others_head(flags); }, measure_others, print_others);
  if (flags.json) {
    print_json(flags, sizes);
  } else {
    fmt::print("\nPeak memory {:.2f} GB.\n", 1e-9 * static_cast<double>(peak_bytes()));
  }
}

}  // namespace

void add_prove_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "prove", "run the paper's theorem: recall with weights set by hand, and what fails instead");
  auto flags = std::make_shared<ProveFlags>();
  command
      ->add_option_function<std::vector<std::string>>(
          "--entries",
          [flags](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              flags->entries.push_back(
                  parse_number<std::int64_t>(text, "--entries", 1, kMostEntries));
            }
          },
          "entries of the tables, with commas between; made full, e.g. 3 as 2 x 2 "
          "[16,64,...,65536]")
      ->delimiter(',')
      ->type_name("NUMBER");
  add_number<std::int32_t>(*command, "--levels", flags->levels,
                           "levels of nesting, the keys included", 1, 4);
  add_number<std::int32_t>(*command, "--values", flags->values, "size of the value vocabulary", 2,
                           1024);
  add_number<std::optional<std::int64_t>, std::int64_t>(
      *command, "--num_hash", flags->num_hash,
      "hash bits [3 times log2(entries) rounded up, at most 62]", 1, 62);
  add_number<std::int64_t, std::int64_t>(*command, "--sparse_keys", flags->sparse_keys,
                                         "keys that a query sees at most", 1, 65536);
  add_number<std::int64_t, std::int64_t>(*command, "--seed", flags->seed,
                                         "of the weights and the tables", 0);
  command->add_flag("--json", flags->json, "print one JSON object");
  command->add_flag("--show", flags->show,
                    "print the states, bins and answers of one small table instead");
  command->callback([flags] {
    if (flags->entries.empty()) flags->entries = default_entries(*flags);
    run_prove(*flags);
  });
}

}  // namespace hax
