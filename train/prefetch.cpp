#include "train/prefetch.h"

#include <utility>

namespace hax {

namespace {

constexpr std::size_t kSlots = 3;  // one being made, one waiting, one being read by the device

}  // namespace

Prefetcher::Prefetcher(const Task& task, std::vector<Draw> draws, const PrefetchOptions& options)
    : task_(task), draws_(std::move(draws)), options_(options), slots_(kSlots) {
  for (Slot& slot : slots_) empty_.push_back(&slot);
  thread_ = std::thread([this] { work(options_.first); });
}

Prefetcher::~Prefetcher() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::make(Slot& slot, std::int64_t step) const {
  slot.packs.clear();
  for (std::int64_t p = 0; p < options_.packs; ++p) {
    slot.packs.push_back(
        task_.train_batch((step * options_.packs + p) * options_.bsz, options_.bsz));
  }
  const std::int64_t count = step_words(slot.packs, draws_);
  if (slot.words) slot.words->wait();  // for the copy of the step that had this place before
  if (!slot.words || std::cmp_less(slot.words->numbers().size(), count)) {
    slot.words = std::make_unique<PinnedMemory>(count + count / 4);
  }
  const DrawnInputs random(options_.seed, static_cast<std::uint32_t>(step + 1));
  write_step(slot.packs, draws_, random, slot.words->numbers());
}

void Prefetcher::work(std::int64_t step) {
  for (std::unique_lock lock(mutex_);; ++step) {
    changed_.wait(lock, [this] { return stop_ || !empty_.empty(); });
    if (stop_) return;
    Slot* slot = empty_.front();
    empty_.pop_front();
    lock.unlock();
    try {
      make(*slot, step);
    } catch (...) {
      slot->error = std::current_exception();
    }
    lock.lock();
    ready_.push_back(slot);
    changed_.notify_all();
    if (slot->error) return;
  }
}

Prefetcher::Step& Prefetcher::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  Slot* slot = ready_.front();
  if (slot->error) std::rethrow_exception(slot->error);
  ready_.pop_front();
  return *slot;
}

void Prefetcher::give_back(Step& step) {
  {
    const std::scoped_lock lock(mutex_);
    empty_.push_back(static_cast<Slot*>(&step));
  }
  changed_.notify_all();
}

}  // namespace hax
