#include "data/split_file.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "engine/check.h"

namespace hax {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

// As in PNG: a byte with the high bit set, a name, and line ends that a text transfer would change.
constexpr unsigned char kMagic[8] = {0x89, 'H', 'A', 'X', '\r', '\n', 0x1a, '\n'};
constexpr std::uint32_t kVersion = 1;

struct Header {
  unsigned char magic[8];
  std::uint32_t version, split, origin, token_bytes;
  std::int32_t levels, values, contexts_lo, contexts_hi, keys_lo, keys_hi;
  std::uint64_t seed, samples, tokens, tokens_checksum, offsets_checksum;
  std::uint64_t reserved[4];
  std::uint64_t checksum;  // of all bytes before
};
static_assert(sizeof(Header) == 128 && std::is_trivially_copyable_v<Header>);

std::uint64_t checksum_of(const Header& header) {
  return XXH3_64bits(&header, offsetof(Header, checksum));
}

constexpr std::uint64_t aligned(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

template <class F>
void visit_stored(int bytes, F&& f) {
  if (bytes == 1) return f.template operator()<std::uint8_t>();
  if (bytes == 2) return f.template operator()<std::uint16_t>();
  f.template operator()<std::uint32_t>();
}

}  // namespace

std::string_view name_of(Origin origin) {
  return origin == Origin::generated ? "generated" : "imported";
}

int token_bytes(const JointRecallTask& task) {
  return task.vocab_size() <= 1 << 8 ? 1 : task.vocab_size() <= 1 << 16 ? 2 : 4;
}

void narrow(std::span<const std::int32_t> tokens, int bytes, std::byte* out) {
  visit_stored(bytes, [&]<class T>() {
    const std::int32_t* in = tokens.data();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const T token = static_cast<T>(in[i]);
      std::memcpy(out + i * sizeof(T), &token, sizeof(T));
    }
  });
}

struct SplitWriter::Hash {
  Hash() { XXH3_64bits_reset(state); }
  ~Hash() { XXH3_freeState(state); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  XXH3_state_t* state = XXH3_createState();
};

SplitWriter::SplitWriter(const std::filesystem::path& path, const DatasetInfo& info, Split split)
    : info_(info), split_(split), file_(path), tokens_hash_(std::make_shared<Hash>()) {
  const Header unfinished{};
  file_.append(std::as_bytes(std::span(&unfinished, 1)));
}

void SplitWriter::reserve(std::int64_t samples, std::int64_t tokens) {
  const auto data = aligned(static_cast<std::uint64_t>(tokens * token_bytes(info_.task)));
  file_.reserve(static_cast<std::int64_t>(sizeof(Header) + data) + 8 * (samples + 1));
  offsets_.reserve(static_cast<std::size_t>(samples) + 1);
}

void SplitWriter::append(std::span<const std::byte> tokens, std::span<const std::int32_t> lengths) {
  file_.append(tokens);
  XXH3_64bits_update(tokens_hash_->state, tokens.data(), tokens.size());
  for (const std::int32_t length : lengths) {
    offsets_.push_back(offsets_.back() + static_cast<std::uint64_t>(length));
  }
}

void SplitWriter::finish() {
  const std::byte zeros[8] = {};
  const auto size = static_cast<std::uint64_t>(file_.size());
  file_.append(std::span(zeros, aligned(size) - size));
  file_.append(std::as_bytes(std::span(offsets_)));

  const JointRecallTask& task = info_.task;
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.split = static_cast<std::uint32_t>(split_);
  header.origin = static_cast<std::uint32_t>(info_.origin);
  header.token_bytes = static_cast<std::uint32_t>(token_bytes(task));
  header.levels = task.levels;
  header.values = task.values;
  header.contexts_lo = task.contexts.lo;
  header.contexts_hi = task.contexts.hi;
  header.keys_lo = task.keys.lo;
  header.keys_hi = task.keys.hi;
  header.seed = info_.seed;
  header.samples = static_cast<std::uint64_t>(samples());
  header.tokens = static_cast<std::uint64_t>(tokens());
  header.tokens_checksum = XXH3_64bits_digest(tokens_hash_->state);
  header.offsets_checksum = XXH3_64bits(offsets_.data(), offsets_.size() * sizeof(offsets_[0]));
  header.checksum = checksum_ = checksum_of(header);
  file_.overwrite(0, std::as_bytes(std::span(&header, 1)));
  file_.finish();
}

SplitFile::SplitFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  Header header;
  if (bytes.size() < sizeof(Header)) {
    fail(fmt::format("{} bytes are too few for a dataset file", bytes.size()));
  }
  std::memcpy(&header, bytes.data(), sizeof(Header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) fail("not a hax dataset file");
  if (header.version != kVersion) {
    fail(fmt::format("format version {}, this program reads version {}", header.version, kVersion));
  }
  if (header.checksum != checksum_of(header)) fail("damaged header (wrong checksum)");

  // A right checksum does not make the numbers right: the file may come from anywhere.
  info_.task = {.levels = header.levels,
                .contexts = {header.contexts_lo, header.contexts_hi},
                .keys = {header.keys_lo, header.keys_hi},
                .values = header.values};
  try {
    info_.task.validate();
  } catch (const UsageError& error) {
    fail(fmt::format("impossible task in the header: {}", error.what()));
  }
  if (header.split >= kSplits.size() || header.origin > 1 ||
      header.token_bytes != static_cast<std::uint32_t>(hax::token_bytes(info_.task))) {
    fail(fmt::format("impossible header: split {}, origin {}, {} bytes a token", header.split,
                     header.origin, header.token_bytes));
  }
  info_.origin = static_cast<Origin>(header.origin);
  info_.seed = header.seed;
  split_ = static_cast<Split>(header.split);
  token_bytes_ = static_cast<int>(header.token_bytes);

  constexpr std::uint64_t kMost = std::uint64_t{1} << 56;  // keeps the sum below free of overflow
  const bool possible = header.samples < kMost && header.tokens < kMost;
  const std::uint64_t offsets_begin =
      possible ? aligned(sizeof(Header) + header.tokens * header.token_bytes) : 0;
  const std::uint64_t expected = offsets_begin + 8 * (header.samples + 1);
  if (!possible || bytes.size() != expected) {
    fail(fmt::format("{} bytes, but {} samples of {} tokens need {}{}", bytes.size(),
                     header.samples, header.tokens,
                     possible ? std::to_string(expected) : std::string("more than exist"),
                     possible && bytes.size() < expected ? ": the file was cut short" : ""));
  }
  samples_ = static_cast<std::int64_t>(header.samples);
  tokens_ = static_cast<std::int64_t>(header.tokens);
  checksum_ = header.checksum;
  tokens_checksum_ = header.tokens_checksum;
  data_ = bytes.data() + sizeof(Header);
  offsets_ = reinterpret_cast<const std::uint64_t*>(bytes.data() + offsets_begin);

  if (XXH3_64bits(offsets_, 8 * (header.samples + 1)) != header.offsets_checksum) {
    fail("damaged offsets (wrong checksum)");
  }
  const auto shortest = static_cast<std::uint64_t>(info_.task.length(info_.task.sizes(0)));
  const auto longest = static_cast<std::uint64_t>(info_.task.fixed_length());
  if (offsets_[0] != 0 || offsets_[samples_] != header.tokens) {
    fail(fmt::format("offsets run from {} to {}, expected 0 to {}", offsets_[0], offsets_[samples_],
                     header.tokens));
  }
  for (std::int64_t i = 0; i < samples_; ++i) {
    const std::uint64_t length = offsets_[i + 1] - offsets_[i];  // wraps when they decrease
    if (length < shortest || length > longest) {
      fail(fmt::format("sample {} lies at {} to {}, expected {} to {} tokens", i, offsets_[i],
                       offsets_[i + 1], shortest, longest));
    }
  }
}

void SplitFile::fail(std::string_view what) const {
  throw Error(fmt::format("{}: {}", path_.string(), what));
}

void SplitFile::sample(std::int64_t index, std::vector<std::int32_t>& tokens) const {
  if (index < 0 || index >= samples_) {
    fail(fmt::format("sample {} does not exist, there are {}", index, samples_));
  }
  const std::uint64_t begin = offsets_[index];
  tokens.resize(offsets_[index + 1] - begin);
  std::uint32_t largest = 0;
  visit_stored(token_bytes_, [&]<class T>() {
    const std::byte* in = data_ + begin * sizeof(T);
    std::int32_t* out = tokens.data();
    const std::size_t count = tokens.size();
    for (std::size_t i = 0; i < count; ++i) {
      T token;
      std::memcpy(&token, in + i * sizeof(T), sizeof(T));
      largest = std::max<std::uint32_t>(largest, token);
      out[i] = static_cast<std::int32_t>(token);
    }
  });
  if (largest >= static_cast<std::uint32_t>(info_.task.vocab_size())) {
    fail(fmt::format("sample {} has token {}, the vocabulary ends at {}", index, largest,
                     info_.task.vocab_size() - 1));
  }
}

void SplitFile::check_tokens() const {
  const auto bytes = static_cast<std::size_t>(tokens_ * token_bytes_);
  if (XXH3_64bits(data_, bytes) != tokens_checksum_) fail("damaged tokens (wrong checksum)");
}

}  // namespace hax
