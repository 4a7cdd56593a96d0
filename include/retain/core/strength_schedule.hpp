// SPDX-License-Identifier: MIT
// The strength of a term: any schedule with its current progress.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/schedule.hpp>
#include <retain/core/state.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

namespace detail {
template <class S>
concept observing_schedule = requires(S& s, double value) { s.observe(value); };
template <class S>
concept remembering_schedule = requires(S& s, const S& c, const std::vector<double>& values) {
  { c.memory() } -> std::convertible_to<std::vector<double>>;
  s.set_memory(values);
};

/// Reads the numbers of a text that has the form of `pattern`, in which each # stands for a number.
template <std::size_t N>
std::optional<std::array<double, N>> numbers_in(std::string_view text, std::string_view pattern) {
  std::array<double, N> numbers{};
  std::size_t found = 0;
  for (const char c : pattern) {
    if (c != '#') {
      if (text.empty() || text.front() != c) return {};
      text.remove_prefix(1);
      continue;
    }
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), numbers[found++]);
    if (error != std::errc{}) return {};
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  }
  return text.empty() ? std::optional(numbers) : std::nullopt;
}
}  // namespace detail

/// Holds any schedule together with its current progress. Every term's `.strength` option has this
/// type. A number converts to a constant schedule, and a lambda `double(double)` is a schedule too.
class strength_schedule {
 public:
  // NOLINT: implicit, so that `.strength = 500.0` works
  strength_schedule(double value) : strength_schedule(constant{value}) {}

  template <class S>
    requires(!std::same_as<std::remove_cvref_t<S>, strength_schedule> && schedule<S>)
  strength_schedule(S function)  // NOLINT: likewise for `.strength = exponential_decay{...}`
      : self_(std::make_unique<model<S>>(std::move(function))) {
    check(*self_, progress_);
    remember_own();
  }

  strength_schedule(const strength_schedule& other)
      : self_(other.self_->clone()),
        own_(other.own_ ? other.own_->clone() : nullptr),
        progress_(other.progress_) {}
  strength_schedule(strength_schedule&&) noexcept = default;
  strength_schedule& operator=(strength_schedule other) noexcept {
    self_ = std::move(other.self_);
    own_ = std::move(other.own_);
    progress_ = other.progress_;
    return *this;
  }

  double value() const { return self_->value(progress_); }
  double progress() const { return progress_; }
  /// The kind of the schedule and its parameters, for example "constant{500}"; "custom" for a
  /// schedule without describe().
  std::string description() const { return self_->describe(); }

  /// Returns the schedule if it is of type S, otherwise a null pointer.
  template <class S>
  const S* as() const {
    const auto* held = dynamic_cast<const model<S>*>(self_.get());
    return held ? &held->function : nullptr;
  }

  /// Replaces the schedule and keeps the progress. Throws config_error, and changes nothing, if the
  /// new schedule gives a strength that is negative or not finite, at progress 0 or at this
  /// progress.
  void set(strength_schedule other) {
    check(other.self_->value(progress_));
    self_ = std::move(other.self_);
    if (other.own_) own_ = std::move(other.own_);
  }

  /// Sets the progress. Throws config_error, and changes nothing, if the progress is not finite or
  /// if the schedule returns a strength that is negative or not finite.
  void step(double progress) {
    check_step(progress);
    progress_ = progress;
  }
  /// Makes the checks of `step` and throws the same errors, without changing the progress.
  void check_step(double progress) const {
    if (!std::isfinite(progress))
      throw config_error(
          detail::concat("the progress of a schedule must be finite, got ", progress));
    check(self_->value(progress));
  }

  /// Passes a measurement (for example a KL or a return) to a schedule that adapts. Throws
  /// config_error, and changes nothing, if the schedule does not adapt, if the measurement is NaN,
  /// or if the new strength is not valid.
  void observe(double measurement) {
    if (std::isnan(measurement))
      throw config_error("observe() of a schedule got NaN; find the NaN in the measured value");
    auto changed = self_->clone();
    changed->observe(measurement);
    check(changed->value(progress_));
    self_ = std::move(changed);
  }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "kind", self_->describe());
    out.set(prefix + "progress", progress_);
    const auto memory = self_->memory();
    for (std::size_t i = 0; i < memory.size(); ++i) out.set(concat_key(prefix, i), memory[i]);
  }

  /// Loads the saved schedule and its progress. If the saved schedule is another one of this
  /// library's, it replaces this one, so that a strength that was set goes on; the state gets a
  /// note (see state::strength_notes). If the state keeps strengths (state::keep_strength), only
  /// the progress is loaded.
  ///
  /// A schedule of the caller's own cannot be built from a text. If the state holds one, it is the
  /// one that was given last, in the constructor or by `set`. Throws state_error, and changes
  /// nothing, if there is none with the saved description, and if the saved progress or memory is
  /// not valid.
  void load_state(const state& in, const std::string& prefix) {
    const std::string& saved = in.text(prefix + "kind");
    const std::string own = self_->describe();
    const double progress = in.number(prefix + "progress");
    auto loaded = in.keeps_strength() || saved == own ? self_->clone() : described(saved);
    if (!loaded && own_ && own_->describe() == saved) loaded = own_->clone();
    if (!loaded)
      throw state_error(detail::concat(
          "the state holds the schedule ", saved, " at '", prefix, "', but the term has ", own,
          ". A schedule of your own cannot be built from its saved text: construct the term with "
          "the saved schedule, or load with retain::keep_strength"));
    // A schedule of the caller's own may remember more than at its start.
    std::vector<double> memory;
    const std::size_t least = in.keeps_strength() ? 0 : loaded->memory().size();
    const bool exact = !in.keeps_strength() && described(saved);
    while (memory.size() < least || (!exact && in.contains(concat_key(prefix, memory.size()))))
      memory.push_back(in.number(concat_key(prefix, memory.size())));
    try {
      if (!in.keeps_strength()) loaded->set_memory(memory);
      if (!std::isfinite(progress))
        throw config_error(detail::concat("the progress must be finite, got ", progress));
      check(*loaded, progress);
    } catch (const config_error& wrong) {
      throw state_error(
          detail::concat("the state's schedule at '", prefix, "' is not valid: ", wrong.what()));
    }
    if (saved != own || (in.keeps_strength() && memory != self_->memory()))
      in.note_strength(
          in.keeps_strength()
              ? detail::concat("'", prefix, "': kept ", own, "; the state has ", saved)
              : detail::concat("'", prefix, "': loaded ", saved, " in place of ", own));
    self_ = std::move(loaded);
    progress_ = progress;
  }

 private:
  struct concept_base {
    virtual ~concept_base() = default;
    virtual std::unique_ptr<concept_base> clone() const = 0;
    virtual void validate() const = 0;
    virtual double value(double progress) const = 0;
    virtual void observe(double measurement) = 0;
    virtual std::string describe() const = 0;
    virtual std::vector<double> memory() const = 0;
    virtual void set_memory(const std::vector<double>& values) = 0;
  };

  template <class S>
  struct model final : concept_base {
    explicit model(S f) : function(std::move(f)) {}
    std::unique_ptr<concept_base> clone() const override {
      return std::make_unique<model>(function);
    }
    void validate() const override {
      if constexpr (requires { function.validate(); }) function.validate();
    }
    double value(double progress) const override { return static_cast<double>(function(progress)); }
    void observe(double measurement) override {
      if constexpr (detail::observing_schedule<S>)
        function.observe(measurement);
      else
        throw config_error(detail::concat("the schedule ", describe(),
                                          " does not adapt, so observe() cannot be used with it"));
    }
    std::string describe() const override {
      if constexpr (requires {
                      { function.describe() } -> std::convertible_to<std::string>;
                    })
        return function.describe();
      else
        return "custom";
    }
    std::vector<double> memory() const override {
      if constexpr (detail::remembering_schedule<S>)
        return function.memory();
      else
        return {};
    }
    void set_memory([[maybe_unused]] const std::vector<double>& values) override {
      if constexpr (detail::remembering_schedule<S>) function.set_memory(values);
    }
    S function;
  };

  static std::string concat_key(const std::string& prefix, std::size_t i) {
    return detail::concat(prefix, "memory.", i);
  }
  /// Keeps a copy of a schedule that no text describes, so that a state can restore it.
  void remember_own() {
    if (!described(self_->describe())) own_ = self_->clone();
  }

  template <class S>
  static std::unique_ptr<concept_base> built(S schedule) {
    return std::make_unique<model<S>>(std::move(schedule));
  }
  /// Builds a schedule of this library from its description. Returns null for any other text.
  static std::unique_ptr<concept_base> described(const std::string& text) {
    using detail::numbers_in;
    if (const auto n = numbers_in<1>(text, "constant{#}")) return built(constant{(*n)[0]});
    if (const auto n = numbers_in<4>(text, "exponential_decay{#, factor #, floor #, per #}"))
      return built(exponential_decay{(*n)[0], (*n)[1], (*n)[2], (*n)[3]});
    if (const auto n = numbers_in<3>(text, "linear{# to # over #}"))
      return built(linear{(*n)[0], (*n)[1], (*n)[2]});
    if (const auto n = numbers_in<3>(text, "cosine{# to # over #}"))
      return built(cosine{(*n)[0], (*n)[1], (*n)[2]});
    if (const auto n = numbers_in<4>(text, "adaptive_kl{#, target #, from # to #}"))
      return built(adaptive_kl{(*n)[0], (*n)[1], (*n)[2], (*n)[3]});
    if (const auto n = numbers_in<5>(text, "dual_ascent{#, target #, rate #, from # to #}"))
      return built(dual_ascent{(*n)[0], (*n)[1], (*n)[2], (*n)[3], (*n)[4]});
    if (const auto n = numbers_in<5>(text, "hold_kl{#, target #, rate #, from # to #}"))
      return built(hold_kl{(*n)[0], (*n)[1], (*n)[2], (*n)[3], (*n)[4]});
    if (const auto n = numbers_in<2>(text, "return_ratio{#, maximum #}"))
      return built(return_ratio{(*n)[0], (*n)[1]});
    return nullptr;
  }

  /// Checks the schedule and its strength, at construction and at loading.
  static void check(const concept_base& schedule, double progress) {
    schedule.validate();
    check(schedule.value(progress));
  }
  static void check(double value) {
    if (!(value >= 0.0) || !std::isfinite(value))
      throw config_error(detail::concat("a strength must be finite and not negative, got ", value));
  }

  std::unique_ptr<concept_base> self_;
  std::unique_ptr<concept_base> own_;  // the last schedule of the caller's own, if any
  double progress_ = 0.0;
};

}  // namespace retain
