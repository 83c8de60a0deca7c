// hax bench peer: the same training steps in PyTorch (tools/peers/torch_step.py), in turn with
// ours.
#include <nlohmann/json.hpp>

#include "engine/files.h"
#include "tools/bench/bench.h"
#include "tools/bench/embedded_peers.h"
#include "tools/bench/process.h"
#include "tools/bench/training.h"

namespace hax::bench {
namespace {

using Json = nlohmann::json;
using Settings = std::vector<std::pair<std::string, std::string>>;

// glibc hands large blocks back to the system after every op and takes the page faults anew; a user
// who knows tells it to keep them, which makes these steps two to four times faster.
const Settings kKeepHeap = {{"MALLOC_MMAP_MAX_", "0"},
                            {"MALLOC_TRIM_THRESHOLD_", "100000000000"},
                            {"MALLOC_TOP_PAD_", "268435456"}};

// Old OpenBLAS knows no recent processor and falls back to the code of an old one.
Settings environment(int threads) {
  Settings settings = kKeepHeap;
  settings.emplace_back("OMP_NUM_THREADS", std::to_string(threads));
  // Threads that spin while they wait made the steps five times slower whenever a neighbour was
  // busy.
  settings.emplace_back("OMP_WAIT_POLICY", "PASSIVE");
#ifdef __AVX512F__
  settings.emplace_back("OPENBLAS_CORETYPE", "SkylakeX");
#endif
  return settings;
}

std::string allocator_text() {
  std::string text = "glibc";
  for (const auto& [name, value] : kKeepHeap) text += fmt::format(" {}={}", name, value);
  if (const char* preload = std::getenv("LD_PRELOAD"))
    text += fmt::format(", LD_PRELOAD={}", preload);
  return text;
}

const std::string& script() {
  static const std::string text(embedded_peers().front().text);
  return text;
}

template <class T>
Json numbers(const Tensor& tensor) {
  return Json(std::vector<T>(tensor.values<T>().begin(), tensor.values<T>().end()));
}

// The batch as the script wants it: rows of tokens, and which of them are targets of what.
Json json_of(const Batch& batch) {
  Json json{{"tokens", numbers<std::int32_t>(batch.tokens)},
            {"labels", numbers<std::int32_t>(batch.labels)},
            {"targets", numbers<std::int32_t>(batch.target_rows)},
            {"padded", batch.sequences.padded(0)}};
  for (std::int64_t s = 0; s < batch.count(); ++s) {
    json["lengths"].push_back(batch.sequences.length(s));
  }
  return json;
}

struct PeerRun {
  std::vector<double> seconds;
  std::string version, failure;
  std::int64_t parameters = 0;
};

// The interpreter that has torch: HAX_PYTHON where it is set, else the first python3 on the path,
// else the system's, for which distributions package torch.
struct Peer {
  std::string python, blas, why_not;
};

Peer find_peer() {
  std::vector<std::string> candidates = {"python3", "/usr/bin/python3"};
  if (const char* chosen = std::getenv("HAX_PYTHON")) candidates = {chosen};
  for (const std::string& python : candidates) {
    const ProcessResult result =
        run_process({python, "-c", script()}, R"({"version_only": true})", environment(1));
    const Json answer = Json::parse(result.out, nullptr, false);
    if (result.code == 0 && answer.is_object()) return {python, answer.at("blas"), ""};
  }
  return {"", "",
          fmt::format("no torch in {}; set HAX_PYTHON to an interpreter that has it",
                      fmt::join(candidates, ", "))};
}

PeerRun run_peer(const std::string& python, const Json& request, int threads) {
  const ProcessResult result =
      run_process({python, "-c", script()}, request.dump(), environment(threads));
  PeerRun run;
  const std::size_t line = result.out.rfind("\n{");
  const Json answer =
      Json::parse(result.out.substr(line == std::string::npos ? 0 : line), nullptr, false);
  if (result.code != 0 || !answer.is_object()) {
    const std::size_t end = result.out.find_last_not_of('\n');
    const std::size_t begin = result.out.rfind('\n', end);
    run.failure = fmt::format(
        "{} ended with {}{}", python, result.code,
        end == std::string::npos
            ? ""
            : ": " + result.out.substr(begin == std::string::npos ? 0 : begin + 1,
                                       end - (begin == std::string::npos ? 0 : begin + 1) + 1));
    return run;
  }
  run.seconds = answer.at("seconds").get<std::vector<double>>();
  run.version = answer.at("version");
  run.parameters = answer.at("parameters");
  return run;
}

void bench_against(Bench& bench, const std::string& python, const std::string& arch,
                   bool true_length) {
  Row row{.name = arch + (true_length ? ", true lengths" : ", padded")};
  row.note = true_length ? "PyTorch one sequence after another, each cut to its length"
                         : "PyTorch on the batch padded to 1057, as the released code trains";
  Training training(resolved_arch(arch), bench.training());
  const Batch batch = training.batch(3);
  const Json request{{"config", Json::parse(to_json(training.model().config()))},
                     {"batch", json_of(batch)},
                     {"true_length", true_length},
                     {"threads", bench.threads},
                     {"steps", bench.quick ? 1 : 2}};
  std::vector<double> ours, theirs, ratios;
  training.step(batch);
  for (int round = 0; round < 2; ++round) {
    std::vector<double> mine;
    for (int i = 0; i < 5; ++i) mine.push_back(seconds_of([&] { training.step(batch); }));
    const PeerRun peer = run_peer(python, request, bench.threads);
    if (!peer.failure.empty()) {
      row.skipped = peer.failure;
      bench.report.add(row);
      return;
    }
    check(peer.parameters == training.model().parameters().count(),
          "the PyTorch script built {} with {} parameters, ours has {}", arch, peer.parameters,
          training.model().parameters().count());
    row.peer = peer.version;
    ours.insert(ours.end(), mine.begin(), mine.end());
    theirs.insert(theirs.end(), peer.seconds.begin(), peer.seconds.end());
    ratios.push_back(median(peer.seconds) / median(mine));
  }
  row.time(Timing(ours)).per_token(static_cast<double>(batch.sequences.tokens()));
  row.threads = bench.threads;
  row.peer_s = median(theirs);
  row.peer_ratio = median(ratios);
  row.peer_allocator = allocator_text();
  bench.report.add(row);
}

}  // namespace

void bench_peer(Bench& bench) {
  bench.report.section("peer", "The same step in PyTorch, in turn with ours (A B A B)",
                       "One batch, the same threads; PyTorch's heap kept:\n" + allocator_text(),
                       {"median_s", "fastest_s", "peer_s", "peer_ratio"});
  Peer peer = find_peer();
  // Several times slower than any BLAS that people use: a comparison with it would say nothing.
  if (peer.blas == "reference BLAS") {
    peer.why_not =
        fmt::format("{}'s torch multiplies with the reference BLAS; install OpenBLAS", peer.python);
  }
  if (!peer.why_not.empty()) {
    bench.report.add({.name = "PyTorch", .skipped = peer.why_not});
    return;
  }
  for (const std::string& arch : bench.archs.empty() ? main_archs() : bench.archs) {
    bench_against(bench, peer.python, arch, false);
    bench_against(bench, peer.python, arch, true);
  }
}

}  // namespace hax::bench
