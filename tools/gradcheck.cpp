// hax gradcheck: every differentiable op, every kind of block and small models of every
// architecture beside finite differences in float64; with --device every op there beside the CPU.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/check.h"
#include "models/block_gradcheck.h"
#include "ops/gradcheck.h"
#include "ops/parity.h"
#include "tools/commands.h"

namespace hax {
namespace {

struct GradcheckOptions {
  std::optional<double> tolerance;
  std::string device = "cpu";
};

constexpr const char* kRow = "{:<36} {:<46} {:>8}\n";
constexpr const char* kParityRow = "{:<36} {:<46} {:>8} {:>9} {}\n";

void print_parity(double tolerance, Device device) {
  fmt::print("float32, beside the CPU:\n");
  fmt::print(kParityRow, "op", "case", "result", "gradient", "of");
  double worst = 0;
  std::size_t count = 0, failed = 0;
  for (const GradCase& c : all_gradchecks()) {
    const auto error = check_parity(c, device);
    if (!error) continue;
    const double larger = std::max(error->result, error->gradient);
    fmt::print(kParityRow, c.op, c.what, fmt::format("{:.1e}", error->result),
               fmt::format("{:.1e}", error->gradient),
               error->gradient > 0 ? c.name_of_input(error->input) : "");
    if (larger > tolerance) fmt::print("  FAILED\n");
    worst = std::max(worst, larger);
    ++count;
    failed += larger > tolerance ? 1 : 0;
  }
  fmt::print("{} cases, worst error {:.1e}, {} above {:.0e}\n", count, worst, failed, tolerance);
  if (failed != 0) throw ExitCode{1};
}

void print_gradients(double tolerance) {
  fmt::print(kRow, "op or model", "case", "error");
  double worst = 0;
  std::size_t count = 0, failed = 0;
  for (const auto& cases_of : {all_gradchecks, block_gradchecks}) {
    for (const GradCase& c : cases_of()) {
      const GradError error = check_gradient(c);
      const bool ok = error.worst <= tolerance;
      fmt::print(kRow, c.op, c.what, fmt::format("{:.1e}", error.worst));
      if (!ok) fmt::print("  FAILED at {}\n", c.name_of_input(error.input));
      worst = std::max(worst, error.worst);
      ++count;
      if (!ok) ++failed;
    }
  }
  fmt::print("{} cases, worst error {:.1e}, {} above {:.0e}\n", count, worst, failed, tolerance);
  if (failed != 0) throw ExitCode{1};
}

void run_gradcheck(const GradcheckOptions& options) {
  if (const auto tolerance = options.tolerance) {
    check_usage(std::isfinite(*tolerance) && *tolerance > 0, "--tol {}: expected a positive number",
                *tolerance);
  }
  const Device device = parse_device(options.device);
  if (device.is_cpu()) {
    print_gradients(options.tolerance.value_or(1e-6));
  } else {
    print_parity(options.tolerance.value_or(1e-5), device);
  }
}

}  // namespace

void add_gradcheck_command(CLI::App& app) {
  auto* command = app.add_subcommand("gradcheck",
                                     "compare the gradients of every op, block and small model "
                                     "with finite differences in float64");
  auto options = std::make_shared<GradcheckOptions>();
  command->add_option("--tol", options->tolerance,
                      "largest accepted error (default 1e-6; with a device 1e-5)");
  command
      ->add_option("--device", options->device,
                   "cuda: every op there beside the CPU, in float32, instead")
      ->capture_default_str();
  command->callback([options] { run_gradcheck(*options); });
}

}  // namespace hax
