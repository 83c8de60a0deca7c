#include "tools/settings.h"

#include "tools/data_flags.h"

namespace hax {
namespace {

bool has_default_elsewhere(std::string_view name) {
  return name == "sparse_keys" || name == "num_hash" || name == "data_max_length";
}

}  // namespace

void SettingFlags::add_to(CLI::App& command, const std::function<bool(std::string_view)>& wanted) {
  for (const OptionSpec& spec : option_specs()) {
    if (!wanted(spec.name)) continue;
    const std::string flag = std::string("--") + spec.name;
    std::visit(
        [&](auto member) {
          auto& value = values_.*member;
          if constexpr (std::is_same_v<decltype(value), std::int64_t&>) {
            // For these 0 means "as the configuration says", which is said by leaving the flag out.
            const bool positive = has_default_elsewhere(spec.name);
            flags_.emplace_back(add_number<std::int64_t>(command, flag, value, spec.help,
                                                         std::int64_t{positive ? 1 : 0}),
                                &spec);
          } else {
            flags_.emplace_back(command.add_option(flag, value, spec.help)->capture_default_str(),
                                &spec);
          }
        },
        spec.member);
  }
}

void SettingFlags::apply(TrainOptions& options,
                         const std::function<void(std::string_view)>& on_given) const {
  for (const auto& [flag, spec] : flags_) {
    if (flag->count() == 0) continue;
    if (on_given) on_given(spec->name);
    std::visit([&](auto member) { options.*member = values_.*member; }, spec->member);
  }
}

}  // namespace hax
