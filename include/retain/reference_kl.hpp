// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/state.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/loss/log_ratio.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/rollout.hpp>
#include <retain/terms/scheduled_strength.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

namespace retain {

/// Selects an estimator of KL(pi || pi*) from one action a ~ pi, with r = pi*(a|s) / pi(a|s). "Mean
/// gradient" is the expected gradient of the estimate if you use it as a loss. It differs from the
/// gradient of the expected estimate, because the distribution of the actions depends on the
/// parameters too.
enum class kl_estimator {
  /// -log r. Unbiased, can be negative. The mean gradient is 0, because the gradient is the score d
  /// log pi(a|s). Use it as a penalty on the reward, not as a loss
  k1,
  /// (log r)^2 / 2. Biased, never negative. The mean gradient is exactly that of KL(pi || pi*)
  k2,
  /// r - 1 - log r. Unbiased, never negative. The mean gradient is that of KL(pi* || pi), the other
  /// direction
  k3,
};

/// Returns the estimate for every step, [...], in nats, in the graph of `log_probs`. `log_probs`
/// [...] is log pi(a|s) and `reference_log_probs` [...] is log pi*(a|s), for the actions that the
/// policy took. Use it as a penalty on the reward, without a graph:
///
///     rewards -= c * reference_kl_estimate(log_probs.detach(), reference_log_probs,
///                                          kl_estimator::k1)
///
/// With k1, the policy gradient of this penalty is the gradient of the sum of KL(pi || pi*) along
/// the trajectory. With k3, the penalty has the same mean but another policy gradient: k3 adds
/// r - 1 to k1. The mean of r - 1 is 0, but the mean of its product with the score is not 0.
///
/// k3 limits r to e^20 (e^10 in half) and has no gradient above this limit. Every estimate is
/// infinite for an action that is impossible under pi*. Throws shape_error if the shapes differ.
inline at::Tensor reference_kl_estimate(const at::Tensor& log_probs,
                                        const at::Tensor& reference_log_probs,
                                        kl_estimator estimator) {
  if (log_probs.sizes() != reference_log_probs.sizes())
    throw shape_error(detail::concat(
        "reference_kl: log_probs of shape ", detail::shape_text(log_probs.sizes()),
        " and reference_log_probs of shape ", detail::shape_text(reference_log_probs.sizes()),
        " do not belong together: the shapes must be equal"));
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

/// Given in place of a reference policy, if the rollout has reference_log_probs.
struct stored_reference {};

/// A penalty on the KL to a reference policy, estimated from the policy's own actions.
///
///     loss = c * mean over valid steps of k2 or k3 of the action taken,   a ~ pi
///
/// (k1, k2 and k3 are names by Schulman, 2020.) If you have the complete distributions, use
/// kickstarting with divergence::student_teacher: it gives the same KL(pi || pi*) without sampling
/// noise. reference_kl only needs the log-probabilities of the taken actions. Therefore you may
/// evaluate the reference once per rollout and then free its weights.
///
///     reference_kl{teacher, {.strength = 0.1}}
///     reference_kl{stored_reference{}, {.strength = 0.1}}     // uses rollout.reference_log_probs
///
/// A rollout has `observations` and `actions` [...]. These members are optional:
/// `reference_log_probs` [...], `mask`, and `episode_start` and `state` for a recurrent student
/// (see kickstarting). If the rollout has `reference_log_probs`, the reference is not evaluated. A
/// recurrent retain::teacher as the reference needs them, because every call moves its state. The
/// gradients described at kl_estimator are exact for actions of the current policy. In later epochs
/// over the same rollout they are approximations, which become worse as the policy moves away from
/// the policy that collected the rollout.
///
/// Throws config_error for k1: its mean gradient is 0, so the loss would only add noise.
template <class Reference>
class reference_kl : public scheduled_strength {
 public:
  static constexpr const char* name = "reference_kl";

  explicit reference_kl(Reference reference, reference_kl_options options = {})
      : scheduled_strength(std::move(options.strength)),
        reference_(std::move(reference)),
        estimator_(options.estimator) {
    if (estimator_ == kl_estimator::k1)
      throw config_error("reference_kl: k1 cannot be a loss, because its mean gradient is zero: "
                         "subtract reference_kl_estimate(..., k1) from the rewards, or use k2, "
                         "whose mean gradient is that of KL(pi || pi*)");
  }

  /// Returns log pi*(a|s) of the rollout's actions, [...], without a graph. Store it as
  /// rollout.reference_log_probs. A recurrent retain::teacher continues with its state from the end
  /// of the previous rollout. Throws shape_error if a mask has a wrong shape.
  template <class Rollout>
  at::Tensor reference_log_probs(const Rollout& rollout) {
    check<Rollout>();
    const at::NoGradGuard no_grad;
    if (at::Tensor stored = stored_in(rollout); stored.defined()) return stored;
    if constexpr (asks<Rollout>) {
      const auto said = detail::ask_along(reference_, rollout);
      return log_probs_of(
          said, rollout.actions,
          detail::common_mask(name, detail::rollout_mask(rollout), detail::mask_of(said)));
    } else {
      return nothing_stored();
    }
  }

  /// Returns a 0-dim tensor in the graph of `student`. `student` is a callable that maps
  /// observations to a prediction, or a recurrent_policy. At strength 0 the student and the
  /// reference are not called. Throws shape_error if shapes do not match. Throws config_error at
  /// the first loss with gradients if the reference adopted the student's tensors (see teacher).
  template <class Student, class Rollout>
  [[nodiscard]] at::Tensor loss(Student&& student, const Rollout& rollout) {
    check<Rollout>();
    if (strength() == 0.0) return at::zeros({});
    const auto answer = ask(student, rollout);
    if (!asked_) detail::refuse_probabilities("reference_kl: the student", answer);
    auto kept = detail::common_mask(name, detail::mask_of(answer), detail::rollout_mask(rollout));
    at::Tensor reference = stored_in(rollout);
    if (!reference.defined()) {
      if constexpr (asks_live<Rollout>) {
        const at::NoGradGuard no_grad;
        const auto said = live(rollout);
        if (!asked_) detail::refuse_probabilities("reference_kl: the reference", said);
        kept = detail::common_mask(name, kept, detail::mask_of(said));
        reference = log_probs_of(said, rollout.actions, kept);
      } else {
        nothing_stored();
      }
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
    asked_ = true;
    if (!checked_ && at::GradMode::is_enabled()) {
      detail::check_adopted(name, reference_, student, mean);
      checked_ = true;
    }
    return mean * strength();
  }

  /// The mean estimate of the last `loss`, not multiplied by the strength, without gradient.
  /// Undefined before the first call of `loss`.
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
  using observations_of = std::remove_cvref_t<decltype(std::declval<Rollout>().observations)>;
  /// Whether the reference can be asked about a rollout, once or in every epoch.
  template <class Rollout>
  static constexpr bool asks_live =
      detail::takes_observations<Reference, observations_of<Rollout>> ||
      (detail::takes_state<Reference, observations_of<Rollout>> &&
       !detail::steps_along<Reference, observations_of<Rollout>>);
  template <class Rollout>
  static constexpr bool asks =
      asks_live<Rollout> || detail::steps_along<Reference, observations_of<Rollout>>;

  template <class Rollout>
  static constexpr void check() {
    detail::check_rollout<Rollout>();
    static_assert(
        requires(const Rollout& r) { r.actions; }, "reference_kl: the rollout needs a member "
                                                   "actions");
    static_assert(
        asks<Rollout> || requires(const Rollout& r) { r.reference_log_probs; },
        "reference_kl: the reference cannot be called with observations, so the rollout must "
        "have reference_log_probs; for a recurrent reference, compute them once per "
        "rollout");
  }
  template <class Rollout>
  static at::Tensor stored_in(const Rollout& rollout) {
    if constexpr (requires { rollout.reference_log_probs; })
      return rollout.reference_log_probs;
    else
      return {};
  }
  [[noreturn]] static at::Tensor nothing_stored() {
    throw config_error("reference_kl: the reference cannot be called with observations alone: "
                       "compute rollout.reference_log_probs once per rollout, for a recurrent "
                       "retain::teacher with reference_log_probs(rollout)");
  }
  /// Asks the reference without moving its state.
  template <class Rollout>
  auto live(const Rollout& rollout) {
    if constexpr (detail::steps_along<Reference, observations_of<Rollout>>)
      return detail::as_prediction(reference_(rollout.observations));
    else
      return detail::ask_along(reference_, rollout);
  }
  template <class Prediction>
  static at::Tensor log_probs_of(const Prediction& prediction, const at::Tensor& actions,
                                 const at::Tensor& kept) {
    return detail::where(detail::distribution_of(prediction), kept)
        .log_prob(detail::harmless_actions(actions, kept));
  }

  Reference reference_;
  kl_estimator estimator_;
  at::Tensor last_;
  bool asked_ = false;
  bool checked_ = false;  // whether the reference may share tensors with the student
};

}  // namespace retain
