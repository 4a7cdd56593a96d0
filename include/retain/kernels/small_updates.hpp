// SPDX-License-Identifier: MIT
// Small steps of an update of soft actor-critic, for few float32 numbers on the CPU: noise,
// temperatures and target networks. They are loops instead of LibTorch's operations and give the
// same numbers. Call these functions under a NoGradGuard. If the loop does not apply, a function
// changes nothing and returns false or an undefined tensor; the caller then uses its formula.
#pragma once

#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numbers>
#include <vector>

namespace retain::detail {

inline bool few_to_update(std::initializer_list<const at::Tensor*> tensors) {
  return !without_kernel::wanted(small_kernel::updates) && plain_floats(tensors);
}

/// Returns standard normal numbers in the type of `like`: root 2 times erfinv of max(2 u - 1, -1 +
/// 2^-53), with u the float64 numbers in [0, 1) of `uniform`. Overwrites `uniform`.
inline at::Tensor normal_of_few(at::Tensor& uniform, const at::Tensor& like) {
  if (like.numel() > few_functions || !few_to_update({&like})) return {};
  auto* numbers = uniform.data_ptr<double>();
  for (std::int64_t i = 0; i < uniform.numel(); ++i)
    numbers[i] = std::max(2 * numbers[i] - 1, -1 + 0x1p-53);
  uniform.erfinv_();
  auto normal = at::empty(like.sizes(), like.options());
  auto* to = normal.data_ptr<float>();
  for (std::int64_t i = 0; i < normal.numel(); ++i)
    to[i] = static_cast<float>(numbers[i] * std::numbers::sqrt2);
  return normal;
}

/// Computes to += tau (from - to) with the same rounding as lerp_.
inline bool move_few(const at::Tensor& to, const at::Tensor& from, double tau) {
  if (to.numel() > few_numbers || !few_to_update({&to, &from})) return false;
  auto* moved = to.data_ptr<float>();
  const auto* goal = floats_of(from);
  const auto step = static_cast<float>(tau);
  for (std::int64_t i = 0; i < to.numel(); ++i) {
    const float way = goal[i] - moved[i];
    moved[i] = step < 0.5f ? moved[i] + step * way : goal[i] - way * (1 - step);
  }
  written(to);
  return true;
}

/// Clamps each element of x to [low, high], in place.
inline bool clamp_few(const at::Tensor& x, const at::Tensor& low, const at::Tensor& high) {
  if (!few_to_update({&x, &low, &high})) return false;
  auto* to = x.data_ptr<float>();
  for (std::int64_t k = 0; k < x.numel(); ++k)
    to[k] = std::min(std::max(to[k], floats_of(low)[k]), floats_of(high)[k]);
  written(x);
  return true;
}

/// Returns exp of x clamped to [low, high], per element.
inline at::Tensor clamped_exp_of_few(const at::Tensor& x, const at::Tensor& low,
                                     const at::Tensor& high) {
  if (!few_to_update({&x, &low, &high})) return {};
  auto result = at::empty(x.sizes(), low.options());
  auto* to = result.data_ptr<float>();
  for (std::int64_t k = 0; k < x.numel(); ++k)
    to[k] = std::exp(std::min(std::max(floats_of(x)[k], floats_of(low)[k]), floats_of(high)[k]));
  return result;
}

/// Computes gradient_k += share * sum_{n: k(n)=k} (x_n + offset). `place` holds k(n); if `place` is
/// undefined, all k(n) are 0. An undefined gradient is first set to zeros like `parameter`.
inline bool add_sums_of_few(at::Tensor& gradient, const at::Tensor& parameter, const at::Tensor& x,
                            double offset, double share, const at::Tensor& place) {
  if (x.numel() > few_numbers || !few_to_update({&parameter, &x, &gradient}) ||
      (place.defined() && !plain_indices(place, parameter.numel())))
    return false;
  if (!gradient.defined())
    gradient = at::zeros(parameter.sizes(), parameter.options().requires_grad(false));
  std::vector<float> sums(static_cast<std::size_t>(parameter.numel()), 0.0f);
  const auto* values = floats_of(x);
  const auto* which = place.defined() ? place.data_ptr<std::int64_t>() : nullptr;
  for (std::int64_t n = 0; n < x.numel(); ++n)
    sums[static_cast<std::size_t>(which ? which[n] : 0)] +=
        (values[n] + static_cast<float>(offset)) * static_cast<float>(share);
  auto* to = gradient.data_ptr<float>();
  for (std::size_t k = 0; k < sums.size(); ++k) to[k] += sums[k];
  written(gradient);
  return true;
}

}  // namespace retain::detail
