// SPDX-License-Identifier: MIT
// Lists the named tensors of a model in order.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace retain {

/// One parameter: its name in the model and a handle to the tensor, not a copy.
struct named_tensor {
  std::string name;
  at::Tensor tensor;
};

/// The parameters of a model in the model's own order, each tensor once.
using parameter_list = std::vector<named_tensor>;

namespace detail {

template <class T>
concept named_item = requires(const T& item) {
  { item.name } -> std::convertible_to<std::string>;
  { item.value } -> std::convertible_to<at::Tensor>;
} || requires(const T& item) {
  { item.name } -> std::convertible_to<std::string>;
  { item.tensor } -> std::convertible_to<at::Tensor>;
} || requires(const T& item) {
  { item.key() } -> std::convertible_to<std::string>;
  { item.value() } -> std::convertible_to<at::Tensor>;
} || requires(const T& item) {
  { item.first } -> std::convertible_to<std::string>;
  { item.second } -> std::convertible_to<at::Tensor>;
};

template <named_item T>
named_tensor to_named_tensor(const T& item) {
  if constexpr (requires {
                  { item.key() } -> std::convertible_to<std::string>;
                })
    return {item.key(), item.value()};
  else if constexpr (requires {
                       { item.first } -> std::convertible_to<std::string>;
                     })
    return {item.first, item.second};
  else if constexpr (requires {
                       { item.tensor } -> std::convertible_to<at::Tensor>;
                     })
    return {item.name, item.tensor};
  else
    return {item.name, item.value};
}

/// A range whose elements carry a name and a tensor: OrderedDict, jit::named_parameter_list,
/// vector<pair>, map, ...
template <class R>
concept named_range = requires(const R& range) {
  { *range.begin() } -> named_item;
  range.end();
};

template <class M>
concept has_named_parameters = requires(M& model) {
  { model.named_parameters() } -> named_range;
};

template <class M>
concept tensor_range = requires(const M& range) {
  { *range.begin() } -> std::convertible_to<const at::Tensor&>;
  range.end();
};

/// A smart pointer, a raw pointer or a LibTorch module holder around a model.
template <class M>
concept points_to_model = requires(const M& model) {
  requires has_named_parameters<std::remove_reference_t<decltype(*model)>>;
};

/// Whether the tensors together hold numbers, and all of them are 0.
inline bool all_zero(const parameter_list& list) {
  bool some = false;
  for (const auto& [name, tensor] : list) {
    if (tensor.numel() != 0 && tensor.ne(0).any().item<bool>()) return false;
    some = some || tensor.numel() != 0;
  }
  return some;
}

/// Lists the entries of a range. With `aliases`, a tensor with several names is listed under each
/// name.
template <named_range R>
parameter_list collect(const R& range, bool aliases = false) {
  parameter_list list;
  std::unordered_set<const at::TensorImpl*> seen;
  std::unordered_set<std::string> names;
  for (const auto& item : range) {
    auto entry = to_named_tensor(item);
    if (!entry.tensor.defined() ||
        (!seen.insert(entry.tensor.unsafeGetTensorImpl()).second && !aliases))
      continue;
    if (!names.insert(entry.name).second)
      throw config_error(concat("parameters: two tensors are named '", entry.name,
                                "': give the parts of a list different prefixes"));
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace detail

namespace detail {

template <class M>
inline constexpr bool lists_parameters = requires {
  requires has_named_parameters<const M> || points_to_model<M> || named_range<M> ||
               tensor_range<M> || has_named_parameters<M>;
};

/// Returns `met`. Compilers show the whole expression of a constraint that is not satisfied, and so
/// they show the text.
constexpr bool required(bool met, const char* /*text*/) { return met; }

}  // namespace detail

/// A model whose parameters can be listed by name: torch::nn::Module and every class derived from
/// it, a module holder or a pointer to a module, torch::jit::Module, a vector of tensors (named
/// "0", "1", ...), or any range of (name, tensor). A user-defined type needs a member
/// `named_parameters()` that returns such a range.
template <class M>
concept parameter_source = detail::required(
    detail::lists_parameters<std::remove_cvref_t<M>>,
    "this model has no named parameters: pass a torch::nn::Module, its holder, a "
    "std::vector<at::Tensor>, or give your type a member named_parameters() that returns a range "
    "of (name, tensor)");

namespace detail {

template <bool aliases>
struct parameters_fn {
  template <parameter_source M>
  [[nodiscard]] parameter_list operator()(const M& model) const {
    using model_type = std::remove_cvref_t<M>;
    if constexpr (has_named_parameters<const model_type>) {
      return collect(model.named_parameters(), aliases);
    } else if constexpr (points_to_model<M>) {
      return (*this)(*model);
    } else if constexpr (named_range<model_type>) {
      return collect(model, aliases);
    } else if constexpr (tensor_range<model_type>) {
      std::vector<named_tensor> named;
      for (const at::Tensor& tensor : model)
        named.push_back({std::to_string(named.size()), tensor});
      return collect(named, aliases);
    } else {
      // The model's named_parameters() is not const, although it does not change the model.
      return collect(const_cast<model_type&>(model).named_parameters(), aliases);
    }
  }
};

/// Like `parameters`, but lists a tensor with several names under each name.
inline constexpr parameters_fn<true> all_names{};

}  // namespace detail

/// parameters(model): returns the names and tensors of a model in order. A tensor with several
/// names (a tied weight) is listed once, under its first name, so that a penalty counts it once.
/// Throws config_error if two different tensors have the same name.
inline constexpr detail::parameters_fn<false> parameters{};

}  // namespace retain
