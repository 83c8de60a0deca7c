// The pages of ops/, compiled into the binary so that it explains itself anywhere.
#pragma once

#include "models/embedded_configs.h"

namespace hax {

/// ops/<op>/<op>.md under the name <op>.
std::span<const EmbeddedText> embedded_pages();

}  // namespace hax
