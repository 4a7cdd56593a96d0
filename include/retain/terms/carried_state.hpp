// SPDX-License-Identifier: MIT
// The recurrent state of a policy: any type made of tensors.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/new_episodes.hpp>
#include <retain/core/state.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain::detail {

struct any_member {
  template <class T>
  operator T() const;  // only declared
};
template <class T, std::size_t... I>
constexpr bool has_members(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), any_member{})...}; };
}
/// The number of members of an aggregate, up to 8; 0 if there are none or more.
template <class T, std::size_t N = 8>
constexpr std::size_t members_of() {
  if constexpr (N == 8 && has_members<T>(std::make_index_sequence<9>{}))
    return 0;
  else if constexpr (N == 0 || has_members<T>(std::make_index_sequence<N>{}))
    return N;
  else
    return members_of<T, N - 1>();
}

template <class Part>
inline constexpr bool is_tensor = std::convertible_to<Part&, const at::Tensor&>;

/// Calls `visit` with every tensor of a state, in order, and with every part that has save_state
/// and load_state of its own.
template <class Part, class Visit>
void each_part(Part& part, Visit&& visit) {
  using plain = std::remove_const_t<Part>;
  const auto all = [&](auto&... parts) { (each_part(parts, visit), ...); };
  if constexpr (std::same_as<plain, new_episodes>) {
  } else if constexpr (is_tensor<Part> || stateful<plain>) {
    visit(part);
  } else if constexpr (requires { part.begin() != part.end(); }) {
    for (auto& one : part) each_part(one, visit);
  } else if constexpr (requires { std::tuple_size<plain>::value; }) {
    std::apply(all, part);
  } else {
    constexpr std::size_t n = [] {
      if constexpr (std::is_aggregate_v<plain>) return members_of<plain>();
      return std::size_t{0};
    }();
    static_assert(n > 0, "a recurrent state must be a tensor, a range, a tuple, a pair or an "
                         "aggregate of up to 8 members of these, or a type with save_state and "
                         "load_state");
    if constexpr (n == 1) {
      auto& [a] = part;
      all(a);
    } else if constexpr (n == 2) {
      auto& [a, b] = part;
      all(a, b);
    } else if constexpr (n == 3) {
      auto& [a, b, c] = part;
      all(a, b, c);
    } else if constexpr (n == 4) {
      auto& [a, b, c, d] = part;
      all(a, b, c, d);
    } else if constexpr (n == 5) {
      auto& [a, b, c, d, e] = part;
      all(a, b, c, d, e);
    } else if constexpr (n == 6) {
      auto& [a, b, c, d, e, f] = part;
      all(a, b, c, d, e, f);
    } else if constexpr (n == 7) {
      auto& [a, b, c, d, e, f, g] = part;
      all(a, b, c, d, e, f, g);
    } else if constexpr (n == 8) {
      auto& [a, b, c, d, e, f, g, h] = part;
      all(a, b, c, d, e, f, g, h);
    }
  }
}

/// Returns a copy of a state whose tensors are copies too, so that a policy may change them in
/// place.
template <class State>
State cloned(State carried) {
  each_part(carried, [](auto& part) {
    if constexpr (is_tensor<std::remove_reference_t<decltype(part)>>) {
      if (part.defined()) part = part.clone();
    } else {
      state kept;
      part.save_state(kept, "");
      for (const auto& key : kept.tensor_keys()) kept.set(key, kept.tensor(key).clone());
      part.load_state(kept, "");
    }
  });
  return carried;
}

/// The state that a teacher carries from step to step. Its type is known when the first step
/// returns it, or when an initial state is given. Copies share the tensors, which never change.
class carried_state {
 public:
  /// A loaded state must have the shapes of this one.
  template <class State>
  void begin_with(const State& initial) {
    set(initial, -1);
    fixed_ = true;
  }

  /// Returns a copy for the next step. Throws config_error if the state is of another type.
  template <class State>
  State next() const {
    if (pending_) return restored<State>();
    if (!held_) return made<State>();
    return cloned(value<State>());
  }
  template <class State>
  const State& value() const {
    const auto* own = dynamic_cast<const held<State>*>(held_.get());
    if (!own)
      throw config_error("teacher: the state of the step before has another type than the policy "
                         "takes now: call reset() between observations of different types");
    return own->value;
  }
  /// `episodes` is their number N, or -1 if it is unknown.
  template <class State>
  void set(State carried, std::int64_t episodes) {
    held_ = std::make_shared<const held<State>>(std::move(carried));
    pending_.reset();
    episodes_ = episodes;
  }
  void forget() {
    held_.reset();
    pending_.reset();
    episodes_ = -1;
  }

  /// Throws shape_error if the state belongs to another number of episodes.
  void check_episodes(std::int64_t episodes) const {
    if (episodes_ >= 0 && episodes >= 0 && episodes != episodes_ && held_ && held_->any())
      throw shape_error(concat("teacher: the carried state belongs to ", episodes_,
                               " episodes, but this step has ", episodes,
                               ": call reset() if the number of environments changes"));
  }

  void save(state& out, const std::string& prefix) const {
    if (held_) held_->save(out, prefix);
    if (!pending_) return;
    for (const auto& key : pending_->tensor_keys()) out.set(prefix + key, pending_->tensor(key));
    for (const auto& key : texts_) out.set(prefix + key, pending_->text(key));
  }
  /// Returns the state that was saved. Changes nothing. `device` is where new tensors belong.
  carried_state loaded(const state& in, const std::string& prefix,
                       std::optional<at::Device> device) const {
    carried_state result = *this;
    result.episodes_ = -1;
    const auto unread = in.unread();
    const auto here = [&](const std::string& key) {
      return key.compare(0, prefix.size(), prefix) == 0;
    };
    if (held_ && (fixed_ || !in.tensor_keys(prefix).empty() ||
                  std::any_of(unread.begin(), unread.end(), here))) {
      result.held_ = held_->loaded(in, prefix, fixed_, device);
      return result;
    }
    result.held_.reset();
    // The type is not known before the next step.
    auto kept = std::make_shared<state>();
    result.texts_.clear();
    for (const auto& key : in.tensor_keys(prefix)) {
      const at::Tensor& saved = in.tensor(key);
      kept->set(key.substr(prefix.size()), device ? saved.to(*device) : saved);
    }
    for (const auto& key : in.unread())
      if (here(key)) {
        kept->set(key.substr(prefix.size()), in.text(key));
        result.texts_.push_back(key.substr(prefix.size()));
      }
    const bool empty = kept->tensor_keys().empty() && result.texts_.empty();
    result.pending_ = empty ? nullptr : std::move(kept);
    return result;
  }

 private:
  struct held_base {
    virtual ~held_base() = default;
    virtual bool any() const = 0;
    virtual void save(state& out, const std::string& prefix) const = 0;
    virtual std::shared_ptr<const held_base> loaded(const state& in, const std::string& prefix,
                                                    bool fixed,
                                                    std::optional<at::Device> device) const = 0;
  };

  template <class State>
  struct held final : held_base {
    explicit held(State carried) : value(std::move(carried)) {}

    bool any() const override {
      bool found = false;
      each_part(value, [&](const auto& part) {
        if constexpr (is_tensor<decltype(part)>)
          found = found || part.defined();
        else
          found = true;
      });
      return found;
    }
    void save(state& out, const std::string& prefix) const override {
      int index = 0;
      each_part(value, [&](const auto& part) {
        const std::string key = concat(prefix, index++);
        if constexpr (!is_tensor<decltype(part)>)
          part.save_state(out, key + ".");
        else if (part.defined())
          out.set(key, part);
      });
    }
    std::shared_ptr<const held_base> loaded(const state& in, const std::string& prefix, bool fixed,
                                            std::optional<at::Device> device) const override {
      State copy = cloned(value);
      int index = 0;
      each_part(copy, [&](auto& part) {
        const std::string key = concat(prefix, index++);
        if constexpr (!is_tensor<std::remove_reference_t<decltype(part)>>) {
          part.load_state(in, key + ".");
        } else {
          const at::Tensor saved = in.contains(key) ? in.tensor(key) : at::Tensor();
          if (fixed && part.defined() && saved.defined()) check_saved_like(saved, part, key);
          if (saved.defined() && part.defined())
            part = saved.to(part.options());
          else
            part = saved.defined() && device ? saved.to(*device) : saved;
        }
      });
      return std::make_shared<const held>(std::move(copy));
    }

    State value;
  };

  template <class State>
  static State made() {
    static_assert(std::default_initializable<State>,
                  "the policy's state cannot be made by State{}: give the teacher its initial "
                  "state");
    return State{};
  }
  template <class State>
  State restored() const {
    State blank = made<State>();
    state saved;  // none of its keys is read yet
    for (const auto& key : pending_->tensor_keys()) saved.set(key, pending_->tensor(key));
    for (const auto& key : texts_) saved.set(key, pending_->text(key));
    if constexpr (requires { blank.resize(std::size_t{1}); })
      blank.resize(saved.tensor_keys().size());
    const auto filled = held<State>(std::move(blank)).loaded(saved, "", false, {});
    if (const auto extra = saved.unread(); !extra.empty())
      throw state_error(concat("teacher: the saved 'carried.", extra.front(),
                               "' is not a part of this policy's state: the state belongs to "
                               "another network"));
    return cloned(dynamic_cast<const held<State>&>(*filled).value);
  }

 public:
  /// Throws shape_error or state_error if a saved tensor does not fit.
  static void check_saved_like(const at::Tensor& saved, const at::Tensor& own,
                               const std::string& name) {
    if (saved.sizes() != own.sizes())
      throw shape_error(
          concat("teacher: the saved '", name, "' has shape ", shape_text(saved.sizes()),
                 ", this teacher's is ", shape_text(own.sizes()),
                 ": the state belongs to another network or another number of environments"));
    if (saved.scalar_type() != own.scalar_type())
      throw state_error(concat("teacher: the saved '", name, "' is ", saved.dtype(),
                               ", this teacher's is ", own.dtype()));
  }

 private:
  std::shared_ptr<const held_base> held_;
  // What was loaded before the type of the state is known, and the keys of its texts.
  std::shared_ptr<const state> pending_;
  std::vector<std::string> texts_;
  std::int64_t episodes_ = -1;
  bool fixed_ = false;
};

}  // namespace retain::detail
