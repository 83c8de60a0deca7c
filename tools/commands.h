// The subcommands of hax, one file each.
#pragma once

#include <CLI/CLI.hpp>

/// `hax data generate | show | verify | import | export`
void add_data_command(CLI::App& app);
