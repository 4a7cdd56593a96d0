// SPDX-License-Identifier: MIT
// Checks whether the result of a forward function depends only on the given states. An importance
// is a mean of values that each depend on one state. Dropout, batch statistics and a state that is
// kept between calls break this assumption and give wrong importances that look plausible.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// Returns the type name of a torch::nn::Module or a TorchScript module. Returns an empty text if
/// the type has no name.
template <class Module>
std::string type_text_of(const Module& module) {
  if constexpr (requires {
                  { module.name() } -> std::convertible_to<std::string>;
                }) {
    return module.name();
  } else if constexpr (requires { module.type()->name()->qualifiedName(); }) {
    const auto name = module.type()->name();
    return name ? name->qualifiedName() : std::string();
  } else {
    return {};
  }
}

template <class Module>
void refuse_gathering(const std::string& name, const Module& module, const char* who) {
  if (!module.is_training() || type_text_of(module).find("BatchNorm") == std::string::npos) return;
  for (const auto& buffer : collect(module.named_buffers(false)))
    if (buffer.name == "running_mean")
      throw config_error(
          concat(who, ": ", name.empty() ? std::string("the model") : concat("'", name, "'"),
                 " is batch normalization in training mode, so the gradient of a sample "
                 "depends on the other samples: call policy->eval() first"));
}

/// Throws config_error if a module of the model is a batch normalization in training mode. This
/// check runs before a forward pass changes the running statistics. It needs a model that lists its
/// modules. For other models, graph_walk checks whether the graph contains such a batch
/// normalization.
template <class M>
void refuse_gathering_modules(const M& model, const char* who) {
  if constexpr (requires {
                  model.is_training();
                  model.named_buffers(false);
                  model.named_modules("", false);
                }) {
    refuse_gathering("", model, who);
    for (const auto& item : model.named_modules("", false))
      refuse_gathering(item.key(), *item.value(), who);
  } else if constexpr (requires {  // torch::jit::Module
                         model.is_training();
                         model.named_buffers(false);
                         model.named_modules();
                       }) {
    for (const auto& item : model.named_modules()) refuse_gathering(item.name, item.value, who);
  } else if constexpr (points_to_model<M>) {
    refuse_gathering_modules(*model, who);
  }
}

/// Restores the buffers of a model at the end of the scope, also after an exception. This does not
/// work for a buffer that was replaced by another tensor, and for a model that does not list its
/// buffers.
class buffers_as_they_were {
 public:
  template <class M>
  explicit buffers_as_they_were(const M& model) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : buffers_of(model))
      kept_.emplace_back(tensor, tensor.detach().clone());
  }
  ~buffers_as_they_were() {
    const at::NoGradGuard no_grad;
    for (auto& [tensor, before] : kept_) {
      try {
        if (tensor.sizes() == before.sizes() && !tensor.equal(before))
          tensor.detach().copy_(before);
      } catch (...) {  // a buffer that cannot be compared or written is not restored
      }
    }
  }
  buffers_as_they_were(const buffers_as_they_were&) = delete;
  buffers_as_they_were& operator=(const buffers_as_they_were&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> kept_;
};

/// Restores the state of the default random generators of the CPU and of `device` at the end of the
/// scope.
class generators_as_they_were {
 public:
  explicit generators_as_they_were(at::Device device) {
    keep(at::globalContext().defaultGenerator(at::Device(at::kCPU)));
    if (device.is_cuda()) keep(at::globalContext().defaultGenerator(device));
  }
  ~generators_as_they_were() {
    for (auto& [generator, state] : kept_) {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_state(state);
    }
  }
  generators_as_they_were(const generators_as_they_were&) = delete;
  generators_as_they_were& operator=(const generators_as_they_were&) = delete;

 private:
  void keep(at::Generator generator) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    kept_.emplace_back(generator, generator.get_state());
  }
  std::vector<std::pair<at::Generator, at::Tensor>> kept_;
};

/// The similarity of two results: equal bit for bit (NaN equals NaN), equal up to rounding, or
/// different.
enum class likeness { same, rounded, different };

inline likeness likeness_of(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type() || a.device() != b.device())
    return likeness::different;
  const auto unequal = a.ne(b).logical_and_(a.eq(a).logical_or_(b.eq(b)));
  if (!unequal.any().item<bool>()) return likeness::same;
  if (!at::isFloatingType(a.scalar_type())) return likeness::different;
  const double unit = a.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                      : a.scalar_type() == at::kHalf ? 0x1p-10
                      : a.scalar_type() == at::kBFloat16
                          ? 0x1p-7
                          : static_cast<double>(std::numeric_limits<float>::epsilon());
  const auto x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double size = x.masked_fill(x.isfinite().logical_not_(), 0).abs().max().item<double>();
  constexpr double units = 32;  // the largest difference of sums in another order
  const auto near = (x - y).abs().le(units * unit * std::max(1.0, size));
  return unequal.logical_and(near.logical_not()).any().item<bool>() ? likeness::different
                                                                    : likeness::rounded;
}

inline likeness likeness_of(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return likeness::different;
  auto least = likeness::same;
  for (std::size_t i = 0; i < a.size(); ++i) least = std::max(least, likeness_of(a[i], b[i]));
  return least;
}

/// Calls a forward function a second time and compares both results, until at least `enough`
/// samples have been checked. A single sample is not enough, because dropout may not change the
/// output of a small layer.
///
/// On a CPU both results must be equal bit for bit. On other devices, atomic additions may run in
/// any order. Therefore a difference of up to 32 units in the last place of the largest number
/// counts as rounding. On a CPU such a difference is only accepted if a third result is equal to
/// the second one bit for bit. The reason is TorchScript: it compiles a function after its first
/// call, and then rounds differently.
class steady_forward {
 public:
  static constexpr std::int64_t enough = 16;

  explicit steady_forward(const char* who) : who_(who) {}

  bool in_doubt() const { return asked_ < enough; }

  /// `first` is the result of forward for `samples` samples. `again()` calls forward once more.
  /// Throws config_error if the results differ.
  template <class Again>
  void check(const std::vector<at::Tensor>& first, std::int64_t samples, Again again) {
    const std::vector<at::Tensor> second = again();
    auto like = likeness_of(first, second);
    if (like == likeness::rounded &&
        !(first.front().is_cpu() && likeness_of(second, again()) != likeness::same))
      like = likeness::same;
    if (like != likeness::same)
      throw config_error(concat(
          who_, ": forward returns another result for the same states in a second call. Check "
                "three causes: dropout is on (call policy->eval()); forward updates "
                "statistics or a normalizer (switch this off); the policy keeps a state "
                "between calls (pass its state to each call)"));
    asked_ += samples;
  }

 private:
  const char* who_;
  std::int64_t asked_ = 0;
};

}  // namespace retain::detail
