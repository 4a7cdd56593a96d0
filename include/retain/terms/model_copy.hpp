// SPDX-License-Identifier: MIT
// Copies of a model that share no tensor with it.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <concepts>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace retain::detail {

template <class M>
concept has_deepcopy = requires(const M& model) {  // torch::jit::Module
  { model.deepcopy() } -> std::convertible_to<M>;
};
template <class M>
concept module_holder = requires(const M& model) {
  typename M::ContainedType;
  model.ptr();
};
template <class M>
struct is_shared_ptr : std::false_type {};
template <class T>
struct is_shared_ptr<std::shared_ptr<T>> : std::true_type {};

/// Returns a copy that shares no tensor with the original.
template <class M>
M deep_copy(const M& model) {
  if constexpr (has_deepcopy<M>) {
    // with gradients enabled, the copied parameters would not be leaves
    const at::NoGradGuard no_grad;
    return model.deepcopy();
  } else {
    static_assert(
        module_holder<M> || is_shared_ptr<M>::value,
        "retain::teacher copies a module holder, a std::shared_ptr to a torch::nn::Module, or a "
        "torch::jit::Module; "
        "for anything else make the copy yourself and write teacher{retain::adopt, copy, forward}");
    try {
      if constexpr (module_holder<M>)
        return M(std::dynamic_pointer_cast<typename M::ContainedType>(model->clone()));
      else
        return std::dynamic_pointer_cast<typename M::element_type>(model->clone());
    } catch (const c10::Error&) {
      throw config_error("teacher: this module cannot be cloned. Build a second network with the "
                         "same layers, fresh, and write teacher{policy, fresh, forward}, which "
                         "copies the weights into it; or derive the module from "
                         "torch::nn::Cloneable and build its layers in reset(). A copy of a holder "
                         "or of a std::shared_ptr is the same network, not a second one");
    }
  }
}

/// Copies all parameters and buffers by name into `fresh`, another network of the same shape, and
/// returns it. `fresh` gets their types and devices. Throws config_error if the two share a tensor,
/// or if a name or a shape differs; the text lists all differences.
template <class M>
M copied_into(const M& policy, M fresh) {
  const at::NoGradGuard no_grad;
  const auto listed = [](const M& model) {
    std::map<std::string, at::Tensor> all;
    for (const auto& [name, tensor] : all_names(model)) all.emplace(name, tensor);
    for (const auto& [name, tensor] : buffers_of(model, true)) all.emplace(name, tensor);
    return all;
  };
  const auto source = listed(policy), target = listed(fresh);
  std::unordered_map<const void*, std::string> stored;
  const auto place = [](const at::Tensor& tensor) -> const void* {
    return tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl())
                                : static_cast<const void*>(tensor.unsafeGetTensorImpl());
  };
  for (const auto& [name, tensor] : source) stored.emplace(place(tensor), name);
  std::string wrong;
  for (const auto& [name, tensor] : target) {
    if (const auto found = stored.find(place(tensor)); found != stored.end())
      throw config_error(concat("teacher: '", name, "' of the fresh network is the policy's '",
                                found->second,
                                "' itself: a copy of a holder or of a std::shared_ptr (`=`) is the "
                                "same network. Build a second network and give it as fresh"));
    if (!source.contains(name))
      wrong += concat("\n  '", name, "' ", shape_text(tensor.sizes()), " is not in the policy");
  }
  std::unordered_map<const at::TensorImpl*, at::Tensor> filled;
  for (const auto& [name, tensor] : source) {
    const auto found = target.find(name);
    if (found == target.end())
      wrong +=
          concat("\n  '", name, "' ", shape_text(tensor.sizes()), " is not in the fresh network");
    else if (found->second.sizes() != tensor.sizes())
      wrong +=
          concat("\n  '", name, "' has shape ", shape_text(tensor.sizes()), " in the policy and ",
                 shape_text(found->second.sizes()), " in the fresh network");
    else if (const auto [known, added] =
                 filled.emplace(found->second.unsafeGetTensorImpl(), tensor);
             !added && !known->second.is_same(tensor))
      wrong += concat("\n  '", name, "' is tied to another tensor in the fresh network only");
  }
  if (!wrong.empty())
    throw config_error(concat("teacher: the fresh network does not have the shape of the policy; "
                              "build both in the same way:",
                              wrong));
  for (const auto& [name, tensor] : target) tensor.set_data(source.at(name).detach().clone());
  return fresh;
}

/// Returns the module of a holder or pointer, or the module itself.
template <class M>
decltype(auto) module_of(M& model) {
  if constexpr (requires { model.train(false); } || requires { model.eval(); })
    return (model);
  else
    return (*model);
}

}  // namespace retain::detail
