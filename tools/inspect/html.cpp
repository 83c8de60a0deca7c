#include "tools/inspect/text.h"

#include <fmt/format.h>

#include "engine/check.h"

namespace hax::inspect {
namespace {

constexpr std::size_t kMostBytes = 4'800'000;  // of a page

std::string_view part(std::string_view name) {
  for (const EmbeddedText& text : embedded_inspect()) {
    if (text.name == name) return text.text;
  }
  throw Error("the inspector's page has lost a part");
}

void replace(std::string& text, std::string_view what, std::string_view with) {
  const std::size_t at = text.find(what);
  check(at != std::string::npos, "the inspector's page has no place for {}", what);
  text.replace(at, what.size(), with);
}

// JSON inside <script>: nothing in it may look like the end of the script.
std::string inside_script(const std::string& json) {
  std::string text;
  text.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

std::string to_html(const Inspection& inspection, const std::string& title,
                    const TokenLabel& label) {
  std::string page(part("page"));
  for (const std::string_view name : {"style", "graph", "arcs", "heat", "pictures", "main"}) {
    replace(page, fmt::format("/*{}*/", name), part(name));
  }
  // '<' inside it grows to six characters; there are few, in labels alone.
  replace(page, "/*data*/",
          inside_script(to_page_json(inspection, title, label, kMostBytes - page.size())));
  return page;
}

}  // namespace hax::inspect
