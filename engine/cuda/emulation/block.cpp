#include "engine/cuda/emulation/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace hax::emulation {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = std::size_t{512} << 10;
#else
constexpr std::size_t kStackBytes = std::size_t{128} << 10;
#endif
constexpr std::size_t kGuardBytes = 4096;

// Shared memory before it is written: NaN in every floating type, -1 in the integers.
constexpr int kGarbage = 0xFF;

std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

std::string text(const std::source_location& where) {
  return fmt::format("{}:{}", where.file_name(), where.line());
}

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

BlockRunner& BlockRunner::current() {
  thread_local BlockRunner runner;
  return runner;
}

BlockRunner::~BlockRunner() { abandon_fibers(); }

// Fibers hold nothing that wants destruction: a kernel's locals are plain numbers.
void BlockRunner::abandon_fibers() {
  for (const auto& fiber : fibers_) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(fiber->stack, kStackBytes);
#endif
    ::munmap(fiber->stack - kGuardBytes, kStackBytes + kGuardBytes);
  }
  fibers_.clear();
  idle_.clear();
}

// --- switching -------------------------------------------------------------------------------

void BlockRunner::arrive_from(transfer_t from) {
  auto* before = static_cast<Fiber*>(from.data);
  before->context = from.fctx;
#ifdef __SANITIZE_ADDRESS__
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(running_->fake_stack, &stack, &bytes);
  if (before == &home_) {
    home_.stack = static_cast<char*>(const_cast<void*>(stack));
    home_.stack_bytes = bytes;
  }
#endif
}

void BlockRunner::switch_to(Fiber* next) {
  Fiber* from = running_;
  running_ = next;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from->fake_stack, next->stack, next->stack_bytes);
#endif
  arrive_from(jump_fcontext(next->context, from));
}

void BlockRunner::fiber_main(transfer_t from) {
  BlockRunner& runner = current();
  runner.arrive_from(from);
  runner.work();
}

BlockRunner::Fiber* BlockRunner::idle_fiber() {
  if (!idle_.empty()) {
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }
  void* memory = ::mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    error_ = "the emulation has no memory for another thread's stack";
    fail();
  }
  ::mprotect(memory, kGuardBytes, PROT_NONE);  // stacks grow downwards into it
  auto fiber = std::make_unique<Fiber>();
  fiber->stack = static_cast<char*>(memory) + kGuardBytes;
  fiber->stack_bytes = kStackBytes;
  fiber->context = make_fcontext(fiber->stack + kStackBytes, kStackBytes, &fiber_main);
  fibers_.push_back(std::move(fiber));
  return fibers_.back().get();
}

// Whoever can go on: a thread that was released, a fiber for the threads that have not started, or
// the caller of run(), who finds out whether all is done.
BlockRunner::Fiber* BlockRunner::next_fiber() {
  if (ready_at_ < ready_.size()) {
    const unsigned thread = ready_[ready_at_++];
    if (ready_at_ == ready_.size()) {
      ready_.clear();
      ready_at_ = 0;
    }
    return threads_[thread].fiber;
  }
  if (fresh_ < count_) return idle_fiber();
  return &home_;
}

void BlockRunner::suspend() {
  const unsigned me = current_;
  Fiber* next = next_fiber();
  if (next != running_) switch_to(next);
  enter(me);
}

// A fiber's life: threads one after the other, and sleep when others can go on.
void BlockRunner::work() {
  for (;;) {
    Fiber* fiber = running_;
    while (fresh_ < count_ && ready_.empty()) {
      const unsigned thread = first_order_[fresh_++];
      threads_[thread].fiber = fiber;
      enter(thread);
      (*body_)();
      threads_[thread].state = State::done;
      ++done_;
    }
    Fiber* next = next_fiber();
    if (next == fiber) continue;
    idle_.push_back(fiber);
    switch_to(next);
  }
}

void BlockRunner::enter(unsigned thread) {
  current_ = thread;
  threads_[thread].state = State::ready;
  const dim3 size = grid_.threads;
  place.thread = dim3(thread % size.x, thread / size.x % size.y, thread / size.x / size.y);
}

// --- launching -------------------------------------------------------------------------------

void BlockRunner::run(const Grid& grid, const std::function<void()>& body, std::uint64_t seed) {
  body_ = &body;
  grid_ = grid;
  count_ = grid.threads.x * grid.threads.y * grid.threads.z;
  threads_.resize(count_);
  warps_.resize((count_ + kWarp - 1) / kWarp);
  // Of exactly the size asked for, and new: AddressSanitizer sees what lies beyond.
  shared_.reset(grid.shared_bytes == 0 ? nullptr : new char[grid.shared_bytes]);
  variables_.clear();
  place.block_size = grid.threads;
  place.grid_size = grid.blocks;

  const std::uint64_t blocks =
      std::uint64_t{grid.blocks.x} * grid.blocks.y * std::uint64_t{grid.blocks.z};
  // Another order of the blocks: i -> i stride + start, with a stride that meets every block.
  std::uint64_t stride = 1, start = 0;
  if (seed != 0 && blocks > 1) {
    start = mix(seed) % blocks;
    stride = mix(seed + 1) % blocks;
    while (std::gcd(stride, blocks) != 1) ++stride;
  }
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = (i * stride + start) % blocks;
    const std::uint64_t row = b / grid.blocks.x;
    run_block(
        dim3(static_cast<unsigned>(b % grid.blocks.x), static_cast<unsigned>(row % grid.blocks.y),
             static_cast<unsigned>(row / grid.blocks.y)),
        seed == 0 ? 0 : mix(seed + b) | 1);
  }
  shared_.reset();
  variables_.clear();
}

void BlockRunner::run_block(dim3 index, std::uint64_t seed) {
  place.block = index;
  if (shared_) std::memset(shared_.get(), kGarbage, grid_.shared_bytes);
  for (const SharedVariable& v : variables_) std::memset(v.memory.get(), kGarbage, v.bytes);
  std::ranges::fill(threads_, Thread{});
  std::ranges::fill(warps_, Warp{});
  copies_.clear();
  ready_.clear();
  ready_at_ = 0;
  fresh_ = done_ = waiting_ = 0;
  predicates_ = barrier_result_ = 0;
  random_ = seed;
  if (first_order_.size() != count_ || permuted_ || seed != 0) {
    first_order_.resize(count_);
    std::iota(first_order_.begin(), first_order_.end(), 0u);
  }
  order_ = first_order_;
  permuted_ = seed != 0;
  if (permuted_) {
    shuffle_order();
    first_order_ = order_;
  }

  running_ = &home_;
  switch_to(next_fiber());
  if (error_.empty() && done_ == count_) return;
  std::string message = error_.empty() ? diagnosis() : error_;
  error_.clear();
  abandon_fibers();
  first_order_.clear();
  throw Error(fmt::format("kernel launched at {}: block ({}, {}, {}): {}", text(grid_.where),
                          index.x, index.y, index.z, message));
}

void BlockRunner::shuffle_order() {
  if (random_ == 0) return;
  for (std::size_t i = order_.size(); i > 1; --i) {
    random_ = mix(random_) | 1;
    std::swap(order_[i - 1], order_[(random_ >> 1) % i]);
  }
}

// With error_ set. The stack is given up as it is, so nothing on it may own memory by now: what
// made the message has to be gone.
void BlockRunner::fail() {
  switch_to(&home_);
  std::abort();  // nobody comes back to a fiber that failed
}

// --- what a kernel calls ---------------------------------------------------------------------

void BlockRunner::make_ready(unsigned thread) {
  threads_[thread].state = State::ready;
  if (thread != current_) ready_.push_back(thread);
}

int BlockRunner::barrier(bool predicate, const std::source_location& where) {
  Thread& me = threads_[current_];
  me.state = State::at_barrier;
  me.where = where;
  predicates_ += predicate ? 1 : 0;
  if (++waiting_ == count_) {
    release_barrier();
  } else {
    suspend();
  }
  return barrier_result_;
}

void BlockRunner::release_barrier() {
  for (unsigned t = 1; t < count_; ++t) {
    if (same(threads_[t].where, threads_[0].where)) continue;
    error_ = fmt::format("divergent barrier: thread 0 waits at {}, thread {} at {}",
                         text(threads_[0].where), t, text(threads_[t].where));
    fail();
  }
  waiting_ = 0;
  barrier_result_ = std::exchange(predicates_, 0);
  shuffle_order();
  for (const unsigned t : order_) make_ready(t);
}

void BlockRunner::warp(WarpOp op, unsigned mask, std::uint64_t value,
                       const std::source_location& where) {
  const unsigned index = current_ / kWarp;
  Thread& me = threads_[current_];
  if ((mask >> lane() & 1) == 0) {
    error_ = fmt::format("{}: lane {} is not in its own mask {:#x}", text(where), lane(), mask);
    fail();
  }
  me = {me.fiber, State::at_warp_op, op, mask, value, where};
  Warp& warp = warps_[index];
  warp.arrived |= 1u << lane();
  if ((warp.arrived & mask) == mask) {
    release_warp(index, mask);
  } else {
    suspend();
  }
}

void BlockRunner::release_warp(unsigned index, unsigned mask) {
  Warp& warp = warps_[index];
  const Thread& me = threads_[current_];
  // Among the lanes of another warp and block there is nothing to look for.
  unsigned lanes[kWarp], count = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const Thread& other = threads_[index * kWarp + lane];
    if (other.mask != me.mask || other.op != me.op || !same(other.where, me.where)) {
      error_ = fmt::format("divergent warp operation: {} and {}", describe(current_),
                           describe(index * kWarp + lane));
      fail();
    }
    warp.values[lane] = other.value;
    lanes[count++] = index * kWarp + lane;
  }
  warp.arrived &= ~mask;
  if (random_ != 0) {
    for (unsigned i = count; i > 1; --i) {
      random_ = mix(random_) | 1;
      std::swap(lanes[i - 1], lanes[(random_ >> 1) % i]);
    }
  }
  for (unsigned i = 0; i < count; ++i) make_ready(lanes[i]);
}

std::uint64_t BlockRunner::exchanged(unsigned mask, unsigned lane,
                                     const std::source_location& where) {
  if ((mask >> lane & 1) == 0) {
    error_ =
        fmt::format("{}: reads lane {}, which is not in the mask {:#x}", text(where), lane, mask);
    fail();
  }
  return warps_[current_ / kWarp].values[lane];
}

void BlockRunner::copy_later(void* to, const void* from, std::size_t bytes) {
  if (copies_.empty()) copies_.resize(count_);
  copies_[current_].queue.push_back({to, from, bytes});
}

void BlockRunner::end_copy_group() {
  if (copies_.empty()) copies_.resize(count_);
  copies_[current_].groups.push_back(copies_[current_].queue.size());
}

void BlockRunner::wait_for_copies(std::size_t pending) {
  if (copies_.empty()) return;
  auto& [queue, groups] = copies_[current_];
  if (groups.size() <= pending) return;
  const auto finished = static_cast<std::ptrdiff_t>(groups.size() - pending);
  const std::size_t end = groups[static_cast<std::size_t>(finished) - 1];
  for (std::size_t i = 0; i < end; ++i) std::memcpy(queue[i].to, queue[i].from, queue[i].bytes);
  queue.erase(queue.begin(), queue.begin() + static_cast<std::ptrdiff_t>(end));
  groups.erase(groups.begin(), groups.begin() + finished);
  for (std::size_t& group : groups) group -= end;
}

void* BlockRunner::dynamic_shared() {
  if (!shared_) {
    error_ = "the kernel uses dynamic shared memory, its launch asks for none";
    fail();
  }
  return shared_.get();
}

void* BlockRunner::static_shared(const void* key, std::size_t bytes) {
  for (const SharedVariable& v : variables_) {
    if (v.key == key) return v.memory.get();
  }
  variables_.push_back({key, std::unique_ptr<char[]>(new char[bytes]), bytes});
  std::memset(variables_.back().memory.get(), kGarbage, bytes);
  return variables_.back().memory.get();
}

// --- errors ----------------------------------------------------------------------------------

std::string BlockRunner::describe(unsigned thread) const {
  const Thread& t = threads_[thread];
  switch (t.state) {
    case State::at_barrier:
      return fmt::format("thread {} waits at the barrier {}", thread, text(t.where));
    case State::at_warp_op:
      return fmt::format("thread {} waits at the warp operation {} with mask {:#x}", thread,
                         text(t.where), t.mask);
    case State::done:
      return fmt::format("thread {} has exited", thread);
    default:
      return fmt::format("thread {} runs", thread);
  }
}

// Why nobody can go on: the first thread that waits, and the first that is elsewhere.
std::string BlockRunner::diagnosis() const {
  unsigned first = 0;
  while (first < count_ && threads_[first].state == State::done) ++first;
  if (first == count_) return "the emulation lost a thread";
  const Thread& a = threads_[first];
  unsigned other = 0;
  for (; other < count_; ++other) {
    const Thread& b = threads_[other];
    if (other == first) continue;
    if (a.state == State::at_warp_op) {
      const bool wanted = other / kWarp == first / kWarp && (a.mask >> other % kWarp & 1) != 0;
      if (!wanted || (b.state == a.state && same(a.where, b.where))) continue;
    } else if (b.state == a.state) {
      continue;
    }
    break;
  }
  const char* what =
      a.state == State::at_barrier ? "divergent barrier" : "divergent warp operation";
  if (other == count_)
    return fmt::format("{}: {}, a lane of it does not exist", what, describe(first));
  return fmt::format("{}: {}, but {}", what, describe(first), describe(other));
}

}  // namespace hax::emulation
