// SPDX-License-Identifier: MIT
// The heads of small networks, for few float32 numbers on the CPU: loops instead of LibTorch's
// operations, and one node of the autograd graph. Each function returns an undefined tensor, or
// an empty list, if the loops do not apply; the caller then uses its formula.
#pragma once

#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace retain::detail {

/// Splits outputs into means and clamped logarithms of standard deviations. `formula` is called as
/// formula(outputs, least, greatest).
template <auto formula>
struct small_split : torch::autograd::Function<small_split<formula>> {
  static torch::autograd::variable_list split(const at::Tensor& outputs, double least,
                                              double greatest) {
    auto sizes = outputs.sizes().vec();
    const auto width = sizes.back() /= 2;
    auto mean = at::empty(sizes, outputs.options()), log_std = at::empty(sizes, mean.options());
    const auto* from = outputs.data_ptr<float>();
    auto *means = mean.data_ptr<float>(), *logarithms = log_std.data_ptr<float>();
    const auto low = static_cast<float>(least), high = static_cast<float>(greatest);
    for (std::int64_t n = 0; n < mean.numel(); n += width, from += 2 * width)
      for (std::int64_t d = 0; d < width; ++d) {
        means[n + d] = from[d];
        logarithms[n + d] = clipped(from[width + d], low, high);
      }
    return {std::move(mean), std::move(log_std)};
  }

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& outputs, double least,
                                                double greatest) {
    context->save_for_backward({outputs});
    context->saved_data["least"] = least;
    context->saved_data["greatest"] = greatest;
    context->set_materialize_grads(false);
    return split(outputs, least, greatest);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto outputs = context->get_saved_variables()[0];
    const double least = context->saved_data["least"].toDouble(),
                 greatest = context->saved_data["greatest"].toDouble();
    const at::Tensor &of_mean = incoming[0], &of_log_std = incoming[1];
    if (!of_mean.defined() && !of_log_std.defined()) return torch::autograd::variable_list(3);
    if (!plain_floats({&outputs, &of_mean, &of_log_std})) {
      const auto parts = [&](const auto& in) { return formula(in[0], least, greatest); };
      return {gradients_of_formula(parts, {outputs}, incoming)[0], {}, {}};
    }
    const auto width = outputs.size(-1) / 2;
    auto gradient = at::empty(outputs.sizes(), outputs.options());
    const auto *said = floats_of(outputs), *means = floats_of(of_mean),
               *logarithms = floats_of(of_log_std);
    auto* to = gradient.data_ptr<float>();
    const auto low = static_cast<float>(least), high = static_cast<float>(greatest);
    for (std::int64_t n = 0; n < outputs.numel() / 2;
         n += width, said += 2 * width, to += 2 * width)
      for (std::int64_t d = 0; d < width; ++d) {
        const bool free = said[width + d] >= low && said[width + d] <= high;
        to[d] = means ? means[n + d] : 0;
        to[width + d] = logarithms && free ? logarithms[n + d] : 0;
      }
    return {gradient, {}, {}};
  }
};
template <auto formula>
std::vector<at::Tensor> split_few(const at::Tensor& outputs, double least, double greatest) {
  if (!may_join_in_loops(small_kernel::heads, {&outputs}, few_numbers)) return {};
  return at::GradMode::is_enabled() ? small_split<formula>::apply(outputs, least, greatest)
                                    : small_split<formula>::split(outputs, least, greatest);
}

/// Selects one head for each row. `formula` is called as formula(outputs, stages, stage, single).
template <auto formula>
struct small_pick : torch::autograd::Function<small_pick<formula>> {
  static at::Tensor pick(const at::Tensor& outputs, std::int64_t stages, const at::Tensor& stage,
                         bool single) {
    auto sizes = outputs.sizes().vec();
    const auto width = sizes.back() / stages;
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
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& outputs,
                            std::int64_t stages, const at::Tensor& stage, bool single) {
    context->save_for_backward({outputs, stage});
    context->saved_data["stages"] = stages;
    context->saved_data["single"] = single;
    return pick(outputs, stages, stage, single);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto saved = context->get_saved_variables();
    const at::Tensor &outputs = saved[0], &stage = saved[1];
    const auto stages = context->saved_data["stages"].toInt();
    const bool single = context->saved_data["single"].toBool();
    if (!plain_floats({&incoming[0]})) {
      const auto picked = [&](const auto& in) {
        return torch::autograd::variable_list{formula(in[0], stages, stage, single)};
      };
      return {gradients_of_formula(picked, {outputs}, incoming)[0], {}, {}, {}};
    }
    const auto width = outputs.size(-1) / stages;
    const auto gradient = at::zeros(outputs.sizes(), incoming[0].options());
    const auto* from = incoming[0].data_ptr<float>();
    const auto* which = stage.data_ptr<std::int64_t>();
    auto* to = gradient.data_ptr<float>();
    const auto rows = stage.numel(), all = incoming[0].numel() / width;
    for (std::int64_t i = 0, n = 0; i < all; ++i, n = n + 1 < rows ? n + 1 : 0)
      for (std::int64_t j = 0; j < width; ++j)
        to[(i * stages + which[n]) * width + j] = from[i * width + j];
    return {gradient, {}, {}, {}};
  }
};
template <auto formula>
at::Tensor pick_few(const at::Tensor& outputs, std::int64_t stages, const at::Tensor& stage,
                    bool single) {
  if (outputs.numel() == 0 || !plain_indices(stage, stages) ||
      !may_join_in_loops(small_kernel::heads, {&outputs}, few_numbers))
    return {};
  return at::GradMode::is_enabled() ? small_pick<formula>::apply(outputs, stages, stage, single)
                                    : small_pick<formula>::pick(outputs, stages, stage, single);
}

/// Returns the position of the largest of the last S numbers of each row. Among equal numbers the
/// first one counts. If there is a NaN, its first position is returned. Call it under a
/// NoGradGuard.
inline at::Tensor stages_of_few(const at::Tensor& observations, std::int64_t stages) {
  if (without_kernel::wanted(small_kernel::heads) || observations.numel() > few_numbers ||
      !plain_floats({&observations}))
    return {};
  const auto width = observations.size(-1);
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

/// Concatenates the first `seen` numbers of each observation and the action.
struct small_join : torch::autograd::Function<small_join> {
  static at::Tensor join(const at::Tensor& observations, std::int64_t seen,
                         const at::Tensor& actions) {
    const auto rows = actions.size(0), width = actions.size(1), stride = observations.size(1);
    auto joined = at::empty({rows, seen + width}, actions.options());
    const auto *from = floats_of(observations), *acts = floats_of(actions);
    auto* to = joined.data_ptr<float>();
    for (std::int64_t n = 0; n < rows; ++n, from += stride, acts += width)
      to = std::copy_n(acts, width, std::copy_n(from, seen, to));
    return joined;
  }
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& observations, std::int64_t seen,
                            const at::Tensor& actions) {
    context->saved_data["seen"] = seen;
    context->saved_data["width"] = observations.size(1);
    return join(observations, seen, actions);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto seen = context->saved_data["seen"].toInt(),
               width = context->saved_data["width"].toInt();
    at::Tensor of_observations;
    if (context->needs_input_grad(0))
      of_observations = at::constant_pad_nd(incoming[0].narrow(1, 0, seen), {0, width - seen});
    return {
        of_observations, {}, incoming[0].narrow(1, seen, incoming[0].size(1) - seen).contiguous()};
  }
};
inline at::Tensor join_few(const at::Tensor& observations, std::int64_t seen,
                           const at::Tensor& actions) {
  if (!may_join_in_loops(small_kernel::heads, {&observations, &actions}, few_numbers)) return {};
  return at::GradMode::is_enabled() ? small_join::apply(observations, seen, actions)
                                    : small_join::join(observations, seen, actions);
}

}  // namespace retain::detail
