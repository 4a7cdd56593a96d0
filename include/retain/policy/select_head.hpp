// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/small_heads.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <cstdint>

namespace retain {

namespace detail {

/// Returns part stage[n] of the S parts of row n, for outputs [..., rows, S * D]. The result is
/// [..., rows, D]. With `single`, D must be 1, and the result is [..., rows].
inline at::Tensor picked_heads(const at::Tensor& outputs, std::int64_t stages,
                               const at::Tensor& stage, bool single) {
  auto sizes = outputs.sizes().vec();
  const auto width = sizes.back() / stages;
  sizes.back() = stages;
  sizes.push_back(width);
  const auto parts = outputs.reshape(sizes);
  sizes[sizes.size() - 2] = 1;
  const auto place = stage.unsqueeze(-1).unsqueeze(-1).expand(sizes);
  const auto picked = parts.gather(-2, place).squeeze(-2);
  return single ? picked.squeeze(-1) : picked;
}

/// Like select_head(), for shapes that have been checked.
inline at::Tensor pick_head(const at::Tensor& outputs, std::int64_t stages, const at::Tensor& stage,
                            bool single) {
  if (auto few = pick_few<picked_heads>(outputs, stages, stage, single); few.defined()) return few;
  return picked_heads(outputs, stages, stage, single);
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
        "select_head: outputs of shape ", detail::shape_text(outputs.sizes()), " do not fit ",
        stages, " heads and stages of shape ", detail::shape_text(stage.sizes())));
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
  if (auto few = detail::stages_of_few(observations, stages); few.defined()) return few;
  return observations.narrow(-1, width - stages, stages).argmax(-1);
}

}  // namespace retain
