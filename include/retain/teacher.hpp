// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/new_episodes.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/carried_state.hpp>
#include <retain/terms/model_copy.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
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

/// The default forward function: forward(observations), or forward(observations, state,
/// episode_start), of the module.
struct call_forward {
  template <class M, class... Arguments>
    requires(
        requires(M& model, const Arguments&... given) { model->forward(given...); } ||
        requires(M& model, const Arguments&... given) { model.forward(given...); })
  auto operator()(M& model, const Arguments&... given) const {
    if constexpr (requires { model->forward(given...); })
      return model->forward(given...);
    else
      return model.forward(given...);
  }
};

}  // namespace detail

/// The pre-trained policy pi* that a student is kept close to. It is a deep copy in eval mode
/// without gradients. A train() or zero_grad() call or an optimizer of the student does not affect
/// it. Calling the teacher does not build a graph.
///
///     teacher t{policy};                          // policy->forward(observations) returns logits
///     teacher t{policy, [](auto& net, const auto& o) {
///       return categorical{net->forward(o.screen)};
///     }};
///     teacher t{policy, fresh, forward};          // a module that cannot be cloned
///     teacher t{policy, recurrent_forward{}};     // recurrent: see operator() and `step`
///     teacher t{policy, recurrent_forward{}, initial_state};
///
/// `policy` is a module holder, a std::shared_ptr to a module that can be cloned, or a
/// torch::jit::Module. Throws config_error if the model cannot be copied. `fresh` is another
/// network, built like `policy`: all parameters and buffers are copied into it by name. Throws
/// config_error, which lists the differences, if a name or a shape differs, or if `fresh` shares a
/// tensor with `policy`: a copy of a holder or of a std::shared_ptr (`=`) is the same network.
///
/// The forward function takes (model, observations) and returns what a policy may return (see
/// policy_answer), or takes (model, observations, state, episode_start) and returns {prediction,
/// state} (see recurrent_policy). Without a forward function, the module's own forward is called.
///
/// A recurrent state is a tensor, a range, a tuple or pair, an aggregate of up to 8 members, or a
/// type with save_state and load_state. Without an initial state, the forward function gets
/// new_episodes{}, which converts to State{}, for example to an undefined tensor. The initial state
/// of N environments only serves N environments. A state is copied before each call, so the forward
/// function may change it in place.
///
/// Copies of a teacher share the frozen weights, but each copy carries its own state.
///
/// `teacher{adopt, copy, forward}` takes a model as it is. Its parameters get requires_grad =
/// false. If it shares tensors with the model that is trained, the student stops learning. A term
/// finds this at its first loss with gradients and a strength above 0, and throws config_error: if
/// the student lists its parameters (such as policy_view), exactly; otherwise if the loss has no
/// graph. A student that is frozen on purpose (see warm_start) has such a loss too: then freeze the
/// copy before you adopt it, or leave the term out until the student learns.
///
/// Warning: LibTorch's clone() copies only registered parameters, buffers and modules, and so does
/// `fresh`. A plain tensor member, for example running statistics, is shared between the original
/// and its clone. If the student then writes into this tensor, the teacher changes too. The library
/// cannot detect this. Register such a tensor as a buffer in reset(), like the layers:
///
///     void reset() override { mean = register_buffer("mean", at::zeros({n})); }
template <class Model, class Forward = detail::call_forward, class State = new_episodes>
class teacher {
  static constexpr bool begins_itself = std::same_as<State, new_episodes>;

  // what the forward function gets in place of new_episodes
  template <class Given>
  using passed = std::conditional_t<std::same_as<Given, new_episodes>, State, Given>;
  template <class Observations>
  static constexpr bool alone = std::invocable<Forward&, Model&, const Observations&>;
  template <class Observations, class Given = new_episodes>
  static constexpr bool along =
      requires(Forward& forward, Model& model, const Observations& observations,
               passed<Given> carried, const at::Tensor& episode_start) {
        detail::next_state(forward(model, observations, std::move(carried), episode_start));
      };

 public:
  explicit teacher(const Model& model, Forward forward = {}, State initial = {})
      : teacher(own_copy{}, detail::deep_copy(model), std::move(forward), std::move(initial)) {}

  teacher(const Model& model, Model fresh, Forward forward = {}, State initial = {})
      : teacher(own_copy{}, detail::copied_into(model, std::move(fresh)), std::move(forward),
                std::move(initial)) {}

  teacher(adopt_t, Model copy, Forward forward = {}, State initial = {})
      : teacher(own_copy{}, std::move(copy), std::move(forward), std::move(initial), true) {}

  /// Returns the teacher's prediction for a batch of independent observations.
  template <class Observations>
    requires(alone<Observations> || !along<Observations>)
  auto operator()(const Observations& observations) const {
    static_assert(
        alone<Observations>,
        "a teacher needs a module with forward(observations), or a forward function "
        "(model, observations) or (model, observations, state, episode_start), for the type of the "
        "observations; the second returns {prediction, state}");
    const at::NoGradGuard no_grad;
    if constexpr (alone<Observations>) return detail::as_prediction(forward_(model_, observations));
  }

  /// Returns {prediction, state after the last step}, like any policy with a state: see
  /// recurrent_policy. new_episodes{} begins with the initial state, if one was given. The carried
  /// state is neither used nor changed.
  template <class Observations, class Given>
    requires along<Observations, Given>
  auto operator()(const Observations& observations, const Given& carried,
                  const at::Tensor& episode_start) const {
    const at::NoGradGuard no_grad;
    const auto from = [&]() -> const auto& {
      if constexpr (std::same_as<Given, new_episodes>)
        return initial_;
      else
        return carried;
    };
    auto answer = forward_(model_, observations, detail::cloned(from()), episode_start);
    auto said = detail::as_prediction(answer);
    return std::tuple(std::move(said), detail::next_state(std::move(answer)));
  }

  /// Returns the prediction along the student's trajectory. It starts with the state of the
  /// previous call. `episode_start`, [N] or [T, N], is 1 at the first step of an episode; there the
  /// forward function resets the state. Throws shape_error if N differs from the previous call
  /// without reset().
  template <class Observations>
    requires along<Observations>
  auto step(const Observations& observations, const at::Tensor& episode_start) {
    const at::NoGradGuard no_grad;
    using made = std::remove_cvref_t<decltype(detail::next_state(
        forward_(model_, observations, std::declval<State>(), episode_start)))>;
    using carried = std::conditional_t<begins_itself, made, State>;
    const std::int64_t episodes =
        episode_start.defined() && episode_start.dim() > 0 ? episode_start.size(-1) : -1;
    carried_.check_episodes(episodes);
    auto answer = forward_(model_, observations, carried_.template next<carried>(), episode_start);
    auto said = detail::as_prediction(answer);
    carried_.template set<carried>(detail::next_state(std::move(answer)), episodes);
    return said;
  }

  /// Resets the state to the initial state.
  void reset() {
    carried_.forget();
    if constexpr (!begins_itself) carried_.begin_with(initial_);
  }
  /// The state after the last step.
  const State& carried() const
    requires(!begins_itself)
  {
    return carried_.template value<State>();
  }

  const Model& model() const { return model_; }

  /// The parameters that required gradients until this teacher adopted them.
  const parameter_list& frozen_by_adoption() const { return frozen_; }

  /// Saves the weights, the buffers and the current recurrent state.
  void save_state(state& out, const std::string& prefix) const {
    for (const auto& [name, tensor] : tensors()) out.set(prefix + name, tensor.detach());
    carried_.save(out, prefix + "carried.");
  }

  /// Throws state_error or shape_error and changes nothing if the saved weights do not match the
  /// model. Without an initial state, a state of any number of environments is loaded.
  void load_state(const state& in, const std::string& prefix) {
    const at::NoGradGuard no_grad;
    std::vector<std::pair<at::Tensor, at::Tensor>> replacements;
    std::optional<at::Device> device;
    for (auto& [name, tensor] : tensors()) {
      const at::Tensor& saved = in.tensor(prefix + name);
      detail::carried_state::check_saved_like(saved, tensor, name);
      replacements.emplace_back(tensor, at::empty_like(tensor).copy_(saved));
      if (!device) device = tensor.device();
    }
    auto carried = carried_.loaded(in, prefix + "carried.", device);
    for (auto& [tensor, replacement] : replacements) tensor.set_data(replacement);
    carried_ = std::move(carried);
  }

 private:
  struct own_copy {};

  teacher(own_copy, Model model, Forward forward, State initial, bool adopted = false)
      : model_(std::move(model)), forward_(std::move(forward)), initial_(std::move(initial)) {
    detail::module_of(model_).eval();
    for (auto& [name, tensor] : parameters(model_)) {
      if (adopted && tensor.requires_grad()) frozen_.push_back({name, tensor});
      tensor.requires_grad_(false);
    }
    reset();
  }

  parameter_list tensors() const {
    auto list = parameters(model_);
    for (const auto& buffer : detail::collect(detail::module_of(model_).named_buffers()))
      list.push_back(buffer);
    return list;
  }

  mutable Model model_;  // mutable: forward functions are usually not const
  mutable Forward forward_;
  State initial_;
  detail::carried_state carried_;
  parameter_list frozen_;
};

template <class Model>
teacher(const Model&) -> teacher<Model>;
template <class Model, class Forward>
teacher(const Model&, Forward) -> teacher<Model, Forward>;
template <class Model, class Forward, class State>
teacher(const Model&, Forward, State) -> teacher<Model, Forward, State>;
// The second argument has the type of the first: a fresh network, not a forward function.
template <class Model>
teacher(const Model&, Model) -> teacher<Model>;
template <class Model, class Forward>
teacher(const Model&, Model, Forward) -> teacher<Model, Forward>;
template <class Model, class Forward, class State>
teacher(const Model&, Model, Forward, State) -> teacher<Model, Forward, State>;
template <class Model>
teacher(adopt_t, Model) -> teacher<Model>;
template <class Model, class Forward>
teacher(adopt_t, Model, Forward) -> teacher<Model, Forward>;
template <class Model, class Forward, class State>
teacher(adopt_t, Model, Forward, State) -> teacher<Model, Forward, State>;

namespace detail {

/// Throws config_error if the teacher adopted tensors of the student: see `teacher`. `loss` is the
/// loss of the student, computed with gradients enabled. `who` is the start of the error text.
template <class Teacher, class Student>
void check_adopted(const char* who, const Teacher& teacher, const Student& student,
                   const at::Tensor& loss) {
  if constexpr (requires { teacher.frozen_by_adoption(); }) {
    const parameter_list& frozen = teacher.frozen_by_adoption();
    if (frozen.empty()) return;
    std::optional<parameter_list> listed;
    if constexpr (requires { student.listed(); })
      listed = student.listed();  // a student in a set of terms
    else if constexpr (parameter_source<Student>)
      listed = parameters(student);
    if (listed) {
      for (const auto& own : *listed)
        for (const auto& theirs : frozen)
          if (own.tensor.is_same(theirs.tensor))
            throw config_error(
                concat(who, ": the student's '", own.name,
                       "' is a parameter of the adopted teacher, so "
                       "it does not learn: a copy of a holder or of a std::shared_ptr is the same "
                       "network. Adopt another network, or write teacher{policy}"));
    } else if (!loss.requires_grad()) {
      throw config_error(concat(
          who, ": the loss has no graph, so the student does not learn. Check these causes: the "
               "adopted teacher shares its tensors with the student (a copy of a holder is the "
               "same network), which froze them; the student has no trainable parameter; it runs "
               "under NoGradGuard; its answer is detached. If the student is frozen on purpose, "
               "call requires_grad_(false) on the teacher's parameters before you adopt them"));
    }
  }
}

}  // namespace detail
}  // namespace retain
