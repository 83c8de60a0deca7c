#include "train/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "data/device_batch.h"

namespace hax {
namespace {

// Parts begin at multiples of 256 bytes, as memory from the pool does: kernels may read four
// numbers at once.
constexpr std::int64_t kAlignment = 64;

std::int64_t candidate_count(const Batch& pack, const Draw& draw) {
  std::int64_t count = 0;
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    count += std::min(draw.keys, pack.sequences.length(s));
  }
  return count;
}

Sequences candidate_groups(const Batch& pack, const Draw& draw) {
  std::vector<std::int64_t> counts;
  for (std::int64_t s = 0; s < pack.count(); ++s) {
    counts.push_back(std::min(draw.keys, pack.sequences.length(s)));
  }
  return Sequences::of_lengths(counts);
}

// One part after the other, with the place where it begins; returns the end of the last. All that
// is said here about the layout.
template <class OnPack, class OnHash, class OnCandidates>
std::int64_t for_each_part(std::span<const Batch> packs, std::span<const Draw> draws,
                           OnPack&& on_pack, OnHash&& on_hash, OnCandidates&& on_candidates) {
  std::int64_t at = 0;
  const auto take = [&](std::int64_t count) {
    const std::int64_t begin = at;
    at += (count + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  };
  std::int64_t first_sequence = 0;
  for (const Batch& pack : packs) {
    on_pack(pack, take(pinned_count(pack)));
    for (const Draw& draw : draws) {
      if (draw.kind != Draw::Kind::candidates) continue;
      on_candidates(pack, draw, first_sequence, take(candidate_count(pack, draw)));
    }
    first_sequence += pack.count();
  }
  for (const Draw& draw : draws) {
    if (draw.kind == Draw::Kind::hash) on_hash(draw, take(draw.state * draw.columns));
  }
  return at;
}

}  // namespace

std::int64_t step_words(std::span<const Batch> packs, std::span<const Draw> draws) {
  const auto nothing = [](auto&&...) {};
  return for_each_part(packs, draws, nothing, nothing, nothing);
}

void write_step(std::span<const Batch> packs, std::span<const Draw> draws,
                const RandomInputs& random, std::span<std::int32_t> words) {
  const auto place = [&](std::int64_t at, std::int64_t count) {
    return words.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
  };
  for_each_part(
      packs, draws,
      [&](const Batch& pack, std::int64_t at) {
        write_numbers(pack, place(at, pinned_count(pack)));
      },
      [&](const Draw& draw, std::int64_t at) {
        const Tensor matrix = random.hash(draw.layer, draw.state, draw.columns, DType::float32);
        std::memcpy(place(at, matrix.numel()).data(), matrix.raw(),
                    static_cast<std::size_t>(matrix.bytes()));
      },
      [&](const Batch& pack, const Draw& draw, std::int64_t first_sequence, std::int64_t at) {
        const Tensor positions =
            random.candidates(draw.layer, pack.sequences, first_sequence, draw.keys).positions;
        std::ranges::copy(positions.values<std::int32_t>(), place(at, positions.numel()).begin());
      });
}

StepInputs::StepInputs(std::span<const Batch> packs, std::span<const Draw> draws)
    : words_(Tensor::empty({step_words(packs, draws)}, DType::int32, kCuda)) {
  for_each_part(
      packs, draws,
      [&](const Batch& pack, std::int64_t at) {
        packs_.push_back(batch_in(pack, words_.flat(at, at + pinned_count(pack))));
      },
      [&](const Draw& draw, std::int64_t at) {
        random_.keep_hash(draw.layer, words_.flat(at, at + draw.state * draw.columns)
                                          .viewed_as(DType::float32)
                                          .reshape({draw.state, draw.columns}));
      },
      [&](const Batch& pack, const Draw& draw, std::int64_t first_sequence, std::int64_t at) {
        random_.keep_candidates(
            draw.layer, first_sequence,
            {words_.flat(at, at + candidate_count(pack, draw)), candidate_groups(pack, draw)});
      });
}

}  // namespace hax
