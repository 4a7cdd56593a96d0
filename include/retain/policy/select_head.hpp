// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace retain {

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
  sizes[sizes.size() - 2] = stages;
  return outputs.view(sizes).gather(-2, index).squeeze(-2);
}

}  // namespace retain
