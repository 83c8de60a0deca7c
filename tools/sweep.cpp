// hax sweep: the runs of a grid, in parallel processes, each by itself.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/check.h"
#include "engine/device.h"
#include "engine/files.h"
#include "tools/commands.h"
#include "tools/data_flags.h"
#include "tools/report/table.h"
#include "tools/sweep/grid.h"
#include "tools/sweep/processes.h"
#include "train/reporter.h"

namespace hax {
namespace {

namespace fs = std::filesystem;

struct SweepFlags {
  std::string recipe, out, only, devices;
  int jobs = 0, together = 1;
  bool list = false;
};

// A sweep's folder: the grid, and for every run its settings, its run folder and its last errors.
struct Places {
  fs::path root;
  fs::path grid() const { return root / "sweep.json"; }
  fs::path table() const { return root / "table.md"; }
  fs::path recipe(const SweepRun& run) const { return root / "recipes" / (run.name + ".json"); }
  fs::path run(const SweepRun& run) const { return root / "runs" / run.name; }
  fs::path errors(const SweepRun& run) const { return root / "errors" / (run.name + ".txt"); }
  // Of runs that share a process, named after the first.
  fs::path together(const SweepRun& run) const {
    return root / "recipes" / (run.name + ".together.json");
  }
  fs::path together_errors(const SweepRun& run) const {
    return root / "errors" / (run.name + ".together.txt");
  }
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

// The GPUs of --devices; none: the CPU.
std::vector<std::string> chosen_devices(const SweepFlags& flags) {
  const std::vector<std::string> devices = split(flags.devices);
  for (const std::string& device : devices) parse_number<int>(device, "--devices", 0, 1023);
  if (!devices.empty()) parse_device("cuda");  // refused in a build without it
  return devices;
}

std::string quoted(const std::string& word) {
  if (word.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "_-+=.,:/@%") == word.npos) {
    return word;
  }
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// One command a run: a share of one. It goes on with what an earlier one left.
void list_commands(const SweepFlags& flags, const Grid& grid) {
  const std::vector<SweepRun> chosen = share_of(grid.runs, flags.only);
  for (std::size_t i = 0; i < grid.runs.size(); ++i) {
    const auto same = [&](const SweepRun& run) { return run.name == grid.runs[i].name; };
    if (std::ranges::none_of(chosen, same)) continue;
    std::string command =
        fmt::format("hax sweep --recipe {} --out {} --only {}/{}", quoted(flags.recipe),
                    quoted(flags.out), i + 1, grid.runs.size());
    if (!flags.devices.empty()) command += " --devices " + flags.devices;
    if (flags.jobs > 0) command += fmt::format(" --jobs {}", flags.jobs);
    if (flags.together > 1) command += fmt::format(" --together {}", flags.together);
    fmt::print("{}  # {}\n", command, grid.runs[i].name);
  }
}

// A folder belongs to one grid.
void claim_folder(const Places& places, const Grid& grid) {
  if (fs::exists(places.grid())) {
    check_usage(read_file(places.grid()) == grid.text + "\n",
                "--out {} holds the sweep of another grid; choose another folder",
                places.root.string());
  }
  for (const char* name : {"runs", "recipes", "errors"}) make_directories(places.root / name);
  if (!fs::exists(places.grid())) write_file_atomically(places.grid(), grid.text + "\n");
}

std::string last_line(const fs::path& path) {
  std::string last;
  if (!fs::exists(path)) return last;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) last = line;
  }
  return last.starts_with("hax: ") ? last.substr(5) : last;
}

std::string describe(const results::Run& run) {
  if (!run.finished()) {
    return run.step == 0 ? "not started"
                         : fmt::format("at step {} of {}", run.step, run.options.step);
  }
  return fmt::format("test {} %, validation {} % (step {})",
                     results::percent(run.result->test_accuracy),
                     results::percent(run.result->valid_accuracy), run.result->best_step);
}

// What is known of a run, whatever state its folder is in.
struct Outcome {
  bool finished = false;
  std::string text;
};

Outcome outcome_of(const Places& places, const SweepRun& run) {
  if (!fs::exists(places.run(run) / "recipe.json")) return {false, "not started"};
  try {
    const results::Run record = results::read_run(places.run(run));
    return {record.finished(), describe(record)};
  } catch (const Error& error) {
    return {false, error.what()};
  }
}

class Sweep {
 public:
  Sweep(const SweepFlags& flags, Grid grid)
      : places_{flags.out}, grid_(std::move(grid)), runs_(share_of(grid_.runs, flags.only)) {
    devices_ = chosen_devices(flags);
    check_usage(flags.together == 1 || !devices_.empty(),
                "--together is for runs that share a GPU, so it needs --devices; on the CPU --jobs "
                "says how many run at a time");
    const int cores = omp_get_num_procs(), slots = static_cast<int>(devices_.size());
    jobs_ = flags.jobs > 0 ? flags.jobs : std::max(1, slots > 0 ? slots : cores);
    jobs_ = std::min<int>(jobs_, std::max<int>(1, static_cast<int>(runs_.size())));
    threads_ = std::max(1, cores / (jobs_ * flags.together));
    together_ = static_cast<std::size_t>(flags.together);
  }

  // Returns the names of the runs that failed.
  std::vector<std::string> run();
  void show() const;

 private:
  struct Active {
    std::vector<std::size_t> runs;
    std::size_t slot = 0;
    std::chrono::steady_clock::time_point start;
  };

  using Group = std::vector<std::size_t>;  // runs of one process
  std::vector<Group> groups() const;
  void start(const Group& group, std::size_t slot);
  void end(const ChildEnd& child);
  void tell_end(std::size_t index, const Active& active, int code);
  void say(std::size_t index, const std::string& text) const {
    fmt::print("[{}/{}] {}: {}\n", index + 1, runs_.size(), runs_[index].name, text);
    std::fflush(stdout);
  }

  Places places_;
  Grid grid_;
  std::vector<SweepRun> runs_;
  std::vector<std::string> devices_;
  int jobs_ = 1, threads_ = 1;
  std::size_t together_ = 1;
  std::map<pid_t, Active> active_;
  std::vector<std::size_t> free_slots_;
  std::vector<std::string> failed_;
};

// What is not finished, in its order. Runs of one process are of one architecture: equally long.
std::vector<Sweep::Group> Sweep::groups() const {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> open;  // the last group of an architecture
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (outcome_of(places_, runs_[i]).finished) continue;
    const TrainOptions& options = runs_[i].options;
    const std::string arch =
        fmt::format("{} {} {}", options.base_arch, options.sparse_arch, options.config);
    const auto found = open.find(arch);
    if (found != open.end() && groups[found->second].size() < together_) {
      groups[found->second].push_back(i);
    } else {
      open[arch] = groups.size();
      groups.push_back({i});
    }
  }
  return groups;
}

void Sweep::start(const Group& group, std::size_t slot) {
  const SweepRun& first = runs_[group.front()];
  ChildTask task{.folders = {},
                 .recipe = places_.recipe(first),
                 .flags = {"--threads", std::to_string(threads_)},
                 .environment = {},
                 .errors = places_.errors(first)};
  nlohmann::json list;
  for (const std::size_t index : group) {
    const SweepRun& run = runs_[index];
    make_directories(places_.run(run));
    write_file_atomically(places_.recipe(run), run.recipe);
    write_file_atomically(places_.errors(run), "");
    task.folders.push_back(places_.run(run));
    list.push_back({{"recipe", places_.recipe(run).string()},
                    {"save_dir", places_.run(run).string()},
                    {"errors", places_.errors(run).string()}});
    const Outcome before = outcome_of(places_, run);
    say(index, before.text == "not started" ? "starts" : "goes on, " + before.text);
  }
  if (group.size() > 1) {
    task.recipe = places_.together(first);
    task.errors = places_.together_errors(first);
    write_file_atomically(task.recipe, list.dump(2) + "\n");
  }
  if (!devices_.empty()) {
    task.flags.insert(task.flags.end(), {"--device", "cuda"});
    task.environment["CUDA_VISIBLE_DEVICES"] = devices_[slot % devices_.size()];
  }
  active_[start_child(task)] = {group, slot, std::chrono::steady_clock::now()};
}

void Sweep::end(const ChildEnd& child) {
  const auto found = active_.find(child.pid);
  if (found == active_.end()) return;
  const Active active = found->second;
  active_.erase(found);
  free_slots_.push_back(active.slot);
  for (const std::size_t index : active.runs) tell_end(index, active, child.code);
}

void Sweep::tell_end(std::size_t index, const Active& active, int code) {
  const SweepRun& run = runs_[index];
  const Outcome outcome = outcome_of(places_, run);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - active.start).count();
  if (outcome.finished && (code == 0 || active.runs.size() > 1)) {
    say(index, fmt::format("{}, {}", outcome.text, format_duration(seconds)));
  } else if (stop_requested()) {
    say(index, "stopped, " + outcome.text);
  } else {
    std::string why = last_line(places_.errors(run));
    if (why.empty() && active.runs.size() > 1) {
      why = last_line(places_.together_errors(runs_[active.runs.front()]));
    }
    if (code >= 128) why = fmt::format("ended by signal {}", code - 128);
    if (why.empty()) why = fmt::format("exit code {}, {}", code, outcome.text);
    say(index, "FAILED: " + why);
    failed_.push_back(run.name);
  }
}

std::vector<std::string> Sweep::run() {
  claim_folder(places_, grid_);
  for (int slot = jobs_; slot-- > 0;) free_slots_.push_back(static_cast<std::size_t>(slot));
  fmt::print("{} runs, {} at a time with {} thread{} each, in {}\n", runs_.size(),
             static_cast<std::size_t>(jobs_) * together_, threads_, threads_ == 1 ? "" : "s",
             places_.root.string());
  catch_stop_signals();
  const std::vector<Group> waiting = groups();
  std::size_t next = 0;
  while (true) {
    while (!stop_requested() && !free_slots_.empty() && next < waiting.size()) {
      const std::size_t slot = free_slots_.back();
      free_slots_.pop_back();
      start(waiting[next++], slot);
    }
    if (active_.empty()) break;
    end(wait_for_child());
  }
  return failed_;
}

// One line a run, then one a row. Both, and table.md, are the same however the sweep got there.
void Sweep::show() const {
  fmt::print("\n");
  std::vector<results::Run> records;
  for (const SweepRun& run : grid_.runs) {
    const auto same = [&](const SweepRun& mine) { return mine.name == run.name; };
    if (std::ranges::any_of(runs_, same)) {
      fmt::print("{}: {}\n", run.name, outcome_of(places_, run).text);
    }
    if (outcome_of(places_, run).finished) records.push_back(results::read_run(places_.run(run)));
  }
  const std::vector<results::Row> rows = results::make_rows(records);
  write_file_atomically(places_.table(), results::markdown_table(rows));
  if (!rows.empty()) fmt::print("\n{}", results::plain_table(rows));
}

void run_sweep(const SweepFlags& flags) {
  Grid grid = parse_grid(find_recipe(flags.recipe), "grid " + flags.recipe);
  if (flags.list) return list_commands(flags, grid);
  Sweep sweep(flags, std::move(grid));
  const std::vector<std::string> failed = sweep.run();
  sweep.show();
  if (stop_requested()) {
    fmt::print("\nstopped; the same command goes on from here\n");
    throw ExitCode{130};
  }
  check(failed.empty(), "{} of the runs failed: {}", failed.size(), fmt::join(failed, ", "));
}

}  // namespace

void add_sweep_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "sweep", "train every run of a grid; the same command goes on after any interruption");
  auto flags = std::make_shared<SweepFlags>();
  command
      ->add_option("--recipe", flags->recipe,
                   "JSON grid of architectures and settings: a file or a built-in one\n"
                   "(table3_paper, table3_small)")
      ->required();
  command->add_option("--out", flags->out, "folder of the sweep")->required();
  add_number<int>(*command, "--jobs", flags->jobs, "runs at a time; 0: one a core, or one a device",
                  0, 1024);
  add_number<int>(*command, "--together", flags->together,
                  "runs of one architecture that share a process and its GPU", 1, 64);
  command->add_option("--only", flags->only, "i/n: runs i, i + n, ... of the grid alone");
  command->add_option("--devices", flags->devices, "numbers of the GPUs to use, as in 0,1,2");
  command->add_flag("--list", flags->list,
                    "print one command a run, for a scheduler, and run nothing");
  command->callback([flags] { run_sweep(*flags); });
}

}  // namespace hax
