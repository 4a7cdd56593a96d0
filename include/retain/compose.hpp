// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/terms/concepts.hpp>
#include <retain/terms/in_a_set.hpp>

#include <ATen/ATen.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

/// A model together with the function that evaluates it, as one object. Weight penalties read the
/// parameters of the model; distillation terms call the function. The object holds a reference to
/// the model, so the model must outlive the object.
///
///     policy_view view{policy, [&](const auto& observations) {
///       return categorical{policy->forward(observations)};
///     }};
template <class Model, class Function>
struct policy_view {
  const Model& model;
  Function function;

  parameter_list named_parameters() const { return parameters(model); }
  /// Calls the function. The arguments are (observations), or for a recurrent student
  /// (observations, state, episode_start); the function may take both.
  template <class... Arguments>
    requires std::invocable<const Function&, const Arguments&...>
  decltype(auto) operator()(const Arguments&... arguments) const {
    return function(arguments...);
  }
};
template <class Model, class Function>
policy_view(const Model&, Function) -> policy_view<Model, Function>;

namespace detail {

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
struct plain_term {
  using type = T;
};
template <class T>
struct plain_term<std::optional<T>> {
  using type = T;
};

}  // namespace detail

/// Combines several retention terms into one, if the terms are known when the program is compiled.
/// A term may be a std::optional. A program that chooses its terms as it runs, or a class that
/// holds them as a member, uses `retention` instead.
///
///     auto keep = compose(ewc{...}, behavioral_cloning{...}, kickstarting{...});
///     auto loss = ppo_loss + keep.loss(view, rollout);          // all terms in the graph
///
///     // or: puts only the distillation terms in the graph, and adds the gradients of the
///     // weight penalties in one fused pass
///     auto loss = ppo_loss + keep.distillation(view, rollout);
///     loss.backward();
///     keep.add_gradient(*policy);
///     keep.step(env_steps);
///
/// Each term is identified by its name, for example "ewc" or "kickstarting". A second term of the
/// same kind is named "ewc_2". A term of your own satisfies retention_term, see retain/term.hpp.
/// Weight terms are called with a parameter_list, which is made once for all of them.
///
/// `attach(keep, *policy)` attaches all weight terms of a composition.
template <class... Terms>
class composition {
  static_assert((!detail::named_by_each_object<typename detail::plain_term<Terms>::type> && ...),
                "the name of a term must be a static member, for example static "
                "constexpr const char* name = \"mine\"");
  static_assert((retention_term<typename detail::plain_term<Terms>::type> && ...),
                "every term needs a static member name, strength_schedule& schedule(), save_state "
                "and load_state, as in retain/term.hpp");

 public:
  explicit composition(Terms... terms) : terms_(std::move(terms)...) {
    std::set<std::string> taken;
    std::size_t i = 0;
    const auto label = [&](const std::string& kind) {
      std::string name = detail::checked_name("compose", kind);
      for (int n = 2; !taken.insert(name).second; ++n) name = detail::concat(kind, "_", n);
      reports_[i++].name = std::move(name);
    };
    (label(std::string(detail::plain_term<Terms>::type::name)), ...);
  }

  /// Returns the sum of all terms, a 0-dim tensor in the graph. `view` is a parameter source that
  /// can also be called, see policy_view.
  template <class View, class Rollout>
  [[nodiscard]] at::Tensor loss(View&& view, const Rollout& rollout) {
    static_assert(parameter_source<View> || !has_weight_terms,
                  "loss(view, rollout) needs a model that can be called: pass "
                  "retain::policy_view{model, forward}");
    at::Tensor sum;
    const auto model = listed(view);
    each([&](auto& term, term_report& report) {
      if constexpr (weight_term<std::remove_reference_t<decltype(term)>>)
        add(sum, report, term, term.loss(model));
      else
        add(sum, report, term, term.loss(view, rollout));
    });
    return or_zero(sum);
  }

  /// Returns the sum of all terms, a 0-dim tensor in the graph. This overload is only available if
  /// all terms are weight penalties.
  template <parameter_source M>
  [[nodiscard]] at::Tensor loss(const M& model) {
    static_assert((weight_term<typename detail::plain_term<Terms>::type> && ...),
                  "a distillation term needs loss(policy_view, rollout)");
    at::Tensor sum;
    const auto list = parameters(model);
    each([&](auto& term, term_report& report) { add(sum, report, term, term.loss(list)); });
    return or_zero(sum);
  }

  /// Returns the sum of the distillation terms only. Use it together with `add_gradient`.
  template <class Student, class Rollout>
  [[nodiscard]] at::Tensor distillation(Student&& student, const Rollout& rollout) {
    at::Tensor sum;
    each([&](auto& term, term_report& report) {
      if constexpr (!weight_term<std::remove_reference_t<decltype(term)>>)
        add(sum, report, term, term.loss(student, rollout));
    });
    return or_zero(sum);
  }

  /// Adds the gradients of the weight penalties to `.grad`. Returns the sum of the penalties as a
  /// 0-dim float64 tensor.
  template <parameter_source M>
  at::Tensor add_gradient(const M& model) {
    at::Tensor sum;
    const auto list = listed(model);
    each([&](auto& term, term_report& report) {
      if constexpr (weight_term<std::remove_reference_t<decltype(term)>>)
        add(sum, report, term, term.add_gradient(list));
    });
    return or_zero(sum, at::kDouble);
  }

  /// Moves the schedules of all terms to `progress`. If the schedule of a term has another unit,
  /// step this term separately: `keep.term<1>().step(updates)`. If the strength of a term adapts to
  /// a measurement, pass the measurement to this term: `keep.term<1>().observe(watch.kl("FAR"))`.
  ///
  /// Throws config_error if a schedule gives a strength that is negative or not finite. In this
  /// case no schedule has moved. There is one exception: if a term of your own has a step() but no
  /// check_step(), and throws, other such terms may have moved already.
  void step(double progress) {
    each([&](const auto& term, term_report&) { detail::check_step_of(term, progress); });
    // Terms without check_step are stepped first, because their step may still throw.
    each([&](auto& term, term_report&) {
      if constexpr (!detail::checks_steps<decltype(term)>) detail::step_term(term, progress);
    });
    each([&](auto& term, term_report&) {
      if constexpr (detail::checks_steps<decltype(term)>) detail::step_term(term, progress);
    });
  }

  /// Returns the last contribution of each term by name, with its strength. Skips std::optional
  /// terms without a value.
  std::vector<term_report> breakdown() {
    std::vector<term_report> engaged;
    each([&](auto& term, term_report& report) {
      if (!report.value.defined()) report.strength = detail::strength_of(term);
      engaged.push_back(report);
    });
    return engaged;
  }

  template <std::size_t Index>
  auto& term() {
    return std::get<Index>(terms_);
  }

  // What attach() needs: see attachable. Output terms are left out.
  void check(const parameter_list& model) const {
    each_weight_term([&](const auto& term) { term.check(model); });
  }
  bool covers(const std::string& parameter) const {
    bool any = false;
    each_weight_term([&](const auto& term) { any = any || term.covers(parameter); });
    return any;
  }
  void add_gradient_of(const parameter_list& model, std::size_t index, at::Tensor& gradient) const {
    each_weight_term([&](const auto& term) {
      if (detail::strength_of(term) != 0.0 && term.covers(model[index].name))
        term.add_gradient_of(model, index, gradient);
    });
  }
  template <class Visit>
  void each_address(Visit visit) const {
    each_weight_term([&](const auto& term) { visit(static_cast<const void*>(&term)); });
  }
  /// Whether a weight term has a strength above 0.
  bool pulls() const {
    bool any = false;
    each_weight_term([&](const auto& term) { any = any || detail::strength_of(term) != 0.0; });
    return any;
  }

  void save_state(state& out, const std::string& prefix) const {
    const_cast<composition*>(this)->each([&](const auto& term, const term_report& report) {
      term.save_state(out, prefix + report.name + ".");
    });
  }
  /// Loads every term. If loading a term throws, restores the previous state of all terms and
  /// rethrows the exception.
  void load_state(const state& in, const std::string& prefix) {
    detail::load_or_restore(
        in, [&](state& out) { save_state(out, prefix); },
        [&](const state& from) { load_each(from, prefix); });
  }

 private:
  static constexpr bool has_weight_terms =
      (weight_term<typename detail::plain_term<Terms>::type> || ...);

  template <class View>
  static parameter_list listed(const View& view) {
    if constexpr (has_weight_terms)
      return parameters(view);
    else
      return {};
  }

  template <class Visit>
  void each_weight_term(Visit visit) const {
    const_cast<composition*>(this)->each([&](const auto& term, const term_report&) {
      if constexpr (weight_term<std::remove_cvref_t<decltype(term)>>) {
        static_assert(detail::attachable_term<std::remove_cvref_t<decltype(term)>>,
                      "attach: every weight term of the composition needs check(model), "
                      "covers(name) and add_gradient_of(model, index, gradient)");
        visit(term);
      }
    });
  }

  void load_each(const state& in, const std::string& prefix) {
    each([&](auto& term, const term_report& report) {
      term.load_state(in, prefix + report.name + ".");
    });
  }

  template <class Visit>
  void each(Visit visit) {
    std::apply(
        [&](auto&... term) {
          std::size_t i = 0;
          const auto one = [&](auto& candidate) {
            term_report& report = reports_[i++];
            if constexpr (detail::is_optional<std::remove_cvref_t<decltype(candidate)>>::value) {
              if (candidate) visit(*candidate, report);
            } else {
              visit(candidate, report);
            }
          };
          (one(term), ...);
        },
        terms_);
  }

  template <class Term>
  static void add(at::Tensor& sum, term_report& report, const Term& term, const at::Tensor& value) {
    report.value = value.detach();
    report.strength = detail::strength_of(term);
    sum = sum.defined() ? sum + value : value;
  }
  static at::Tensor or_zero(const at::Tensor& sum, at::ScalarType type = at::kFloat) {
    return sum.defined() ? sum : at::zeros({}, type);
  }

  std::tuple<Terms...> terms_;
  std::array<term_report, sizeof...(Terms)> reports_;
};

template <class... Terms>
[[nodiscard]] composition<Terms...> compose(Terms... terms) {
  return composition<Terms...>(std::move(terms)...);
}

}  // namespace retain
