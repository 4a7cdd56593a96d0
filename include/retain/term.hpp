// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/core/leaf.hpp>
#include <retain/core/parameters.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/anchors.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/concepts.hpp>
#include <retain/terms/distillation.hpp>
#include <retain/terms/scheduled_strength.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstddef>
#include <string>
#include <vector>

/// \file
/// What a term of your own is made of. A term derives from nothing. It is any class that satisfies
/// weight_term or output_term, and it holds these parts as members:
///
/// - `strength_schedule`: the strength, also one that is set or adapts; `schedule()` returns it
/// - `anchors`: the anchors of a weight term, their match with a model, and the fused pass
/// - `ask`: calls a student on a rollout, with memory if it has one; `ask_teacher` calls a teacher.
///   In a set of terms, the state that a student returns is not handed on
/// - `mean_divergence`: the mean KL of two predictions over the rows that count
/// - `distribution_of`, `mask_of`, `common_mask`, `masked_mean`: for means of your own over these
///   rows. Replace what padding may hold before you compute: `masked_mean` drops the values of
///   padded rows, but NaN in them still reaches the gradient
/// - `add_gradient_of_loss`: the add_gradient of a weight term that only has a loss
///
/// compose, retention and the schedules treat such a term as one of the library's. Each part has
/// save_state and load_state.

namespace retain {

using detail::common_mask;
using detail::distribution_of;
using detail::mask_of;
using detail::masked_mean;

/// Adds the gradient of term.loss(model) to every trainable `.grad` by autograd, and returns the
/// loss as a 0-dim float64 tensor: the add_gradient of a weight term that only has a loss.
///
///     at::Tensor add_gradient(const retain::parameter_list& model) const {
///       return retain::add_gradient_of_loss(*this, model);
///     }
///
/// An undefined `.grad` is created. A parameter that the loss does not depend on is left as it is.
/// Throws config_error for a parameter that is computed from others, because no optimizer reads its
/// `.grad`.
template <class Term, parameter_source M>
at::Tensor add_gradient_of_loss(Term& term, const M& model) {
  std::vector<at::Tensor> trained;
  for (const auto& [name, tensor] : parameters(model)) {
    if (!tensor.requires_grad()) continue;
    detail::check_leaf("add_gradient_of_loss", name, tensor);
    trained.push_back(tensor);
  }
  const at::AutoGradMode with_graph(true);
  const at::Tensor loss = term.loss(model);
  if (loss.requires_grad()) {
    const auto gradients = torch::autograd::grad({loss}, trained, {}, false, false, true);
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < trained.size(); ++i) {
      if (!gradients[i].defined()) continue;
      auto& gradient = trained[i].mutable_grad();
      if (!gradient.defined()) gradient = at::zeros_like(trained[i]);
      if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
      gradient.add_(gradients[i]);
    }
  }
  return loss.detach().to(at::kDouble);
}

}  // namespace retain
