// hax: one binary, one subcommand a file. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped
// by Ctrl-C.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "engine/check.h"
#include "models/config.h"
#include "tools/commands.h"

namespace {

// One line, whatever a name or a file's text brings into the message.
int fail(std::string_view message, int code) {
  std::string line;
  for (const char c : message) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      line += c == '\n' ? std::string("\\n") : fmt::format("\\x{:02x}", c);
    } else {
      line += c;
    }
  }
  std::fflush(stdout);
  fmt::print(stderr, "hax: {}\n", line);
  return code;
}

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

// The parser's message in our words; it names flags in fixed places.
std::string reworded(const CLI::ParseError& error, const CLI::App& level) {
  const std::string text = error.what(), name = text.substr(0, text.find_first_of(": "));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    return text.find("received") == std::string::npos ? name + " needs a value"
                                                      : name + " is given more than once";
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    if (name.starts_with("-") || command_names(level).empty()) return name + " is missing";
    return fmt::format("a command is missing, one of {}", fmt::join(command_names(level), ", "));
  }
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) {
    const std::size_t from = text.find("--"), equals = text.find(" = ");
    if (from != std::string::npos && equals != std::string::npos) {
      return fmt::format("{} '{}': expected a number", text.substr(from, equals - from),
                         text.substr(equals + 3));
    }
  }
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    return fmt::format("'{}' is one word too many", text.substr(text.rfind(": ") + 2));
  }
  return text;
}

// What is wrong with a command line, with the nearest right word where one is not known.
std::string describe(const CLI::ParseError& error, const CLI::App& app, int argc, char** argv) {
  const CLI::App* level = &app;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with("--")) {
      const std::string name = word.substr(0, word.find('='));
      const std::vector<std::string> names = flag_names(*level);
      if (std::ranges::count(names, name) == 0) {
        return fmt::format("unknown flag {}{}", name, hax::suggest(name, names));
      }
      continue;
    }
    const std::vector<std::string> names = command_names(*level);
    if (names.empty()) continue;  // a flag's value or a file name
    const CLI::App* next = find_command(*level, word);
    if (next == nullptr) {
      return fmt::format("unknown command '{}'{}", word, hax::suggest(word, names));
    }
    level = next;
  }
  return fmt::format("{} (see hax --help)", reworded(error, *level));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"hax trains state-space models with context-dependent sparse attention."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "hax 0.1.0");
  try {
    hax::add_train_command(app);
    hax::add_eval_command(app);
    hax::add_bench_command(app);
    hax::add_sweep_command(app);
    hax::add_report_command(app);
    hax::add_data_command(app);
    hax::add_inspect_command(app);
    hax::add_list_command(app);
    hax::add_verify_command(app);
    hax::add_explain_command(app);
    hax::add_gradcheck_command(app);
    hax::add_prove_command(app);
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    return fail(describe(error, app, argc, argv), 2);
  } catch (const hax::ExitCode& exit) {
    return exit.code;
  } catch (const hax::UsageError& error) {
    return fail(error.what(), 2);
  } catch (const std::bad_alloc&) {
    return fail("out of memory: use a smaller batch or model", 1);
  } catch (const std::exception& error) {
    return fail(error.what(), 1);
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return fail("cannot write the output", 1);
  }
  return 0;
}
