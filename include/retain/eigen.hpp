// SPDX-License-Identifier: MIT
// Makes a model written in Eigen a parameter source, without copying its data.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <Eigen/Core>

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

template <class Scalar>
constexpr at::ScalarType scalar_type_of() {
  if constexpr (std::same_as<Scalar, double>)
    return at::kDouble;
  else if constexpr (std::same_as<Scalar, float>)
    return at::kFloat;
  else if constexpr (std::same_as<Scalar, Eigen::half>)
    return at::kHalf;
  else if constexpr (std::same_as<Scalar, Eigen::bfloat16>)
    return at::kBFloat16;
  else
    return at::ScalarType::Undefined;
}

/// A matrix, array, vector, Map, Ref or Block of Eigen with direct access to its coefficients in
/// memory. An expression such as A + B does not satisfy this concept.
template <class E>
concept eigen_storage =
    std::derived_from<E, Eigen::DenseBase<E>> && (int(E::Flags) & Eigen::DirectAccessBit) != 0 &&
    scalar_type_of<typename E::Scalar>() != at::ScalarType::Undefined;

/// An Eigen type that owns its coefficients. A resize may move the coefficients in memory.
template <class E>
concept eigen_owner = std::derived_from<E, Eigen::PlainObjectBase<E>>;

/// A tensor that uses the memory of `values`: [n] for a vector, otherwise [rows, cols]. Any Eigen
/// storage order is allowed.
template <eigen_storage E>
at::Tensor tensor_over(const E& values) {
  auto* data = const_cast<typename E::Scalar*>(values.data());
  const auto options = at::TensorOptions().dtype(scalar_type_of<typename E::Scalar>());
  if constexpr (E::IsVectorAtCompileTime)
    return at::from_blob(data, {values.size()}, {values.innerStride()}, options);
  else
    return at::from_blob(data, {values.rows(), values.cols()},
                         {values.rowStride(), values.colStride()}, options);
}

}  // namespace detail

/// Lists the parameters of a model written in Eigen by name, as tensor views of the model's memory.
///
///     eigen_parameters model;
///     model.add("W", W, dW).add("b", b, db);      // values and their gradients, of one shape
///     ewc keep{model, importance, {.strength = 500.0}};
///     ...                                         // your backward pass fills dW and db
///     keep.add_gradient(model);                   // adds 2 c F (theta - theta*) to them
///
/// A matrix becomes a tensor [rows, cols] and a vector becomes [n]. Row-major and column-major
/// storage and the types float, double, half and bfloat16 are supported. A parameter that is added
/// without a gradient is frozen: it has an anchor, but no penalty gradient is computed for it. To
/// pass importances or anchors, add them to an eigen_parameters object in the same way and use
/// `importance.named_parameters()`.
///
/// The object stores references to matrices and arrays, so they must outlive it. They may be
/// resized or moved in memory between two calls, because every call makes new views. A Map, Ref or
/// Block is stored by value.
class eigen_parameters {
 public:
  /// Adds a parameter and the memory of its gradient. Throws shape_error if the shapes of the
  /// parameter and the gradient differ, at this call or at a later use.
  template <class E, class G>
    requires(detail::eigen_storage<std::remove_cvref_t<E>> &&
             detail::eigen_storage<std::remove_cvref_t<G>>)
  eigen_parameters& add(std::string name, E&& values, G&& gradient) {
    static_assert(std::same_as<typename std::remove_cvref_t<E>::Scalar,
                               typename std::remove_cvref_t<G>::Scalar>,
                  "a parameter and its gradient must have one scalar type");
    static_assert(!std::is_const_v<std::remove_reference_t<E>> ||
                      !detail::eigen_owner<std::remove_cvref_t<E>>,
                  "a parameter with a gradient is trained: its matrix must not be const");
    static_assert(!std::is_const_v<std::remove_pointer_t<decltype(gradient.data())>>,
                  "a penalty is added to the gradient: the gradient must not be const");
    return append(
        {std::move(name), keep(std::forward<E>(values)), keep(std::forward<G>(gradient))});
  }

  /// Adds a frozen parameter, an importance or an anchor.
  template <class E>
    requires detail::eigen_storage<std::remove_cvref_t<E>>
  eigen_parameters& add(std::string name, E&& values) {
    return append({std::move(name), keep(std::forward<E>(values)), {}});
  }

  /// Makes new views of the current memory of the matrices.
  parameter_list named_parameters() const {
    parameter_list list;
    for (const auto& [name, values, gradient] : entries_) {
      named_tensor item{name, values()};
      if (gradient) {
        const at::Tensor place = gradient();
        check(name, item.tensor, place);
        item.tensor.requires_grad_();
        item.tensor.mutable_grad() = place;
      }
      list.push_back(std::move(item));
    }
    return list;
  }

 private:
  using view = std::function<at::Tensor()>;
  struct entry {
    std::string name;
    view values, gradient;
  };

  template <class E>
  static view keep(E&& values) {
    using plain = std::remove_cvref_t<E>;
    if constexpr (detail::eigen_owner<plain>) {
      static_assert(std::is_lvalue_reference_v<E>,
                    "the matrix is a temporary and would be destroyed before its first use: store "
                    "it in a variable");
      return [address = &values] { return detail::tensor_over(*address); };
    } else {
      return [copy = plain(values)] { return detail::tensor_over(copy); };
    }
  }

  eigen_parameters& append(entry added) {
    for (const auto& e : entries_)
      if (e.name == added.name)
        throw config_error(detail::concat("eigen_parameters: there is already a parameter named '",
                                          added.name, "'"));
    if (added.gradient) check(added.name, added.values(), added.gradient());
    entries_.push_back(std::move(added));
    return *this;
  }

  static void check(const std::string& name, const at::Tensor& values, const at::Tensor& gradient) {
    if (values.sizes() != gradient.sizes())
      throw shape_error(detail::concat("eigen_parameters: '", name, "' has shape ",
                                       detail::shape_text(values.sizes()), ", its gradient ",
                                       detail::shape_text(gradient.sizes()),
                                       ": resize the gradient with the parameter"));
  }

  std::vector<entry> entries_;
};

}  // namespace retain
