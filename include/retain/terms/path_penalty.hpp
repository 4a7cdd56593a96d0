// SPDX-License-Identifier: MIT
// What the penalties share whose importance is gathered while a task is learnt: how far each weight
// moved since the last look, and the task's own gradient there.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/terms/weight_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// A derived class names its sums over steps, adds to them in `walk` and turns them into
/// importances in `settle`.
class path_penalty : public weight_penalty {
 public:
  void save_state(state& out, const std::string& prefix) const {
    weight_penalty::save_state(out, prefix);
    for (const auto& [name, t] : tracks_) {
      out.set(prefix + "previous." + name, t.previous);
      for (std::size_t i = 0; i < sums_.size(); ++i)
        out.set(prefix + sums_[i] + "." + name, t.sums[i]);
    }
  }

  /// Throws state_error or shape_error and changes nothing when the saved parameters are not these.
  void load_state(const state& in, const std::string& prefix) {
    auto loaded = tracks_;
    for (auto& [name, t] : loaded) {
      replace(t.previous, in.tensor(prefix + "previous." + name), name, "previous position");
      for (std::size_t i = 0; i < sums_.size(); ++i)
        replace(t.sums[i], in.tensor(prefix + sums_[i] + "." + name), name, sums_[i]);
      bool finite = all_finite(t.previous) || !entries_.at(name).trainable;
      for (const auto& sum : t.sums) finite = finite && all_finite(sum);
      if (!finite)
        throw state_error(
            concat(kind_, ": the saved path of '", name, "' holds a value that is not finite"));
    }
    weight_penalty::load_state(in, prefix);
    tracks_ = std::move(loaded);
    seen_ = {};
    for (const auto& [name, t] : tracks_)
      for (const auto& sum : t.sums) seen_.gradient = seen_.gradient || any(sum.ne(0));
  }

 protected:
  struct track {
    at::Tensor previous;           // where the parameter stood at the last look, in its own type
    std::vector<at::Tensor> sums;  // in float64: millions of small steps
  };

  path_penalty(const char* kind, std::vector<const char*> sums, strength_schedule strength,
               std::vector<std::string> exclude, const std::vector<group_scale>& groups,
               const parameter_list& model)
      : weight_penalty(kind, std::move(strength), std::move(exclude), groups, model),
        sums_(std::move(sums)) {
    needs_importance_ = true;
    for (auto& [name, e] : entries_) {
      e.importance = laid_out_like(e.anchor, at::zeros_like(e.anchor));
      track t{e.anchor.clone(), {}};
      for (std::size_t i = 0; i < sums_.size(); ++i)
        t.sums.push_back(at::zeros_like(e.anchor, at::kDouble));
      tracks_.emplace(name, std::move(t));
    }
  }

  /// Calls add(sums, gradient, movement) in float64 for every trainable parameter with a gradient:
  /// the task's gradient where the parameter stood, which is `.grad` without this penalty's own
  /// part, and how far it has moved from there. The sums may be written to. Throws config_error for
  /// a tensor that is computed from another and has no `.grad` of its own. Then takes the present
  /// position for the next look.
  template <class Add>
  void walk(const parameter_list& model, Add add) {
    for (const auto& [name, tensor] : model)
      if (covers(name)) check_has_gradient(name, tensor);
    const at::NoGradGuard no_grad;
    // throws before anything is changed
    pair(model, entries_, [](const std::string&, const at::Tensor&, entry&) {});
    seen_.look = true;
    pair(model, entries_, [&](const std::string& name, const at::Tensor& theta, entry& e) {
      follow(e, theta);
      track& t = tracks_.at(name);
      keep_up(t, theta);
      if (const at::Tensor& given = theta.grad(); theta.requires_grad() && given.defined()) {
        const auto real = theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
        // The own part in the arithmetic that added it.
        const at::Tensor pull = (t.previous.to(real) - e.anchor.to(real))
                                    .mul_(e.importance)
                                    .mul_(2.0 * strength() * e.scale);
        const at::Tensor dense = given.layout() == at::kStrided ? given : given.to_dense();
        // Read until a gradient was seen in this task, which is at the first look of a right loop:
        // a device is waited for no more after it.
        if (!seen_.gradient) seen_.gradient = any(dense.ne(0));
        add(t.sums, dense.to(real).sub(pull).to(at::kDouble),
            theta.detach().to(at::kDouble) - t.previous);
      }
      if (!seen_.gradient && theta.requires_grad())
        seen_.movement = seen_.movement || any(theta.ne(t.previous));
      t.previous.copy_(theta);
    });
  }

  /// Ends a task: importance <- change(sums, importance, movement since the anchor, all float64),
  /// which must not be negative. The anchor moves to the present position and the sums begin anew.
  /// Throws state_error for an importance that is not finite, and where weights moved in this task
  /// and no look saw a gradient, and then has changed nothing. That one parameter or one look has
  /// none is no error.
  template <class Change>
  void settle(const parameter_list& model, Change change) {
    const at::NoGradGuard no_grad;
    auto next = entries_;
    auto tracks = tracks_;
    bool unseen = !seen_.gradient && seen_.movement;
    pair(model, next, [&](const std::string& name, const at::Tensor& theta, entry& e) {
      follow(e, theta);
      track& t = tracks.at(name);
      keep_up(t, theta);
      const at::Tensor moved = theta.detach().to(at::kDouble) - e.anchor;
      if (!seen_.look && !seen_.gradient && theta.requires_grad())
        unseen = unseen || any(moved.ne(0));
      e.importance = laid_out_like(e.anchor, change(t.sums, e.importance.to(at::kDouble), moved));
      check_importance(name, e.importance);
      e.anchor = at::empty_like(e.anchor).copy_(theta);
      check_anchor("the model's parameter", name, e, theta.requires_grad());
      t.previous = e.anchor.clone();
      for (auto& sum : t.sums) sum = at::zeros_like(sum);
    });
    if (unseen)
      throw state_error(
          concat(kind_, ": the weights moved in this task, and ",
                 seen_.look ? "every observe() found no gradient" : "observe() was never called",
                 ", so that nothing was gathered: in each step call backward(), optimizer.step(), "
                 "observe(), and only then zero_grad()"));
    entries_ = std::move(next);
    tracks_ = std::move(tracks);
    seen_ = {};
  }

 private:
  /// What the looks of a task came across.
  struct sightings {
    bool look = false;
    bool gradient = false;  // that is not 0
    bool movement = false;  // while no gradient had been seen
  };

  static bool any(const at::Tensor& where) { return where.any().item<bool>(); }

  /// Follows a model that was moved to another device or type, and gives up tensors that a copy or
  /// a state also holds.
  static void keep_up(track& t, const at::Tensor& theta) {
    own(t.previous, theta.options().requires_grad(false));
    for (auto& sum : t.sums) own(sum, sum.options().device(theta.device()));
  }
  static void own(at::Tensor& tensor, const at::TensorOptions& options) {
    if (tensor.device() != options.device() || tensor.dtype() != options.dtype())
      tensor = tensor.to(options);
    else if (tensor.use_count() > 1)
      tensor = tensor.clone();
  }

  std::vector<const char*> sums_;
  std::map<std::string, track> tracks_;
  sightings seen_;
};

}  // namespace retain::detail
