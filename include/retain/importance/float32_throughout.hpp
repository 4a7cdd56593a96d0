// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace retain::detail {

/// While it lives, products and convolutions of float32 on a GPU are made in float32, not in TF32,
/// whose 10 bits of mantissa would move a gradient by a thousandth, and the batch's gradients away
/// from those of single samples. For the whole process, as LibTorch has the switches.
class float32_throughout {
 public:
  float32_throughout() {
    if (!at::hasCUDA()) return;
    try {
      convolutions_ = at::globalContext().allowTF32CuDNN();
      products_ = at::globalContext().allowTF32CuBLAS();
      // set through LibTorch's newer switches, which these do not mix with: as the caller wants it
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
