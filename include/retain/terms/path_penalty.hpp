// SPDX-License-Identifier: MIT
// The common base of penalties whose importance is measured while a task is trained. For each step
// the base class provides the movement of each weight since the previous step, and the gradient of
// the task at the previous position.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/terms/quadratic_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// The constructor of a derived class defines the names of its sums. The derived class adds to the
/// sums in `walk`, and computes importances from the sums in `settle`.
class path_penalty : public quadratic_penalty {
 public:
  void save_state(state& out, const std::string& prefix) const {
    quadratic_penalty::save_state(out, prefix);
    for (const auto& [name, t] : tracks_) {
      out.set(prefix + "previous." + name, t.previous);
      for (std::size_t i = 0; i < sums_.size(); ++i)
        out.set(prefix + sums_[i] + "." + name, t.sums[i]);
    }
  }

  /// Throws state_error or shape_error and changes nothing if the saved parameters do not match
  /// this object's parameters.
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
    quadratic_penalty::load_state(in, prefix);
    tracks_ = std::move(loaded);
    seen_ = {};
    for (const auto& [name, t] : tracks_)
      for (const auto& sum : t.sums) seen_.gradient = seen_.gradient || any(sum.ne(0));
  }

 protected:
  struct track {
    at::Tensor previous;           // the parameter at the previous walk, in its own type
    std::vector<at::Tensor> sums;  // in float64, because millions of small steps are added
  };

  path_penalty(const char* kind, std::vector<const char*> sums, strength_schedule strength,
               std::vector<std::string> exclude, const std::vector<group_scale>& groups,
               const parameter_list& model)
      : quadratic_penalty(kind, std::move(strength), std::move(exclude), groups, model),
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

  /// Calls add(sums, gradient, movement), with values in float64, for every trainable parameter
  /// that has a `.grad`. `gradient` is the gradient of the task at the previous position: `.grad`
  /// minus the gradient of this penalty. `movement` is the movement since the previous position.
  /// `add` may change the sums. Afterwards the current position becomes the previous position.
  /// Throws config_error for a tensor that is computed from other tensors and therefore has no
  /// `.grad`.
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
        // The gradient of this penalty, computed in the same type in which it was added.
        const at::Tensor pull = (t.previous.to(real) - e.anchor.to(real))
                                    .mul_(e.importance)
                                    .mul_(2.0 * strength() * e.scale);
        const at::Tensor dense = given.layout() == at::kStrided ? given : given.to_dense();
        // Checks the gradients only until a gradient that is not 0 was found. In a correct loop
        // this is the first call, so later calls do not wait for a device.
        if (!seen_.gradient) seen_.gradient = any(dense.ne(0));
        add(t.sums, dense.to(real).sub(pull).to(at::kDouble),
            theta.detach().to(at::kDouble) - t.previous);
      }
      if (!seen_.gradient && theta.requires_grad())
        seen_.movement = seen_.movement || any(theta.ne(t.previous));
      t.previous.copy_(theta);
    });
  }

  /// Ends a task: importance <- change(sums, importance, movement since the anchor), all in
  /// float64. The result of `change` must not be negative. Sets the anchor to the current position
  /// and the sums to 0.
  ///
  /// Throws state_error for an importance that is not finite. Throws state_error if the weights
  /// moved in this task but no `walk` found a gradient. When it throws, nothing has changed. A
  /// single parameter or a single `walk` without a gradient is not an error.
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
      throw state_error(concat(
          kind_, ": the weights moved in this task, but ",
          seen_.look ? "every accumulate() found no gradient" : "accumulate() was never called",
          ", so the importance cannot be computed: in each step call backward(), "
          "optimizer.step(), accumulate(), and only then zero_grad()"));
    entries_ = std::move(next);
    tracks_ = std::move(tracks);
    seen_ = {};
  }

 private:
  /// What the calls of `walk` found in the current task.
  struct sightings {
    bool look = false;      // walk was called
    bool gradient = false;  // a gradient that is not 0
    bool movement = false;  // a movement before the first such gradient
  };

  static bool any(const at::Tensor& where) { return where.any().item<bool>(); }

  /// Moves the tensors to the device and type of the model. Clones tensors that a copy of the
  /// penalty or a state shares.
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
