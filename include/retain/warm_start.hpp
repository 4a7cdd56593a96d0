// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/terms/freezer.hpp>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct warm_start_options {
  double collect = 0;  ///< length of the collect phase, in units of progress
  double critic = 0;   ///< length of the critic phase, which follows, in units of progress
  /// name patterns of the parameters that only the critic uses; with critic_kind::separate these
  /// are {"critic_*", "value_head"}
  std::vector<std::string> critic_parameters = {"value_head.*"};
};

/// The phase of a warm start.
enum class warm_start_phase {
  collect,     ///< the pre-trained policy acts, to fill a buffer or statistics; nothing learns
  critic,      ///< the pre-trained policy acts; only the critic learns
  everything,  ///< all parameters learn
};

/// Trains a new critic before the policy learns, at the beginning of fine-tuning. Without this, an
/// untrained critic would give a good policy wrong gradients. There are three phases:
/// - collect (optional): the pre-trained policy fills the replay buffer and nothing learns. This is
///   the warm-up phase of WSRL (Zhou et al. 2024, arXiv 2412.07762), a few thousand steps.
/// - critic: only the critic learns; all other parameters are frozen. Wołczyk et al. 2024
///   (arXiv 2402.02868) also train the value head first.
/// - everything: all parameters learn.
///
/// Example:
///
///     warm_start warm{*policy, {.collect = 5000, .critic = 50000}};
///     // in the loop, after train():
///     warm.step(env_steps);
///     play();                         // with the policy; it is unchanged until policy_learns()
///     if (warm.critic_learns()) {
///       auto loss = value_loss();
///       if (warm.policy_learns()) loss = loss + policy_loss() + keep.loss(view, rollout);
///       ...
///     }
///
/// Frozen parameters have requires_grad = false and no `.grad`; their modules are in eval mode, as
/// described at `frozen`. If the critic shares no parameters with the policy, the policy stays
/// bit-identical to the pre-trained policy until the last phase. `step` depends on `progress` only.
/// The model must outlive this object. The destructor does not unfreeze anything. Throws
/// config_error for a phase length that is negative or not finite. If there is a critic phase,
/// throws config_error for a pattern that matches nothing.
class warm_start {
 public:
  template <parameter_source M>
  explicit warm_start(M& model, warm_start_options options = {})
      : part_("warm_start", model), options_(std::move(options)) {
    if (!(options_.collect >= 0 && options_.critic >= 0) ||
        !std::isfinite(options_.collect + options_.critic))
      throw config_error(
          detail::concat("warm_start: phases must be finite and not negative, got collect ",
                         options_.collect, ", critic ", options_.critic));
    if (options_.critic > 0) {
      if (options_.critic_parameters.empty())
        throw config_error(
            "warm_start: a critic phase needs critic_parameters, the name patterns of the critic");
      part_.check(options_.critic_parameters);
    }
    step(0);
  }

  /// Moves to `progress` and enforces the frozen state, which train() may have changed. Returns
  /// whether the phase changed. Throws config_error if `progress` is not finite.
  bool step(double progress) {
    if (!std::isfinite(progress))
      throw config_error(detail::concat("warm_start: progress must be finite, got ", progress));
    const auto before = phase_;
    phase_ = progress < options_.collect                     ? warm_start_phase::collect
             : progress < options_.collect + options_.critic ? warm_start_phase::critic
                                                             : warm_start_phase::everything;
    progress_ = progress;
    if (phase_ == warm_start_phase::collect)
      part_.set({"*"});
    else if (phase_ == warm_start_phase::critic)
      part_.set({"*"}, options_.critic_parameters);
    else
      part_.set({});
    return phase_ != before;
  }

  warm_start_phase phase() const { return phase_; }
  bool critic_learns() const { return phase_ != warm_start_phase::collect; }
  bool policy_learns() const { return phase_ == warm_start_phase::everything; }
  double progress() const { return progress_; }

  /// Freezes the same parts again. Call this after train() or requires_grad_() has changed them.
  void enforce() { part_.enforce(); }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "collect", options_.collect);
    out.set(prefix + "critic", options_.critic);
    out.set(prefix + "progress", progress_);
  }
  /// Applies the saved progress. Throws state_error if the saved phase lengths differ from this
  /// object's.
  void load_state(const state& in, const std::string& prefix) {
    const double collect = in.number(prefix + "collect"), critic = in.number(prefix + "critic"),
                 progress = in.number(prefix + "progress");
    if (collect != options_.collect || critic != options_.critic)
      throw state_error(detail::concat("warm_start: the saved phases are collect ", collect,
                                       ", critic ", critic, ", but this object has collect ",
                                       options_.collect, ", critic ", options_.critic));
    if (!std::isfinite(progress))
      throw state_error(detail::concat("the state's '", prefix, "progress' is ", progress));
    step(progress);
  }

 private:
  detail::freezer part_;
  warm_start_options options_;
  warm_start_phase phase_ = warm_start_phase::everything;
  double progress_ = 0;
};

}  // namespace retain
