// The safetensors file format: named tensors and a map of strings. Page: docs/checkpoints.md
#pragma once

#include <map>
#include <string>

#include "engine/tensor.h"

namespace hax {

struct SafeTensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a file. F32, F64, I32, I64 and U8 keep their type; BOOL is read as uint8 (its bytes as
/// they are), F16 and BF16 as float32 (exactly). The tensors are on the CPU.
/// Throws Error, one line with the file, the tensor, what was found and what was expected, for
/// every file that breaks a rule of docs/checkpoints.md; nothing is allocated on the word of the
/// file alone.
SafeTensors read_safetensors(const std::string& path);

/// Writes a file completely or not at all (write_file_atomically). Equal content gives equal bytes:
/// tensors lie by element size, the largest first, then by name, so that each begins at a multiple
/// of its element size. Tensors of any device and shape; reading gives back the same bits.
/// Throws Error for an undefined tensor, for a tensor named "__metadata__", for text that is not
/// UTF-8, and for what the file system refuses.
void write_safetensors(const std::string& path, const SafeTensors& content);

}  // namespace hax
