// SPDX-License-Identifier: MIT
// An environment of Gymnasium (https://gymnasium.farama.org) in a C++ program.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "interpreter.hpp"

namespace python {

inline constexpr const char* gymnasium_package = "gymnasium==1.4.0";

/// What one step brings, with Gymnasium's words: `terminated` by the task, `truncated` from
/// outside, as by a limit of steps. Both may be true.
struct environment_step {
  double reward = 0;
  bool terminated = false, truncated = false;

  bool ended() const { return terminated || truncated; }
};

/// Any environment of Gymnasium whose actions are Discrete or Box. Observations of any space are
/// seen as `gymnasium.spaces.utils.flatten` makes them: a Box as its numbers in a row, a Discrete
/// one-hot. Python runs one thread at a time, so several environments are no faster on several
/// threads; several processes are.
///
///     python::start();
///     python::environment pole("CartPole-v1");
///     pole.reset(1);
///     while (!pole.step(1).ended()) use(pole.observation());
class environment {
 public:
  /// gymnasium.make(id). Throws python::error if there is no such environment, or one with other
  /// actions.
  explicit environment(const std::string& id) : name_(id) {
    call(name_, [&] {
      const auto gymnasium = import("gymnasium", gymnasium_package);
      const auto made = gymnasium.attr("make")(id);
      const auto spaces = py::module_::import("gymnasium.spaces");
      const auto utils = py::module_::import("gymnasium.spaces.utils");
      const auto actions = made.attr("action_space"), seen = made.attr("observation_space");
      if (py::isinstance(actions, spaces.attr("Discrete"))) {
        actions_ = actions.attr("n").cast<int>();
        first_action_ = actions.attr("start").cast<int>();
      } else if (py::isinstance(actions, spaces.attr("Box"))) {
        action_.emplace("float32", actions.attr("shape").cast<py::tuple>());
        action_type_ = object(actions.attr("dtype"));
      } else {
        throw error("the actions are " + py::str(actions).cast<std::string>() +
                    "; only Discrete and Box are supported");
      }
      seen_.emplace("float32", py::make_tuple(utils.attr("flatdim")(seen)));
      space_ = object(seen);
      flatten_ = object(utils.attr("flatten"));
      copy_ = object(py::module_::import("numpy").attr("copyto"));
      step_ = object(made.attr("step"));
      made_ = object(made);
    });
  }

  /// The number of discrete actions; 0: the actions are numbers.
  int actions() const { return actions_; }
  /// How many numbers an action has; 0: the actions are discrete.
  std::size_t action_size() const { return action_ ? action_->size() : 0; }
  std::size_t observation_size() const { return seen_->size(); }
  /// The current observation, until the next step.
  std::span<const float> observation() const { return {seen_->data(), seen_->size()}; }
  const std::string& name() const { return name_; }

  /// Starts an episode. With a seed, the same episode again; without, the random state goes on.
  void reset(std::optional<std::uint32_t> seed = {}) {
    call(name_ + ".reset", [&] {
      using namespace pybind11::literals;
      const auto reset = made_.get().attr("reset");
      look(py::tuple(seed ? reset("seed"_a = *seed) : reset())[0]);
    });
  }

  /// A discrete action, 0 ... actions() - 1.
  environment_step step(int action) {
    if (action < 0 || action >= actions_)
      throw error(name_ + ": there is no action " + std::to_string(action) +
                  (actions_ > 0
                       ? ": 0 to " + std::to_string(actions_ - 1)
                       : "; its actions are " + std::to_string(action_size()) + " numbers"));
    return call(name_ + ".step", [&] { return result(step_.get()(first_action_ + action)); });
  }
  /// An action of numbers, in the order of the space's array.
  environment_step step(std::span<const float> action) {
    if (action.size() != action_size() || !action_)
      throw error(name_ + ": an action has " + std::to_string(action_size()) + " numbers, got " +
                  std::to_string(action.size()));
    std::copy(action.begin(), action.end(), action_->data());
    // a copy, because an environment may keep what it is given
    return call(name_ + ".step", [&] {
      return result(step_.get()(action_->get().attr("astype")(action_type_.get())));
    });
  }

  /// Sets an attribute of the environment without its wrappers, for example the length of the pole.
  void set(const std::string& attribute, double value) {
    call(name_ + "." + attribute, [&] {
      const py::object inner = made_.get().attr("unwrapped");
      if (!py::hasattr(inner, attribute.c_str()))
        throw error(name_ + " has no attribute '" + attribute + "'");
      inner.attr(attribute.c_str()) = value;
    });
  }

 private:
  environment_step result(const py::tuple& all) {
    look(all[0]);
    return {all[1].cast<double>(), all[2].cast<bool>(), all[3].cast<bool>()};
  }
  void look(const py::object& seen) {
    copy_.get()(seen_->get(), flatten_.get()(space_.get(), seen), py::arg("casting") = "same_kind");
  }

  std::string name_;
  object made_, step_, space_, flatten_, copy_, action_type_;
  std::optional<array<float>> seen_, action_;
  int actions_ = 0, first_action_ = 0;
};

}  // namespace python
