#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "engine/dispatch.h"
#include "ops/key_selection/key_selection_kernels.h"

namespace hax {
namespace {

template <class T>
struct Candidate {
  T score;
  std::int32_t position;
};

// Who is evicted first: the smallest score, of equals the newest.
template <class T>
bool weaker(const Candidate<T>& a, const Candidate<T>& b) {
  return a.score < b.score || (a.score == b.score && a.position > b.position);
}

// The kept keys as a binary heap, the weakest on top.
template <class T>
class Kept {
 public:
  void clear() { heap_.clear(); }
  std::size_t size() const { return heap_.size(); }
  const Candidate<T>& weakest() const { return heap_.front(); }

  void add(Candidate<T> candidate) {
    heap_.push_back(candidate);
    std::ranges::push_heap(heap_, stronger);
  }

  void replace_weakest(Candidate<T> candidate) {
    const std::size_t size = heap_.size();
    std::size_t hole = 0;
    for (std::size_t child = 1; child < size; child = 2 * hole + 1) {
      if (child + 1 < size && weaker(heap_[child + 1], heap_[child])) ++child;
      if (!weaker(heap_[child], candidate)) break;
      heap_[hole] = heap_[child];
      hole = child;
    }
    heap_[hole] = candidate;
  }

 private:
  static bool stronger(const Candidate<T>& a, const Candidate<T>& b) { return weaker(b, a); }

  std::vector<Candidate<T>> heap_;
};

}  // namespace

void running_top_k(Cpu, const Tensor& score, const Sequences& sequences, std::int64_t keys,
                   Tensor& death) {
  visit_float(score.dtype(), [&]<class T>() {
    Kept<T> kept;
    for (std::int64_t s = 0; s < sequences.count(); ++s) {
      const T* scores = score.data<T>() + sequences.begin(s);
      std::int32_t* dies = death.data<std::int32_t>() + sequences.begin(s);
      kept.clear();
      for (std::int64_t t = 0; t < sequences.length(s); ++t) {
        const Candidate<T> candidate{scores[t], static_cast<std::int32_t>(t)};
        check(!std::isnan(candidate.score),
              "key_selection: the score of position {} of sequence {} is NaN, expected a number", t,
              s);
        if (std::cmp_less(kept.size(), keys)) {
          dies[t] = KeySet::kForever;
          kept.add(candidate);
        } else if (candidate.score > kept.weakest().score) {
          dies[t] = KeySet::kForever;
          dies[kept.weakest().position] = candidate.position;
          kept.replace_weakest(candidate);
        } else {
          dies[t] = candidate.position;
        }
      }
    }
  });
}

}  // namespace hax
