// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/kernels/small_updates.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct sac_temperature_options {
  std::vector<double> initial = {1.0};  ///< initial alpha: one number, or one per stage
  std::vector<double> floor = {};       ///< smallest alpha: empty, one number, or one per stage
  /// largest alpha: empty, one number, or one per stage; an equal floor and cap fix alpha
  std::vector<double> cap = {};
};

/// The temperature alpha of soft actor-critic, adjusted so that the policy's entropy approaches a
/// target H, with one alpha for each of S stages:
///
///     loss = -mean_n log alpha_{k(n)} (log pi(a_n|s_n) + H),   k(n) the stage of sample n
///
/// The loss uses log alpha instead of alpha, as is common.
///
/// A policy under a retention term may be unable to raise its entropy. Its alpha then grows without
/// bound, and the critics learn mostly entropy. Set a cap for the stages with retention. A floor
/// keeps the exploration of new stages. alpha() always respects the bounds. loss() and
/// add_gradient() first clamp the parameter to the bounds, so that it does not drift beyond them.
///
/// This class is a parameter_source with one parameter, log_alpha [S]; the caller passes it to an
/// optimizer. Copies have their own parameters.
///
/// Paper: Haarnoja et al. 2018 (arXiv 1812.05905).
class sac_temperature {
 public:
  /// Throws config_error if there is no stage, if the number of values is neither 1 nor S, if a
  /// value is not positive and finite, or if a floor is above its cap.
  explicit sac_temperature(double entropy_target, std::int64_t stages = 1,
                           const sac_temperature_options& options = {})
      : entropy_target_(entropy_target) {
    if (stages < 1)
      throw config_error(detail::concat("sac_temperature: needs at least one stage, got ", stages));
    if (!std::isfinite(entropy_target))
      throw config_error(
          detail::concat("sac_temperature: entropy_target must be finite, got ", entropy_target));
    constexpr double infinity = std::numeric_limits<double>::infinity();
    lowest_ = logarithms("floor", options.floor, stages, -infinity);
    highest_ = logarithms("cap", options.cap, stages, infinity);
    if (lowest_.gt(highest_).any().item<bool>())
      throw config_error("sac_temperature: a floor is above its cap");
    log_alpha_ = bounded(logarithms("initial", options.initial, stages, 0)).requires_grad_();
  }

  sac_temperature(const sac_temperature& other)
      : entropy_target_(other.entropy_target_),
        lowest_(other.lowest_),
        highest_(other.highest_),
        log_alpha_(
            other.log_alpha_.detach().clone().requires_grad_(other.log_alpha_.requires_grad())) {}
  sac_temperature(sac_temperature&&) noexcept = default;
  sac_temperature& operator=(sac_temperature other) noexcept {
    std::swap(entropy_target_, other.entropy_target_);
    std::swap(lowest_, other.lowest_);
    std::swap(highest_, other.highest_);
    std::swap(log_alpha_, other.log_alpha_);
    return *this;
  }

  /// Returns alpha for every stage, [S], without graph.
  at::Tensor alpha() const {
    const at::NoGradGuard no_grad;
    auto few = detail::clamped_exp_of_few(log_alpha_, lowest_, highest_);
    return few.defined() ? few : bounded(log_alpha_.detach()).exp();
  }
  /// Returns alpha for every sample, without graph. stage is int64 or another integral type, of any
  /// shape. Throws config_error if the stages are not of an integral type.
  at::Tensor alpha(const at::Tensor& stage) const {
    const auto which = places(stage);
    if (which.dim() == 1) return detail::gather_rows(alpha(), which);
    return alpha().index_select(0, which.reshape({-1})).view(which.sizes());
  }

  /// Returns the loss, 0-dim, with log_alpha in its graph. log_probs [N] are the
  /// log-probabilities of the sampled actions. stage [N] has the type that alpha() takes. It is
  /// needed if there is more than one stage. A stage without samples in the batch gets a gradient
  /// of 0. The loss of an empty batch is 0. Throws shape_error if the shapes do not fit, and
  /// config_error if the stages are not of an integral type.
  at::Tensor loss(const at::Tensor& log_probs, const at::Tensor& stage = {}) {
    check_and_bound(log_probs, stage);
    const auto own =
        stage.defined() ? log_alpha_.index_select(0, places(stage).reshape({-1})) : log_alpha_;
    return -detail::mean_of(own * (log_probs.detach().reshape({-1}) + entropy_target_));
  }

  /// Adds the gradient of loss() to log_alpha's gradient. This has the effect of loss().backward(),
  /// but saves the graph, which is most of its cost:
  ///
  ///     grad_k += -1/N sum_{n: k(n)=k} (log pi(a_n|s_n) + H)
  ///
  /// The arguments and errors are those of loss(). An empty batch adds nothing. If log_alpha does
  /// not require a gradient, nothing is added.
  void add_gradient(const at::Tensor& log_probs, const at::Tensor& given = {}) {
    check_and_bound(log_probs, given);
    const auto stage = given.defined() ? places(given) : given;
    if (!log_alpha_.requires_grad() || log_probs.numel() == 0) return;
    const at::NoGradGuard no_grad;
    const double share = -1.0 / static_cast<double>(log_probs.numel());
    auto& gradient = log_alpha_.mutable_grad();
    if (detail::add_sums_of_few(gradient, log_alpha_, log_probs, entropy_target_, share, stage))
      return;
    const auto shares = (log_probs.detach().reshape({-1}) + entropy_target_)
                            .mul_(share)
                            .to(log_alpha_.scalar_type());
    auto added = at::zeros_like(log_alpha_);
    if (stage.defined())
      added.index_add_(0, stage.reshape({-1}), shares);
    else
      added.add_(shares.sum());
    if (gradient.defined())
      gradient.add_(added);
    else
      gradient = std::move(added);
  }

  double entropy_target() const { return entropy_target_; }
  parameter_list named_parameters() const { return {{"log_alpha", log_alpha_}}; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "log_alpha", log_alpha_.detach().clone());
  }
  /// Throws shape_error or state_error, and changes nothing, if the state has another number of
  /// stages or is not finite. The parameter stays the same tensor object, so an optimizer keeps it.
  void load_state(const state& in, const std::string& prefix) {
    const at::NoGradGuard no_grad;
    const at::Tensor& saved = in.tensor(prefix + "log_alpha");
    if (saved.sizes() != log_alpha_.sizes())
      throw shape_error(detail::concat(
          "sac_temperature: the saved log_alpha has shape ", detail::shape_text(saved.sizes()),
          ", but this temperature's has shape ", detail::shape_text(log_alpha_.sizes()),
          ": the state belongs to another number of stages"));
    if (saved.scalar_type() != log_alpha_.scalar_type())
      throw state_error(detail::concat("sac_temperature: the saved log_alpha is ", saved.dtype(),
                                       ", but this temperature's is ", log_alpha_.dtype()));
    if (!detail::all_finite(saved))
      throw state_error("sac_temperature: the saved log_alpha holds a value that is not finite; "
                        "the state cannot be used");
    log_alpha_.copy_(saved);
  }

 private:
  at::Tensor places(const at::Tensor& stage) const {
    return detail::counted("sac_temperature", "stages", stage, log_alpha_.device());
  }
  void check_and_bound(const at::Tensor& log_probs, const at::Tensor& stage) {
    if (stage.defined() ? stage.sizes() != log_probs.sizes() : log_alpha_.numel() != 1)
      throw shape_error(
          detail::concat("sac_temperature: ", log_alpha_.numel(), " stages and log_probs of shape ",
                         detail::shape_text(log_probs.sizes()), " need one stage per sample, got ",
                         stage.defined() ? detail::shape_text(stage.sizes()) : "none"));
    const at::NoGradGuard no_grad;
    if (!detail::clamp_few(log_alpha_, lowest_, highest_)) log_alpha_.copy_(bounded(log_alpha_));
  }
  static at::Tensor logarithms(const char* what, const std::vector<double>& values,
                               std::int64_t stages, double otherwise) {
    auto result = at::full({stages}, otherwise);
    if (values.empty()) return result;
    const auto count = static_cast<std::int64_t>(values.size());
    if (count != 1 && count != stages)
      throw config_error(detail::concat("sac_temperature: ", what, " has ", count, " values for ",
                                        stages, " stages: give one value, or one per stage"));
    for (std::int64_t k = 0; k < stages; ++k) {
      const double value = values[static_cast<std::size_t>(count == 1 ? 0 : k)];
      if (!(value > 0) || !std::isfinite(value))
        throw config_error(
            detail::concat("sac_temperature: ", what, " must be positive and finite, got ", value));
      result[k].fill_(std::log(value));
    }
    return result;
  }
  at::Tensor bounded(const at::Tensor& logarithm) const {
    return at::min(at::max(logarithm, lowest_.to(logarithm.device())),
                   highest_.to(logarithm.device()));
  }

  double entropy_target_;
  at::Tensor lowest_, highest_;  // the bounds of log alpha, [S]
  at::Tensor log_alpha_;
};

}  // namespace retain
