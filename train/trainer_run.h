// A run at work: what the trainer keeps between steps. Private to trainer.cpp and trainer_step.cpp.
#pragma once

#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/memory.h"
#include "train/device_step.h"
#include "train/reporter.h"
#include "train/run_costs.h"
#include "train/run_files.h"
#include "train/trainer.h"

namespace hax {

struct Trainer::Run {
  TrainOptions options;
  std::filesystem::path folder;
  std::optional<FolderLock> lock;
  std::unique_ptr<Task> task;
  std::unique_ptr<Model> model;
  Device device;
  std::unique_ptr<Parameters> parameters, gradients;
  std::unique_ptr<AdamW> optimizer;
  RunState state;
  RunState saved{.step = -1};  // what last/ holds
  RunCosts costs;
  std::unique_ptr<DeviceSteps> device_steps;  // on CUDA, from the first step on; uses the others
  std::string why_no_graphs;                  // as far as it has been told

  // A resumed run takes its model from the run folder.
  Run(const TrainOptions& chosen, const std::optional<ModelConfig>& config)
      : options(chosen), folder(chosen.save_dir) {
    options.validate();
    if (options.threads > 0) omp_set_num_threads(static_cast<int>(options.threads));
    task = open_task(options);
    model = std::make_unique<Model>(config ? *config : options.model_config(task->vocab_size()));
    device = parse_device(options.device);
    parameters = std::make_unique<Parameters>(model->parameters(), DType::float32, device);
    gradients = std::make_unique<Parameters>(model->parameters(), DType::float32, device);
    optimizer = std::make_unique<AdamW>(
        model->parameters(),
        AdamWOptions{options.beta1, options.beta2, options.adam_eps, options.weight_decay}, device);
  }

  void save() {
    if (saved == state) return;
    save_run(folder / "last", *model, *parameters, *optimizer, state);
    saved = state;
    costs.peak_bytes = std::max(costs.peak_bytes, memory_stats(device).peak_bytes_in_use);
    write_costs(folder / "costs.json", costs);
  }

  std::string model_name() const {
    return options.config.empty() ? options.base_arch : model->config().model_type;
  }

  bool validation_is_due(bool at_end) const {
    const bool due = at_end || state.step % options.valid_step == 0;
    return due && state.step > state.validated_step;
  }

  std::string prepare_memory() const;
  Batch batch_of(std::int64_t number) const;
  StepOutcome step_on_cpu(const RandomInputs& random, const UpdateOptions& update);
  StepOutcome step_on_cuda(const RandomInputs& random, const UpdateOptions& update);
  StepResult train_step(MetricsFile& metrics);
  void validate(MetricsFile& metrics, Reporter& reporter, const std::function<bool()>& stop);
  RunResult finish(MetricsFile& metrics, Reporter& reporter, const std::function<bool()>& stop);
  [[noreturn]] void fail_nonfinite(std::int64_t step, const std::string& what,
                                   const std::string& where) const;
  StepResult evaluate_finite(Split split, const std::function<bool()>& stop) const;
};

}  // namespace hax
