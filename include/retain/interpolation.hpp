// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/patterns.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct interpolation_options {
  /// alpha in the formula: 0 gives the pre-trained weights, 1 gives the fine-tuned weights
  double fine_tuned = 0.5;
  /// name patterns of tensors that keep the fine-tuned values, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
};

/// Copies the parameters and buffers of a model by name, for example to keep the state before
/// training. The result is a parameter source.
template <parameter_source M>
[[nodiscard]] parameter_list snapshot(const M& model) {
  const at::NoGradGuard no_grad;
  auto list = detail::tensors_of(model);
  for (auto& entry : list) entry.tensor = entry.tensor.detach().clone();
  return list;
}

/// Interpolates linearly between the weights of a fine-tuned and a pre-trained model, after
/// training (WiSE-FT).
///
///     theta = alpha theta_ft + (1 - alpha) theta*
///
/// Returns new tensors by name, without a graph. With alpha 0 or 1 the result equals one of the
/// models exactly. Values that are equal in both models are also exact in the result. Both models
/// need the same parameters, except for excluded ones. Half types are interpolated in float.
///
/// Buffers: floating-point buffers that both models have, such as a BatchNorm's running mean and
/// variance, are interpolated too. Integer buffers, such as its number of batches, are copied from
/// the fine-tuned model. Interpolated statistics are not the correct statistics of the interpolated
/// model. Therefore run the interpolated model on some training data in train mode before you use
/// it. You may also exclude the statistics by pattern, but the run on training data is necessary in
/// both cases.
///
/// Throws config_error for an alpha outside [0, 1], for a pattern that matches no tensor of either
/// model, and if both models share the same tensors.
/// Throws state_error for a parameter that only one of the models has. Throws shape_error if the
/// shapes of a parameter differ.
///
/// Paper: Wortsman et al. 2021, arXiv 2109.01903.
template <parameter_source FineTuned, parameter_source Pretrained>
[[nodiscard]] parameter_list interpolated(const FineTuned& fine_tuned, const Pretrained& pretrained,
                                          const interpolation_options& options = {}) {
  const double alpha = options.fine_tuned;
  if (!(alpha >= 0 && alpha <= 1))
    throw config_error(
        detail::concat("interpolated: the fine-tuned share must lie in [0, 1], got ", alpha));
  const at::NoGradGuard no_grad;
  const auto all_origins = detail::tensors_of(pretrained);
  detail::check_patterns("interpolated", "exclude pattern", options.exclude,
                         detail::tensors_of(fine_tuned), all_origins);
  std::map<std::string, at::Tensor> origins;
  for (const auto& [name, tensor] : all_origins) origins.emplace(name, tensor);
  const auto learned = parameters(fine_tuned);
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
  for (const auto& item : learned) mix(item, true);
  for (const auto& item : buffers) mix(item, false);
  // Checks for parameters that only the pre-trained model has. Its buffers may remain here, if the
  // fine-tuned model is a list of parameters without buffers.
  for (const auto& item : parameters(pretrained))
    if (origins.count(item.name) && !detail::covered(options.exclude, item.name))
      throw state_error(detail::concat("interpolated: the pre-trained model's '", item.name, "' ",
                                       detail::shape_text(item.tensor.sizes()),
                                       " is not in the fine-tuned one: exclude it by pattern"));
  if (some && !distinct)
    throw config_error("interpolated: both models share the same tensors; take a snapshot() of the "
                       "pre-trained model before training");
  return mixed;
}

/// Like `interpolated`, but writes the result into the fine-tuned model. Checks everything before
/// the first write.
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
