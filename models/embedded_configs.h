// The files of models/configs/, compiled into the library so that the binary stands alone.
#pragma once

#include <span>
#include <string_view>

namespace hax {

struct EmbeddedText {
  std::string_view name;  ///< file name without its extension
  std::string_view text;
};

std::span<const EmbeddedText> embedded_configs();

}  // namespace hax
