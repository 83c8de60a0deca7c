// hax gradcheck: every differentiable op, every kind of block and small models of every
// architecture beside finite differences in float64.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "models/block_gradcheck.h"
#include "ops/gradcheck.h"
#include "tools/commands.h"

namespace hax {
namespace {

constexpr const char* kRow = "{:<36} {:<46} {:>8}\n";

void run_gradcheck(double tolerance) {
  check_usage(std::isfinite(tolerance) && tolerance > 0, "--tol {}: expected a positive number",
              tolerance);
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

}  // namespace

void add_gradcheck_command(CLI::App& app) {
  auto* command = app.add_subcommand("gradcheck",
                                     "compare the gradients of every op, block and small model "
                                     "with finite differences in float64");
  auto tolerance = std::make_shared<double>(1e-6);
  command->add_option("--tol", *tolerance, "largest accepted error")->capture_default_str();
  command->callback([tolerance] { run_gradcheck(*tolerance); });
}

}  // namespace hax
