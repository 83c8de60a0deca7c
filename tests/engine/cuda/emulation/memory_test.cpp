// Mistakes with memory that the emulation turns into crashes or NaN: host code that touches the
// device's memory, reads of what nobody wrote, accesses out of bounds (under AddressSanitizer).
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "engine/cuda/kernel.cuh"
#include "engine/memory.h"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::cuda;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

// Whether `body` crashes, tried in a process of its own whose messages nobody sees.
bool crashes(const std::function<void()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, 1);
    ::dup2(nowhere, 2);
    ::signal(SIGSEGV, SIG_DFL);  // doctest's handler would print and go on to other tests
    ::signal(SIGABRT, SIG_DFL);
    try {
      body();
    } catch (...) {
    }
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void read_kernel(const float* x, std::int64_t index, float* y) { *y = x[index]; }
void write_kernel(float* x, std::int64_t index) { x[index] = 1; }
void read_shared_kernel(std::int64_t index, float* y) {
  HAX_SHARED(values, float[8]);
  values[threadIdx.x % 8] = 1;
  *y = values[index];
}
void read_dynamic_kernel(std::int64_t index, float* y) { *y = dynamic_shared<float>()[index]; }

}  // namespace

TEST_CASE("emulation: host code that touches device memory crashes, a kernel may") {
  Tensor x = Tensor::full({4}, 7).to(kCuda);
  Tensor y = Tensor::zeros({1}).to(kCuda);
  CHECK(!crashes([&] {
    launch(read_kernel, {1, 32}, x.data<float>(), std::int64_t{2}, y.data<float>());
  }));
  CHECK(crashes([&] {
    volatile float seen = x.data<float>()[0];
    (void)seen;
  }));
  CHECK(crashes([&] { x.data<float>()[0] = 1; }));
  launch(read_kernel, {1, 32}, x.data<float>(), std::int64_t{2}, y.data<float>());
  CHECK(y.to(kCpu).data<float>()[0] == 7);
}

TEST_CASE("emulation: what nobody wrote reads as NaN, in new memory and in memory used before") {
  for (int round = 0; round < 3; ++round) {
    Tensor fresh = Tensor::empty({500}, DType::float32, kCuda);
    Tensor host = fresh.to(kCpu);
    for (std::int64_t i = 0; i < 500; ++i) REQUIRE(std::isnan(host.data<float>()[i]));
    hax::copy_bytes(kCuda, fresh.raw(), kCpu, Tensor::zeros({500}).raw(), 500 * sizeof(float));
  }
  Tensor small = Tensor::empty({3}, DType::bfloat16, kCuda);
  CHECK(std::isnan(static_cast<float>(small.to(kCpu).data<Bfloat16>()[1])));
}

TEST_CASE("emulation: AddressSanitizer sees accesses out of bounds") {
  if constexpr (!kAddressSanitizer) {
    MESSAGE("skipped: this build has no AddressSanitizer");
    return;
  }
  Tensor y = Tensor::zeros({1}).to(kCuda);
  auto* out = y.data<float>();
  // Also where the pool's block is larger than the tensor, 9 bytes of 256.
  for (const std::int64_t count : {9, 1000, 1024}) {
    Tensor x = Tensor::zeros({count}).to(kCuda);
    auto* data = x.data<float>();
    CHECK(!crashes([&] { launch(read_kernel, {1, 32}, data, count - 1, out); }));
    CHECK(crashes([&] { launch(read_kernel, {1, 32}, data, count, out); }));
    CHECK(crashes([&] { launch(write_kernel, {1, 32}, data, count); }));
  }
  float* freed = nullptr;
  {
    Tensor x = Tensor::zeros({50}).to(kCuda);
    freed = x.data<float>();
  }
  CHECK(crashes([&] { launch(read_kernel, {1, 32}, freed, 3, out); }));
  CHECK(!crashes([&] { launch(read_shared_kernel, {1, 32}, 7, out); }));
  CHECK(crashes([&] { launch(read_shared_kernel, {1, 32}, 8, out); }));
  CHECK(crashes([&] { launch(read_shared_kernel, {1, 32}, -1, out); }));
  CHECK(!crashes([&] { launch(read_dynamic_kernel, {1, 32, 40}, 9, out); }));
  CHECK(crashes([&] { launch(read_dynamic_kernel, {1, 32, 40}, 10, out); }));
}

TEST_CASE("emulation: 1024 threads of a block keep their stacks apart") {
  Tensor y = Tensor::zeros({1024}).to(kCuda);
  launch(
      +[](float* out) {
        float local[512];
        for (int i = 0; i < 512; ++i) local[i] = static_cast<float>(threadIdx.x + 1);
        __syncthreads();
        float sum = 0;
        for (const float v : local) sum += v;
        out[threadIdx.x] = sum;
      },
      {1, 1024}, y.data<float>());
  Tensor host = y.to(kCpu);
  for (int t = 0; t < 1024; ++t) {
    REQUIRE(host.data<float>()[t] == 512 * static_cast<float>(t + 1));
  }
}
