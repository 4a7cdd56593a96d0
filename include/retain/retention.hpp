// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/distributions/categorical.hpp>
#include <retain/steps.hpp>
#include <retain/terms/any_term.hpp>
#include <retain/terms/concepts.hpp>
#include <retain/terms/in_a_set.hpp>
#include <retain/terms/rollout.hpp>

#include <ATen/ATen.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain {

/// A set of retention terms by name, which a program chooses as it runs and a class holds as a
/// member:
///
///     class my_agent {
///       retain::retention<> keep_;
///
///       my_agent(...) {
///         keep_.add(retain::ewc{*policy_, fisher, {.strength = 500.0}});
///         keep_.add("ks", retain::kickstarting{teacher, {.strength = 0.5}});
///       }
///       void update(const retain::steps& rollout) {
///         auto loss = ppo_loss(rollout) + keep_.distillation(student_, rollout);
///         optimizer_.zero_grad();
///         loss.backward();
///         keep_.add_gradient(*policy_);       // the weight terms, one fused pass each
///         optimizer_.step();
///         keep_.step(++updates_);
///       }
///     };
///
/// `Rollout` is the type of the rollouts, retain::steps or your own (see kickstarting for its
/// members). `Distribution` is the type of the student's answers. Both are fixed for a set, because
/// it holds terms of any type; the memory of a cloning term holds observations of the rollout's
/// type. A student is a callable (observations) or (observations, state,
/// episode_start) that returns such distributions, logits or masked ones.
///
/// A set without terms is valid: its losses are 0 and it changes nothing. Terms are called in the
/// order in which they were added. `compose` does the same for terms that are known when the
/// program is compiled.
///
/// Copies: a copy has copies of all terms, with their own strengths, anchors and random generators.
/// The frozen weights of a teacher are shared, as in every copy of a term, so a state that is
/// loaded into one copy replaces the teacher of the others. After a move, references
/// that `add` and `find` returned stay valid and the source is empty. A guard of `attach` refers to
/// the set itself, so do not move the set while it is attached.
template <class Rollout = steps, action_distribution Distribution = categorical>
class retention {
  static_assert([] {
    detail::check_rollout<Rollout>();
    return true;
  }());
  template <class T>
  using term_of = detail::term_model<T, Rollout, Distribution>;

 public:
  using rollout_type = Rollout;
  using distribution_type = Distribution;

  retention() = default;
  /// Throws config_error if a term cannot be copied.
  retention(const retention& other) {
    for (const auto& held : other.terms_)
      terms_.push_back({held.report, held.term->clone(held.report.name)});
  }
  retention(retention&&) noexcept = default;
  retention& operator=(retention other) noexcept {
    terms_ = std::move(other.terms_);
    return *this;
  }

  /// Adds a term under its own name, for example "ewc". A second term of the same kind is named
  /// "ewc_2". Returns the term in the set; the reference is valid until the term is removed.
  template <class T>
  T& add(T term) {
    check_type<T>();
    const std::string kind(T::name);
    std::string name = kind;
    for (int n = 2; contains(name); ++n) name = detail::concat(kind, "_", n);
    return add(std::move(name), std::move(term));
  }
  /// Adds a term under a name of your choice. The name is also the term's name in a state. Throws
  /// config_error if the name exists already, is empty or has a dot.
  template <class T>
  T& add(std::string name, T term) {
    check_type<T>();
    detail::checked_name("retention", name);
    if (contains(name))
      throw config_error(detail::concat("retention: there is a term '", name,
                                        "' already: add the second one by another name"));
    auto made = std::make_unique<term_of<T>>(std::move(term));
    T& added = made->term;
    terms_.push_back({{std::move(name), {}, 0}, std::move(made)});
    return added;
  }

  bool contains(std::string_view name) const { return position(name) != terms_.size(); }
  /// Returns the term of this name and type, or a null pointer if there is none.
  template <class T>
  T* find(std::string_view name) {
    const auto i = position(name);
    auto* model = i == terms_.size() ? nullptr : dynamic_cast<term_of<T>*>(terms_[i].term.get());
    return model ? &model->term : nullptr;
  }
  template <class T>
  const T* find(std::string_view name) const {
    return const_cast<retention*>(this)->template find<T>(name);
  }
  /// Removes a term. Throws config_error if there is no term of this name.
  void remove(std::string_view name) {
    held(name);
    terms_.erase(terms_.begin() + static_cast<std::ptrdiff_t>(position(name)));
  }

  std::size_t size() const { return terms_.size(); }
  bool empty() const { return terms_.empty(); }
  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& held : terms_) list.push_back(held.report.name);
    return list;
  }

  /// Returns the sum of the output terms, a 0-dim tensor in the graph of the student.
  template <class Student>
  [[nodiscard]] at::Tensor distillation(Student&& student, const Rollout& rollout) {
    const student_type asked(student);
    at::Tensor sum;
    for (auto& held : terms_)
      if (!held.term->on_weights()) add_value(sum, held, held.term->loss(asked, rollout));
    return or_zero(sum);
  }

  /// Adds the gradients of the weight terms to `.grad`, between backward() and the optimizer's
  /// step. Returns the sum of the penalties as a 0-dim float64 tensor. Does not list the parameters
  /// if there are no weight terms.
  template <parameter_source M>
  at::Tensor add_gradient(const M& model) {
    at::Tensor sum;
    if (pulls_on_weights()) {
      const auto list = parameters(model);
      for (auto& held : terms_)
        if (held.term->on_weights()) add_value(sum, held, held.term->add_gradient(list));
    }
    return or_zero(sum, at::kDouble);
  }

  /// Returns the sum of all terms, a 0-dim tensor in the graph: an alternative to distillation with
  /// add_gradient. `view` is a parameter source that can be called, see policy_view.
  template <class View>
  [[nodiscard]] at::Tensor loss(View&& view, const Rollout& rollout) {
    static_assert(parameter_source<View>,
                  "loss(view, rollout) needs a model that can be called: pass "
                  "retain::policy_view{model, forward}, or use distillation(student, rollout)");
    const student_type asked(view);
    const auto list = parameters(view);
    at::Tensor sum;
    for (auto& held : terms_)
      add_value(sum, held,
                held.term->on_weights() ? held.term->loss(list) : held.term->loss(asked, rollout));
    return or_zero(sum);
  }
  /// Returns the sum of a set that has weight terms only. Throws config_error for an output term.
  template <parameter_source M>
  [[nodiscard]] at::Tensor loss(const M& model) {
    for (const auto& held : terms_)
      if (!held.term->on_weights())
        throw config_error(detail::concat("retention: the term '", held.report.name,
                                          "' needs a student and a rollout: call loss(policy_view, "
                                          "rollout), or distillation(student, rollout)"));
    const auto list = parameters(model);
    at::Tensor sum;
    for (auto& held : terms_) add_value(sum, held, held.term->loss(list));
    return or_zero(sum);
  }

  /// Moves the schedules of all terms to `progress`. Throws config_error if a schedule gives a
  /// strength that is negative or not finite. Then no schedule has moved, unless a term of your own
  /// has a step() without check_step().
  void step(double progress) {
    for (const auto& held : terms_) held.term->check_step(progress);
    for (const bool checked : {false, true})
      for (auto& held : terms_)
        if (held.term->checks_steps() == checked) held.term->step(progress);
  }
  /// Moves the schedule of one term, for example one that counts another unit.
  void step(std::string_view name, double progress) { held(name).term->step(progress); }

  double strength(std::string_view name) const {
    return const_cast<retention*>(this)->held(name).term->schedule().value();
  }
  /// Replaces the strength of a term by a number or a schedule, see scheduled_strength. The set
  /// strength is part of the state.
  void set_strength(std::string_view name, strength_schedule strength) {
    held(name).term->schedule().set(std::move(strength));
  }
  /// Passes a measurement to the schedule of a term that adapts.
  void observe(std::string_view name, double measurement) {
    held(name).term->schedule().observe(measurement);
  }

  /// Adapts the strength of a term so that the KL on a probe stays near `target` nats. Call it
  /// after every measurement of the monitor; a second call for the same measurement does nothing.
  /// The first call replaces the term's schedule by a hold_kl that begins at the current strength,
  /// or at 1 if the strength is 0. What it has learned is part of the state.
  ///
  ///     watch.measure(policy, steps);
  ///     keep.adapt("ewc", watch, "FAR", 0.02);
  ///
  /// Throws config_error if the probe was not measured, if its KL is NaN, or for a target that is
  /// not positive.
  template <class Monitor>
  void adapt(std::string_view name, const Monitor& watch, std::string_view probe, double target) {
    const auto& measured = watch.last(probe);
    detail::hold_at(held(name).term->schedule(), std::string(name), measured.kl, measured.progress,
                    target);
  }

  /// Returns the last value of each term by name, with its strength.
  std::vector<term_report> breakdown() const {
    std::vector<term_report> reports;
    for (const auto& held : terms_) {
      reports.push_back(held.report);
      if (!held.report.value.defined()) reports.back().strength = held.term->schedule().value();
    }
    return reports;
  }

  /// Saves every term under its name.
  void save_state(state& out, const std::string& prefix) const {
    for (const auto& held : terms_) held.term->save_state(out, prefix + held.report.name + ".");
  }
  /// Loads every term. If a term throws, all terms are as they were before.
  void load_state(const state& in, const std::string& prefix) {
    detail::load_or_restore(
        in, [&](state& out) { save_state(out, prefix); },
        [&](const state& from) { load_each(from, prefix); });
  }

  // What attach() needs: see attachable. Output terms are left out.
  /// Throws config_error if a weight term cannot be attached.
  void check(const parameter_list& model) const {
    for (const auto& held : terms_)
      if (held.term->on_weights()) held.term->check(held.report.name, model);
  }
  bool covers(const std::string& parameter) const {
    for (const auto& held : terms_)
      if (held.term->covers(parameter)) return true;
    return false;
  }
  void add_gradient_of(const parameter_list& model, std::size_t index, at::Tensor& gradient) const {
    for (const auto& held : terms_)
      if (held.term->schedule().value() != 0.0 && held.term->covers(model[index].name))
        held.term->add_gradient_of(model, index, gradient);
  }
  template <class Visit>
  void each_address(Visit visit) const {
    for (const auto& held : terms_)
      if (held.term->on_weights()) visit(held.term->address());
  }
  /// Whether a weight term has a strength above 0.
  bool pulls() const {
    for (const auto& held : terms_)
      if (held.term->on_weights() && held.term->schedule().value() != 0.0) return true;
    return false;
  }

 private:
  using student_type = detail::student_for<Rollout, Distribution>;
  struct held_term {
    term_report report;
    std::unique_ptr<detail::any_term<Rollout, Distribution>> term;
  };

  template <class T>
  static constexpr void check_type() {
    static_assert(!detail::named_by_each_object<T>,
                  "the name of a term must be a static member, for example static constexpr const "
                  "char* name = \"mine\"");
    static_assert(retention_term<T>,
                  "every term needs a static member name, strength_schedule& schedule(), "
                  "save_state and load_state, as in retain/term.hpp");
    static_assert(weight_term<T> || output_term<T, const student_type, Rollout>,
                  "a term needs loss(model) and add_gradient(model) for a weight term, or "
                  "loss(student, rollout) for a term on outputs, as in retain/term.hpp");
  }

  bool pulls_on_weights() const {
    for (const auto& held : terms_)
      if (held.term->on_weights()) return true;
    return false;
  }

  std::size_t position(std::string_view name) const {
    std::size_t i = 0;
    while (i < terms_.size() && terms_[i].report.name != name) ++i;
    return i;
  }
  held_term& held(std::string_view name) {
    const auto i = position(name);
    if (i < terms_.size()) return terms_[i];
    std::string known;
    for (const auto& term : terms_) known += (known.empty() ? "'" : ", '") + term.report.name + "'";
    throw config_error(detail::concat("retention: there is no term '", name, "'; there is ",
                                      known.empty() ? "none" : known));
  }
  void load_each(const state& in, const std::string& prefix) {
    for (auto& held : terms_) held.term->load_state(in, prefix + held.report.name + ".");
  }

  static void add_value(at::Tensor& sum, held_term& held, const at::Tensor& value) {
    held.report.value = value.detach();
    held.report.strength = held.term->schedule().value();
    sum = sum.defined() ? sum + value : value;
  }
  static at::Tensor or_zero(const at::Tensor& sum, at::ScalarType type = at::kFloat) {
    return sum.defined() ? sum : at::zeros({}, type);
  }

  std::vector<held_term> terms_;
};

}  // namespace retain
