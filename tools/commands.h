// The subcommands of `hax`: one file each. A command declares its flags here and runs from its
// callback.
#pragma once

#include <CLI/CLI.hpp>

namespace hax {

void add_bench_command(CLI::App& app);
void add_data_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_explain_command(CLI::App& app);
void add_gradcheck_command(CLI::App& app);
void add_inspect_command(CLI::App& app);
void add_list_command(CLI::App& app);
void add_prove_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_sweep_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_verify_command(CLI::App& app);

/// Thrown by a command that has printed its own result and only wants an exit code.
struct ExitCode {
  int code;
};

}  // namespace hax
