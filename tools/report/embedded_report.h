// The files of tools/report/ that are no code, compiled in so that the binary stands alone:
// style.css, and paper_table3.json with the paper's numbers.
#pragma once

#include "models/embedded_configs.h"

namespace hax {

std::span<const EmbeddedText> embedded_report();

namespace results {
/// One of them by its name without the extension.
std::string_view report_text(std::string_view name);
}  // namespace results

}  // namespace hax
