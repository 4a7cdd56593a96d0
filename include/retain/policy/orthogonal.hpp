// SPDX-License-Identifier: MIT
#pragma once

#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/init.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/normalization.h>

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <unordered_map>

namespace retain {

namespace detail {

/// The kind of a module's weights, if their shape does not show it.
enum class weights_kind : std::uint8_t {
  /// one matrix for each of several networks; the first dimension counts the networks
  one_matrix_each,
  scales,  ///< the scales of a normalization layer
};

/// A module with weights of several networks in one tensor.
struct weights_of_several {
  weights_of_several() = default;
  weights_of_several(const weights_of_several&) = default;
  weights_of_several(weights_of_several&&) = default;
  weights_of_several& operator=(const weights_of_several&) = default;
  weights_of_several& operator=(weights_of_several&&) = default;
  virtual ~weights_of_several() = default;
  virtual weights_kind kind() const = 0;
};

using weights_kinds = std::unordered_map<const at::TensorImpl*, weights_kind>;

inline void find_kinds(const torch::nn::Module& module, weights_kinds& kinds) {
  const auto* several = dynamic_cast<const weights_of_several*>(&module);
  if (several != nullptr || dynamic_cast<const torch::nn::LayerNormImpl*>(&module) != nullptr)
    for (const auto& own : module.named_parameters(false))
      kinds.emplace(own.value().unsafeGetTensorImpl(),
                    several != nullptr ? several->kind() : weights_kind::scales);
  for (const auto& child : module.children()) find_kinds(*child, kinds);
}

template <class M>
weights_kinds kinds_of(const M& model) {
  weights_kinds kinds;
  if constexpr (std::derived_from<M, torch::nn::Module>)
    find_kinds(model, kinds);
  else if constexpr (requires {
                       requires std::derived_from<std::remove_cvref_t<decltype(*model)>,
                                                  torch::nn::Module>;
                     })
    find_kinds(*model, kinds);
  return kinds;
}

}  // namespace detail

/// Orthogonal initialization, in place. Every parameter with at least two dimensions whose name
/// ends in "weight" becomes `gain` times a matrix with orthonormal rows or columns. For a
/// convolution, each kernel is one row. Every bias becomes 0. Scales of layer norms do not change.
/// In a twin_critic, alone or inside another module, the matrix of each critic is initialized
/// separately. If `model` is a list of tensors instead of a module, the kinds of weights are
/// unknown, and each tensor counts as one matrix.
///
/// Paper: Saxe et al. 2014 (arXiv 1312.6120).
template <parameter_source M>
void orthogonal(const M& model, double gain) {
  const at::NoGradGuard no_grad;
  const auto kinds = detail::kinds_of(model);
  for (auto [name, tensor] : parameters(model)) {
    const auto kind = kinds.find(tensor.unsafeGetTensorImpl());
    if (name.ends_with("bias")) {
      tensor.zero_();
    } else if (tensor.dim() >= 2 && name.ends_with("weight")) {
      if (kind == kinds.end())
        torch::nn::init::orthogonal_(tensor, gain);
      else if (kind->second == detail::weights_kind::one_matrix_each)
        for (std::int64_t k = 0; k < tensor.size(0); ++k)
          torch::nn::init::orthogonal_(tensor[k], gain);
    }
  }
}

}  // namespace retain
