// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace retain {

namespace detail {

/// Picks part stage[n] of the S parts of row n of x [..., rows, S * D], as one node of the autograd
/// graph: [..., rows, D], or with `single`, where D is 1, [..., rows].
struct select_head_function : torch::autograd::Function<select_head_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& outputs,
                            const at::Tensor& stage, std::int64_t stages, bool single) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({stage});
    context->saved_data["sizes"] = outputs.sizes();
    context->saved_data["stages"] = stages;
    return pick(outputs, stage, stages, single);
  }
  static at::Tensor pick(const at::Tensor& outputs, const at::Tensor& stage, std::int64_t stages,
                         bool single) {
    auto sizes = outputs.sizes().vec();
    const auto width = sizes.back() / stages;
    if (width > 0 && outputs.numel() <= few_numbers && plain_floats({&outputs}) &&
        plain_indices(stage, stages)) {
      if (single)
        sizes.pop_back();
      else
        sizes.back() = width;
      auto picked = at::empty(sizes, outputs.options());
      const auto* from = outputs.data_ptr<float>();
      const auto* which = stage.data_ptr<std::int64_t>();
      auto* to = picked.data_ptr<float>();
      const auto rows = stage.numel(), all = picked.numel() / width;
      for (std::int64_t i = 0, n = 0; i < all; ++i, n = n + 1 < rows ? n + 1 : 0)
        for (std::int64_t j = 0; j < width; ++j)
          to[i * width + j] = from[(i * stages + which[n]) * width + j];
      return picked;
    }
    sizes.back() = stages;
    sizes.push_back(width);
    const auto picked = outputs.view(sizes).gather(-2, positions(stage, sizes)).squeeze(-2);
    return single ? picked.squeeze(-1) : picked;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto stage = context->get_saved_variables()[0];
    const auto stages = context->saved_data["stages"].toInt();
    auto sizes = context->saved_data["sizes"].toIntVector();
    const auto width = sizes.back() / stages;
    if (width > 0 && incoming[0].numel() <= few_numbers && plain_floats({&incoming[0]}) &&
        plain_indices(stage, stages)) {
      const auto gradient = at::zeros(sizes, incoming[0].options());
      const auto* from = incoming[0].data_ptr<float>();
      const auto* which = stage.data_ptr<std::int64_t>();
      auto* to = gradient.data_ptr<float>();
      const auto rows = stage.numel(), all = incoming[0].numel() / width;
      for (std::int64_t i = 0, n = 0; i < all; ++i, n = n + 1 < rows ? n + 1 : 0)
        for (std::int64_t j = 0; j < width; ++j)
          to[(i * stages + which[n]) * width + j] = from[i * width + j];
      return {gradient, {}, {}, {}};
    }
    const auto whole = sizes;
    sizes.push_back(width);
    sizes[sizes.size() - 2] = stages;
    const auto index = positions(stage, sizes);
    return {at::zeros(sizes, incoming[0].options())
                .scatter_(-2, index, incoming[0].view(index.sizes()))
                .view(whole),
            {},
            {},
            {}};
  }

 private:
  /// The stage as gather and scatter want it, for parts of `sizes` [..., rows, S, D].
  static at::Tensor positions(const at::Tensor& stage, std::vector<std::int64_t> sizes) {
    sizes[sizes.size() - 2] = 1;
    return stage.unsqueeze(-1).unsqueeze(-1).expand(sizes);
  }
};

/// select_head of shapes that fit.
inline at::Tensor pick_head(const at::Tensor& outputs, std::int64_t stages, const at::Tensor& stage,
                            bool single) {
  if (at::GradMode::is_enabled() && may_join(outputs))
    return select_head_function::apply(outputs, stage, stages, single);
  return select_head_function::pick(outputs, stage, stages, single);
}

}  // namespace detail

/// Selects, for each sample, the outputs of one head from the outputs of all S heads of a layer:
///
///     outputs [..., rows, S * D] and stage [rows], integral in [0, S)   ->   [..., rows, D]
///
/// `rows` may be several dimensions. The dimensions before `rows`, for example of an ensemble, use
/// the same stages. Heads that are not selected get a gradient of 0. Throws shape_error if the
/// shapes do not fit, and config_error if the stages are not of an integral type.
inline at::Tensor select_head(const at::Tensor& outputs, std::int64_t stages,
                              const at::Tensor& stage) {
  const auto before = outputs.dim() - 1 - stage.dim();
  const bool fits = stages >= 1 && before >= 0 && outputs.size(-1) % stages == 0 &&
                    outputs.sizes().slice(static_cast<std::size_t>(before),
                                          static_cast<std::size_t>(stage.dim())) == stage.sizes();
  if (!fits)
    throw shape_error(detail::concat(
        "select_head: outputs of shape ", detail::shape_text(outputs.sizes()), " are not those of ",
        stages, " heads for stages of shape ", detail::shape_text(stage.sizes())));
  const auto which = detail::counted("select_head", "stages", stage, outputs.device());
  return stages == 1 ? outputs : detail::pick_head(outputs, stages, which, false);
}

/// Returns the stage of each observation: [..., width] -> int64 [...]. The last S numbers of an
/// observation are a one-hot vector, and the stage is the position of its largest number. Among
/// equal numbers the first one counts. Throws shape_error if an observation has at most S numbers.
inline at::Tensor stage_of(const at::Tensor& observations, std::int64_t stages) {
  const auto width = observations.dim() < 1 ? 0 : observations.size(-1);
  if (stages < 1 || width <= stages)
    throw shape_error(detail::concat("stage_of: observations of shape ",
                                     detail::shape_text(observations.sizes()),
                                     " do not end in a one-hot of ", stages, " stages"));
  const at::NoGradGuard no_grad;
  if (observations.numel() > detail::few_numbers || !detail::plain_floats({&observations}))
    return observations.narrow(-1, width - stages, stages).argmax(-1);
  const auto rows = observations.sizes().slice(0, static_cast<std::size_t>(observations.dim() - 1));
  auto found = at::empty(rows, observations.options().dtype(at::kLong));
  const auto* from = observations.data_ptr<float>();
  auto* to = found.data_ptr<std::int64_t>();
  for (std::int64_t n = 0; n < found.numel(); ++n) {
    const auto* hot = from + (n + 1) * width - stages;
    std::int64_t best = 0;
    for (std::int64_t k = 1; k < stages; ++k)
      if (hot[k] > hot[best] || (std::isnan(hot[k]) && !std::isnan(hot[best]))) best = k;
    to[n] = best;
  }
  return found;
}

}  // namespace retain
