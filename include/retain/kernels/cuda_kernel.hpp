// SPDX-License-Identifier: MIT
// Kernels of our own on NVIDIA GPUs. Their source is compiled the first time it is needed, by the
// compiler that LibTorch loads for kernels of its own (NVRTC), and started through the driver; both
// are found in the running process. Nothing of CUDA is needed to build: no nvcc, no headers,
// nothing to link. Where one of them is missing, callers fall back on LibTorch's operations.
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

/// A kernel as the driver names it, in the context of one device.
using cuda_function = struct CUfunc_st*;

/// What is called of the CUDA driver and of NVRTC, declared as they declare it. 0 is success for
/// both.
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
  // for one architecture
  int (*get_code_size)(void*, std::size_t*) = nullptr, (*get_code)(void*, char*) = nullptr;
  // for the driver to finish
  int (*get_assembly_size)(void*, std::size_t*) = nullptr, (*get_assembly)(void*, char*) = nullptr;

  /// Throws c10::Error where the driver or NVRTC is not to be had. Expects a GPU.
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
    // LibTorch compiles this operation when it is first called, and knows where its NVRTC lies.
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
    void* const library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);  // kept for good
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
  /// The path of the NVRTC in this process.
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
    return {};  // g++ does not see that nothing comes here
  }
};

/// What the driver loads: code for an architecture such as "sm_90", or, for "", assembly that the
/// driver finishes. Throws c10::Error with the log.
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

/// Binds the device's context to this thread, as the first thing that CUDA's runtime is asked for
/// does.
inline void bind_cuda_context(const cuda_library& cuda, at::Device device) {
  void* context = nullptr;
  cuda.check(cuda.get_context(&context), "started");
  if (context == nullptr) at::zeros({1}, at::TensorOptions().dtype(at::kByte).device(device));
}

/// The kernels of a process: one for each device, name, list of options and source.
class cuda_kernel_cache {
 public:
  /// The place of a kernel, and whether this call made it, empty.
  std::pair<cuda_function*, bool> place(c10::DeviceIndex device, std::string_view name,
                                        const std::vector<std::string>& options,
                                        std::string_view source) {
    // The source, which is long, is compared last and copied once.
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

/// The function `name` of `source`, compiled for the device, once a process for each device and
/// each list of options (such as "-Dnumber=float"). nullptr where it cannot be had, which is warned
/// of once. Expects a guard on the device.
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
      code = compile_cuda(cuda, source, options, "");  // a GPU that is younger than the compiler
    }
    void* module = nullptr;  // lives as long as the process
    cuda.check(cuda.load_module(&module, code.data()), "loaded");
    cuda.check(cuda.get_function(place, module, name), "found");
  } catch (const c10::Error& error) {
    *place = nullptr;
    TORCH_WARN(error.what_without_backtrace(),
               "\nLibTorch's operations do its work, and take longer.");
  }
  return *place;
}

/// The stream that LibTorch's operations are queued on, for the driver; nullptr is the default
/// stream. False where this LibTorch does not tell.
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

/// Queues a kernel behind what LibTorch has queued, where tells_cuda_stream. `arguments`, a
/// structure, is what it takes, by value. Expects a guard on the device.
template <class Arguments>
void launch_cuda(cuda_function kernel, std::int64_t blocks, unsigned threads, Arguments arguments,
                 at::Device device) {
  static_assert(sizeof(Arguments) <= 4096, "more than a kernel takes");
  if (blocks == 0) return;
  TORCH_CHECK(blocks <= std::numeric_limits<std::int32_t>::max(), "retain: ", blocks,
              " blocks are more than a CUDA kernel can be started with");
  const auto& cuda = cuda_library::get(device);
  bind_cuda_context(cuda, device);
  void *stream = nullptr, *list[] = {&arguments};
  const bool told = cuda_stream(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device), stream);
  TORCH_CHECK(told, "retain: this LibTorch does not tell the CUDA stream that it queues on: use "
                    "the default stream");
  cuda.check(cuda.launch(kernel, static_cast<unsigned>(blocks), 1, 1, threads, 1, 1, 0, stream,
                         list, nullptr),
             "started");
}

}  // namespace retain::detail

#endif  // RETAIN_HAS_CUDA_KERNELS
