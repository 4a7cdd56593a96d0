// SPDX-License-Identifier: MIT
// Whether a forward function answers by the states it is asked about and by nothing else. An
// importance is a mean over what each state says by itself: dropout, statistics of a batch and a
// memory that is kept between calls give numbers that look right and are not.
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

/// The name of a module's type, as torch::nn::Module or TorchScript has it; empty where it has
/// none.
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
      throw config_error(concat(who, ": ",
                                name.empty() ? std::string("the model") : concat("'", name, "'"),
                                " is batch normalization in training mode, where no sample has a "
                                "gradient of its own: call policy->eval() first"));
}

/// Throws config_error for a batch normalization in training mode in a model that lists its
/// modules, before a forward pass moves its statistics. One without them is left to the walk over
/// the graph, which sees whether it is used at all.
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
    // torch::jit::Module
  } else if constexpr (requires {
                         model.is_training();
                         model.named_buffers(false);
                         model.named_modules();
                       }) {
    for (const auto& item : model.named_modules()) refuse_gathering(item.name, item.value, who);
  } else if constexpr (points_to_model<M>) {
    refuse_gathering_modules(*model, who);
  }
}

/// Gives a model the buffers back that it had, whatever a forward function made of them and however
/// the scope ends. A buffer that was replaced by another tensor, and one of a model that lists
/// none, is out of reach.
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
      } catch (...) {  // one of a kind that cannot be compared or written stays as it is
      }
    }
  }
  buffers_as_they_were(const buffers_as_they_were&) = delete;
  buffers_as_they_were& operator=(const buffers_as_they_were&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> kept_;
};

/// Puts the default random generators of the CPU and of `device` back to where they stood when this
/// was made.
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

/// How alike two answers are: bit for bit (NaN is like NaN), to rounding, or not.
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
  constexpr double units = 32;  // what sums in another order differ by
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

/// Asks a forward function again, until it was asked about enough samples twice: single ones may
/// miss what dropout does to a small layer.
///
/// On a CPU the answers must be the same bit for bit. Elsewhere atomic additions may come in any
/// order, so that a difference within 32 units in the last place of the largest number counts as
/// rounding. On a CPU such a difference passes where a third answer is the second bit for bit:
/// TorchScript compiles what it was asked once, and rounds otherwise from then on.
class steady_forward {
 public:
  static constexpr std::int64_t enough = 16;

  explicit steady_forward(const char* who) : who_(who) {}

  bool in_doubt() const { return asked_ < enough; }

  /// `first` is what forward said of `samples` samples, `again()` asks it once more. Throws
  /// config_error when it says something else.
  template <class Again>
  void check(const std::vector<at::Tensor>& first, std::int64_t samples, Again again) {
    const std::vector<at::Tensor> second = again();
    auto like = likeness_of(first, second);
    if (like == likeness::rounded &&
        !(first.front().is_cpu() && likeness_of(second, again()) != likeness::same))
      like = likeness::same;
    if (like != likeness::same)
      throw config_error(
          concat(who_, ": forward answers otherwise when it is asked about the same states again, "
                       "so that no state has an importance of its own. "
                       "Is dropout on (call policy->eval()), does forward update statistics or a "
                       "normalizer (hold them still), or does the policy keep "
                       "a memory between calls (give each call its state)?"));
    asked_ += samples;
  }

 private:
  const char* who_;
  std::int64_t asked_ = 0;
};

}  // namespace retain::detail
