// SPDX-License-Identifier: MIT
// What every test of the library includes, and the precompiled header. LibTorch first: both it and Catch2 define CHECK.
#pragma once

#include <torch/torch.h>

#undef CHECK
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
#else
#include <catch2/catch.hpp>
inline auto ContainsSubstring(const std::string& text) { return Catch::Matchers::Contains(text); }
#endif

#include <cstdio>
#include <filesystem>
#include <ftw.h>
#include <functional>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace support {

/// ||a - b|| / ||b||, and the plain norm where b is 0.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const double difference = (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
  const double size = b.to(at::kDouble).norm().item<double>();
  return size == 0 ? difference : difference / size;
}

/// Central differences of a scalar function of a tensor, in place and restored.
inline at::Tensor finite_differences(at::Tensor x, const std::function<double()>& f, double h = 1e-5) {
  const at::NoGradGuard no_grad;
  auto gradient = at::zeros(x.sizes(), at::kDouble);
  auto flat = x.view({-1});
  auto out = gradient.view({-1});
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    const double original = flat[i].item<double>();
    flat[i].fill_(original + h);
    const double above = f();
    flat[i].fill_(original - h);
    const double below = f();
    flat[i].fill_(original);
    out[i].fill_((above - below) / (2 * h));
  }
  return gradient;
}

/// A folder that is removed with everything in it.
class temporary_folder {
 public:
  temporary_folder() {
    auto name = (std::filesystem::temp_directory_path() / "retain-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder");
    path_ = name;
  }
  // Not std::filesystem::remove_all: LibTorch as it is packaged for Python exports that of another libstdc++, and it crashes.
  ~temporary_folder() {
    ::nftw(path_.c_str(), [](const char* path, const struct stat*, int, FTW*) { return std::remove(path); }, 8, FTW_DEPTH | FTW_PHYS);
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace support
