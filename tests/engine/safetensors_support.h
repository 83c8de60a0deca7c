// Safetensors files made of bytes, and what reading them says.
#pragma once

#include <doctest/doctest.h>

#include "engine/files.h"
#include "engine/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/files.h"

namespace hax::test::safetensors {

inline std::string little_endian(std::uint64_t number) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(number >> 8 * i & 255);
  return bytes;
}

inline std::string file_of(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

inline std::string file_of(const std::string& header, std::size_t data_bytes = 0) {
  return file_of(header, std::string(data_bytes, '\0'));
}

// Writes the bytes and reads them back as safetensors.
class Reader {
 public:
  SafeTensors read(const std::string& bytes) const {
    write_file_atomically(path_, bytes);
    return read_safetensors(path_);
  }
  /// The error without the path, which must come first; "" when the file is fine.
  std::string error(const std::string& bytes) const {
    const std::string message = error_of([&] { (void)read(bytes); });
    if (message.empty()) return message;
    CHECK(message.starts_with(path_ + ": "));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < path_.size() + 300);
    return message.substr(path_.size() + 2);
  }

 private:
  TempFolder folder_;
  std::string path_ = folder_ / "model.safetensors";
};

}  // namespace hax::test::safetensors
