// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>
#include <retain/kernels/small_updates.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

/// Computes to += tau (from - to) without a graph.
inline void move_towards(at::Tensor& to, const at::Tensor& from, double tau) {
  if (to.scalar_type() == at::kHalf && to.is_cpu()) {  // LibTorch 1.13 has no lerp for this type
    to.copy_(to.to(at::kFloat).lerp_(from.to(to.device(), at::kFloat), tau));
    return;
  }
  if (!move_few(to, from, tau)) to.lerp_(from.to(to.options().requires_grad(false)), tau);
}

}  // namespace detail

/// Moves a target network towards its source network, in place and without a graph. Each parameter
/// is read and written once.
///
///     target <- target + tau (source - target)
///
/// Parameters are matched by name. If two parameters are tied in the source but separate in the
/// target, for example after clone(), both are updated. Buffers, such as the running statistics of
/// a normalization, are copied. With tau = 1 everything is copied, for example to initialize a
/// target. Throws state_error for a name that only one network has. Throws shape_error if the
/// shapes of a parameter differ. Throws config_error for a tau outside [0, 1], and if target and
/// source are the same network. When it throws, nothing has changed.
template <parameter_source Target, parameter_source Source>
void polyak_update(const Target& target, const Source& source, double tau) {
  if (!(tau >= 0 && tau <= 1))
    throw config_error(detail::concat("polyak_update: tau must lie in [0, 1], got ", tau));
  const at::NoGradGuard no_grad;
  const auto weights =
      detail::paired("polyak_update", parameters(target), detail::all_names(source));
  const auto buffers =
      detail::paired("polyak_update", detail::buffers_of(target), detail::buffers_of(source, true));
  if (!weights.empty() && std::all_of(weights.begin(), weights.end(), [](const auto& pair) {
        return pair.first.is_alias_of(pair.second);
      }))
    throw config_error("polyak_update: target and source share all tensors: a copied module holder "
                       "refers to the same network, so make the target with clone()");
  for (auto [to, from] : weights) {
    if (tau == 1)
      to.copy_(from);
    else
      detail::move_towards(to, from, tau);
  }
  for (auto [to, from] : buffers) to.copy_(from);
}

}  // namespace retain
