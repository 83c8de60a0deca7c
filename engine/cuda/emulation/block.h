// Runs the threads of a block as fibers of one operating system thread. Page: docs/emulation.md
//
// A fiber takes threads one after the other and keeps running as long as they do not wait, so a
// kernel that never synchronises is a plain loop. A thread that waits keeps its fiber, and another
// fiber goes on with the threads that have not started yet.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

namespace hax {

/// CUDA's type of sizes and places in a grid.
struct dim3 {  // NOLINT(readability-identifier-naming)
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3() = default;
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

/// What threadIdx and its relatives stand for: the thread that runs at present.
struct Place {
  dim3 thread, block, block_size, grid_size;
};
inline constinit thread_local Place place;

enum class WarpOp : std::uint8_t { sync, shuffle, vote };

/// What a launch asks for.
struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
  std::source_location where;
};

/// One block after the other, on the calling operating system thread. Reused by its launches.
class BlockRunner {
 public:
  static BlockRunner& current();  ///< of this operating system thread
  BlockRunner() = default;
  ~BlockRunner();
  BlockRunner(const BlockRunner&) = delete;
  BlockRunner& operator=(const BlockRunner&) = delete;

  /// Calls `body` for every thread of every block. Throws Error when threads wait for what cannot
  /// come. `seed` orders threads and blocks; 0: as they are numbered.
  void run(const Grid& grid, const std::function<void()>& body, std::uint64_t seed);

  // What a kernel's thread calls.
  /// Waits for all threads of the block; returns how many of them passed a true predicate.
  int barrier(bool predicate, const std::source_location& where);
  /// Waits for the lanes of `mask`; afterwards exchanged() gives what they brought.
  void warp(WarpOp op, unsigned mask, std::uint64_t value, const std::source_location& where);
  std::uint64_t exchanged(unsigned mask, unsigned lane, const std::source_location& where);
  unsigned lane() const { return current_ % kWarp; }
  /// A copy that happens when the thread waits for it, as late as the device may make it.
  void copy_later(void* to, const void* from, std::size_t bytes);
  void end_copy_group();
  /// Waits for all but the last `pending` groups of the thread's copies.
  void wait_for_copies(std::size_t pending);
  void* dynamic_shared();
  /// The block's variable named by `key`.
  void* static_shared(const void* key, std::size_t bytes);

 private:
  static constexpr unsigned kWarp = 32;
  enum class State : std::uint8_t { fresh, ready, at_barrier, at_warp_op, done };

  struct Fiber {
    boost::context::detail::fcontext_t context = nullptr;
    char* stack = nullptr;  // lowest address; null: the operating system's own stack
    std::size_t stack_bytes = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's
  };
  struct Thread {
    Fiber* fiber = nullptr;
    State state = State::fresh;
    WarpOp op = WarpOp::sync;
    unsigned mask = 0;
    std::uint64_t value = 0;
    std::source_location where;
  };
  struct Warp {
    unsigned arrived = 0;
    std::uint64_t values[kWarp] = {};  // of the last exchange, for each lane that took part
  };
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
  };
  struct Copies {  // of a thread; groups: where each one that was not waited for ends
    std::vector<Copy> queue;
    std::vector<std::size_t> groups;
  };
  struct SharedVariable {
    const void* key;
    std::unique_ptr<char[]> memory;
    std::size_t bytes;
  };

  static void fiber_main(boost::context::detail::transfer_t from);
  void work();
  void run_block(dim3 index, std::uint64_t seed);
  void enter(unsigned thread);
  void suspend();
  void switch_to(Fiber* next);
  void arrive_from(boost::context::detail::transfer_t from);
  Fiber* next_fiber();
  Fiber* idle_fiber();
  void make_ready(unsigned thread);
  void shuffle_order();
  void release_barrier();
  void release_warp(unsigned warp, unsigned mask);
  [[noreturn]] void fail();
  std::string describe(unsigned thread) const;
  std::string diagnosis() const;
  void abandon_fibers();

  const std::function<void()>* body_ = nullptr;
  Grid grid_;
  unsigned count_ = 0;    // threads of a block
  unsigned current_ = 0;  // the thread that runs
  unsigned fresh_ = 0;    // position in first_order_ of the next thread to start
  unsigned done_ = 0;
  unsigned waiting_ = 0;  // at the barrier
  int predicates_ = 0, barrier_result_ = 0;
  std::uint64_t random_ = 0;  // 0: threads in order
  bool permuted_ = false;     // first_order_ is not 0, 1, 2, ...
  std::vector<unsigned> first_order_, order_, ready_;
  std::size_t ready_at_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Copies> copies_;  // empty until a thread of the block copies later

  Fiber home_;
  Fiber* running_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::string error_;

  std::unique_ptr<char[]> shared_;
  std::vector<SharedVariable> variables_;
};

}  // namespace emulation
}  // namespace hax
