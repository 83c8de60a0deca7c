// hax gradcheck: every differentiable op beside finite differences in float64.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "ops/gradcheck.h"
#include "tools/commands.h"

namespace hax {
namespace {

void run_gradcheck(double tolerance) {
  check_usage(std::isfinite(tolerance) && tolerance > 0, "--tol {}: expected a positive number",
              tolerance);
  fmt::print("{:<24} {:<46} {:>10}\n", "op", "case", "error");
  double worst = 0;
  std::size_t failed = 0;
  const std::vector<GradCase> cases = all_gradchecks();
  for (const GradCase& c : cases) {
    const GradError error = check_gradient(c);
    const bool ok = error.worst <= tolerance;
    fmt::print("{:<24} {:<46} {:>10.1e}{}\n", c.op, c.what, error.worst,
               ok ? "" : fmt::format("  FAILED at input {}", error.input));
    worst = std::max(worst, error.worst);
    if (!ok) ++failed;
  }
  fmt::print("{} cases, worst error {:.1e}, {} above {:.0e}\n", cases.size(), worst, failed,
             tolerance);
  if (failed != 0) throw ExitCode{1};
}

}  // namespace

void add_gradcheck_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "gradcheck", "compare every op's gradient with finite differences in float64");
  auto tolerance = std::make_shared<double>(1e-6);
  command->add_option("--tol", *tolerance, "largest accepted error")->capture_default_str();
  command->callback([tolerance] { run_gradcheck(*tolerance); });
}

}  // namespace hax
