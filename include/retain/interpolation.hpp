// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct interpolation_options {
  /// alpha of the formula: 0 gives the pre-trained weights, 1 leaves the fine-tuned ones
  double fine_tuned = 0.5;
  /// name patterns of what stays as fine-tuned, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
};

/// Copies of a model's parameters and buffers by name: what it was before training. It is a
/// parameter source.
template <parameter_source M>
parameter_list snapshot(const M& model) {
  const at::NoGradGuard no_grad;
  auto list = detail::tensors_of(model);
  for (auto& entry : list) entry.tensor = entry.tensor.detach().clone();
  return list;
}

/// The weights between a fine-tuned and a pre-trained model, after training (WiSE-FT, Wortsman et
/// al. 2021, arXiv 2109.01903):
///
///     theta = alpha theta_ft + (1 - alpha) theta*
///
/// New tensors by name, without a graph; the ends are exact, and so is what both models agree on.
/// The models need the same parameters, except excluded ones. Half types are mixed in float.
///
/// Buffers: floating-point ones that both have, a BatchNorm's running mean and variance, are
/// interpolated as well, integer ones (its count of batches) are the fine-tuned model's. Statistics
/// between two models are not those of the model between them: pass some training data through it
/// in train mode before you use it, or exclude them by pattern and do the same.
///
/// Throws config_error for an alpha outside [0, 1], or when both models are made of the same
/// tensors; state_error for a parameter that one side lacks; shape_error for another shape.
template <parameter_source FineTuned, parameter_source Pretrained>
parameter_list interpolated(const FineTuned& fine_tuned, const Pretrained& pretrained,
                            const interpolation_options& options = {}) {
  const double alpha = options.fine_tuned;
  if (!(alpha >= 0 && alpha <= 1))
    throw config_error(
        detail::concat("interpolated: the fine-tuned share must lie in [0, 1], got ", alpha));
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> origins;
  for (const auto& [name, tensor] : detail::tensors_of(pretrained)) origins.emplace(name, tensor);
  const auto learnt = parameters(fine_tuned);
  const auto buffers = detail::buffers_of(fine_tuned);

  parameter_list mixed;
  bool some = false, distinct = false;
  const auto mix = [&](const named_tensor& item, bool required) {
    const auto found = origins.find(item.name);
    const bool excluded = detail::covered(options.exclude, item.name);
    if (found == origins.end() && required && !excluded)
      throw state_error(detail::concat("interpolated: the fine-tuned model's '", item.name, "' ",
                                       detail::shape_text(item.tensor.sizes()),
                                       " is not in the pre-trained one: exclude it by pattern"));
    if (found == origins.end() || excluded || !at::isFloatingType(item.tensor.scalar_type())) {
      mixed.push_back({item.name, item.tensor.detach().clone()});
    } else {
      const at::Tensor& origin = found->second;
      if (origin.sizes() != item.tensor.sizes())
        throw shape_error(detail::concat(
            "interpolated: '", item.name, "' has shape ", detail::shape_text(item.tensor.sizes()),
            " in the fine-tuned model and ", detail::shape_text(origin.sizes()),
            " in the pre-trained one: exclude it by pattern"));
      some = true;
      distinct = distinct || !origin.is_alias_of(item.tensor);
      const auto type = item.tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      const auto from = origin.detach().to(item.tensor.device(), type),
                 to = item.tensor.detach().to(type);
      mixed.push_back({item.name, at::lerp(from, to, alpha).to(item.tensor.scalar_type())});
    }
    if (found != origins.end()) origins.erase(found);
  };
  for (const auto& item : learnt) mix(item, true);
  for (const auto& item : buffers) mix(item, false);
  // What the pre-trained model has too much; a module's buffers may be left over when the
  // fine-tuned one is bare parameters.
  for (const auto& item : parameters(pretrained))
    if (origins.count(item.name) && !detail::covered(options.exclude, item.name))
      throw state_error(detail::concat("interpolated: the pre-trained model's '", item.name, "' ",
                                       detail::shape_text(item.tensor.sizes()),
                                       " is not in the fine-tuned one: exclude it by pattern"));
  if (some && !distinct)
    throw config_error("interpolated: both models are made of the same tensors; take a snapshot() "
                       "of the pre-trained one before training");
  return mixed;
}

/// The same, written into the fine-tuned model. Everything is checked before anything is written.
///
///     const auto origin = snapshot(*policy);
///     fine_tune(policy);
///     interpolate(*policy, origin, {.fine_tuned = 0.7});
template <parameter_source FineTuned, parameter_source Pretrained>
void interpolate(const FineTuned& fine_tuned, const Pretrained& pretrained,
                 const interpolation_options& options = {}) {
  const auto mixed = interpolated(fine_tuned, pretrained, options);
  const at::NoGradGuard no_grad;
  auto item = mixed.begin();
  for (const auto& target : detail::tensors_of(fine_tuned))
    target.tensor.detach().copy_((item++)->tensor);
}

}  // namespace retain
