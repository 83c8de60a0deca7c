#include "engine/safetensors.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "engine/files.h"
#include "engine/safetensors_header.h"

namespace hax {
namespace {

using namespace safetensors;  // NOLINT(google-build-using-namespace)

static_assert(std::endian::native == std::endian::little,
              "safetensors holds little-endian numbers, and they are copied as they are");

constexpr std::int64_t kLengthBytes = 8;  // of the header's length, which comes first
constexpr std::int64_t kLargestHeader = 100'000'000;

[[noreturn]] void refuse(const std::string& path, const Entry& entry, const std::string& why) {
  throw Error(fmt::format("{}: tensor {}: data_offsets {}..{} {}", path, quote(entry.name),
                          entry.begin(), entry.end(), why));
}

std::int64_t element_count(const std::string& path, const Entry& entry) {
  try {
    return entry.sizes().numel();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: tensor {}: {}", path, quote(entry.name), error.what()));
  }
}

// Shape, element type and place in the file of one entry must tell the same story.
void check_entry(const std::string& path, const Entry& entry, std::int64_t data_bytes) {
  if (entry.begin() > entry.end()) refuse(path, entry, "run backwards");
  if (entry.end() > data_bytes) {
    refuse(path, entry, fmt::format("pass the end of the data, which has {} bytes", data_bytes));
  }
  const std::int64_t bytes = entry.end() - entry.begin(), count = element_count(path, entry);
  // A division, because the product may overflow.
  if (bytes % entry.type->bytes != 0 || bytes / entry.type->bytes != count) {
    refuse(path, entry,
           fmt::format("span {} bytes, expected {} elements of {} bytes for {} {}", bytes, count,
                       entry.type->bytes, entry.type->name, to_string(entry.sizes())));
  }
}

// Every byte of data belongs to exactly one tensor.
void check_coverage(const std::string& path, std::vector<Entry>& entries, std::int64_t data_bytes) {
  std::ranges::sort(entries, {},
                    [](const Entry& entry) { return std::pair(entry.begin(), entry.end()); });
  std::int64_t covered = 0;
  const auto no_gap = [&](std::int64_t next) {
    check(next <= covered, "{}: bytes {}..{} of the data belong to no tensor", path, covered, next);
  };
  const Entry* before = nullptr;
  for (const Entry& entry : entries) {
    no_gap(entry.begin());
    if (entry.begin() < covered) {
      refuse(path, entry, "begin inside tensor " + quote(before->name));
    }
    covered = entry.end();
    before = &entry;
  }
  no_gap(data_bytes);
}

float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// IEEE half precision: 1 sign, 5 exponent (bias 15) and 10 fraction bits.
float from_half(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormal: fraction * 2^-24, exact in float32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

void read_16_bit(const InputFile& file, std::int64_t offset, float (*convert)(std::uint16_t),
                 Tensor& tensor) {
  constexpr std::int64_t kPiece = 1 << 16;
  std::vector<std::uint16_t> piece;
  for (std::int64_t at = 0; at < tensor.numel(); at += kPiece) {
    piece.resize(static_cast<std::size_t>(std::min(kPiece, tensor.numel() - at)));
    file.read(offset + 2 * at, std::as_writable_bytes(std::span(piece)));
    std::ranges::transform(piece, tensor.data<float>() + at, convert);
  }
}

Tensor read_tensor(const InputFile& file, std::int64_t offset, const FileType& type, Shape shape) {
  Tensor tensor = Tensor::empty(shape, type.dtype);
  if (type.name == "F16") {
    read_16_bit(file, offset, from_half, tensor);
  } else if (type.name == "BF16") {
    read_16_bit(file, offset, from_bfloat16, tensor);
  } else {
    file.read(offset,
              {static_cast<std::byte*>(tensor.raw()), static_cast<std::size_t>(tensor.bytes())});
  }
  return tensor;
}

std::string_view file_type_of(DType dtype) {
  // The first with this type holds it as it is.
  return std::ranges::find(kFileTypes, dtype, &FileType::dtype)->name;
}

std::string json_text(const std::string& path, std::string_view what, const std::string& text) {
  const std::optional<std::string> json = json_string(text);
  check(json.has_value(), "cannot write {}: the {} {} is not valid UTF-8", path, what, quote(text));
  return *json;
}

}  // namespace

SafeTensors read_safetensors(const std::string& path) {
  const InputFile file(path);
  check(file.size() >= kLengthBytes, "{}: {} bytes are too few for a safetensors file", path,
        file.size());
  std::uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  check(length > 0 && length <= kLargestHeader,
        "{}: the header's length is {}, expected 1 to {}: not a safetensors file?", path, length,
        kLargestHeader);
  const auto header_bytes = static_cast<std::int64_t>(length);
  check(header_bytes <= file.size() - kLengthBytes,
        "{}: the header's length is {}, but only {} bytes follow", path, header_bytes,
        file.size() - kLengthBytes);
  std::string header(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(header)));
  Header parsed = parse_header(path, header);

  const std::int64_t data_at = kLengthBytes + header_bytes, data_bytes = file.size() - data_at;
  // Everything is checked before anything is allocated.
  for (const Entry& entry : parsed.entries) check_entry(path, entry, data_bytes);
  check_coverage(path, parsed.entries, data_bytes);

  SafeTensors content;
  content.metadata = std::move(parsed.metadata);
  for (const Entry& entry : parsed.entries) {
    content.tensors.emplace(entry.name,
                            read_tensor(file, data_at + entry.begin(), *entry.type, entry.sizes()));
  }
  return content;
}

void write_safetensors(const std::string& path, const SafeTensors& content) {
  std::vector<const std::pair<const std::string, Tensor>*> order;
  for (const auto& item : content.tensors) {
    check(item.second.defined(), "cannot write {}: tensor {} is undefined", path,
          quote(item.first));
    check(item.first != kMetadata, "cannot write {}: a tensor cannot be called {}", path,
          kMetadata);
    order.push_back(&item);
  }
  std::ranges::stable_sort(order, std::greater{},
                           [](const auto* item) { return size_of(item->second.dtype()); });

  std::string header = "{";
  const auto add = [&](const std::string& member) {
    header.append(header.size() > 1 ? "," : "").append(member);
  };
  if (!content.metadata.empty()) {
    std::string members;
    for (const auto& [key, value] : content.metadata) {
      members.append(members.empty() ? "" : ",")
          .append(json_text(path, "metadata key", key))
          .append(":")
          .append(json_text(path, "metadata value", value));
    }
    add(fmt::format("\"{}\":{{{}}}", kMetadata, members));
  }
  std::int64_t at = 0;
  std::vector<Tensor> tensors;  // on the CPU
  for (const auto* item : order) {
    const Tensor& tensor = tensors.emplace_back(item->second.to(kCpu));
    add(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                    json_text(path, "tensor name", item->first), file_type_of(tensor.dtype()),
                    fmt::join(tensor.shape().sizes(), ","), at, at + tensor.bytes()));
    at += tensor.bytes();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begins at a multiple of 8
  check(header.size() <= static_cast<std::size_t>(kLargestHeader),
        "cannot write {}: the header has {} bytes, at most {} are allowed", path, header.size(),
        kLargestHeader);

  const std::uint64_t length = header.size();
  std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(&length, 1)),
                                                 std::as_bytes(std::span(header))};
  for (const Tensor& tensor : tensors) {
    pieces.emplace_back(static_cast<const std::byte*>(tensor.raw()),
                        static_cast<std::size_t>(tensor.bytes()));
  }
  write_file_atomically(path, pieces);
}

}  // namespace hax
