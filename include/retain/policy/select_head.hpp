// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/joined.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <vector>

namespace retain {

namespace detail {

/// Picks row index[...] out of the S rows of width D of x [..., S, D], as one node of the autograd graph. index [..., 1, D].
struct select_head_function : torch::autograd::Function<select_head_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& outputs, const at::Tensor& index, std::int64_t stages) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({index});
    context->saved_data["sizes"] = outputs.sizes();
    context->saved_data["stages"] = stages;
    return pick(outputs, index, stages);
  }
  static at::Tensor pick(const at::Tensor& outputs, const at::Tensor& index, std::int64_t stages) {
    auto sizes = index.sizes().vec();
    sizes[sizes.size() - 2] = stages;
    return outputs.view(sizes).gather(-2, index).squeeze(-2);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list incoming) {
    const auto index = context->get_saved_variables()[0];
    auto sizes = index.sizes().vec();
    sizes[sizes.size() - 2] = context->saved_data["stages"].toInt();
    const auto gradient = at::zeros(sizes, incoming[0].options()).scatter_(-2, index, incoming[0].unsqueeze(-2));
    return {gradient.view(context->saved_data["sizes"].toIntVector()), {}, {}};
  }
};

}  // namespace detail

/// The outputs of each sample's own head, out of the outputs of all S heads of a layer:
///
///     outputs [..., rows, S * D] and stage [rows], int64 in [0, S)   ->   [..., rows, D]
///
/// `rows` may be several dimensions; those in front of them, of an ensemble, share the stage. The other heads get a gradient of 0.
/// Throws shape_error where the shapes do not fit.
inline at::Tensor select_head(const at::Tensor& outputs, std::int64_t stages, const at::Tensor& stage) {
  const auto before = outputs.dim() - 1 - stage.dim();
  const bool fits = stages >= 1 && before >= 0 && outputs.size(-1) % stages == 0 &&
                    outputs.sizes().slice(static_cast<std::size_t>(before), static_cast<std::size_t>(stage.dim())) == stage.sizes();
  if (!fits)
    throw shape_error(detail::concat("select_head: outputs of shape ", detail::shape_text(outputs.sizes()), " are not those of ", stages,
                                     " heads for stages of shape ", detail::shape_text(stage.sizes())));
  if (stages == 1) return outputs;
  const auto width = outputs.size(-1) / stages;
  auto sizes = outputs.sizes().vec();
  sizes.back() = 1;
  sizes.push_back(width);
  const auto index = stage.unsqueeze(-1).unsqueeze(-1).expand(sizes);
  if (at::GradMode::is_enabled() && detail::may_join(outputs)) return detail::select_head_function::apply(outputs, index, stages);
  return detail::select_head_function::pick(outputs, index, stages);
}

}  // namespace retain
