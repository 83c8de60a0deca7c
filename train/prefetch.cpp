#include "train/prefetch.h"

#include <utility>

namespace hax {

namespace {

constexpr std::size_t kSlots = 3;  // one being made, one waiting, one being read by the device

}  // namespace

Prefetcher::Prefetcher(const Task& task, std::int64_t bsz, std::int64_t packs, std::int64_t first)
    : task_(task), bsz_(bsz), packs_(packs), slots_(kSlots) {
  for (Slot& slot : slots_) empty_.push_back(&slot);
  thread_ = std::thread([this, first] { work(first); });
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
  slot.memory.resize(static_cast<std::size_t>(packs_));
  for (std::int64_t p = 0; p < packs_; ++p) {
    slot.packs.push_back(task_.train_batch((step * packs_ + p) * bsz_, bsz_));
    const std::int64_t count = pinned_count(slot.packs.back());
    std::unique_ptr<PinnedMemory>& memory = slot.memory[static_cast<std::size_t>(p)];
    if (memory) memory->wait();  // for the copy of the step that had this slot before
    if (!memory || std::cmp_less(memory->numbers().size(), count)) {
      memory = std::make_unique<PinnedMemory>(count + count / 4);
    }
    write_numbers(slot.packs.back(), *memory);
  }
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

DeviceBatches Prefetcher::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty(); });
  Slot* slot = ready_.front();
  if (slot->error) std::rethrow_exception(slot->error);
  ready_.pop_front();
  lock.unlock();
  DeviceBatches batches;
  for (std::size_t p = 0; p < slot->packs.size(); ++p) {
    const Batch& pack = slot->packs[p];
    batches.packs.push_back(send_batch(pack, *slot->memory[p]));
    batches.sequences += pack.count();
    batches.targets += pack.target_rows.numel();
  }
  lock.lock();
  empty_.push_back(slot);
  changed_.notify_all();
  return batches;
}

}  // namespace hax
