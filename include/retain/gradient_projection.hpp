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

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct gradient_projection_options {
  /// the gradient is projected only if its cosine with the reference is below -tolerance; the
  /// tolerance must be in [0, 1)
  double tolerance = 0.0;
  /// name patterns of parameters that are not projected, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
};

/// A-GEM: changes the training gradient so that, to first order, an update does not increase the
/// loss on pre-training states. g is the gradient of the training loss. g_ref is the gradient of
/// the loss on a batch of pre-training states.
///
///     g <- g - (g . g_ref / g_ref . g_ref) g_ref    where g . g_ref < 0,    g as it is elsewhere
///
/// The dot product runs over all parameters together. Call the functions in this order:
///
///     optimizer.zero_grad();
///     cloning.loss(student).backward();    // or any loss on pre-training states
///     guard.store_reference(*policy);             // g_ref
///     optimizer.zero_grad();
///     ppo_loss.backward();
///     guard.project(*policy);              // changes .grad
///     optimizer.step();
///
/// After the projection, g . g_ref >= 0 (with a tolerance t: their cosine is at least -t). This
/// guarantee only covers plain gradient descent, because an optimizer applies Adam's scaling,
/// momentum and weight decay after the projection.
///
/// If a penalty is attached (see `attach`), both gradients include the penalty gradient. To keep it
/// out of g_ref, call `pause` of the attachment before the backward() of the reference loss, and
/// `resume` after store_reference().
///
/// Parameters are ignored if they are frozen or excluded, or if they have no `.grad` in
/// store_reference() or in project(). No `.grad` is created for them. No call synchronizes with a
/// device. Sums are computed in double. Memory: one copy of the gradients.
///
/// Paper: Chaudhry et al. 2019, arXiv 1812.00420.
class gradient_projection {
 public:
  /// Throws config_error for a tolerance outside [0, 1).
  explicit gradient_projection(gradient_projection_options options = {})
      : options_(std::move(options)) {
    if (!(options_.tolerance >= 0 && options_.tolerance < 1))
      throw config_error(detail::concat(
          "gradient_projection: the tolerance must be in [0, 1), got ", options_.tolerance));
  }

  /// Copies the current gradients of the model as the new reference. The model keeps its gradients
  /// in `.grad`. Throws state_error if the model has no gradients. The first call throws
  /// config_error for an exclude pattern that matches no parameter.
  template <parameter_source M>
  void store_reference(const M& model) {
    const at::NoGradGuard no_grad;
    const auto list = parameters(model);
    if (reference_.empty())
      detail::check_patterns("gradient_projection", "exclude pattern", options_.exclude, list);
    std::map<std::string, at::Tensor> reference;
    for (const auto& [name, tensor] : list)
      if (takes_part(name, tensor)) reference.emplace(name, dense(tensor.grad()).clone());
    if (reference.empty())
      throw state_error("gradient_projection: the model has no gradients to remember: call "
                        "backward() on the reference loss first");
    reference_ = std::move(reference);
  }

  /// Projects `.grad` if it points against the reference. Returns the value of g . g_ref before the
  /// projection, as a 0-dim float64 tensor. A negative value means that the gradients conflict.
  /// Throws state_error if there is no reference. Throws shape_error if a gradient and its
  /// reference have different shapes. When it throws, no gradient has changed.
  template <parameter_source M>
  at::Tensor project(const M& model) const {
    const at::NoGradGuard no_grad;
    if (reference_.empty())
      throw state_error("gradient_projection: there is no reference yet: call store_reference() "
                        "after its backward()");
    struct pair {
      at::Tensor parameter, gradient, reference;
    };
    std::vector<pair> pairs;
    for (const auto& [name, tensor] : parameters(model)) {
      const auto found = reference_.find(name);
      if (found == reference_.end() || !takes_part(name, tensor)) continue;
      if (found->second.sizes() != tensor.sizes())
        throw shape_error(detail::concat(
            "gradient_projection: the gradient of '", name, "' has shape ",
            detail::shape_text(tensor.sizes()), ", the reference ",
            detail::shape_text(found->second.sizes()), ": call store_reference() with this model"));
      pairs.push_back({tensor, dense(tensor.grad()), found->second.to(tensor.device())});
    }
    if (pairs.empty()) return at::zeros({}, at::TensorOptions().dtype(at::kDouble));

    const auto device = pairs.front().gradient.device();
    auto product = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device));
    auto size = product.clone(), reference_size = product.clone();
    for (const auto& p : pairs) {
      const auto reference = p.reference.to(at::kDouble);
      product += (p.gradient.to(at::kDouble) * reference).sum().to(device);
      reference_size += reference.square().sum().to(device);
      if (options_.tolerance > 0) size += p.gradient.to(at::kDouble).square().sum().to(device);
    }
    const auto limit = (size * reference_size).sqrt_().mul_(-options_.tolerance);
    const auto opposed =
        product.lt(0).logical_and_(product.lt(limit)).logical_and_(reference_size.gt(0));
    const auto share = at::where(opposed, product / reference_size, at::zeros_like(product));
    for (const auto& p : pairs) {
      // If `share` is 0, the gradient stays bit-identical. The product is computed in float,
      // because `share` may be too large for half precision.
      const auto type = p.gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      p.gradient.copy_(p.gradient.to(type) -
                       p.reference.to(type) * share.to(p.gradient.device(), type));
      // the gradient was sparse
      if (!p.gradient.is_same(p.parameter.grad())) p.parameter.mutable_grad() = p.gradient;
    }
    return product;
  }

  void save_state(state& out, const std::string& prefix) const {
    for (const auto& [name, tensor] : reference_) out.set(prefix + "reference." + name, tensor);
  }
  /// Throws state_error and changes nothing if a saved tensor does not have a floating-point type.
  /// `project` checks the shapes later.
  void load_state(const state& in, const std::string& prefix) {
    std::map<std::string, at::Tensor> reference;
    const auto start = prefix + "reference.";
    for (const auto& key : in.tensor_keys(start)) {
      const at::Tensor& saved = in.tensor(key);
      if (!at::isFloatingType(saved.scalar_type()))
        throw state_error(detail::concat("gradient_projection: the saved '", key, "' is ",
                                         saved.dtype(),
                                         ", but a gradient must have a floating-point type"));
      reference.emplace(key.substr(start.size()), saved);
    }
    reference_ = std::move(reference);
  }

 private:
  bool takes_part(const std::string& name, const at::Tensor& tensor) const {
    if (detail::covered(options_.exclude, name)) return false;
    detail::check_leaf("gradient_projection", name, tensor);
    return tensor.requires_grad() && tensor.grad().defined();
  }
  static at::Tensor dense(const at::Tensor& gradient) {
    return gradient.layout() == at::kStrided ? gradient : gradient.to_dense();
  }

  gradient_projection_options options_;
  std::map<std::string, at::Tensor> reference_;
};

}  // namespace retain
