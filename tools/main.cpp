#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "engine/check.h"
#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app(
      "Deep-learning engine for state-space models with context-dependent sparse attention", "hax");
  app.require_subcommand(1);
  try {
    add_data_command(app);
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    fmt::print(stderr, "hax: {}\n", what);
    return 2;
  } catch (const hax::UsageError& error) {
    fmt::print(stderr, "hax: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "hax: {}\n", error.what());
    return 1;
  }
  return 0;
}
