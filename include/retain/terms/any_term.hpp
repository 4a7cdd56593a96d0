// SPDX-License-Identifier: MIT
// A retention term of any type, as a set holds it.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/terms/any_student.hpp>
#include <retain/terms/concepts.hpp>
#include <retain/terms/in_a_set.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace retain::detail {

template <class Rollout>
struct state_of_rollout {
  using type = at::Tensor;
};
template <class Rollout>
  requires requires(const Rollout& rollout) { rollout.state; }
struct state_of_rollout<Rollout> {
  using type = std::remove_cvref_t<decltype(std::declval<const Rollout&>().state)>;
};

/// The student that the terms of a set with this rollout get.
template <class Rollout, class Distribution>
using student_for =
    any_student<std::remove_cvref_t<decltype(std::declval<const Rollout&>().observations)>,
                Distribution, typename state_of_rollout<Rollout>::type>;

/// A term of a set. A weight term has loss(model) and add_gradient, an output term has
/// loss(student, rollout); the set calls only what the term has.
template <class Rollout, class Distribution>
class any_term {
 public:
  using student_type = student_for<Rollout, Distribution>;

  virtual ~any_term() = default;
  /// Throws config_error, whose text has the name, if the term cannot be copied.
  virtual std::unique_ptr<any_term> clone(const std::string& name) const = 0;
  virtual strength_schedule& schedule() = 0;
  virtual bool on_weights() const = 0;

  virtual at::Tensor loss(const parameter_list& model) = 0;
  virtual at::Tensor add_gradient(const parameter_list& model) = 0;
  virtual at::Tensor loss(const student_type& student, const Rollout& rollout) = 0;

  virtual void step(double progress) = 0;
  virtual bool checks_steps() const = 0;
  virtual void check_step(double progress) const = 0;

  virtual void check(const std::string& name, const parameter_list& model) const = 0;
  /// Throws config_error for a weight term that cannot be attached.
  virtual bool covers(const std::string& parameter) const = 0;
  virtual const void* address() const = 0;
  virtual void add_gradient_of(const parameter_list& model, std::size_t index,
                               at::Tensor& gradient) const = 0;

  virtual void save_state(state& out, const std::string& prefix) const = 0;
  virtual void load_state(const state& in, const std::string& prefix) = 0;
};

template <class T, class Rollout, class Distribution>
class term_model final : public any_term<Rollout, Distribution> {
  using base = any_term<Rollout, Distribution>;
  static constexpr bool weights = weight_term<T>, attachable = weights && attachable_term<T>;

 public:
  explicit term_model(T held) : term(std::move(held)) {}

  std::unique_ptr<base> clone(const std::string& name) const override {
    if constexpr (std::copy_constructible<T>)
      return std::make_unique<term_model>(term);
    else
      throw config_error(concat("retention: the term '", name,
                                "' cannot be copied, so the set cannot: move the set"));
  }
  strength_schedule& schedule() override { return term.schedule(); }
  bool on_weights() const override { return weights; }

  at::Tensor loss([[maybe_unused]] const parameter_list& model) override {
    if constexpr (weights)
      return term.loss(model);
    else
      return {};
  }
  at::Tensor add_gradient([[maybe_unused]] const parameter_list& model) override {
    if constexpr (weights)
      return term.add_gradient(model);
    else
      return {};
  }
  at::Tensor loss([[maybe_unused]] const typename base::student_type& student,
                  [[maybe_unused]] const Rollout& rollout) override {
    if constexpr (weights)
      return {};
    else
      return term.loss(student, rollout);
  }

  void step(double progress) override { step_term(term, progress); }
  bool checks_steps() const override { return detail::checks_steps<T>; }
  void check_step(double progress) const override { check_step_of(term, progress); }

  void check(const std::string& name, [[maybe_unused]] const parameter_list& model) const override {
    if constexpr (attachable)
      term.check(model);
    else
      not_attachable(name);
  }
  bool covers([[maybe_unused]] const std::string& parameter) const override {
    if constexpr (attachable)
      return term.covers(parameter);
    else if constexpr (weights)
      not_attachable(T::name);
    return false;
  }
  const void* address() const override { return std::addressof(term); }
  void add_gradient_of([[maybe_unused]] const parameter_list& model,
                       [[maybe_unused]] std::size_t index,
                       [[maybe_unused]] at::Tensor& gradient) const override {
    if constexpr (attachable) term.add_gradient_of(model, index, gradient);
  }

  void save_state(state& out, const std::string& prefix) const override {
    term.save_state(out, prefix);
  }
  void load_state(const state& in, const std::string& prefix) override {
    term.load_state(in, prefix);
  }

  T term;

 private:
  [[noreturn]] static void not_attachable(const std::string& name) {
    throw config_error(concat("attach: the term '", name,
                              "' cannot be attached, because it has no check(model), "
                              "covers(name) and add_gradient_of(model, index, gradient): call "
                              "add_gradient() in the training loop"));
  }
};

}  // namespace retain::detail
