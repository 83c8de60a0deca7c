// Backward of ssd: all heads one after the other, or pieces of them on all threads.

#include "engine/dispatch.h"
#include "ops/ssd/ssd_backward.h"

namespace hax {
namespace {

using namespace ssd_tile;

// Tokens after which the pieces of the heads wait for each other and add up what they found of dB
// and dC, so that it is in the cache still. A multiple of kSsdBlock.
constexpr std::int64_t kTogether = 4096;

// Some blocks, the pieces of the heads side by side, and the sums of their dB and dC in order.
template <class T>
void run_in_pieces(const Inputs<T>& in, std::vector<BackwardPass<T>>& passes, BlockRange range,
                   std::vector<T>& parts, T* dB, T* dC) {
  const std::int64_t row = in.first_row(range.begin), wanted = in.first_row(range.end) - row;
  const std::int64_t of_B = (range.end - range.begin) * in.projected, of_C = wanted * in.projected;
  const auto number = static_cast<std::int64_t>(passes.size());
  parts.assign(static_cast<std::size_t>(number * (of_B + of_C)), T(0));  // a piece has some groups
  const auto part = [&](std::int64_t p) { return parts.data() + p * (of_B + of_C); };
  parallel_for(number, [&](std::int64_t p) {
    passes[static_cast<std::size_t>(p)].run(range, {part(p), part(p) + of_B, range.begin, row});
  });
  sum_parts(part(0), number, of_B + of_C, of_B, dB + range.begin * in.projected);
  sum_parts(part(0) + of_B, number, of_B + of_C, of_C, dC + row * in.projected);
}

}  // namespace

void ssd_backward(Cpu, const Tensor& dy, const Tensor& dfinal, const SsdInputs& in,
                  const Tensor& states, const Sequences& sequences, const SsdOptions& options,
                  SsdGradients& out) {
  visit_float(in.x.dtype(), [&]<class T>() {
    const Inputs<T> inputs(in, options);
    T *dB = out.dB.data<T>(), *dC = out.dC.data<T>();
    const Pieces pieces = head_pieces(sequences.tokens(), inputs.heads);
    std::vector<BackwardPass<T>> passes;
    for (std::int64_t p = 0; p < pieces.number(); ++p) {
      passes.emplace_back(inputs, HeadRange{pieces.begin(p), pieces.end(p)}, dy, dfinal, states,
                          out);
    }
    std::vector<T> parts;
    std::int64_t blocks_before = 0;
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const std::int64_t begin = sequences.begin(s), end = sequences.end(s);
      for (BackwardPass<T>& pass : passes) pass.enter(s);
      if (passes.size() == 1) {
        passes[0].run({begin, end, blocks_before}, {dB, dC, 0, 0});
      } else {
        for (std::int64_t c = (end - begin + kTogether - 1) / kTogether - 1; c >= 0; --c) {
          const std::int64_t first = begin + c * kTogether;
          const BlockRange range{first, std::min(first + kTogether, end),
                                 blocks_before + c * kTogether / kSsdBlock};
          run_in_pieces(inputs, passes, range, parts, dB, dC);
        }
      }
      for (BackwardPass<T>& pass : passes) pass.leave(s);
      blocks_before += blocks_in(end - begin);
    }
    for (const BackwardPass<T>& pass : passes) {
      pass.write_parameters(out.dA.data<T>(), out.dD.data<T>());
    }
    if (!dy.defined()) fill(out.dC, 0);
  });
}

}  // namespace hax
