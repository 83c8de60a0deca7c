#include "engine/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "engine/check.h"

namespace hax::safetensors {
namespace {

using Json = nlohmann::json;

// Follows the header as it is parsed and refuses the first thing that does not belong there. No
// tree of it is ever built, so hostile nesting costs nothing and repeated keys are seen.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  Header take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::header;
    } else if (place_ == Place::header && key_ == kMetadata) {
      place_ = Place::metadata;
    } else if (place_ == Place::header) {
      place_ = Place::entry;
      header_.entries.emplace_back().name = key_;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(std::string& text) override {
    key_ = text;
    bool is_new = true;
    if (place_ == Place::header) {
      is_new = names_.insert(text).second;
    } else if (place_ == Place::metadata) {
      is_new = !header_.metadata.contains(text);
    } else if (text == "dtype") {
      is_new = !entry().type.has_value();
    } else if (text == "shape") {
      is_new = !entry().shape.has_value();
    } else if (text == "data_offsets") {
      is_new = !entry().offsets.has_value();
    } else {
      refuse("tensor {} has the field {}, expected dtype, shape and data_offsets only",
             quote(entry().name), quote(text));
    }
    if (!is_new) refuse("{} holds the key {} twice", holder(), quote(text));
    return true;
  }

  bool end_object() override {
    if (place_ == Place::entry) {
      const char* missing = !entry().type      ? "dtype"
                            : !entry().shape   ? "shape"
                            : !entry().offsets ? "data_offsets"
                                               : nullptr;
      if (missing) refuse("tensor {} has no {}", quote(entry().name), missing);
    }
    place_ = place_ == Place::header ? Place::outside : Place::header;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::entry || key_ == "dtype") unexpected("a list");
    place_ = Place::list;
    list().emplace();
    return true;
  }

  bool end_array() override {
    if (key_ == "data_offsets" && list()->size() != 2) {
      refuse("{} has {} numbers, expected begin and end", where(), list()->size());
    }
    place_ = Place::entry;
    return true;
  }

  bool number_unsigned(std::uint64_t number) override {
    if (place_ != Place::list || number > std::numeric_limits<std::int64_t>::max()) {
      unexpected(fmt::to_string(number));
    }
    list()->push_back(static_cast<std::int64_t>(number));
    const std::size_t most = key_ == "shape" ? Shape::kMaxRank : 2;
    if (list()->size() > most) refuse("{} has more than {} numbers", where(), most);
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(key_, text);
    } else if (place_ == Place::entry && key_ == "dtype") {
      const auto* type = std::ranges::find(kFileTypes, text, &FileType::name);
      if (type == kFileTypes.end()) {
        refuse("{} is {}, expected one of {}", where(), quote(text), known_types());
      }
      entry().type = *type;
    } else {
      unexpected(quote(text));
    }
    return true;
  }

  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool number_integer(std::int64_t number) override { return unexpected(fmt::to_string(number)); }
  bool number_float(double, const std::string& text) override {
    return unexpected(text.substr(0, 40));
  }
  bool binary(Json::binary_t&) override { return unexpected("binary data"); }

  bool parse_error(std::size_t byte, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // "[json...101] parse error at line 1, column 2: <what>; last read: <text of the file>"
    std::string_view what = error.what();
    what = what.substr(0, what.find("; last read"));
    for (const std::string_view before : {"] ", ": "}) {
      if (const std::size_t at = what.find(before); at != what.npos) {
        what.remove_prefix(at + before.size());
      }
    }
    what = what.substr(0, 120);
    refuse("the header is not JSON: {} at its byte {}", what, byte);
  }

 private:
  enum class Place { outside, header, metadata, entry, list };

  Entry& entry() { return header_.entries.back(); }
  std::optional<std::vector<std::int64_t>>& list() {
    return key_ == "shape" ? entry().shape : entry().offsets;
  }

  static std::string known_types() {
    std::string names;
    for (const FileType& type : kFileTypes) {
      names.append(names.empty() ? "" : " ").append(type.name);
    }
    return names;
  }

  std::string holder() {
    if (place_ == Place::header) return "the header";
    if (place_ == Place::metadata) return "__metadata__";
    return fmt::format("tensor {}", quote(entry().name));
  }

  // What is being read, for messages.
  std::string where() {
    switch (place_) {
      case Place::outside:
        return "the header";
      case Place::header:
        return key_ == kMetadata ? "__metadata__" : fmt::format("tensor {}", quote(key_));
      case Place::metadata:
        return fmt::format("__metadata__ entry {}", quote(key_));
      case Place::entry:
      case Place::list:
        break;
    }
    return fmt::format("the {} of tensor {}", key_, quote(entry().name));
  }

  std::string_view expected() const {
    if (place_ == Place::metadata || (place_ == Place::entry && key_ == "dtype")) return "a string";
    if (place_ == Place::entry) return "a list of numbers";
    if (place_ == Place::list) return "whole numbers from 0 to 2^63 - 1";
    return "an object";
  }

  [[noreturn]] bool unexpected(std::string_view found) {
    refuse("{} holds {}, expected {}", where(), found, expected());
  }

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> message, Args&&... args) {
    throw Error(path_ + ": " + fmt::format(message, std::forward<Args>(args)...));
  }

  const std::string& path_;
  Header header_;
  Place place_ = Place::outside;
  std::string key_;  // the latest
  std::unordered_set<std::string> names_;
};

}  // namespace

Header parse_header(const std::string& path, std::string_view text) {
  // The parser would skip white space and a byte order mark.
  check(text.starts_with('{'), "{}: the header begins with {}, expected {{", path,
        quote(text.substr(0, 1)));
  // The parser would take it for the end of the text.
  const std::size_t zero = text.find('\0');
  check(zero == text.npos, "{}: the header is not JSON: a zero byte at its byte {}", path,
        zero + 1);
  HeaderReader reader(path);
  Json::sax_parse(text, &reader);
  return reader.take();
}

std::string quote(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  const bool cut = text.size() > kLongest;
  return Json(text.substr(0, kLongest)).dump(-1, ' ', false, Json::error_handler_t::replace) +
         (cut ? "..." : "");
}

std::optional<std::string> json_string(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace hax::safetensors
