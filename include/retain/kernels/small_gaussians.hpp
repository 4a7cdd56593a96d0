// SPDX-License-Identifier: MIT
// Gaussians of few float32 numbers on the CPU: loops instead of LibTorch's operations, and one node
// of the autograd graph. Each function returns an undefined tensor, or an empty list, if the loops
// do not apply; the caller then uses its formula.
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

/// Computes a squashed action and u, [..., D], and the log-density, [...], from standard normal
/// noise:
///
///     u = mean + std noise,     a = center + half tanh(u)
///     log pi = -sum_d [ noise^2 / 2 + log std + log(2 pi) / 2 + log half
///                       + 2 (log 2 - u - softplus(-2u)) ]
///     du = half (1 - tanh(u)^2) da + 2 tanh(u) dlog pi
///     dmean = du,     dlog std = std noise du - dlog pi
///
/// `formula` is called as formula(mean, log_std, noise, center, half).
template <auto formula>
struct small_squash : torch::autograd::Function<small_squash<formula>> {
  static torch::autograd::variable_list draw(const at::Tensor& mean, const at::Tensor& log_std,
                                             const at::Tensor& noise, double center, double half) {
    constexpr double constant = 0.91893853320467274178 + 2 * 0.69314718055994530942;
    const auto width = mean.size(-1);
    const auto options = mean.options();
    const auto rows = mean.sizes().slice(0, static_cast<std::size_t>(mean.dim() - 1));
    auto action = at::empty(mean.sizes(), options), unsquashed = at::empty(mean.sizes(), options),
         log_prob = at::empty(rows, options);
    const auto *of_mean = floats_of(mean), *of_log_std = floats_of(log_std),
               *of_noise = floats_of(noise);
    auto *actions = action.data_ptr<float>(), *before = unsquashed.data_ptr<float>(),
         *densities = log_prob.data_ptr<float>();
    const auto shift = static_cast<float>(center), scale = static_cast<float>(half);
    for (std::int64_t n = 0; n < log_prob.numel(); ++n) {
      float sum = static_cast<float>(static_cast<double>(width) * (constant + std::log(half)));
      for (std::int64_t i = n * width; i < (n + 1) * width; ++i) {
        const float u = of_mean[i] + std::exp(of_log_std[i]) * of_noise[i];
        const float softplus = u < -20 ? -2 * u : std::log1p(std::exp(-2 * u));
        sum += of_log_std[i] + 0.5f * of_noise[i] * of_noise[i] - 2 * (u + softplus);
        before[i] = u;
        actions[i] = shift + scale * std::tanh(u);
      }
      densities[n] = -sum;
    }
    return {std::move(action), std::move(log_prob), std::move(unsquashed)};
  }

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& mean, const at::Tensor& log_std,
                                                const at::Tensor& noise, double center,
                                                double half) {
    context->save_for_backward({mean, log_std, noise});
    context->saved_data["center"] = center;
    context->saved_data["half"] = half;
    context->set_materialize_grads(false);
    return draw(mean, log_std, noise, center, half);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto saved = context->get_saved_variables();
    const at::Tensor &log_std = saved[1], &noise = saved[2], &of_action = incoming[0],
                     &of_log_prob = incoming[1], &of_u = incoming[2];
    const double center = context->saved_data["center"].toDouble(),
                 half = context->saved_data["half"].toDouble();
    if (!of_action.defined() && !of_log_prob.defined() && !of_u.defined())
      return torch::autograd::variable_list(5);
    if (!plain_floats({&saved[0], &log_std, &noise, &of_action, &of_log_prob, &of_u})) {
      const auto drawn = [&](const auto& in) { return formula(in[0], in[1], noise, center, half); };
      auto gradients = gradients_of_formula(drawn, {saved[0], log_std}, incoming);
      gradients.resize(5);  // noise, center and half have no gradient
      return gradients;
    }
    const auto width = noise.size(-1);
    auto of_mean = at::empty(noise.sizes(), noise.options()),
         of_logarithm = at::empty(noise.sizes(), noise.options());
    const auto *mean = floats_of(saved[0]), *logarithm = floats_of(log_std),
               *drawn = floats_of(noise), *actions = floats_of(of_action),
               *densities = floats_of(of_log_prob), *before = floats_of(of_u);
    auto *to_mean = of_mean.data_ptr<float>(), *to_logarithm = of_logarithm.data_ptr<float>();
    const auto scale = static_cast<float>(half);
    for (std::int64_t i = 0; i < noise.numel(); ++i) {
      const float spread = std::exp(logarithm[i]) * drawn[i], within = std::tanh(mean[i] + spread),
                  density = densities ? densities[i / width] : 0;
      const float du = (before ? before[i] : 0) +
                       (actions ? actions[i] * scale * (1 - within * within) : 0) +
                       (densities ? 2 * within * density : 0);
      to_mean[i] = du;
      to_logarithm[i] = du * spread - density;
    }
    return {of_mean, of_logarithm, {}, {}, {}};
  }
};
template <auto formula>
std::vector<at::Tensor> squash_few(const at::Tensor& mean, const at::Tensor& log_std,
                                   const at::Tensor& noise, double center, double half) {
  if (!may_join_in_loops(small_kernel::gaussians, {&mean, &log_std, &noise}, few_functions))
    return {};
  return at::GradMode::is_enabled()
             ? small_squash<formula>::apply(mean, log_std, noise, center, half)
             : small_squash<formula>::draw(mean, log_std, noise, center, half);
}

/// Returns 1 / sigma, limited to e^88, which a float can hold.
inline float inverse_deviation(float log_std) { return std::exp(std::min(-log_std, 88.0f)); }

/// Computes KL(p || q) of Gaussians [..., D] as [...]. With r = log sigma_p - log sigma_q and z =
/// (mu_p - mu_q) / sigma_q, each dimension adds
///
///     KL = (exp(2r) - 1) / 2 - r + z^2 / 2
///     dmu_p = z / sigma_q = -dmu_q
///     dlog sigma_p = exp(2r) - 1,     dlog sigma_q = 1 - exp(2r) - z^2
///
/// `formula` is called as formula(p_mean, p_log_std, q_mean, q_log_std).
template <auto formula>
struct small_gaussian_kl : torch::autograd::Function<small_gaussian_kl<formula>> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& p_mean,
                            const at::Tensor& p_log_std, const at::Tensor& q_mean,
                            const at::Tensor& q_log_std) {
    context->save_for_backward({p_mean, p_log_std, q_mean, q_log_std});
    const auto width = p_mean.size(-1);
    auto result = at::empty(p_mean.sizes().slice(0, static_cast<std::size_t>(p_mean.dim() - 1)),
                            p_mean.options());
    const auto *mp = floats_of(p_mean), *lp = floats_of(p_log_std), *mq = floats_of(q_mean),
               *lq = floats_of(q_log_std);
    auto* to = result.data_ptr<float>();
    for (std::int64_t n = 0; n < result.numel(); ++n) {
      float sum = 0;
      for (std::int64_t i = n * width; i < (n + 1) * width; ++i) {
        const float r = lp[i] - lq[i], z = (mp[i] - mq[i]) * inverse_deviation(lq[i]);
        sum += 0.5f * std::expm1(2 * r) - r + 0.5f * z * z;
      }
      to[n] = sum;
    }
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto saved = context->get_saved_variables();
    torch::autograd::variable_list made(4);
    const at::Tensor& of_rows = incoming[0];
    if (!plain_floats({&of_rows, &saved[0], &saved[1], &saved[2], &saved[3]})) {
      const auto divergence = [](const auto& in) {
        return torch::autograd::variable_list{formula(in[0], in[1], in[2], in[3])};
      };
      return gradients_of_formula(divergence, saved, incoming);
    }
    const auto width = saved[0].size(-1);
    float* to[4] = {};
    for (std::size_t k = 0; k < 4; ++k)
      if (context->needs_input_grad(k))
        to[k] =
            (made[k] = at::empty(saved[0].sizes(), saved[0].options())).template data_ptr<float>();
    const auto *each = floats_of(of_rows), *mp = floats_of(saved[0]), *lp = floats_of(saved[1]),
               *mq = floats_of(saved[2]), *lq = floats_of(saved[3]);
    for (std::int64_t i = 0; i < saved[0].numel(); ++i) {
      const float share = each[i / width], of_q = inverse_deviation(lq[i]),
                  z = (mp[i] - mq[i]) * of_q, excess = std::expm1(2 * (lp[i] - lq[i]));
      const float slopes[4] = {z * of_q, excess, -z * of_q, -(excess + z * z)};
      for (int k = 0; k < 4; ++k)
        if (to[k]) to[k][i] = share * slopes[k];
    }
    return made;
  }
};
template <auto formula>
at::Tensor gaussian_kl_of_few(const at::Tensor& p_mean, const at::Tensor& p_log_std,
                              const at::Tensor& q_mean, const at::Tensor& q_log_std) {
  if (!may_join_in_loops(small_kernel::gaussians, {&p_mean, &p_log_std, &q_mean, &q_log_std},
                         few_functions))
    return {};
  return small_gaussian_kl<formula>::apply(p_mean, p_log_std, q_mean, q_log_std);
}

}  // namespace retain::detail
