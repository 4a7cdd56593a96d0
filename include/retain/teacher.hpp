// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/distributions/prediction.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <concepts>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

/// Tag for the constructor of `teacher`: use the given model without copying it. No other code may
/// change this model.
struct adopt_t {};
inline constexpr adopt_t adopt{};

namespace detail {

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
      throw config_error("teacher: this module cannot be cloned; derive it from "
                         "torch::nn::Cloneable and build its layers in reset(), or copy it "
                         "yourself and write teacher{retain::adopt, copy, forward}");
    }
  }
}

template <class M>
decltype(auto) module_of(M& model) {
  if constexpr (requires { model.train(false); } || requires { model.eval(); })
    return (model);
  else
    return (*model);
}

struct call_forward {
  template <class M, class Observations>
  auto operator()(M& model, const Observations& observations) const {
    if constexpr (requires { model->forward(observations); })
      return model->forward(observations);
    else
      return model.forward(observations);
  }
};

struct no_state {};

template <class State, class Visit>
void each_tensor(State& carried, Visit visit) {
  using plain = std::remove_const_t<State>;
  if constexpr (std::convertible_to<State&, const at::Tensor&>) {
    visit(carried);
  } else if constexpr (requires { carried.begin(); }) {
    for (auto& tensor : carried) visit(tensor);
  } else if constexpr (requires { std::tuple_size<plain>::value; }) {
    std::apply([&](auto&... tensor) { (visit(tensor), ...); }, carried);
  } else {
    static_assert(std::same_as<plain, no_state>,
                  "a recurrent teacher's state is a tensor, or a range, tuple or pair of tensors");
  }
}

/// Returns a copy of a state with cloned tensors, so that a forward function may change them in
/// place.
template <class State>
State cloned(State carried) {
  each_tensor(carried, [](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.clone();
  });
  return carried;
}

}  // namespace detail

/// The pre-trained policy pi* that a student is kept close to. It is a deep copy in eval mode
/// without gradients. A train() or zero_grad() call or an optimizer of the student does not affect
/// it. Calling the teacher does not build a graph.
///
///     teacher t{policy};                          // policy->forward(observations) returns logits
///     teacher t{policy, [](auto& net, const auto& o) {
///       return categorical{net->forward(o.screen)};
///     }};
///     teacher t{policy, forward, initial_state};  // recurrent: see `step`
///
/// `policy` is a module holder, a std::shared_ptr to a module that can be cloned, or a
/// torch::jit::Module. A recurrent forward function takes (model, observations, state, done) and
/// returns a tuple {prediction, state}. It must reset the state before each step that `done` marks.
/// Copies of a teacher share the frozen weights, but each copy has its own state. Throws
/// config_error if the model cannot be copied.
///
/// Warning: LibTorch's clone() copies only registered parameters, buffers and modules. A plain
/// tensor member, for example running statistics, is shared between the original and the copy. If
/// the student then writes into this tensor, the teacher changes too. The library cannot detect
/// this. Register such a tensor as a buffer in reset(), like the layers:
///
///     void reset() override { mean = register_buffer("mean", at::zeros({n})); }
template <class Model, class Forward = detail::call_forward, class State = detail::no_state>
class teacher {
 public:
  static constexpr bool recurrent = !std::same_as<State, detail::no_state>;

  explicit teacher(const Model& model, Forward forward = {}, State initial = {})
      : teacher(adopt, detail::deep_copy(model), std::move(forward), std::move(initial)) {}

  teacher(adopt_t, Model copy, Forward forward = {}, State initial = {})
      : model_(std::move(copy)),
        forward_(std::move(forward)),
        initial_(initial),
        carried_(std::move(initial)) {
    detail::module_of(model_).eval();
    for (auto& [name, tensor] : parameters(model_)) tensor.requires_grad_(false);
  }

  /// Returns the teacher's prediction for a batch of independent observations.
  template <class Observations>
    requires(!recurrent)
  auto operator()(const Observations& observations) const {
    const at::NoGradGuard no_grad;
    return detail::as_prediction(forward_(model_, observations));
  }

  /// Returns the prediction of a recurrent teacher along the student's trajectory. It starts with
  /// the state of the previous call. `done` is 1 at the first step of an episode; there the forward
  /// function resets the state.
  template <class Observations>
    requires(recurrent)
  auto step(const Observations& observations, const at::Tensor& done) {
    const at::NoGradGuard no_grad;
    auto [answer, next] = forward_(model_, observations, detail::cloned(carried_), done);
    carried_ = std::move(next);
    return detail::as_prediction(std::move(answer));
  }

  /// Resets the state to the initial state.
  void reset()
    requires(recurrent)
  {
    carried_ = initial_;
  }
  const State& carried() const { return carried_; }

  const Model& model() const { return model_; }

  /// Saves the weights, the buffers and the current recurrent state.
  void save_state(state& out, const std::string& prefix) const {
    for (const auto& [name, tensor] : tensors()) out.set(prefix + name, tensor.detach());
    int index = 0;
    detail::each_tensor(carried_, [&](const at::Tensor& tensor) {
      if (tensor.defined()) out.set(carried_key(prefix, index), tensor);
      ++index;
    });
  }

  /// Throws state_error or shape_error and changes nothing if the saved weights do not match the
  /// model.
  void load_state(const state& in, const std::string& prefix) {
    const at::NoGradGuard no_grad;
    std::vector<std::pair<at::Tensor, at::Tensor>> replacements;
    for (auto& [name, tensor] : tensors()) {
      const at::Tensor& saved = in.tensor(prefix + name);
      check_like(saved, tensor, name);
      replacements.emplace_back(tensor, at::empty_like(tensor).copy_(saved));
    }
    State carried = carried_;
    int index = 0;
    detail::each_tensor(carried, [&](at::Tensor& tensor) {
      const auto key = carried_key(prefix, index++);
      const at::Tensor saved = in.contains(key) ? in.tensor(key) : at::Tensor();
      if (tensor.defined() && saved.defined()) check_like(saved, tensor, key);
      tensor = saved.defined() && tensor.defined() ? saved.to(tensor.options()) : saved;
    });
    for (auto& [tensor, replacement] : replacements) tensor.set_data(replacement);
    carried_ = std::move(carried);
  }

 private:
  static void check_like(const at::Tensor& saved, const at::Tensor& own, const std::string& name) {
    if (saved.sizes() != own.sizes())
      throw shape_error(detail::concat(
          "teacher: the saved '", name, "' has shape ", detail::shape_text(saved.sizes()),
          ", this teacher's is ", detail::shape_text(own.sizes()),
          ": the state belongs to another network or another number of environments"));
    if (saved.scalar_type() != own.scalar_type())
      throw state_error(detail::concat("teacher: the saved '", name, "' is ", saved.dtype(),
                                       ", this teacher's is ", own.dtype()));
  }

  static std::string carried_key(const std::string& prefix, int index) {
    return detail::concat(prefix, "carried.", index);
  }

  parameter_list tensors() const {
    auto list = parameters(model_);
    for (const auto& buffer : detail::collect(detail::module_of(model_).named_buffers()))
      list.push_back(buffer);
    return list;
  }

  mutable Model model_;  // mutable: forward functions are usually not const
  mutable Forward forward_;
  State initial_, carried_;
};

template <class Model>
teacher(const Model&) -> teacher<Model>;
template <class Model, class Forward>
teacher(const Model&, Forward) -> teacher<Model, Forward>;
template <class Model, class Forward, class State>
teacher(const Model&, Forward, State) -> teacher<Model, Forward, State>;
template <class Model>
teacher(adopt_t, Model) -> teacher<Model>;
template <class Model, class Forward>
teacher(adopt_t, Model, Forward) -> teacher<Model, Forward>;
template <class Model, class Forward, class State>
teacher(adopt_t, Model, Forward, State) -> teacher<Model, Forward, State>;

}  // namespace retain
