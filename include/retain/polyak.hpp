// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/module_tensors.hpp>
#include <retain/detail/plain_floats.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>
#include <retain/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

/// Pairs by name: `source` lists a tensor of several names under each of them, since a module's clone() takes those apart that were tied after it was
/// made. Throws unless both sides have the same names and shapes.
inline std::vector<std::pair<at::Tensor, at::Tensor>> paired(const parameter_list& target, const parameter_list& source) {
  std::unordered_map<std::string, at::Tensor> by_name;
  std::unordered_set<const at::TensorImpl*> taken;
  for (const auto& [name, tensor] : source) by_name.emplace(name, tensor);
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (const auto& [name, tensor] : target) {
    const auto found = by_name.find(name);
    if (found == by_name.end())
      throw state_error(concat("polyak_update: the target's '", name, "' ", shape_text(tensor.sizes()),
                               " is not in the source: make the target as its copy"));
    if (found->second.sizes() != tensor.sizes())
      throw shape_error(concat("polyak_update: '", name, "' has shape ", shape_text(tensor.sizes()), " in the target and ",
                               shape_text(found->second.sizes()), " in the source"));
    pairs.emplace_back(tensor, found->second);
    taken.insert(found->second.unsafeGetTensorImpl());
  }
  for (const auto& [name, tensor] : source)
    if (!taken.contains(tensor.unsafeGetTensorImpl()))
      throw state_error(concat("polyak_update: the source's '", name, "' is not in the target: make the target as its copy"));
  return pairs;
}

/// to += tau (from - to), without graph.
inline void move_towards(at::Tensor& to, const at::Tensor& from, double tau) {
  if (to.scalar_type() == at::kHalf && to.is_cpu()) {  // LibTorch 1.13 has no lerp of these
    to.copy_(to.to(at::kFloat).lerp_(from.to(to.device(), at::kFloat), tau));
    return;
  }
  if (to.numel() > few_numbers || !plain_floats({&to, &from})) {
    to.lerp_(from.to(to.options().requires_grad(false)), tau);
    return;
  }
  auto* moved = to.data_ptr<float>();
  const auto* goal = floats_of(from);
  const auto step = static_cast<float>(tau);
  for (std::int64_t i = 0; i < to.numel(); ++i) {
    const float way = goal[i] - moved[i];
    moved[i] = step < 0.5f ? moved[i] + step * way : goal[i] - way * (1 - step);  // as lerp_
  }
  written(to);
}

}  // namespace detail

/// Moves a target network towards its source, in place, without a graph, in one pass over each parameter:
///
///     target <- target + tau (source - target)
///
/// Parameters are matched by name; what is tied in the source alone moves both of the target's, as in a module that clone() took apart.
/// Buffers, such as a normalisation's running statistics, are copied. tau 1 copies everything, as a target begins. Throws state_error for a name that only one side has, shape_error for another shape and config_error for a tau
/// outside [0, 1] or a target that is its source, before anything is moved.
template <parameter_source Target, parameter_source Source>
void polyak_update(const Target& target, const Source& source, double tau) {
  if (!(tau >= 0 && tau <= 1)) throw config_error(detail::concat("polyak_update: tau must lie in [0, 1], got ", tau));
  const at::NoGradGuard no_grad;
  const auto weights = detail::paired(parameters(target), detail::all_names(source));
  const auto buffers = detail::paired(detail::buffers_of(target), detail::buffers_of(source, true));
  if (!weights.empty() && std::all_of(weights.begin(), weights.end(), [](const auto& pair) { return pair.first.is_alias_of(pair.second); }))
    throw config_error("polyak_update: the target is its source, tensor by tensor: a module holder's copy is the same network, clone() makes another");
  for (auto [to, from] : weights) {
    if (tau == 1)
      to.copy_(from);
    else
      detail::move_towards(to, from, tau);
  }
  for (auto [to, from] : buffers) to.copy_(from);
}

}  // namespace retain
