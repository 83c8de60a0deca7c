#include "tools/train_together.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "engine/check.h"
#include "engine/cuda/lane.h"
#include "engine/device.h"
#include "engine/files.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace hax {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Member {
  std::string recipe, folder, errors;
  TrainOptions options;
  bool resumed = false;
};

void accept(std::string_view name) {
  check_usage(name == "threads" || name == "device" || name == "log_step" || name == "graph",
              "--{} cannot go with --together: the recipes of its runs say it (only --device, "
              "--threads, --graph and --log_step can)",
              name);
}

std::vector<Member> read_list(const std::string& path, const SettingFlags& flags) {
  const Json list = Json::parse(read_file(path), nullptr, false);
  check_usage(list.is_array() && !list.empty(),
              "--together {}: expected [{{\"recipe\": file, \"save_dir\": folder}}, ...]", path);
  std::vector<Member> members;
  for (const Json& entry : list) {
    const auto text = [&](const char* key) {
      return entry.is_object() && entry.contains(key) && entry[key].is_string()
                 ? entry[key].get<std::string>()
                 : std::string();
    };
    Member member{text("recipe"), text("save_dir"), text("errors"), {}, false};
    check_usage(!member.recipe.empty() && !member.folder.empty(),
                "--together {}: entry {} names no \"recipe\" or no \"save_dir\"", path,
                members.size() + 1);
    const auto same = [&](const Member& other) { return other.folder == member.folder; };
    check_usage(std::ranges::none_of(members, same), "--together {}: {} is there twice", path,
                member.folder);
    member.resumed = fs::exists(existing_checkpoint(fs::path(member.folder) / "last"));
    if (member.resumed) {
      member.options = options_of_run(member.folder);
    } else {
      apply_recipe(find_recipe(member.recipe), "recipe " + member.recipe, member.options);
      member.options.save_dir = member.folder;
    }
    flags.apply(member.options, accept);
    check_usage(member.options.device == "cuda",
                "--together is for runs that share a GPU: it needs --device cuda; on the CPU each "
                "run is a process of its own");
    member.options.validate();
    members.push_back(std::move(member));
  }
  parse_device("cuda");  // refused once, not by every run
  return members;
}

RunResult train(const Member& member, const std::atomic<bool>& stop) {
  Trainer trainer = member.resumed ? Trainer::resume(member.folder, member.options)
                                   : Trainer::start(member.options);
  return trainer.run(stop, nullptr);
}

RunResult train_in_lane(const Member& member, const std::atomic<bool>& stop) {
  if constexpr (kHasCuda) {
    const cuda::Lane lane;
    return train(member, stop);
  } else {
    return train(member, stop);
  }
}

// How the runs ended, told as they do.
class Ends {
 public:
  void finished(const Member& member, const RunResult& result) {
    say(member,
        result.finished
            ? fmt::format("test accuracy {:.2f} %, validation {:.2f} % (step {})",
                          100 * result.test_accuracy, 100 * result.valid_accuracy, result.best_step)
            : fmt::format("stopped at step {} and saved", result.step));
    const std::scoped_lock lock(mutex_);
    all_finished_ = all_finished_ && result.finished;
  }
  void failed(const Member& member, const std::string& why) {
    say(member, "FAILED: " + why);
    const std::scoped_lock lock(mutex_);
    failed_.push_back(member.folder);
    if (member.errors.empty()) return;
    try {
      write_file_atomically(member.errors, "hax: " + why + "\n");
    } catch (const Error& error) {
      fmt::print(stderr, "hax: {}\n", error.what());
    }
  }
  bool all_finished() const { return all_finished_; }
  const std::vector<std::string>& failures() const { return failed_; }

 private:
  void say(const Member& member, const std::string& text) {
    const std::scoped_lock lock(mutex_);
    fmt::print("{}: {}\n", member.folder, text);
    std::fflush(stdout);
  }

  std::mutex mutex_;
  bool all_finished_ = true;
  std::vector<std::string> failed_;
};

}  // namespace

bool train_together(const std::string& list, const SettingFlags& flags,
                    const std::atomic<bool>& stop) {
  std::vector<Member> members = read_list(list, flags);
  const std::int64_t share = std::max<std::int64_t>(1, omp_get_max_threads() / std::ssize(members));
  Ends ends;
  std::vector<std::thread> threads;
  for (Member& member : members) {
    if (member.options.threads == 0) member.options.threads = share;
    threads.emplace_back([&member, &ends, &stop] {
      try {
        ends.finished(member, train_in_lane(member, stop));
      } catch (const std::exception& error) {
        ends.failed(member, error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  check(ends.failures().empty(), "{} of {} runs failed: {}", ends.failures().size(), members.size(),
        fmt::join(ends.failures(), ", "));
  return ends.all_finished();
}

}  // namespace hax
