// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/loss/log_ratio.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/distillation.hpp>
#include <retain/terms/student.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <concepts>
#include <string>
#include <utility>

namespace retain {

/// Estimates of KL(pi || pi*) from one action a ~ pi, with r = pi*(a|s) / pi(a|s). The mean
/// gradient is that of the estimate itself, as a loss; it is not the gradient of the mean, since
/// the distribution of the actions moves with the parameters too.
enum class kl_estimator {
  /// -log r: unbiased, may be negative. Mean gradient 0: that of a score function. A reward
  /// penalty, not a loss
  k1,
  k2,  ///< (log r)^2 / 2: biased, never negative. Mean gradient that of KL(pi || pi*), exactly
  /// r - 1 - log r: unbiased, never negative. Mean gradient that of KL(pi* || pi), the other
  /// direction
  k3,
};

/// The estimate for every step, [...], in nats, in the graph of `log_probs`. `log_probs` = log
/// pi(a|s) and `reference_log_probs` = log pi*(a|s) of the actions that the policy took, [...]. As
/// a penalty on the reward, without a graph:
///
///     rewards -= c * reference_kl_estimate(log_probs.detach(), reference_log_probs, kl_estimator::k1)
///
/// whose policy gradient is that of the sum of KL(pi || pi*) along the trajectory. k3 has the same
/// mean but, as a penalty, another gradient: what it adds to k1, r - 1, has a mean of zero and yet
/// a score that is not. k3 takes no r above e^20 (e^10 in half), and beyond it has no gradient. Of
/// an action that pi* holds impossible every estimate is infinite. Throws shape_error where shapes
/// differ.
inline at::Tensor reference_kl_estimate(const at::Tensor& log_probs,
                                        const at::Tensor& reference_log_probs,
                                        kl_estimator estimator) {
  if (log_probs.sizes() != reference_log_probs.sizes())
    throw shape_error(
        detail::concat("reference_kl: log_probs of shape ", detail::shape_text(log_probs.sizes()),
                       " and reference_log_probs of shape ",
                       detail::shape_text(reference_log_probs.sizes()), " do not belong together"));
  const auto log_ratio = reference_log_probs.detach() - log_probs;
  switch (estimator) {
    case kl_estimator::k1: return log_ratio.neg();
    case kl_estimator::k2: return log_ratio.square() * 0.5;
    case kl_estimator::k3: {
      const auto held = log_ratio.clamp_max(detail::greatest_log_ratio(log_ratio.scalar_type()));
      return held.expm1() - held;
    }
  }
  throw config_error("reference_kl: unknown estimator");
}

struct reference_kl_options {
  strength_schedule strength = 1.0;
  kl_estimator estimator = kl_estimator::k2;
};

/// In place of a reference: the rollout brings reference_log_probs.
struct stored_reference {};

/// The KL to a reference policy from the policy's own actions, as a loss:
///
///     loss = c * mean over valid steps of k2 or k3 of the action taken,   a ~ pi
///
/// (k1, k2 and k3 are Schulman's names, of 2020.) Where all of a distribution can be had,
/// kickstarting with divergence::student_teacher is the same KL(pi || pi*) without the noise of
/// sampling; this needs log-probabilities of the taken actions alone, so that the reference may be
/// asked once a rollout and its weights put away.
///
///     reference_kl{teacher, {.strength = 0.1}}
///     reference_kl{stored_reference{}, {.strength = 0.1}}     // the rollout carries reference_log_probs
///
/// A rollout has `observations` and `actions` [...], and optionally reference_log_probs [...] (the
/// reference is then not asked), mask, and state and done for a recurrent student (see
/// kickstarting). What kl_estimator says of gradients holds for actions of the present policy: in
/// the later epochs over a rollout it is an approximation, as good as the policy still is what
/// played.
///
/// Throws config_error for k1: its mean gradient is zero, so the term would add noise and pull
/// nowhere.
template <class Reference>
class reference_kl {
 public:
  static constexpr const char* name = "reference_kl";

  explicit reference_kl(Reference reference, reference_kl_options options = {})
      : reference_(std::move(reference)),
        schedule_(std::move(options.strength)),
        estimator_(options.estimator) {
    if (estimator_ == kl_estimator::k1)
      throw config_error("reference_kl: k1 is no loss, its mean gradient is zero: subtract "
                         "reference_kl_estimate(..., k1) from the rewards, or "
                         "take k2, whose mean gradient is that of KL(pi || pi*)");
  }

  /// log pi*(a|s) of the rollout's actions, [...], without a graph: to keep as
  /// rollout.reference_log_probs. Throws shape_error where masks do not fit.
  template <class Rollout>
  at::Tensor reference_log_probs(const Rollout& rollout) {
    const at::NoGradGuard no_grad;
    if constexpr (requires { rollout.reference_log_probs; }) {
      return rollout.reference_log_probs;
    } else {
      const auto said = detail::as_prediction(asked(rollout));
      return log_probs_of(said, rollout.actions,
                          detail::common_mask(name, mask_of(rollout), detail::mask_of(said)));
    }
  }

  /// A 0-dim tensor in the graph of `student`, a callable from observations to a prediction, or a
  /// recurrent_policy. At strength 0 nobody is asked. Throws shape_error where shapes do not fit.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength() == 0.0) return at::zeros({});
    const auto answer = detail::ask_student(student, rollout);
    auto kept = detail::common_mask(name, detail::mask_of(answer), mask_of(rollout));
    at::Tensor reference;
    if constexpr (requires { rollout.reference_log_probs; }) {
      reference = rollout.reference_log_probs;
    } else {
      const at::NoGradGuard no_grad;
      const auto said = detail::as_prediction(asked(rollout));
      kept = detail::common_mask(name, kept, detail::mask_of(said));
      reference = log_probs_of(said, rollout.actions, kept);
    }
    auto own = log_probs_of(answer, rollout.actions, kept);
    reference = reference.to(own.device());
    if (kept.defined() && kept.sizes() == own.sizes() && kept.sizes() == reference.sizes()) {
      const auto dropped = kept.to(own.device()).bitwise_not();
      own = own.masked_fill(dropped, 0);
      reference = reference.masked_fill(dropped, 0);
    }
    const auto mean = detail::masked_mean(reference_kl_estimate(own, reference, estimator_), kept);
    last_ = mean.detach();
    return mean * strength();
  }

  double strength() const { return schedule_.value(); }
  void step(double progress) { schedule_.step(progress); }
  /// Throws what `step` would, and moves nothing.
  void check_step(double progress) const { schedule_.check_step(progress); }
  void observe(double measurement) { schedule_.observe(measurement); }

  /// The mean estimate of the last `loss`, before the strength, without gradient; undefined before
  /// the first.
  const at::Tensor& last_divergence() const { return last_; }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    if constexpr (stateful<Reference>) reference_.save_state(out, prefix + "reference.");
  }
  void load_state(const state& in, const std::string& prefix) {
    auto schedule = schedule_;
    schedule.load_state(in, prefix + "schedule.");
    if constexpr (stateful<Reference>) reference_.load_state(in, prefix + "reference.");
    schedule_ = std::move(schedule);
  }

 private:
  template <class Rollout>
  static at::Tensor mask_of(const Rollout& rollout) {
    if constexpr (requires { rollout.mask; })
      return rollout.mask;
    else
      return {};
  }
  template <class Rollout>
  auto asked(const Rollout& rollout) {
    static_assert(std::invocable<Reference&, decltype((rollout.observations))>,
                  "reference_kl: the reference is no callable of observations, so the rollout must "
                  "carry reference_log_probs; a recurrent "
                  "reference is asked once a rollout, by the caller");
    return reference_(rollout.observations);
  }
  template <class Prediction>
  static at::Tensor log_probs_of(const Prediction& prediction, const at::Tensor& actions,
                                 const at::Tensor& kept) {
    return detail::where(detail::distribution_of(prediction), kept)
        .log_prob(detail::harmless_actions(actions, kept));
  }

  Reference reference_;
  strength_schedule schedule_;
  kl_estimator estimator_;
  at::Tensor last_;
};

}  // namespace retain
