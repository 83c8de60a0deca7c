// The files of tools/peers/, compiled in so that the binary stands alone.
#pragma once

#include "models/embedded_configs.h"

namespace hax {

std::span<const EmbeddedText> embedded_peers();

}  // namespace hax
