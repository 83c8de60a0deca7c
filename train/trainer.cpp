#include "train/trainer_run.h"

#include <omp.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/files.h"
#include "engine/memory.h"
#include "train/evaluate.h"
#include "train/reporter.h"

namespace hax {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

// Adds the seconds of a block of code to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum) {}
  ~Stopwatch() {
    sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

void Trainer::Run::validate(MetricsFile& metrics, Reporter& reporter,
                            const std::function<bool()>& stop) {
  const StepResult result = [&] {
    const Stopwatch watch(costs.evaluation_seconds);
    return evaluate_finite(Split::valid, stop);
  }();
  if (stop()) return;  // unfinished: the step will be validated again after resuming
  state.validated_step = state.step;
  metrics.append(Json{
      {"step", state.step}, {"valid_loss", result.lm_loss}, {"valid_accuracy", result.accuracy}}
                     .dump());
  const bool best = result.accuracy > state.best_accuracy;
  if (best) {
    state.best_accuracy = result.accuracy;
    state.best_step = state.step;
    save_model(folder / "best", *model, *parameters);
  }
  reporter.line(fmt::format("validation at step {}: accuracy {:.2f} %, loss {:.4f}{}", state.step,
                            100 * result.accuracy, result.lm_loss,
                            best ? ", the best so far" : ""));
}

RunResult Trainer::Run::finish(MetricsFile& metrics, Reporter& reporter,
                               const std::function<bool()>& stop) {
  const LoadedModel best = load_model(folder / "best", device);
  Breakdown breakdown;
  const StepResult test = evaluate(*best.model, *best.parameters, *task, Split::test,
                                   static_cast<std::uint64_t>(options.seed), stop, &breakdown);
  RunResult result{.step = state.step,
                   .best_step = state.best_step,
                   .valid_accuracy = state.best_accuracy,
                   .test_accuracy = test.accuracy,
                   .test_loss = test.lm_loss};
  if (stop()) return result;
  result.finished = true;
  metrics.append(Json{{"step", state.step},
                      {"best_step", state.best_step},
                      {"test_loss", test.lm_loss},
                      {"test_accuracy", test.accuracy}}
                     .dump());
  const Json json{{"base_arch", model_name()},
                  {"sparse_arch", model->config().sparse_arch},
                  {"parameters", model->parameters().count()},
                  {"lr", options.lr},
                  {"seed", options.seed},
                  {"step", state.step},
                  {"best_step", state.best_step},
                  {"valid_accuracy", state.best_accuracy},
                  {"test_samples", test.samples},
                  {"test_loss", test.lm_loss},
                  {"test_accuracy", test.accuracy}};
  // First, so that a finished run has it.
  write_file_atomically(folder / "breakdown.json", breakdown.to_json());
  write_file_atomically(folder / "result.json", json.dump(2) + "\n");
  reporter.line(fmt::format("test: accuracy {:.2f} %, loss {:.4f} ({} samples, model of step {})",
                            100 * test.accuracy, test.lm_loss, test.samples, state.best_step));
  return result;
}

Trainer::Trainer(std::unique_ptr<Run> run) : run_(std::move(run)) {}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;

namespace {

constexpr const char* kTaskFile = "task.json";

void write_task(const fs::path& folder, const Task& task) {
  const Json json{{"task", task.describe()}, {"fingerprint", task.fingerprint()}};
  write_file_atomically(folder / kTaskFile, json.dump(2) + "\n");
}

void require_same_task(const fs::path& folder, const Task& task) {
  const fs::path path = folder / kTaskFile;
  const Json json = Json::parse(read_file(path), nullptr, false);
  check(json.is_object() && json.contains("fingerprint"), "{}: not valid JSON with a fingerprint",
        path.string());
  check(json["fingerprint"] == task.fingerprint(),
        "{} has changed since {} was started: a resumed run needs the same samples",
        task.describe(), folder.string());
}

}  // namespace

Trainer Trainer::start(const TrainOptions& options) {
  check_usage(!options.save_dir.empty(), "--save_dir is missing: the folder for this run");
  const fs::path folder = options.save_dir;
  // A run that ended before its first checkpoint left nothing to continue.
  check_usage(!fs::exists(existing_checkpoint(folder / "last")),
              "--save_dir {} already holds a run; continue it with --resume {} or choose another "
              "folder",
              folder.string(), folder.string());
  TrainOptions kept = options;
  if (!kept.data_dir.empty()) kept.data_dir = fs::absolute(kept.data_dir).lexically_normal();
  auto run = std::make_unique<Run>(kept, std::nullopt);
  run->parameters->initialize(static_cast<std::uint64_t>(options.seed));
  make_directories(folder);
  run->lock.emplace(folder);
  write_file_atomically(folder / "config.json", to_json(run->model->config()));
  write_task(folder, *run->task);
  write_file_atomically(folder / "recipe.json", to_json(kept));
  return Trainer(std::move(run));
}

Trainer Trainer::resume(const fs::path& folder, const TrainOptions& options) {
  const std::string config = folder / "config.json";
  auto run = std::make_unique<Run>(options, parse_config(read_file(config), config));
  run->folder = folder;
  run->lock.emplace(folder);
  require_same_task(folder, *run->task);
  const fs::path last = existing_checkpoint(folder / "last");
  if (fs::exists(last)) {
    run->state = load_run(last, *run->model, *run->parameters, *run->optimizer);
    run->costs = read_costs(folder / "costs.json");
    run->saved = run->state;
  } else {
    run->parameters->initialize(static_cast<std::uint64_t>(options.seed));  // stopped before a save
  }
  check_usage(options.step >= run->state.step, "--step {}: this run already stands at step {}",
              options.step, run->state.step);
  write_file_atomically(folder / "recipe.json", to_json(options));
  return Trainer(std::move(run));
}

// Fetches the tensors' memory before the first step and says how much that is.
std::string Trainer::Run::prepare_memory() const {
  if (!device.is_cpu()) return "memory: fetched from the device as it is needed";
  const SequenceBounds bounds = task->bounds();
  const StepMemoryModel memory(*model);
  if (!memory.predicts()) {
    release_cached_memory(kCpu);
    return "memory: not predicted (what a step asks for depends on its data); fetched as it is "
           "needed";
  }
  const StepSizes sizes{bounds.least, bounds.most, options.bsz * options.grad_acc, options.shards,
                        omp_get_max_threads()};
  const StepMemory step = memory.predict(sizes);
  release_cached_memory(kCpu);
  // Very long sequences of very different lengths: what is fetched for all of them may be more than
  // there is. Then steps fetch what they need as they come.
  const std::int64_t physical = ::sysconf(_SC_PHYS_PAGES) * ::sysconf(_SC_PAGESIZE);
  const bool fits = step.reserved < physical / 2;
  if (fits) memory.reserve(sizes);
  const auto megabytes = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  return fmt::format(
      "memory: at most about {:.1f} MB for a step ({:.1f} MB for each of {} sequences at once, "
      "{:.1f} "
      "MB parameters, gradients and batch); {}",
      megabytes(step.peak()), megabytes(step.sequence), step.at_once,
      megabytes(step.peak() - step.at_once * step.sequence),
      fits ? fmt::format("{:.0f} MB held for sequences of all lengths", megabytes(step.reserved))
           : std::string("fetched as it is needed"));
}

RunResult Trainer::run(const std::atomic<bool>& stop_flag, std::FILE* out) {
  Run& run = *run_;
  const auto stop = [&stop_flag] { return stop_flag.load(); };
  const LogFile log(run.folder / "log.txt");
  std::string damage;
  MetricsFile metrics(run.folder / "metrics.jsonl", run.state.step, run.state.validated_step,
                      &damage);
  Reporter reporter(out, log.handle(), run.options.step, run.options.log_step);
  reporter.line(fmt::format(
      "{} + {}: {} parameters, {}; {}", run.options.base_arch, run.model->config().sparse_arch,
      run.model->parameters().count(),
      run.state.step == 0 ? "new run" : fmt::format("resumed at step {}", run.state.step),
      run.task->describe()));
  if (!damage.empty()) reporter.line(damage);
  reporter.line(run.prepare_memory());
  reset_peak_memory(run.device);
  while (!stop()) {
    const bool at_end = run.state.step >= run.options.step;
    if (run.validation_is_due(at_end)) {
      run.validate(metrics, reporter, stop);
      if (!stop()) run.save();
    } else if (at_end) {
      break;
    } else {
      const StepResult result = [&] {
        const Stopwatch watch(run.costs.seconds);
        return run.train_step(metrics);
      }();
      if (run.device_steps && run.why_no_graphs != run.device_steps->why_no_graphs()) {
        run.why_no_graphs = run.device_steps->why_no_graphs();
        reporter.line("steps are queued launch by launch from here on: " + run.why_no_graphs);
      }
      ++run.costs.steps;
      run.costs.tokens += result.tokens;
      reporter.step(run.state.step, result);
    }
  }
  RunResult result{.step = run.state.step, .best_step = run.state.best_step};
  if (!stop()) result = run.finish(metrics, reporter, stop);
  if (!result.finished) {
    run.save();
    reporter.line(fmt::format("stopped at step {} and saved; continue with hax train --resume {}",
                              run.state.step, run.folder.string()));
  }
  return result;
}

TrainOptions options_of_run(const fs::path& folder) {
  const fs::path recipe = folder / "recipe.json";
  check(fs::exists(recipe), "{} is not a run folder: it has no recipe.json", folder.string());
  TrainOptions options;
  apply_recipe(read_file(recipe), recipe.string(), options);
  options.save_dir = folder.string();
  return options;
}

}  // namespace hax
