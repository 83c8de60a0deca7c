// An allocator for the small objects that a graph is made of, which come and go by the hundred for
// every sequence: each thread keeps those it freed for the next of the same type.
#pragma once

#include <cstddef>
#include <new>

namespace hax {

/// For std::allocate_shared: one object at a time. An object may be freed by another thread than
/// the one that made it; its memory then stays there.
template <class T>
class Recycled {
 public:
  using value_type = T;
  Recycled() = default;
  template <class U>
  Recycled(const Recycled<U>&) {}  // NOLINT(google-explicit-constructor)

  T* allocate(std::size_t count) {
    if (count == 1 && kept().first != nullptr) {
      Link* const link = kept().first;
      kept().first = link->next;
      --kept().count;
      return reinterpret_cast<T*>(link);
    }
    return static_cast<T*>(::operator new(count* kBytes));
  }
  void deallocate(T* object, std::size_t count) noexcept {
    if (count != 1 || kept().count >= kMost) return ::operator delete(object);
    static thread_local const ThreadEnd end;
    kept().first = new (object) Link{kept().first};
    ++kept().count;
  }
  bool operator==(const Recycled&) const { return true; }

 private:
  struct Link {
    Link* next;
  };
  static constexpr std::size_t kBytes = sizeof(T) < sizeof(Link) ? sizeof(Link) : sizeof(T);
  // More than a sequence's graph has. AddressSanitizer must see what is freed.
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kMost = 0;
#else
  static constexpr std::size_t kMost = 4096;
#endif

  struct Kept {  // without a destructor: objects with static storage outlive the thread's own
    Link* first = nullptr;
    std::size_t count = 0;
  };
  struct ThreadEnd {
    ~ThreadEnd() {
      Kept& left = kept();
      while (left.first != nullptr) {
        Link* const link = left.first;
        left.first = link->next;
        ::operator delete(link);
      }
      left.count = kMost;  // what is still freed goes to the system
    }
  };
  static Kept& kept() {
    static thread_local Kept kept;
    return kept;
  }
};

}  // namespace hax
