// hax verify: fixtures of an independent float64 implementation against this engine.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "engine/check.h"
#include "tools/commands.h"
#include "train/fixture.h"

namespace hax {
namespace {

struct VerifyOptions {
  std::vector<std::string> files;
  std::optional<double> tolerance;  // by default that of the precision
  std::string device = "cpu";
  bool float64 = false;
  bool verbose = false;
};

double tolerance_for(const VerifyOptions& options, const FixtureReport& report) {
  if (options.tolerance) return *options.tolerance;
  if (!options.float64) return 1e-4;
  return report.stored_as_float64 ? 1e-9 : 1e-6;
}

void print_all(const char* how, const std::vector<FixtureError>& errors) {
  for (const FixtureError& e : errors)
    fmt::print("    {:<10} {:<60} {:.1e}\n", how, e.what, e.error);
}

// Prints one line a file; true when it passed.
bool verify_file(const std::string& path, const VerifyOptions& options) {
  const std::string name = std::filesystem::path(path).stem().string();
  try {
    const FixtureReport report = check_fixture(
        path, options.float64 ? DType::float64 : DType::float32, parse_device(options.device));
    const double tolerance = tolerance_for(options, report);
    const FixtureError all = worst_of(report.all_rows), training = worst_of(report.as_training);
    const bool ok = all.error <= tolerance && training.error <= tolerance;
    fmt::print("{} {:<62} all rows {:.1e} ({}), as trained {:.1e} ({}), tolerance {:.0e}\n",
               ok ? "ok    " : "FAILED", name, all.error, all.what, training.error, training.what,
               tolerance);
    if (options.verbose) {
      print_all("all rows", report.all_rows);
      print_all("as trained", report.as_training);
    }
    return ok;
  } catch (const Error& error) {
    fmt::print("FAILED {:<62} {}\n", name, error.what());
    return false;
  }
}

void run_verify(const VerifyOptions& options) {
  if (const auto tol = options.tolerance) {
    check_usage(std::isfinite(*tol) && *tol > 0, "--tol {}: expected a positive number", *tol);
  }
  check_usage(parse_device(options.device).is_cpu() || !options.float64,
              "--float64 runs on the CPU only; leave out --device {}", options.device);
  std::size_t passed = 0;
  for (const std::string& path : options.files) passed += verify_file(path, options) ? 1 : 0;
  fmt::print("{} of {} files within tolerance\n", passed, options.files.size());
  if (passed != options.files.size()) throw ExitCode{1};
}

}  // namespace

void add_verify_command(CLI::App& app) {
  auto* command =
      app.add_subcommand("verify", "compare losses, sets and every gradient with fixture files");
  auto options = std::make_shared<VerifyOptions>();
  command->add_option("files", options->files, "fixture files (.safetensors)")->required();
  command->add_option("--tol", options->tolerance,
                      "largest accepted error (default 1e-4; with --float64 1e-6, or 1e-9 for "
                      "files stored as float64)");
  command->add_option("--device", options->device, "cpu (or cuda in a build with it)")
      ->capture_default_str();
  command->add_flag("--float64", options->float64, "compute in double precision");
  command->add_flag("--verbose", options->verbose, "print every compared tensor");
  command->callback([options] { run_verify(*options); });
}

}  // namespace hax
