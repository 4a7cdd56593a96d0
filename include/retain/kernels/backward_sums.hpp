// SPDX-License-Identifier: MIT
// Sums that run backward in time.
#pragma once

#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>

namespace retain::detail {

/// Returns x_t = errors_t + reach_t x_{t+1} for t = T - 1, ..., 0 with x_T = 0. errors and reach
/// are [T, N] with T above 0; the result has the type of `like` [T, N]. If reach_t is 0, x_{t+1}
/// does not contribute, even if it is NaN, as it may be after the end of an episode. Call under a
/// NoGradGuard.
inline at::Tensor backward_sums(const at::Tensor& errors, const at::Tensor& reach,
                                const at::Tensor& like) {
  auto sums = at::empty_like(like);
  if (errors.numel() <= few_numbers && plain_floats({&errors, &reach, &sums})) {
    const auto rows = errors.size(1);
    const auto *error = floats_of(errors), *share = floats_of(reach);
    auto* to = sums.data_ptr<float>();
    for (std::int64_t i = errors.numel(); i-- > 0;) {
      const float later = i + rows < errors.numel() ? to[i + rows] : 0;
      to[i] = error[i] + (share[i] == 0 ? 0 : share[i] * later);
    }
    return sums;
  }
  const auto each = errors.unbind(), shares = reach.unbind(), ends = reach.eq(0).unbind(),
             places = sums.unbind();
  auto later = at::zeros_like(each.front());
  for (std::size_t t = each.size(); t-- > 0;) {
    later = each[t] + shares[t] * later.masked_fill(ends[t], 0);
    places[t].copy_(later);
  }
  return sums;
}

}  // namespace retain::detail
