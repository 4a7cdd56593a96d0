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

/// Freezes a part of a model while this object exists. The destructor unfreezes it again.
///
///     frozen hold{*policy, {"encoder", "core.lstm.*"}};
///     policy->train();
///     hold.enforce();   // train() changes every module: call this after it
///
/// Each pattern is compared with the names of parameters and of modules (`*` stands for any number
/// of characters, `?` for exactly one character). A pattern that matches a module includes
/// everything in the module.
///
/// A frozen parameter has requires_grad = false and no `.grad`, so that every optimizer skips it.
/// (A gradient of zeros is not enough: momentum and weight decay would still change the weight.) A
/// module is put into eval mode if all its parameters are frozen. A module without parameters is
/// put into eval mode if its name matches. In eval mode the running statistics of BatchNorm do not
/// change and dropout is off. Gradients still flow through a frozen module to earlier layers. With
/// cuDNN on CUDA, LSTM and GRU do not support this in eval mode.
///
/// On release, parameters that were trainable become trainable again, without a `.grad`. Modules
/// return to training mode if they were in training mode before and the model is in training mode.
/// An optimizer keeps its old internal state for the frozen parameters, for example momentum. If
/// they were frozen for a long time, construct a new optimizer.
///
/// The model is a torch::nn::Module, a holder, a pointer, a torch::jit::Module or a list of
/// parameters. It must outlive this object. Use only the first name of a tied parameter. Throws
/// config_error for a pattern that matches nothing, and for a pattern that matches only another
/// name of a tied parameter.
class frozen {
 public:
  template <parameter_source M>
  frozen(M& model, const std::vector<std::string>& patterns) : part_("frozen", model) {
    part_.check(patterns);
    part_.set(patterns);
  }
  frozen(const frozen&) = delete;
  frozen& operator=(const frozen&) = delete;
  ~frozen() { release(); }

  /// Freezes the same parts again. Call this after train() or requires_grad_() has changed them.
  void enforce() { part_.enforce(); }
  /// Unfreezes everything now.
  void release() { part_.set({}); }
  /// The names of the frozen parameters.
  std::vector<std::string> parameters() const { return part_.frozen(); }

 private:
  detail::freezer part_;
};

/// The parameters and modules that match `pattern` are frozen while from <= progress < until.
struct freeze_period {
  std::string pattern;
  double from = 0;
  double until = std::numeric_limits<double>::infinity();
};

/// Freezes parts of a model depending on the progress of training. For example, freeze the trunk
/// until the head has converged, or unfreeze layer by layer from the top.
///
///     freeze_schedule layers{*policy,
///                            {{.pattern = "encoder"}, {.pattern = "core", .until = 1e6}}};
///     // at the beginning of an update, after train(); returns true if something changed
///     layers.step(env_steps);
///
/// The constructor applies progress 0. `step` also enforces the frozen state. See `frozen` for what
/// is frozen and for the allowed models. Parameters that were not trainable at construction never
/// become trainable. The destructor does not unfreeze anything, unlike that of `frozen`. Throws
/// config_error for a pattern that matches nothing and for an empty period.
class freeze_schedule {
 public:
  template <parameter_source M>
  freeze_schedule(M& model, std::vector<freeze_period> periods)
      : part_("freeze_schedule", model), periods_(std::move(periods)) {
    for (const auto& period : periods_) {
      part_.check({period.pattern});
      if (!(period.from < period.until))
        throw config_error(detail::concat("freeze_schedule: '", period.pattern,
                                          "' has the empty period from ", period.from, " until ",
                                          period.until, ": `until` must be larger than `from`"));
    }
    step(0);
  }

  /// Moves to `progress`. Returns whether the set of frozen parts changed. Throws config_error if
  /// `progress` is not finite.
  bool step(double progress) {
    if (!std::isfinite(progress))
      throw config_error(
          detail::concat("freeze_schedule: progress must be finite, got ", progress));
    std::vector<std::string> now;
    for (const auto& period : periods_)
      if (period.from <= progress && progress < period.until) now.push_back(period.pattern);
    progress_ = progress;
    return part_.set(now);
  }

  /// Freezes the same parts again. Call this after train() or requires_grad_() has changed them.
  void enforce() { part_.enforce(); }
  std::vector<std::string> parameters() const { return part_.frozen(); }
  double progress() const { return progress_; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "kind", describe());
    out.set(prefix + "progress", progress_);
  }
  /// Applies the saved progress. Throws state_error if the saved periods differ from this object's
  /// periods.
  void load_state(const state& in, const std::string& prefix) {
    if (const auto& saved = in.text(prefix + "kind"); saved != describe())
      throw state_error(detail::concat("the state at '", prefix, "' is of the ", saved,
                                       ", but this object is the ", describe()));
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
