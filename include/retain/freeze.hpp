// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/terms/freezer.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// Keeps a part of a model as it is for as long as this lives, and gives it back as it was:
///
///     frozen hold{*policy, {"encoder", "core.lstm.*"}};
///     policy->train();
///     hold.enforce();   // train() reaches every module: call this after it
///
/// A pattern (`*` any run of characters, `?` any one) is matched against the names of parameters
/// and of modules; a module takes all that is in it. A frozen parameter has requires_grad off and
/// no `.grad`, so that every optimiser passes it by: a gradient of zeros would not do, momentum and
/// weight decay move a weight with one. A module is put in eval mode when all parameters in it are
/// frozen, or when it has none and its name is matched: the running statistics of its BatchNorm
/// stand still and its dropout is off. Gradients still flow through frozen modules to what comes
/// before them; on CUDA, cuDNN's LSTM and GRU do not do that in eval mode.
///
/// When this is released, parameters that were trainable are so again, without a `.grad`, and
/// modules are in training mode if they were and the model is. What an optimiser remembers of a
/// parameter is where it stopped: after a long time, make the optimiser anew.
///
/// The model (a torch::nn::Module, a holder or pointer, a torch::jit::Module, or bare parameters)
/// must live as long. A tied parameter goes by its first name. Throws config_error for a pattern
/// that matches nothing, or a tied parameter by another name alone.
class frozen {
 public:
  template <parameter_source M>
  frozen(M& model, std::vector<std::string> patterns) : part_("frozen", model) {
    part_.check(patterns);
    part_.set(patterns);
  }
  frozen(const frozen&) = delete;
  frozen& operator=(const frozen&) = delete;
  ~frozen() { release(); }

  /// Freezes the same again, after a train() or a requires_grad_() that went over it.
  void enforce() { part_.enforce(); }
  /// Gives everything back now. Nothing is frozen any more.
  void release() { part_.set({}); }
  /// The names of the frozen parameters.
  std::vector<std::string> parameters() const { return part_.frozen(); }

 private:
  detail::freezer part_;
};

/// What `pattern` covers is frozen while from <= progress < until.
struct freeze_period {
  std::string pattern;
  double from = 0;
  double until = std::numeric_limits<double>::infinity();
};

/// Freezing by progress: the trunk until the head has settled, layer by layer from the top, or
/// never again.
///
///     freeze_schedule layers{*policy, {{.pattern = "encoder"}, {.pattern = "core", .until = 1e6}}};
///     layers.step(env_steps);   // at the beginning of an update, after train(); true when something changed
///
/// Progress 0 is in force when this is made. `step` enforces as well: see `frozen` for what that
/// means, and for what the model must be. Parameters that were not trainable when this was made
/// never become so. What is frozen when this ends stays frozen, unlike with `frozen`. Throws
/// config_error for a pattern that matches nothing or a period that is empty.
class freeze_schedule {
 public:
  template <parameter_source M>
  freeze_schedule(M& model, std::vector<freeze_period> periods)
      : part_("freeze_schedule", model), periods_(std::move(periods)) {
    for (const auto& period : periods_) {
      part_.check({period.pattern});
      if (!(period.from < period.until))
        throw config_error(detail::concat("freeze_schedule: '", period.pattern,
                                          "' is to be frozen from ", period.from, " until ",
                                          period.until, ", which is never"));
    }
    step(0);
  }

  /// Returns whether what is frozen changed. Throws config_error when progress is not finite.
  bool step(double progress) {
    if (!std::isfinite(progress))
      throw config_error(detail::concat("freeze_schedule was stepped to ", progress));
    std::vector<std::string> now;
    for (const auto& period : periods_)
      if (period.from <= progress && progress < period.until) now.push_back(period.pattern);
    progress_ = progress;
    return part_.set(now);
  }

  /// Freezes the same again, after a train() or a requires_grad_() that went over it.
  void enforce() { part_.enforce(); }
  std::vector<std::string> parameters() const { return part_.frozen(); }
  double progress() const { return progress_; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "kind", describe());
    out.set(prefix + "progress", progress_);
  }
  /// Freezes what is frozen at the saved progress. Throws state_error when the saved periods are
  /// others.
  void load_state(const state& in, const std::string& prefix) {
    if (const auto& saved = in.text(prefix + "kind"); saved != describe())
      throw state_error(detail::concat("the state holds the ", saved, " at '", prefix,
                                       "', but this is the ", describe()));
    const double progress = in.number(prefix + "progress");
    if (!std::isfinite(progress))
      throw state_error(detail::concat("the state's '", prefix, "progress' is ", progress));
    step(progress);
  }

 private:
  std::string describe() const {
    std::string text = "freeze_schedule{";
    for (const auto& period : periods_)
      text += detail::concat("'", period.pattern, "' from ", detail::exact_text(period.from),
                             " until ", detail::exact_text(period.until), "; ");
    return text + "}";
  }

  detail::freezer part_;
  std::vector<freeze_period> periods_;
  double progress_ = 0;
};

}  // namespace retain
