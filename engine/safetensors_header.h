// The header of a safetensors file, as text becomes entries. Internal to the reader and the writer.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace hax::safetensors {

inline constexpr std::string_view kMetadata = "__metadata__";

struct FileType {
  std::string_view name;
  std::int64_t bytes;  ///< of an element in the file
  DType dtype;         ///< of the tensor read
};
/// The first with a dtype is the one that is written for it.
inline constexpr std::array kFileTypes{
    FileType{"F32", 4, DType::float32}, FileType{"F64", 8, DType::float64},
    FileType{"I32", 4, DType::int32},   FileType{"I64", 8, DType::int64},
    FileType{"U8", 1, DType::uint8},    FileType{"BOOL", 1, DType::uint8},
    FileType{"F16", 2, DType::float32}, FileType{"BF16", 2, DType::float32},
};

/// One tensor's member of the header. Complete once parse_header() has returned.
struct Entry {
  std::string name;
  std::optional<FileType> type;
  std::optional<std::vector<std::int64_t>> shape;  ///< at most Shape::kMaxRank sizes, none negative
  std::optional<std::vector<std::int64_t>> offsets;  ///< begin and end, not negative

  Shape sizes() const { return Shape(std::span<const std::int64_t>(*shape)); }
  std::int64_t begin() const { return (*offsets)[0]; }
  std::int64_t end() const { return (*offsets)[1]; }
};

struct Header {
  std::vector<Entry> entries;  ///< in the order of the text
  std::map<std::string, std::string> metadata;
};

/// Parses the JSON text of a header. Throws Error naming `path` for anything that is not JSON of
/// exactly the right form; whether the entries fit the file is not looked at.
Header parse_header(const std::string& path, std::string_view text);

/// Text of a file for a message: a JSON string on one line, and short whatever the file says.
std::string quote(std::string_view text);
/// `text` as a JSON string; nothing when it is not UTF-8.
std::optional<std::string> json_string(const std::string& text);

}  // namespace hax::safetensors
