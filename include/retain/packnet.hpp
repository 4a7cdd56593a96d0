// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/leaf.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/patterns.hpp>
#include <retain/core/state.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct packnet_options {
  /// name patterns of parameters that no task owns, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
};

/// PackNet: each task owns some of the weights. Later tasks may use these weights but not change
/// them. Therefore no task is forgotten, but each task reduces the number of free weights. For a
/// pre-trained policy, the pre-training task is task 1:
///
///     packnet owned{*policy};
///     owned.prune(*policy, 0.5);        // task 1 keeps the larger half of each layer, rest 0
///     ... train task 1 for a while ...  // optional: the kept weights recover the lost performance
///     owned.release(*policy);           // fixes these weights; the others learn task 2
///     ... fine-tune ...
///
/// and in both loops
///
///     loss.backward();
///     owned.mask_gradient(*policy);     // sets the gradient of fixed weights to 0
///     optimizer.step();
///     owned.restore(*policy);           // undoes changes by momentum and weight decay
///
/// For each layer, prune assigns to the current task the free weights with the largest magnitudes.
/// Only matrices and convolutions are pruned. Parameters with one dimension (biases, normalization)
/// belong completely to the first task, as in the paper. `weights_of` returns the network of an
/// earlier task. Frozen parameters are assigned to tasks too, and stay frozen. The running
/// statistics of a BatchNorm are not parameters, so they would change: freeze them (see `frozen`).
/// Memory: one copy of the parameters and one byte per weight.
///
/// Paper: Mallya and Lazebnik 2018, arXiv 1711.05769.
class packnet {
 public:
  /// Throws config_error for a pattern that matches no parameter, and if every parameter is
  /// excluded.
  template <parameter_source M>
  explicit packnet(const M& model, packnet_options options = {})
      : exclude_(std::move(options.exclude)) {
    const at::NoGradGuard no_grad;
    const auto list = parameters(model);
    detail::check_patterns("packnet", "exclude pattern", exclude_, list);
    for (const auto& [name, tensor] : list)
      if (!detail::covered(exclude_, name))
        entries_.emplace(
            name,
            entry{at::zeros(tensor.sizes(), tensor.options().dtype(at::kByte).requires_grad(false)),
                  tensor.detach().clone()});
    if (entries_.empty()) throw config_error("packnet: every parameter is excluded");
  }

  /// Prunes the model for the current task. In each layer, the task keeps the fraction `keep`, in
  /// (0, 1], of the free weights. The other free weights are set to 0 in the model. Until
  /// `release`, only the kept weights learn. Throws config_error for an invalid fraction, if the
  /// current task is pruned already, and if there are 255 tasks. Throws state_error or shape_error
  /// if the model does not match this object. When it throws, nothing has changed.
  template <parameter_source M>
  void prune(const M& model, double keep) {
    if (!(keep > 0 && keep <= 1))
      throw config_error(
          detail::concat("packnet: the share to keep must be in (0, 1], got ", keep));
    if (pruned_)
      throw config_error(detail::concat("packnet: task ", task_,
                                        " is pruned already: release() its other weights first"));
    if (task_ > most_tasks)
      throw config_error(detail::concat("packnet: at most ", most_tasks, " tasks"));
    const at::NoGradGuard no_grad;
    for (auto& [theta, e] : match(model)) {
      const auto free = e->owner.eq(0);
      // Replaces the owner tensors instead of modifying them, because copies and saved states share
      // them.
      if (theta.dim() < 2) {
        e->owner = e->owner.masked_fill(free, task_);
      } else {
        const auto count =
            std::llround(keep * static_cast<double>(free.sum().template item<std::int64_t>()));
        const auto size = theta.detach()
                              .abs()
                              .to(theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
                              .masked_fill(free.logical_not(), -1);
        const auto largest = std::get<1>(size.flatten().topk(count));
        e->owner = e->owner.flatten().index_fill(0, largest, task_).view(theta.sizes());
        theta.detach().masked_fill_(e->owner.eq(0), 0);
      }
    }
    pruned_ = true;
    keep_fixed(model);
  }

  /// Fixes the weights of the pruned task and starts the next task with the free weights. Throws
  /// config_error if the current task is not pruned.
  template <parameter_source M>
  void release(const M& model) {
    if (!pruned_)
      throw config_error(detail::concat("packnet: task ", task_,
                                        " must be pruned before the next task: call prune()"));
    const at::NoGradGuard no_grad;
    match(model);
    ++task_;
    pruned_ = false;
    keep_fixed(model);
  }

  /// Sets `.grad` to 0 for the fixed weights. Call it between backward() and the optimizer step. A
  /// sparse gradient stays sparse and is coalesced.
  template <parameter_source M>
  void mask_gradient(const M& model) const {
    const at::NoGradGuard no_grad;
    for (auto& [theta, e] : match(model))
      if (theta.requires_grad() && theta.grad().defined()) mask(theta.mutable_grad(), learns(*e));
  }

  /// Restores the values of the fixed weights, bit for bit. Call it after the optimizer step.
  template <parameter_source M>
  void restore(const M& model) const {
    const at::NoGradGuard no_grad;
    for (auto& [theta, e] : match(model))
      theta.detach().copy_(at::where(learns(*e), theta, e->fixed));
  }

  /// Returns the network of a task: the weights of this task and of all earlier tasks, and 0
  /// elsewhere. Excluded parameters keep their current values. The result has new tensors by name;
  /// write them into a copy of the model. The network of the current task exists after it is
  /// pruned. Throws config_error for a task without a network.
  template <parameter_source M>
  [[nodiscard]] parameter_list weights_of(const M& model, std::int64_t task) const {
    if (task < 1 || task > tasks())
      throw config_error(detail::concat("packnet: there is no network of task ", task,
                                        " yet: ", tasks(), " have been pruned"));
    const at::NoGradGuard no_grad;
    match(model);
    parameter_list weights;
    for (const auto& [name, tensor] : parameters(model)) {
      const auto found = entries_.find(name);
      if (found == entries_.end()) {
        weights.push_back({name, tensor.detach().clone()});
      } else {
        const auto& owner = found->second.owner;
        weights.push_back(
            {name, tensor.detach().masked_fill(owner.eq(0).logical_or_(owner.gt(task)), 0)});
      }
    }
    return weights;
  }

  /// Returns the owner task of each weight by name: uint8, 0 for no owner.
  [[nodiscard]] parameter_list owners() const {
    parameter_list list;
    for (const auto& [name, e] : entries_) list.push_back({name, e.owner});
    return list;
  }
  /// The number of tasks that own weights.
  std::int64_t tasks() const { return pruned_ ? task_ : task_ - 1; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "task", task_);
    out.set(prefix + "pruned", pruned_ ? 1 : 0);
    for (const auto& [name, e] : entries_) {
      out.set(prefix + "owner." + name, e.owner);
      out.set(prefix + "fixed." + name, e.fixed);
    }
  }
  /// Throws state_error or shape_error and changes nothing if the saved parameters do not match
  /// this object's parameters.
  void load_state(const state& in, const std::string& prefix) {
    auto loaded = entries_;
    for (auto& [name, e] : loaded) {
      for (auto [tensor, kind] : {std::pair{&e.owner, "owner."}, std::pair{&e.fixed, "fixed."}}) {
        const auto& saved = in.tensor(prefix + kind + name);
        if (saved.sizes() != tensor->sizes())
          throw shape_error(detail::concat("packnet: the saved '", kind, name, "' has shape ",
                                           detail::shape_text(saved.sizes()), ", the model's is ",
                                           detail::shape_text(tensor->sizes()),
                                           ": the state belongs to another network"));
        if (saved.scalar_type() != tensor->scalar_type())
          throw state_error(detail::concat("packnet: the saved '", kind, name, "' is ",
                                           saved.dtype(), ", the model's is ", tensor->dtype()));
        *tensor = saved.to(tensor->device());
      }
    }
    const auto task = in.integer(prefix + "task");
    const auto pruned = in.integer(prefix + "pruned");
    if (task < 1 || task > (pruned != 0 ? most_tasks : most_tasks + 1))
      throw state_error(detail::concat("packnet: the saved task is ", task));
    if (pruned != 0 && pruned != 1)
      throw state_error(detail::concat("packnet: the saved 'pruned' is ", pruned, ", not 0 or 1"));
    for (const auto& [name, e] : loaded)
      if (e.owner.gt(pruned != 0 ? task : task - 1).any().item<bool>())
        throw state_error(detail::concat("packnet: weights of the saved '", name,
                                         "' are owned by a later task than the saved task ", task));
    entries_ = std::move(loaded);
    task_ = task;
    pruned_ = pruned != 0;
  }

 private:
  static constexpr std::int64_t most_tasks = 255;  // an owner is a byte

  struct entry {
    at::Tensor owner;  // uint8, 0 for none
    // the values of the fixed weights; for the other weights, their values at the start of the
    // phase
    at::Tensor fixed;
  };

  at::Tensor learns(const entry& e) const { return e.owner.eq(pruned_ ? task_ : 0); }

  static void mask(at::Tensor& gradient, const at::Tensor& learns) {
    if (gradient.layout() == at::kStrided) {
      gradient.masked_fill_(learns.logical_not(), 0);
    } else if (gradient.layout() == at::kSparse && gradient.sparse_dim() > 0) {
      gradient = gradient.coalesce();
      const auto indices = gradient._indices();
      at::Tensor row = indices[0];
      for (std::int64_t d = 1; d < indices.size(0); ++d) row = row * learns.size(d) + indices[d];
      gradient._values().masked_fill_(
          learns.flatten(0, indices.size(0) - 1).index_select(0, row).logical_not(), 0);
    } else {
      gradient = gradient.to_dense().masked_fill_(learns.logical_not(), 0);
    }
  }

  template <parameter_source M>
  void keep_fixed(const M& model) {
    for (auto& [theta, e] : match(model)) e->fixed = theta.detach().clone();
  }

  /// Returns the model's parameters with their entries. Moves the entries to the device and type of
  /// the model. Throws if the model does not match this object.
  template <parameter_source M>
  std::vector<std::pair<at::Tensor, entry*>> match(const M& model) const {
    std::vector<std::pair<at::Tensor, entry*>> items;
    for (const auto& [name, tensor] : parameters(model)) {
      if (detail::covered(exclude_, name)) continue;
      const auto found = entries_.find(name);
      if (found == entries_.end())
        throw state_error(detail::concat(
            "packnet: the model's parameter '", name, "' ", detail::shape_text(tensor.sizes()),
            " was not in the model that this packnet was constructed with: exclude it by pattern"));
      detail::check_leaf("packnet", name, tensor);
      entry& e = found->second;
      if (tensor.sizes() != e.owner.sizes())
        throw shape_error(detail::concat("packnet: the model's parameter '", name, "' has shape ",
                                         detail::shape_text(tensor.sizes()), ", its owners ",
                                         detail::shape_text(e.owner.sizes()),
                                         ": construct packnet with this model"));
      items.emplace_back(tensor, &e);
    }
    if (items.size() != entries_.size())
      throw state_error(detail::concat("packnet: the model has ", items.size(), " of the ",
                                       entries_.size(),
                                       " parameters that this packnet was constructed with"));
    for (auto& [theta, e] : items) {
      e->owner = e->owner.to(theta.device());
      e->fixed = e->fixed.to(theta.device(), theta.scalar_type());
    }
    return items;
  }

  std::vector<std::string> exclude_;
  // mutable: the entries are moved to the device and type of the model
  mutable std::map<std::string, entry> entries_;
  std::int64_t task_ = 1;
  bool pruned_ = false;
};

}  // namespace retain
