#include "tools/settings.h"

#include <algorithm>

#include "tools/data_flags.h"

namespace hax {
namespace {

bool has_default_elsewhere(std::string_view name) {
  return name == "sparse_keys" || name == "num_hash" || name == "data_max_length";
}

}  // namespace

void SettingFlags::add_to(CLI::App& command, const std::function<bool(std::string_view)>& wanted,
                          const std::string& otherwise) {
  for (const OptionSpec& spec : option_specs()) {
    if (!wanted(spec.name)) continue;
    const std::string flag = std::string("--") + spec.name;
    std::visit(
        [&](auto member) {
          auto& value = values_.*member;
          if constexpr (std::is_same_v<decltype(value), std::int64_t&>) {
            // For these 0 means "as the configuration says", which is said by leaving the flag out.
            const std::int64_t least = has_default_elsewhere(spec.name) ? 1 : spec.least;
            flags_.emplace_back(
                add_number<std::int64_t>(command, flag, value, spec.help, least, spec.most), &spec);
          } else {
            flags_.emplace_back(command.add_option(flag, value, spec.help)->capture_default_str(),
                                &spec);
          }
        },
        spec.member);
    if (!otherwise.empty()) flags_.back().first->default_str(otherwise);
    if (otherwise.empty() && (flag == "--contexts" || flag == "--keys")) {
      flags_.back().first->default_str("5:16");
    }
  }
}

void SettingFlags::apply(TrainOptions& options,
                         const std::function<void(std::string_view)>& on_given) const {
  for (const auto& [flag, spec] : flags_) {
    if (flag->count() == 0) continue;
    if (on_given) on_given(spec->name);
    std::visit([&](auto member) { options.*member = values_.*member; }, spec->member);
  }
  // One level has no contexts: those of a recipe or a run go, those of a flag are refused later.
  const auto given = [&](std::string_view name) {
    return std::ranges::any_of(
        flags_, [&](const auto& f) { return f.second->name == name && f.first->count() != 0; });
  };
  if (given("levels") && options.levels == 1 && !given("contexts")) options.contexts.clear();
}

}  // namespace hax
