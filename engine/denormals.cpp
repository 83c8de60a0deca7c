#include "engine/denormals.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace hax {
namespace {

#if defined(__SSE__)
constexpr std::uint64_t kFlush = 0x8040;  // MXCSR: flush-to-zero and denormals-are-zero
std::uint64_t read_control() { return _mm_getcsr(); }
void write_control(std::uint64_t word) { _mm_setcsr(static_cast<unsigned>(word)); }
#elif defined(__aarch64__)
constexpr std::uint64_t kFlush = std::uint64_t{1} << 24;  // FPCR.FZ
std::uint64_t read_control() {
  std::uint64_t word = 0;
  asm volatile("mrs %0, fpcr" : "=r"(word));
  return word;
}
void write_control(std::uint64_t word) { asm volatile("msr fpcr, %0" : : "r"(word)); }
#else  // elsewhere denormals stay as they are: slower, and as right
constexpr std::uint64_t kFlush = 0;
std::uint64_t read_control() { return 0; }
void write_control(std::uint64_t) {}
#endif

}  // namespace

DenormalMode DenormalMode::current() {
  DenormalMode mode;
  mode.word_ = read_control();
  return mode;
}

void DenormalMode::apply() const { write_control(word_); }

FlushDenormals::FlushDenormals() : before_(DenormalMode::current()) {
  write_control(read_control() | kFlush);
}
FlushDenormals::~FlushDenormals() { before_.apply(); }

}  // namespace hax
