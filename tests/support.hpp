// SPDX-License-Identifier: MIT
// What every test of the library includes, and the precompiled header. LibTorch first: both it and
// Catch2 define CHECK.
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

#include <unistd.h>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "../examples/common/temporary_folder.hpp"
#include "skipped.hpp"

namespace support {

/// ||a - b|| / ||b||, and the plain norm where b is 0.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const double difference = (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
  const double size = b.to(at::kDouble).norm().item<double>();
  return size == 0 ? difference : difference / size;
}

/// Central differences of a scalar function of a tensor, in place and restored.
inline at::Tensor finite_differences(at::Tensor x, const std::function<double()>& f,
                                     double h = 1e-5) {
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

using ::temporary_folder;

}  // namespace support
