// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

/// A weight penalty that can give the gradient of one parameter alone: every weight penalty of this
/// library.
template <class T>
concept attachable = requires(const T& term, const parameter_list& model, const std::string& name,
                              std::size_t index, at::Tensor& gradient) {
  term.check(model);
  { term.covers(name) } -> std::convertible_to<bool>;
  term.add_gradient_of(model, index, gradient);
  { term.strength() } -> std::convertible_to<double>;
};

namespace detail {

/// Whether the pull that a guard added is still in a parameter's `.grad`: it is while the
/// parameter, its storage and its `.grad` are what the addition and later backward passes left. All
/// of it is read without waiting for a device.
class pull_record {
 public:
  /// Whether everything is as it was left; `gradient` is `.grad` before the backward pass that is
  /// running adds to it.
  bool stands(const at::Tensor& theta, const at::Tensor& gradient) const {
    if (!added_ || !gradient.defined() || theta._version() != version_ ||
        theta.data_ptr() != storage_)
      return false;
    if (!followed_) return true;
    if (gradient.layout() != at::kStrided) return false;
    // a hook behind the guard's may have made another tensor of it
    if (gradient.data_ptr() != gradient_) return made_;
    return gradient._version() == gradient_version_;
  }

  /// Notes what `.grad` will be once `incoming` has been added to `gradient`: an undefined one
  /// becomes `incoming` itself, a defined one is added to in place. With create_graph it is a new
  /// tensor, and only the parameter is followed.
  void left(const at::Tensor& theta, const at::Tensor& gradient, const at::Tensor& incoming) {
    const at::Tensor& result = gradient.defined() ? gradient : incoming;
    added_ = true;
    version_ = theta._version();
    storage_ = theta.data_ptr();
    followed_ = !at::GradMode::is_enabled() && result.layout() == at::kStrided;
    if (!followed_) return;
    made_ = !gradient.defined();
    gradient_ = result.data_ptr();
    gradient_version_ = result._version() + (made_ ? 0 : 1);
  }

  void forget() { added_ = false; }

 private:
  bool added_ = false, followed_ = false, made_ = false;
  std::int64_t version_ = 0, gradient_version_ = 0;
  const void *storage_ = nullptr, *gradient_ = nullptr;
};

/// Whether the backward pass that runs in this thread hands a leaf's gradient to its caller, as
/// autograd::grad does, instead of adding it to `.grad`.
inline bool handed_out(const at::Tensor& leaf) {
  const auto* nodes = torch::autograd::get_current_graph_task_exec_info();
  if (!nodes || nodes->empty()) return false;
  const auto accumulator = torch::autograd::impl::try_get_grad_accumulator(leaf);
  if (!accumulator) return false;
  const auto found = nodes->find(accumulator.get());
  return found != nodes->end() && found->second.captures_ != nullptr;
}

}  // namespace detail

/// What `attach` returns: the penalty pulls while it lives. Movable, not copyable; ends with its
/// scope, or by `detach`.
class attachment {
 public:
  attachment() = default;
  attachment(attachment&& other) noexcept = default;
  attachment& operator=(attachment&& other) noexcept {
    if (this == &other) return *this;
    detach();
    shared_ = std::move(other.shared_);
    return *this;
  }
  ~attachment() { detach(); }

  /// Takes the hooks off the parameters. What is in `.grad` stays there.
  void detach() noexcept {
    if (!shared_) return;
    for (const auto& [index, position] : shared_->hooks)
      shared_->model[index].tensor.remove_hook(position);
    shared_.reset();
  }

  bool attached() const { return shared_ != nullptr; }

  /// From here to `resume` backward passes are left alone: for one whose `.grad` is not to be
  /// stepped with, such as the reference of a gradient_projection.
  void pause() noexcept {
    if (shared_) shared_->paused = true;
  }
  void resume() noexcept {
    if (shared_) shared_->paused = false;
  }

  /// Says that a step was made: the next backward pass adds the pull again. Needed only where
  /// neither the parameters nor their `.grad` show it: a loop by hand that writes both through
  /// `.data()`.
  void renew() {
    if (!shared_) return;
    for (auto& record : shared_->records) record.forget();
  }

 private:
  struct hooked {
    std::size_t index;
    unsigned position;
  };
  struct shared_state {
    parameter_list model;
    std::vector<detail::pull_record> records;
    std::vector<hooked> hooks;
    bool paused = false;
  };

  template <attachable Penalty>
  attachment(std::shared_ptr<const Penalty> penalty, parameter_list model)
      : shared_(std::make_shared<shared_state>()) {
    penalty->check(model);
    shared_->model = std::move(model);
    shared_->records.resize(shared_->model.size());
    for (std::size_t i = 0; i < shared_->model.size(); ++i) {
      const auto& [name, tensor] = shared_->model[i];
      if (!tensor.requires_grad() || !penalty->covers(name)) continue;
      if (tensor.grad_fn())
        throw config_error(detail::concat(
            "attach: '", name,
            "' is computed from other tensors: attach to those that the optimiser moves"));
    }
    for (std::size_t i = 0; i < shared_->model.size(); ++i) {
      const auto& [name, tensor] = shared_->model[i];
      if (!tensor.requires_grad() || !penalty->covers(name)) continue;
      // The hook holds the state weakly: the state holds the parameters, and they hold the hook.
      const auto pull = [penalty, i, state = std::weak_ptr<shared_state>(shared_)](
                            const at::Tensor& incoming) -> at::Tensor {
        const auto shared = state.lock();
        if (!shared || !incoming.defined()) return incoming;
        return with_pull(*penalty, *shared, i, incoming);
      };
      shared_->hooks.push_back({i, tensor.register_hook(pull)});
    }
    if (shared_->hooks.empty())
      throw config_error("attach: the model has no trainable parameter that the penalty covers, so "
                         "no backward pass would call it");
  }

  template <class Penalty>
  static at::Tensor with_pull(const Penalty& penalty, shared_state& shared, std::size_t index,
                              const at::Tensor& incoming) {
    const at::Tensor& theta = shared.model[index].tensor;
    detail::pull_record& record = shared.records[index];
    if (detail::handed_out(theta)) return incoming;
    at::Tensor gradient = theta.grad();
    if (shared.paused) {
      if (record.stands(theta, gradient)) record.left(theta, gradient, incoming);
      return incoming;
    }
    if (penalty.strength() == 0.0) {
      record.forget();
      return incoming;
    }
    at::Tensor result = incoming;
    if (!record.stands(theta, gradient)) {
      // create_graph: what came in keeps its graph
      const bool in_graph = at::GradMode::is_enabled();
      const at::NoGradGuard no_grad;
      if (incoming.layout() != at::kStrided) {
        // A hook must not change the layout, so that the pull goes where the sparse gradient will
        // be added.
        if (!gradient.defined()) gradient = at::zeros_like(theta);
        penalty.add_gradient_of(shared.model, index, gradient);
        theta.mutable_grad() = gradient;
      } else {
        at::Tensor pulled =
            in_graph ? at::zeros_like(theta) : at::empty_like(theta).copy_(incoming);
        penalty.add_gradient_of(shared.model, index, pulled);
        const at::AutoGradMode as_before(in_graph);
        result = in_graph ? incoming + pulled : pulled;
      }
    }
    record.left(theta, gradient, result);
    return result;
  }

  template <attachable P, parameter_source M>
  friend attachment attach(std::shared_ptr<P> penalty, const M& model);

  std::shared_ptr<shared_state> shared_;
};

/// For an agent whose update cannot be edited: while the guard lives, every backward pass that
/// reaches a parameter finds the penalty's gradient added to it, once for every optimiser step,
/// however often backward runs between two steps.
///
///     auto guard = retain::attach(keep, *policy);
///     agent.train(*policy);                        // its own loss, backward() and step()
///
/// `keep` is any weight penalty of this library; it is referred to and must outlive the guard at
/// the same address, so that `keep.step(...)` takes effect from the next step on. Given as a
/// std::shared_ptr it is shared, given as a temporary it moves into the guard. Several penalties
/// are attached one by one (`keep.term<0>()` of a composition). The guard holds the parameters.
///
/// The gradient is the same as from `add_gradient` between backward and step: bit for bit with one
/// backward pass a step, to rounding with several, since the pull then enters the sum first.
/// Differences that remain:
/// - A parameter that no backward pass reaches between two steps is not pulled in that step: its
///   hook is not called.
/// - Clipping, if the agent clips, sees the pull as part of the gradient.
/// - What is made trainable later, or added to the model, is not pulled: attach again.
/// - The pull goes into every backward() that fills `.grad`, for whatever purpose: `pause` the
///   guard around one that is not stepped with. autograd::grad, which hands its gradients out, is
///   left alone, and so is every estimate of this library: a Fisher may be estimated while the
///   guard lives.
/// - With create_graph the pull is a constant of the graph.
///
/// A new step is seen by the parameter's version counter, which in-place changes move; by its
/// storage, which set_data and module->to replace; or by `.grad`, which was reset to none, zeroed
/// or otherwise written to: torch::optim::SGD changes parameters through `.data()`, which moves no
/// counter. A loop that hides both, by parameter.data() and grad.data(), must call `guard.renew()`.
/// An agent that writes into `.grad` between two backward passes of one step is pulled again. With
/// torch::optim::SGD, zeroed gradients and a hook behind this one (a second guard, say) the second
/// step alone goes without: what the first left cannot be told yet.
///
/// Nothing waits for a device. Cost: one pass over the parameters a step, into a gradient that
/// becomes `.grad`. Throws shape_error or state_error when the model does not fit, config_error for
/// a parameter that is not a leaf, or when none is trainable.
template <attachable P, parameter_source M>
attachment attach(std::shared_ptr<P> penalty, const M& model) {
  if (!penalty) throw config_error("attach: the penalty is a null pointer");
  return attachment(std::shared_ptr<const P>(std::move(penalty)), parameters(model));
}
template <attachable P, parameter_source M>
attachment attach(P& penalty, const M& model) {
  return attach(std::shared_ptr<P>(std::shared_ptr<void>(), &penalty), model);
}
template <class P, parameter_source M>
  requires(attachable<P> && !std::is_lvalue_reference_v<P>)
attachment attach(P&& penalty, const M& model) {
  return attach(std::make_shared<P>(std::move(penalty)), model);
}

}  // namespace retain
