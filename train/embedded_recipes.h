// The files of train/recipes/, compiled in so that the binary stands alone.
#pragma once

#include "models/embedded_configs.h"

namespace hax {

std::span<const EmbeddedText> embedded_recipes();

}  // namespace hax
