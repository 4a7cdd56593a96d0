// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/terms/in_a_set.hpp>
#include <retain/terms/pull_record.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
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

/// A weight term that can compute the gradient of a single parameter, or a set of such terms. Every
/// weight term of this library, `composition` and `retention` satisfy this concept.
template <class T>
concept attachable = detail::attachable_term<T> &&
                     (retention_term<std::remove_const_t<T>> || requires(const T& set) {
                       { set.pulls() } -> std::convertible_to<bool>;
                     });

namespace detail {

/// Whether a term, or a term of a set, has a strength above 0.
template <class Penalty>
bool pulls(const Penalty& penalty) {
  if constexpr (requires { penalty.pulls(); })
    return penalty.pulls();
  else
    return strength_of(penalty) != 0.0;
}
/// Calls `visit` with the address of the term, or of every weight term of a set.
template <class Penalty, class Visit>
void each_address(const Penalty& penalty, Visit visit) {
  if constexpr (requires { penalty.each_address(visit); })
    penalty.each_address(visit);
  else
    visit(static_cast<const void*>(&penalty));
}

}  // namespace detail

/// The guard that `attach` returns. While the guard exists, backward passes add the gradient of the
/// penalty to `.grad`, once per optimizer step. The guard can be moved but not copied. It ends at
/// the end of its scope or with `detach`.
class [[nodiscard("the guard ends at once if it is not kept: auto guard = retain::attach(keep, "
                  "model);")]] attachment {
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

  /// Removes the hooks from the parameters. Does not change `.grad`.
  void detach() noexcept {
    if (!shared_) return;
    for (const auto& [index, position] : shared_->hooks)
      shared_->model[index].tensor.remove_hook(position);
    detail::guarded_pairs::remove(shared_->pairs);
    shared_.reset();
  }

  bool attached() const { return shared_ != nullptr; }

  /// Stops adding the gradient of the penalty until `resume` is called. Use it for a backward pass
  /// whose `.grad` is not used for an optimizer step, such as the reference gradient of
  /// gradient_projection.
  void pause() noexcept {
    if (shared_) shared_->paused = true;
  }
  void resume() noexcept {
    if (shared_) shared_->paused = false;
  }

  /// Marks that an optimizer step was made, so that the next backward pass adds the penalty
  /// gradient again. This call is only necessary if the guard cannot detect the step (see
  /// `attach`), for example in a loop that writes both the parameters and their `.grad` through
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
    std::vector<detail::guarded_pairs::pair> pairs;
    bool paused = false;
  };

  template <attachable Penalty>
  attachment(std::shared_ptr<const Penalty> penalty, parameter_list model)
      : shared_(std::make_shared<shared_state>()) {
    penalty->check(model);
    shared_->model = std::move(model);
    shared_->records.resize(shared_->model.size());
    for (const auto& [name, tensor] : shared_->model) {
      if (!tensor.requires_grad() || !penalty->covers(name)) continue;
      if (tensor.grad_fn())
        throw config_error(detail::concat(
            "attach: '", name,
            "' is computed from other tensors: attach to the tensors that the optimizer updates"));
      detail::each_address(*penalty, [&](const void* term) {
        shared_->pairs.emplace_back(term, tensor.unsafeGetTensorImpl());
      });
    }
    if (shared_->pairs.empty())
      throw config_error("attach: the model has no trainable parameter that the penalty covers, so "
                         "the penalty would have no effect");
    if (!detail::guarded_pairs::add(shared_->pairs)) {
      shared_.reset();
      throw config_error("attach: another guard attaches this penalty to this model already, so "
                         "its gradient would be added twice: keep one guard, or detach() the "
                         "first");
    }
    for (std::size_t i = 0; i < shared_->model.size(); ++i) {
      const auto& [name, tensor] = shared_->model[i];
      if (!tensor.requires_grad() || !penalty->covers(name)) continue;
      // The hook keeps only a weak pointer to the state. The state owns the parameters, and the
      // parameters own the hook: a shared pointer would create a cycle of owners.
      const auto pull = [penalty, i, state = std::weak_ptr<shared_state>(shared_)](
                            const at::Tensor& incoming) -> at::Tensor {
        const auto shared = state.lock();
        if (!shared || !incoming.defined()) return incoming;
        return with_pull(*penalty, *shared, i, incoming);
      };
      shared_->hooks.push_back({i, tensor.register_hook(pull)});
    }
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
    if (!detail::pulls(penalty)) {
      record.forget();
      return incoming;
    }
    at::Tensor result = incoming;
    if (!record.stands(theta, gradient)) {
      // with create_graph, `incoming` keeps its graph
      const bool in_graph = at::GradMode::is_enabled();
      const at::NoGradGuard no_grad;
      if (incoming.layout() != at::kStrided) {
        // A hook must not change the layout of its gradient. Therefore the penalty gradient is
        // added to `.grad`, to which autograd will add the sparse gradient.
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

/// Adds the gradient of a weight penalty to every backward pass, for an agent whose update code you
/// cannot change. While the returned guard exists, each parameter that a backward pass reaches gets
/// the penalty gradient once per optimizer step, even if backward() runs several times between two
/// steps.
///
///     auto guard = retain::attach(keep, *policy);
///     agent.train(*policy);                        // its own loss, backward() and step()
///
/// `keep` is any weight penalty of this library. If you pass a reference, the penalty must outlive
/// the guard at the same address; `keep.step(...)` takes effect from the next optimizer step on. If
/// you pass a std::shared_ptr, the guard shares the penalty. If you pass a temporary, it is moved
/// into the guard. For a composition or a `retention`, one guard adds the
/// gradients of all its weight terms. A term that is added later acts on the parameters that were
/// covered when the guard was made: if it covers more, detach() and attach again. The guard keeps
/// the parameters alive.
///
/// The resulting gradient is the same as that of `add_gradient` between backward() and the
/// optimizer step. With one backward pass per step it is the same bit for bit. With several passes
/// it is the same up to rounding, because the penalty gradient is then added before the later
/// gradients. These differences remain:
/// - A parameter that no backward pass reaches between two steps gets no penalty gradient in that
///   step.
/// - If the agent clips gradients, the penalty gradient is part of the clipped gradient.
/// - A parameter that becomes trainable later, or that is added to the model later, gets no penalty
///   gradient. Detach the guard, then attach again.
/// - Every backward() that fills `.grad` also adds the penalty gradient, whatever its purpose. Call
///   `pause` and `resume` around a backward() whose gradient is not used for a step. autograd::grad
///   returns its gradients and is not affected. The same holds for all estimates of this library:
///   you may estimate a Fisher while the guard exists.
/// - With create_graph the penalty gradient is a constant in the graph.
///
/// The guard detects a new optimizer step by one of three changes:
/// - the version counter of the parameter, which in-place changes increase;
/// - the storage of the parameter, which set_data and module->to replace;
/// - `.grad`, if it was reset, set to zero or written to. This detects a step of torch::optim::SGD,
///   which changes parameters through `.data()` without increasing the version counter.
///
/// A loop that writes the parameters through parameter.data() and the gradients through grad.data()
/// must call `guard.renew()`. If an agent writes into `.grad` between two backward passes of one
/// step, the penalty gradient is added twice. In one case the second step (and only this step) gets
/// no penalty gradient. This happens if the optimizer is torch::optim::SGD, if gradients are set to
/// zero instead of reset, and if another hook runs after the guard's hook (for example a second
/// guard).
///
/// The guard never synchronizes with a device. Cost: one pass over the parameters per step, and one
/// new gradient tensor, which becomes `.grad`. Throws shape_error or state_error if the model does
/// not match the penalty. Throws config_error for a parameter that is not a leaf, and if no covered
/// parameter is trainable.
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
  return attach(std::make_shared<P>(std::forward<P>(penalty)), model);
}

/// Says what is wrong with other arguments.
template <class P, class M>
  requires(!(attachable<P> && parameter_source<M>))
attachment attach(const P&, const M&) {
  static_assert(attachable<P> || !weight_term<P>,
                "attach needs a weight term with check(model), covers(name) and "
                "add_gradient_of(model, index, gradient): call add_gradient in the training loop, "
                "or give the term these members");
  static_assert(attachable<P> || weight_term<P>,
                "attach takes a weight term such as retain::ewc: a distillation term needs the "
                "student's outputs, so add its loss(student, rollout) to the loss, or make an "
                "optimizer step of its own");
  static_assert(parameter_source<M>,
                "attach needs a model with named parameters: pass the module, a holder or a list "
                "of (name, tensor)");
  return {};
}

}  // namespace retain
