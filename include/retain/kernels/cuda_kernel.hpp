// SPDX-License-Identifier: MIT
// Starts retain's own kernels on NVIDIA GPUs. Their source is compiled at its first use with NVRTC,
// the compiler that LibTorch loads for its own kernels, and started through the CUDA driver. Both
// libraries are found in the running process, so building needs no nvcc, no CUDA headers and no
// CUDA libraries. If the driver or NVRTC is missing, callers use LibTorch's operations.
#pragma once

#if defined(__linux__)
#define RETAIN_HAS_CUDA_KERNELS 1
#else
#define RETAIN_HAS_CUDA_KERNELS 0
#endif

#if RETAIN_HAS_CUDA_KERNELS

#include <ATen/ATen.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace retain::detail {

/// The driver's handle of a kernel, in the context of one device.
using cuda_function = struct CUfunc_st*;

/// The functions of the CUDA driver and of NVRTC that are used here, with their original
/// signatures. All of them return 0 on success.
struct cuda_library {
  int (*get_error_string)(int, const char**) = nullptr;
  int (*get_context)(void**) = nullptr;
  int (*get_device)(int*, int) = nullptr;
  int (*get_attribute)(int*, int, int) = nullptr;
  int (*load_module)(void**, const void*) = nullptr;
  int (*get_function)(cuda_function*, void*, const char*) = nullptr;
  int (*launch)(cuda_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void*, void**, void**) = nullptr;

  int (*create_program)(void**, const char*, const char*, int, const char* const*,
                        const char* const*) = nullptr;
  int (*destroy_program)(void**) = nullptr;
  int (*compile)(void*, int, const char* const*) = nullptr;
  int (*get_log_size)(void*, std::size_t*) = nullptr;
  int (*get_log)(void*, char*) = nullptr;
  // machine code for one architecture
  int (*get_code_size)(void*, std::size_t*) = nullptr, (*get_code)(void*, char*) = nullptr;
  // PTX assembly, which the driver compiles
  int (*get_assembly_size)(void*, std::size_t*) = nullptr, (*get_assembly)(void*, char*) = nullptr;

  /// Throws c10::Error if the driver or NVRTC is missing. `device` must be a GPU.
  static const cuda_library& get(at::Device device) {
    static const cuda_library library(device);
    return library;
  }

  void check(int result, const char* what) const {
    if (result == 0) return;
    const char* text = nullptr;
    get_error_string(result, &text);
    TORCH_CHECK(false, "retain: a CUDA kernel cannot be ", what, ": ",
                text ? text : "unknown error");
  }

 private:
  explicit cuda_library(at::Device device) {
    const auto driver = opened("libcuda.so.1");
    take(driver, "cuGetErrorString", get_error_string);
    take(driver, "cuCtxGetCurrent", get_context);
    take(driver, "cuDeviceGet", get_device);
    take(driver, "cuDeviceGetAttribute", get_attribute);
    take(driver, "cuModuleLoadData", load_module);
    take(driver, "cuModuleGetFunction", get_function);
    take(driver, "cuLaunchKernel", launch);
    // LibTorch compiles this operation at its first call, and loads its NVRTC for this.
    at::gcd(at::ones({1}, at::TensorOptions().dtype(at::kInt).device(device)),
            at::ones({1}, at::TensorOptions().dtype(at::kInt).device(device)));
    const auto compiler = opened(loaded_nvrtc().c_str());
    take(compiler, "nvrtcCreateProgram", create_program);
    take(compiler, "nvrtcDestroyProgram", destroy_program);
    take(compiler, "nvrtcCompileProgram", compile);
    take(compiler, "nvrtcGetProgramLogSize", get_log_size);
    take(compiler, "nvrtcGetProgramLog", get_log);
    take(compiler, "nvrtcGetCUBINSize", get_code_size);
    take(compiler, "nvrtcGetCUBIN", get_code);
    take(compiler, "nvrtcGetPTXSize", get_assembly_size);
    take(compiler, "nvrtcGetPTX", get_assembly);
  }

  static void* opened(const char* name) {
    void* const library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);  // never closed
    const char* const why = library ? nullptr : dlerror();
    TORCH_CHECK(library != nullptr,
                "retain: a CUDA kernel cannot be compiled: ", why ? why : "no library");
    return library;
  }
  template <class Function>
  static void take(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    TORCH_CHECK(function != nullptr, "retain: a CUDA kernel cannot be compiled: there is no ",
                name);
  }
  /// Returns the path of the NVRTC library that this process has loaded.
  static std::string loaded_nvrtc() {
    std::ifstream mapped("/proc/self/maps");
    for (std::string line; std::getline(mapped, line);) {
      const auto slash = line.rfind('/'), path = line.find('/');
      if (slash == std::string::npos) continue;
      const auto file = std::string_view(line).substr(slash + 1);
      if (file.rfind("libnvrtc", 0) == 0 && file.rfind("libnvrtc-builtins", 0) != 0)
        return line.substr(path);
    }
    TORCH_CHECK(false, "retain: a CUDA kernel cannot be compiled: this LibTorch has no NVRTC");
    return {};  // unreachable, for a warning of g++
  }
};

/// Compiles `source` for the driver: to machine code for an architecture such as "sm_90", or to PTX
/// assembly if `architecture` is empty. Throws c10::Error with the compiler's log.
inline std::string compile_cuda(const cuda_library& cuda, const char* source,
                                std::vector<std::string> options, const std::string& architecture) {
  void* program = nullptr;
  TORCH_CHECK(cuda.create_program(&program, source, "retain.cu", 0, nullptr, nullptr) == 0,
              "retain: a CUDA kernel cannot be compiled");
  options.emplace_back("--std=c++17");
  if (!architecture.empty()) options.push_back("--gpu-architecture=" + architecture);
  std::vector<const char*> words;
  for (const auto& option : options) words.push_back(option.c_str());
  const bool good = cuda.compile(program, static_cast<int>(words.size()), words.data()) == 0;
  std::string text;
  std::size_t size = 0;
  (good ? architecture.empty() ? cuda.get_assembly_size : cuda.get_code_size : cuda.get_log_size)(
      program, &size);
  text.resize(size);
  (good ? architecture.empty() ? cuda.get_assembly : cuda.get_code : cuda.get_log)(program,
                                                                                   text.data());
  cuda.destroy_program(&program);
  TORCH_CHECK(good, "retain: a CUDA kernel cannot be compiled:\n", text);
  return text;
}

/// Binds the device's context to this thread, as the first call of the CUDA runtime does.
inline void bind_cuda_context(const cuda_library& cuda, at::Device device) {
  void* context = nullptr;
  cuda.check(cuda.get_context(&context), "started");
  if (context == nullptr) at::zeros({1}, at::TensorOptions().dtype(at::kByte).device(device));
}

/// The compiled kernels of the process, by device, name, options and source.
class cuda_kernel_cache {
 public:
  /// Returns the entry of a kernel, and whether this call created it. A new entry is null.
  std::pair<cuda_function*, bool> place(c10::DeviceIndex device, std::string_view name,
                                        const std::vector<std::string>& options,
                                        std::string_view source) {
    // The source is long: compare it last and copy it only once.
    const auto found =
        ready_.find(std::tuple<c10::DeviceIndex, std::string_view, const std::vector<std::string>&,
                               std::string_view>(device, name, options, source));
    if (found != ready_.end()) return {&found->second, false};
    return {&ready_.emplace(key(device, std::string(name), options, std::string(source)), nullptr)
                 .first->second,
            true};
  }

 private:
  using key = std::tuple<c10::DeviceIndex, std::string, std::vector<std::string>, std::string>;
  std::map<key, cuda_function, std::less<>> ready_;
};

/// Returns the function `name` of `source`, compiled for the device. Compiles once per process,
/// device and list of options (such as "-Dnumber=float"). Returns nullptr, with one warning, if the
/// kernel cannot be compiled. The caller must hold a guard on the device.
inline cuda_function cuda_kernel(const char* source, const char* name,
                                 const std::vector<std::string>& options, at::Device device) {
  static std::mutex one_at_a_time;
  static cuda_kernel_cache ready;
  const std::lock_guard lock(one_at_a_time);
  const auto [place, is_new] = ready.place(device.index(), name, options, source);
  if (!is_new) return *place;
  try {
    const auto& cuda = cuda_library::get(device);
    bind_cuda_context(cuda, device);
    int handle = 0, major = 0, minor = 0;
    cuda.check(cuda.get_device(&handle, device.index()), "compiled");
    // the device's compute capability
    cuda.check(cuda.get_attribute(&major, 75, handle), "compiled");
    cuda.check(cuda.get_attribute(&minor, 76, handle), "compiled");
    std::string code;
    try {
      code = compile_cuda(cuda, source, options,
                          "sm_" + std::to_string(major) + std::to_string(minor));
    } catch (const c10::Error&) {
      code = compile_cuda(cuda, source, options, "");  // the GPU is newer than the compiler
    }
    void* module = nullptr;  // lives as long as the process
    cuda.check(cuda.load_module(&module, code.data()), "loaded");
    cuda.check(cuda.get_function(place, module, name), "found");
  } catch (const c10::Error& error) {
    *place = nullptr;
    TORCH_WARN(error.what_without_backtrace(),
               "\nLibTorch's operations are used instead, and are slower.");
  }
  return *place;
}

/// Gets the driver's handle of the stream that LibTorch's operations use; nullptr is the default
/// stream. Returns false if this version of LibTorch does not expose a stream's handle.
template <class Stream>
bool cuda_stream(const Stream& current, void*& handle) {
  handle = nullptr;
  if constexpr (requires { current.native_handle(); }) {
    handle = current.native_handle();
    return true;
  } else {
    return current.id() == 0;
  }
}
inline bool tells_cuda_stream(at::Device device) {
  void* handle = nullptr;
  return cuda_stream(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device), handle);
}

/// Queues a kernel after LibTorch's operations on the same stream. Requires tells_cuda_stream().
/// The structure `arguments` is the kernel's only parameter, by value. The caller must hold a guard
/// on the device.
template <class Arguments>
void launch_cuda(cuda_function kernel, std::int64_t blocks, unsigned threads, Arguments arguments,
                 at::Device device) {
  static_assert(sizeof(Arguments) <= 4096, "more than a kernel takes");
  if (blocks == 0) return;
  TORCH_CHECK(blocks <= std::numeric_limits<std::int32_t>::max(), "retain: ", blocks,
              " blocks are too many for one start of a CUDA kernel");
  const auto& cuda = cuda_library::get(device);
  bind_cuda_context(cuda, device);
  void *stream = nullptr, *list[] = {&arguments};
  const bool told = cuda_stream(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device), stream);
  TORCH_CHECK(told,
              "retain: this version of LibTorch does not expose the handle of its CUDA stream: "
              "use the default stream");
  cuda.check(cuda.launch(kernel, static_cast<unsigned>(blocks), 1, 1, threads, 1, 1, 0, stream,
                         list, nullptr),
             "started");
}

}  // namespace retain::detail

#endif  // RETAIN_HAS_CUDA_KERNELS
