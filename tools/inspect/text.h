// An Inspection (train/inspection.h) as text for other tools and for the browser.
#pragma once

#include <functional>
#include <string>

#include "models/embedded_configs.h"
#include "train/inspection.h"

namespace hax {

/// page.html, page.css and page.js of tools/inspect/, compiled in.
std::span<const EmbeddedText> embedded_inspect();

namespace inspect {

using TokenLabel = std::function<std::string(std::int32_t)>;

/// One JSON object; docs/inspect.md says what is in it. `title` says what was run.
std::string to_json(const Inspection& inspection, const std::string& title,
                    const TokenLabel& label);
/// The graph for Graphviz, a cluster a scope.
std::string to_dot(const Inspection& inspection);
/// One page that needs nothing else, around that JSON.
std::string to_html(const Inspection& inspection, const std::string& title,
                    const TokenLabel& label);

/// The formula of an op, from its page: lines between line feeds, "" when it has none.
std::string formula_of(const std::string& op);

}  // namespace inspect
}  // namespace hax
