// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace retain::detail {

/// During its lifetime, matrix products and convolutions of float32 on a GPU use float32, not TF32.
/// The 10 mantissa bits of TF32 change a gradient by about a thousandth, so the gradients of a
/// batch would differ from those of single samples. LibTorch's switches, and so this class, affect
/// the whole process.
class float32_throughout {
 public:
  float32_throughout() {
    if (!at::hasCUDA()) return;
    try {
      convolutions_ = at::globalContext().allowTF32CuDNN();
      products_ = at::globalContext().allowTF32CuBLAS();
      // The caller used LibTorch's newer switches, which exclude the older ones. Change nothing.
    } catch (const c10::Error&) {
      convolutions_ = products_ = false;
    }
    set(false);
  }
  ~float32_throughout() { set(true); }
  float32_throughout(const float32_throughout&) = delete;
  float32_throughout& operator=(const float32_throughout&) = delete;

 private:
  void set(bool on) const {
    if (convolutions_) at::globalContext().setAllowTF32CuDNN(on);
    if (products_) at::globalContext().setAllowTF32CuBLAS(on);
  }
  bool convolutions_ = false, products_ = false;
};

}  // namespace retain::detail
