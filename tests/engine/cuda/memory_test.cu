// Device memory: the pool, pools of graphs, copies, and what a capture records.
#include "engine/cuda/memory.h"

#include <doctest/doctest.h>

#include <vector>

#include "engine/caching_pool.h"
#include "engine/cuda/kernel.cuh"
#include "tests/support/compare.h"

using namespace hax;
using namespace hax::cuda;
using namespace hax::test;

namespace {

__global__ void add_kernel(const float* x, float added, float* y, std::int64_t count) {
  for (std::int64_t i = global_thread(); i < count; i += global_threads()) y[i] = x[i] + added;
}

void add(const Tensor& x, float added, Tensor& y) {
  launch(add_kernel, {blocks_for(x.numel(), 64), 64}, x.data<float>(), added, y.data<float>(),
         x.numel());
}

Tensor device_full(Shape shape, double value) { return Tensor::full(shape, value).to(kCuda); }
bool holds(const Tensor& tensor, double value) {
  return relative_error(tensor.to(kCpu), Tensor::full(tensor.shape(), value)) == 0;
}

// What is recorded between begin and end; ends the capture even when a check throws.
class Capture {
 public:
  Capture() { begin_capture(); }
  ~Capture() {
    if (!ended_) end_capture();
    free_capture(graph_);
  }
  void end() {
    ended_ = true;
    graph_ = end_capture();
  }
  void replay() { replay_capture(graph_); }

 private:
  bool ended_ = false;
  void* graph_ = nullptr;
};

}  // namespace

TEST_CASE("cuda: memory that was given back serves the next tensor of its size") {
  if (!why_no_device().empty()) return;
  for (int round = 0; round < 3; ++round) Tensor::empty({1000 + round}, DType::float32, kCuda);
  const MemoryStats before = memory_stats(kCuda);
  for (int round = 0; round < 20; ++round) {
    Tensor a = Tensor::empty({1000 + round}, DType::float32, kCuda);
    CHECK(memory_stats(kCuda).bytes_in_use ==
          before.bytes_in_use + static_cast<std::int64_t>(block_bytes(4 * 1019)));
  }
  CHECK(memory_stats(kCuda).system_requests == before.system_requests);
  CHECK(memory_stats(kCuda).bytes_in_use == before.bytes_in_use);
  release_cached_memory(kCuda);
  CHECK(memory_stats(kCuda).bytes_reserved == memory_stats(kCuda).bytes_in_use);
}

TEST_CASE("cuda: a request that cannot be met says how much is free") {
  if (!why_no_device().empty()) return;
  const std::string error =
      error_of([] { Tensor::empty({std::int64_t{1} << 43}, DType::float32, kCuda); });
  INFO(error);
  CHECK(error.find("out of memory on cuda: a tensor needs 35184372088832 bytes") !=
        std::string::npos);
  CHECK(error.find("are free") != std::string::npos);
  // Nothing was lost: the next request is met.
  CHECK(holds(device_full({5}, 3), 3));
}

TEST_CASE("cuda: copies in every direction, and onto overlapping memory") {
  if (!why_no_device().empty()) return;
  Tensor host = random_tensor({1000}, 3, DType::float32);
  Tensor device = host.to(kCuda), again = device.clone();
  CHECK(same_bits(device.to(kCpu), host));
  CHECK(same_bits(again.to(kCpu), host));
  auto* data = device.data<float>();
  hax::copy_bytes(kCuda, data + 1, kCuda, data, 999 * sizeof(float));
  const Tensor moved = device.to(kCpu);
  for (std::int64_t i = 0; i < 999; ++i)
    REQUIRE(moved.data<float>()[i + 1] == host.data<float>()[i]);
}

TEST_CASE("cuda: blocks of a private pool are never handed to others") {
  if (!why_no_device().empty()) return;
  std::vector<const void*> own;
  std::shared_ptr<CachingPool> pool;
  Tensor kept;
  {
    const PrivatePool use;
    pool = use.pool();
    kept = device_full({777}, 1);
    for (int i = 0; i < 4; ++i) {
      Tensor block = Tensor::empty({777}, DType::float32, kCuda);
      own.push_back(block.raw());
    }
    CHECK(own[0] == own[3]);  // it caches as the common pool does
    own.push_back(kept.raw());
  }
  std::vector<Tensor> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(Tensor::empty({777}, DType::float32, kCuda));
    for (const void* block : own) CHECK(others.back().raw() != block);
  }
  // A block outlives the scope, and goes home when it is given back.
  CHECK(holds(kept, 1));
  const std::int64_t before = pool->stats().bytes_in_use;
  kept = Tensor{};
  CHECK(pool->stats().bytes_in_use == before - static_cast<std::int64_t>(block_bytes(4 * 777)));
  CHECK(pool->stats().bytes_in_use == 0);
  others.push_back(Tensor::empty({777}, DType::float32, kCuda));
  for (const void* block : own) CHECK(others.back().raw() != block);
}

TEST_CASE("cuda: private pools nest, and the common pool returns") {
  if (!why_no_device().empty()) return;
  const std::int64_t before = memory_stats(kCuda).bytes_in_use;
  const PrivatePool outer;
  Tensor a = device_full({100}, 1);
  const std::int64_t in_outer = outer.pool()->stats().bytes_in_use;
  {
    const PrivatePool inner;
    const Tensor b = device_full({100}, 2);
    CHECK(inner.pool()->stats().bytes_in_use > 0);
    CHECK(outer.pool()->stats().bytes_in_use == in_outer);
  }
  const Tensor c = device_full({100}, 3);
  CHECK(outer.pool()->stats().bytes_in_use > in_outer);
  CHECK(memory_stats(kCuda).bytes_in_use == before);
}

TEST_CASE("cuda: a capture records without running, a replay runs on what is there then") {
  if (!why_no_device().empty()) return;
  Tensor x = device_full({200}, 1), y = device_full({200}, 0), z = device_full({200}, 0);
  Capture capture;
  add(x, 10, y);
  copy_on_device(z.raw(), y.raw(), 200 * sizeof(float));
  add(z, 100, z);
  capture.end();
  CHECK(holds(y, 0));
  CHECK(holds(z, 0));
  const std::int64_t launches = launch_count();
  capture.replay();
  CHECK(holds(y, 11));
  CHECK(holds(z, 111));
  hax::copy_bytes(kCuda, x.raw(), kCpu, Tensor::full({200}, 5).raw(), 200 * sizeof(float));
  capture.replay();
  capture.replay();
  CHECK(holds(y, 15));
  CHECK(holds(z, 115));
  CHECK(launch_count() == launches);
}

TEST_CASE("cuda: temporaries of a capture keep their memory between its replays") {
  if (!why_no_device().empty()) return;
  Tensor x = device_full({300}, 1), y = device_full({300}, 0);
  std::shared_ptr<CachingPool> pool;
  Capture capture;
  {
    const PrivatePool use;
    pool = use.pool();
    Tensor between = Tensor::empty({300}, DType::float32, kCuda);
    add(x, 1, between);
    add(between, 1, y);
  }
  capture.end();
  std::vector<Tensor> others;  // would be given the temporary's block, were it in the common pool
  for (int i = 0; i < 8; ++i) others.push_back(device_full({300}, 40 + i));
  capture.replay();
  CHECK(holds(y, 3));
  for (int i = 0; i < 8; ++i) CHECK(holds(others[static_cast<std::size_t>(i)], 40 + i));
}

TEST_CASE("cuda: what a capture cannot record is refused") {
  if (!why_no_device().empty()) return;
  Tensor x = device_full({10}, 1), host = Tensor::full({10}, 2);
  std::vector<std::string> errors;
  {
    Capture capture;
    add(x, 1, x);
    errors = {error_of([&] { host.to(kCuda); }), error_of([&] { x.to(kCpu); }),
              error_of([] { begin_capture(); })};
    capture.end();
  }
  CHECK(errors == std::vector<std::string>{"cuda: a copy from the host while a graph is captured",
                                           "cuda: a copy to the host while a graph is captured",
                                           "cuda: a second capture while a graph is captured"});
  CHECK(holds(x, 1));
  CHECK(holds(device_full({10}, 4), 4));  // and all goes on as before
}
