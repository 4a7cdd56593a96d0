// SPDX-License-Identifier: MIT
// Counts LibTorch's allocations, so that the table can show how much memory a task needs in
// addition to its data.
#pragma once

#if __has_include(<ATen/cuda/CUDAConfig.h>)
#define RETAIN_LIBTORCH_HAS_CUDA 1
#include <c10/cuda/CUDACachingAllocator.h>
#else
#define RETAIN_LIBTORCH_HAS_CUDA 0
#endif

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/version.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace kernels {

/// An allocator like LibTorch's CPU allocator, aligned to 64 bytes, that counts the allocated
/// bytes. Tensors that were created before `install` are not counted.
class counting_allocator final : public c10::Allocator {
 public:
  static counting_allocator& install() {
    static counting_allocator instance;
    c10::SetCPUAllocator(&instance, 100);
    return instance;
  }

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
  c10::DataPtr allocate(std::size_t bytes) override { return counted(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
#else
  c10::DataPtr allocate(std::size_t bytes) const override { return counted(bytes); }
#endif
  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  /// Returns the peak memory on the device during `run`, minus the memory in use before `run`, in
  /// bytes.
  template <class Run>
  std::int64_t extra(Run run, [[maybe_unused]] c10::Device device) const {
#if RETAIN_LIBTORCH_HAS_CUDA
    if (device.is_cuda()) {
      namespace allocator = c10::cuda::CUDACachingAllocator;
      const auto held = [&] {
        return allocator::getDeviceStats(device.index()).allocated_bytes[0];
      };
      const auto before = held().current;
      allocator::resetPeakStats(device.index());
      run();
      return held().peak - before;
    }
#endif
    const auto before = current().load();
    peak() = before;
    run();
    return peak().load() - before;
  }

 private:
  // also the size of the header in front of each block, which stores the block's size
  static constexpr std::size_t alignment = 64;
  counting_allocator() = default;

  static c10::DataPtr counted(std::size_t bytes) {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, cpu};
    const std::size_t whole = (bytes + 2 * alignment - 1) / alignment * alignment;
    void* const block = std::aligned_alloc(alignment, whole);
    if (block == nullptr) throw std::bad_alloc();
    *static_cast<std::size_t*>(block) = bytes;
    const auto now = current() += static_cast<std::int64_t>(bytes);
    auto most = peak().load();
    while (now > most && !peak().compare_exchange_weak(most, now)) {
    }
    void* const data = static_cast<char*>(block) + alignment;
    return {data, data, &release, cpu};
  }
  static void release(void* data) {
    if (data == nullptr) return;
    void* const block = static_cast<char*>(data) - alignment;
    current() -= static_cast<std::int64_t>(*static_cast<std::size_t*>(block));
    std::free(block);
  }
  static std::atomic<std::int64_t>& current() {
    static std::atomic<std::int64_t> bytes{0};
    return bytes;
  }
  static std::atomic<std::int64_t>& peak() {
    static std::atomic<std::int64_t> bytes{0};
    return bytes;
  }
};

}  // namespace kernels
