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
  double collect = 0;  ///< progress from 0 on for which the policy plays and nothing learns
  double critic = 0;   ///< progress after that for which only the critic learns
  /// name patterns of what is the critic's alone; with critic_kind::separate {"critic_*",
  /// "value_head"}
  std::vector<std::string> critic_parameters = {"value_head.*"};
};

/// What a warm start has come to.
enum class warm_start_phase {
  collect,     ///< the pre-trained policy plays to fill a buffer or statistics; nothing learns
  critic,      ///< the pre-trained policy plays; the critic learns
  everything,  ///< everything plays and learns
};

/// The beginning of fine-tuning, when a new critic would teach a good policy nonsense. First,
/// optionally, the pre-trained policy fills the replay buffer with its own play (the warm-up phase
/// of WSRL, Zhou et al. 2024, arXiv 2412.07762: a few thousand steps); then the critic learns
/// alone, the rest being frozen (Wołczyk et al. 2024, arXiv 2402.02868, train the value head
/// first); then everything does.
///
///     warm_start warm{*policy, {.collect = 5000, .critic = 50000}};
///     // in the loop, after train():
///     warm.step(env_steps);
///     play();                                      // the policy itself, which until policy_learns() is the pre-trained one
///     if (warm.critic_learns()) {
///       auto loss = value_loss();
///       if (warm.policy_learns()) loss = loss + policy_loss() + keep.loss(view, rollout);
///       ...
///     }
///
/// Frozen is meant as in `frozen`: no gradient, no `.grad`, eval mode where nothing learns. As long
/// as the parameters of the critic are its own, the policy is the pre-trained one to the last bit
/// until the last phase. `step` is a function of progress alone. The model must live as long; what
/// is frozen when this ends stays frozen. Throws config_error for a phase that is negative or not
/// finite, and for a pattern that matches nothing where there is a critic phase.
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
        throw config_error("warm_start: a critic phase needs the name patterns of its parameters");
      part_.check(options_.critic_parameters);
    }
    step(0);
  }

  /// Returns whether a new phase has begun. Freezes again what a train() went over. Throws
  /// config_error when progress is not finite.
  bool step(double progress) {
    if (!std::isfinite(progress))
      throw config_error(detail::concat("warm_start was stepped to ", progress));
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

  /// Freezes the same again, after a train() or a requires_grad_() that went over it.
  void enforce() { part_.enforce(); }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "collect", options_.collect);
    out.set(prefix + "critic", options_.critic);
    out.set(prefix + "progress", progress_);
  }
  /// Freezes what is frozen at the saved progress. Throws state_error when the saved phases are
  /// others.
  void load_state(const state& in, const std::string& prefix) {
    const double collect = in.number(prefix + "collect"), critic = in.number(prefix + "critic"),
                 progress = in.number(prefix + "progress");
    if (collect != options_.collect || critic != options_.critic)
      throw state_error(detail::concat("warm_start: the state's phases are collect ", collect,
                                       ", critic ", critic, ", this one's collect ",
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
