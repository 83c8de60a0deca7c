// The device through the CUDA runtime.
#include "engine/cuda/nvidia/check.cuh"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>

#include "engine/cuda/blas.h"
#include "engine/cuda/kernel.cuh"

namespace hax::cuda {

const std::string& why_no_device() {
  static const std::string reason = [] {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    (void)cudaGetLastError();  // a missing device must not be the error of a later call
    if (status != cudaSuccess) return std::string(cudaGetErrorString(status));
    return std::string(count > 0 ? "" : "no CUDA-capable device is detected");
  }();
  return reason;
}

const DeviceInfo& device_info() {
  static const DeviceInfo info = [] {
    check(why_no_device().empty(), "cuda: {}", why_no_device());
    cudaDeviceProp properties{};
    int device = 0;
    require(cudaGetDevice(&device), "cudaGetDevice");
    require(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    return DeviceInfo{
        .name = properties.name,
        .multiprocessors = properties.multiProcessorCount,
        .major = properties.major,
        .minor = properties.minor,
        .memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem),
        .shared_bytes_per_block = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin)};
  }();
  return info;
}

namespace {

thread_local Queue* chosen = nullptr;

}  // namespace

void* make_queue() {
  check(why_no_device().empty(), "cuda: {}", why_no_device());
  auto made = std::make_unique<Queue>();
  require(cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return made.release();
}

void free_queue(void* queue) noexcept {
  const std::unique_ptr<Queue> old(static_cast<Queue*>(queue));
  (void)cudaStreamSynchronize(old->stream);
  free_products(*old);
  (void)cudaStreamDestroy(old->stream);
}

void use_queue(void* queue) noexcept { chosen = static_cast<Queue*>(queue); }

// The stream of all that chose none is never destroyed: at the end of the process the driver may be
// gone first.
Queue& queue() {
  if (chosen != nullptr) return *chosen;
  static auto* common = static_cast<Queue*>(make_queue());
  return *common;
}

void wait_for_stream() { require(cudaStreamSynchronize(stream()), "waiting for the device"); }

void launch_on_device(const void* kernel, const LaunchShape& shape, void** arguments) {
  constexpr std::size_t kAlwaysAllowed = std::size_t{48} << 10;
  cudaError_t status = cudaSuccess;
  if (shape.shared_bytes > kAlwaysAllowed) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shape.shared_bytes));
  }
  if (status == cudaSuccess) {
    status = cudaLaunchKernel(kernel, shape.blocks, shape.threads, arguments, shape.shared_bytes,
                              stream());
  }
  if (status == cudaSuccess) return;
  const char* name = nullptr;
  std::string readable = "kernel";
  if (cudaFuncGetName(&name, kernel) == cudaSuccess && name != nullptr) {
    char* demangled = abi::__cxa_demangle(name, nullptr, nullptr, nullptr);
    readable = demangled != nullptr ? demangled : name;
    std::free(demangled);
  }
  throw Error(fmt::format("cuda: {} launched at {}:{}: {} ({})", readable, shape.where.file_name(),
                          shape.where.line(), cudaGetErrorString(status),
                          cudaGetErrorName(status)));
}

void* system_allocate(std::size_t bytes) {
  check(why_no_device().empty(), "cuda: {}", why_no_device());
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  require(status, "cudaMalloc");
  return memory;
}

// At the end of the process the driver may be gone already; then there is nothing to free.
void system_free(void* memory) noexcept { (void)cudaFree(memory); }

FreeMemory free_memory() {
  std::size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {static_cast<std::int64_t>(free), static_cast<std::int64_t>(total)};
}

void mark_uninitialized(void*, std::size_t) {}

namespace {

void refuse_in_capture(const char* what) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  require(cudaStreamIsCapturing(stream(), &status), "cudaStreamIsCapturing");
  check(status == cudaStreamCaptureStatusNone, "cuda: {} while a graph is captured", what);
}

}  // namespace

void copy_to_device(void* destination, const void* host, std::size_t bytes) {
  refuse_in_capture("a copy from the host");
  // From pageable memory the call returns once the bytes are staged.
  require(cudaMemcpyAsync(destination, host, bytes, cudaMemcpyHostToDevice, stream()),
          "a copy from the host");
}

void copy_to_host(void* host, const void* source, std::size_t bytes) {
  refuse_in_capture("a copy to the host");
  require(cudaMemcpyAsync(host, source, bytes, cudaMemcpyDeviceToHost, stream()),
          "a copy to the host");
  wait_for_stream();
}

void copy_on_device(void* destination, const void* source, std::size_t bytes) {
  require(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, stream()),
          "a copy on the device");
}

void* pinned_allocate(std::size_t bytes) {
  void* memory = nullptr;
  require(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return memory;
}

void pinned_free(void* memory) noexcept { (void)cudaFreeHost(memory); }

void copy_pinned_to_device(void* destination, const void* pinned, std::size_t bytes) {
  copy_to_device(destination, pinned, bytes);
}

void* make_event() {
  cudaEvent_t event = nullptr;
  require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return event;
}

void free_event(void* event) noexcept { (void)cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

void record_event(void* event) {
  refuse_in_capture("an event");
  require(cudaEventRecord(static_cast<cudaEvent_t>(event), stream()), "cudaEventRecord");
}

void wait_for_event(void* event) {
  require(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for the device");
}

void begin_capture() {
  refuse_in_capture("a second capture");
  detail::prepare_products();
  // Relaxed: the pool may ask for memory during a capture.
  require(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
}

void* end_capture() {
  cudaGraph_t graph = nullptr;
  require(cudaStreamEndCapture(stream(), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  (void)cudaGraphDestroy(graph);
  require(status, "cudaGraphInstantiate");
  return executable;
}

void abandon_capture() noexcept {
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(stream(), &graph) == cudaSuccess && graph != nullptr) {
    (void)cudaGraphDestroy(graph);
  }
  (void)cudaGetLastError();  // of a capture that was given up, nobody else's business
}

void replay_capture(void* capture) {
  require(cudaGraphLaunch(static_cast<cudaGraphExec_t>(capture), stream()), "cudaGraphLaunch");
}

void free_capture(void* capture) noexcept {
  (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(capture));
}

}  // namespace hax::cuda
