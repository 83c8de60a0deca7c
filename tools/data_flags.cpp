#include "tools/data_flags.h"

void TaskOptions::add_to(CLI::App& app) {
  const std::string group = "Task";
  app.add_option("--contexts", contexts_, "Contexts a:b of every level but the last [5:16]")
      ->group(group);
  app.add_option("--keys", keys_, "Keys a:b in a context [5:16]")->group(group);
  add_number<std::optional<std::int32_t>, std::int32_t>(app, "--values", values_,
                                                        "Size of the value vocabulary [16]")
      ->group(group);
  add_number<std::optional<std::int32_t>, std::int32_t>(
      app, "--levels", levels_,
      "Levels of nesting, the keys included: 1 is associative recall, 2 joint recall [2]")
      ->group(group);
}

hax::TaskFlags TaskOptions::flags() const {
  hax::TaskFlags flags{.levels = levels_, .contexts = {}, .keys = {}, .values = values_};
  if (contexts_) flags.contexts = hax::parse_range(*contexts_, "--contexts");
  if (keys_) flags.keys = hax::parse_range(*keys_, "--keys");
  return flags;
}

hax::JointRecallTask TaskOptions::task() const {
  const hax::TaskFlags given = flags();
  return hax::make_task(given.levels.value_or(2), given.contexts, given.keys,
                        given.values.value_or(16));
}
