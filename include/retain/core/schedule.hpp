// SPDX-License-Identifier: MIT
// How strong a retention term is, as a function of progress.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string>
#include <vector>

namespace retain {

/// s(progress) -> strength. Progress is in whatever unit the caller passes to `.step`: environment
/// steps, updates, epochs. Optionally observe(measurement) adapts it, memory() and
/// set_memory(values) save what it has learnt, describe() tells it from others in a saved state,
/// and validate() throws config_error for parameters, or a memory, that make no sense; it is called
/// when a term takes the schedule and when one is loaded.
template <class S>
concept schedule = std::copy_constructible<S> && requires(const S& s, double progress) {
  { s(progress) } -> std::convertible_to<double>;
};

namespace detail {
inline std::string span_text(const char* kind, double initial, double last, double over) {
  return concat(kind, "{", exact_text(initial), " to ", exact_text(last), " over ",
                exact_text(over), "}");
}

/// Throws config_error unless `holds`; NaN makes every comparison false and so is refused with the
/// rest.
inline void require(bool holds, const std::string& schedule, const char* what) {
  if (!holds) throw config_error(concat(schedule, ": ", what));
}
inline bool is_strength(double value) { return value >= 0.0 && std::isfinite(value); }
inline void check_span(const std::string& schedule, double initial, double last, double over) {
  require(is_strength(initial) && is_strength(last), schedule,
          "both strengths must be finite and not negative");
  require(over > 0 && std::isfinite(over), schedule, "over must be positive and finite");
}
inline void check_bounds(const std::string& schedule, double initial, double target, double minimum,
                         double maximum, double scale) {
  require(target > 0 && std::isfinite(target), schedule, "the target must be positive and finite");
  require(minimum > 0, schedule,
          "the minimum must be positive: a strength of 0 cannot be multiplied up again");
  require(minimum <= maximum && std::isfinite(maximum), schedule,
          "the maximum must be finite and not below the minimum");
  require(minimum <= initial && initial <= maximum, schedule,
          "the initial strength must lie between minimum and maximum");
  require(scale > 0 && std::isfinite(scale), schedule,
          "the scale that observations have led to must be positive and finite");
}
}  // namespace detail

/// The same strength throughout.
struct constant {
  double value = 1.0;

  double operator()(double) const { return value; }
  std::string describe() const {
    return detail::concat("constant{", detail::exact_text(value), "}");
  }
};

/// max(floor, initial * factor^(progress / per)). Kickstarting of Wołczyk et al. 2024 counts
/// optimiser steps: {.initial = 0.5} in the paper, and in the code of its best agent {.initial =
/// 0.75, .factor = 0.99998, .floor = 0.33} with `.step(updates)` reaches its floor at update 41
/// 049.
struct exponential_decay {
  double initial = 1.0;
  double factor = 0.99998;
  double floor = 0.0;
  double per = 1.0;  ///< how much progress one multiplication by `factor` takes

  double operator()(double progress) const {
    const double value = initial * std::pow(factor, progress / per);
    return value < floor ? floor : value;  // and NaN stays NaN, for whoever checks
  }
  void validate() const {
    detail::require(detail::is_strength(initial) && detail::is_strength(floor), describe(),
                    "initial and floor must be finite and not negative");
    detail::require(factor >= 0 && std::isfinite(factor), describe(),
                    "the factor must be finite and not negative");
    detail::require(per > 0 && std::isfinite(per), describe(), "per must be positive and finite");
  }
  std::string describe() const {
    return detail::concat("exponential_decay{", detail::exact_text(initial), ", factor ",
                          detail::exact_text(factor), ", floor ", detail::exact_text(floor),
                          ", per ", detail::exact_text(per), "}");
  }
};

/// From `initial` to `last` in a straight line over `over`, then `last`.
struct linear {
  double initial = 1.0;
  double last = 0.0;
  double over = 1.0;

  double operator()(double progress) const {
    return initial + (last - initial) * std::clamp(progress / over, 0.0, 1.0);
  }
  void validate() const { detail::check_span(describe(), initial, last, over); }
  std::string describe() const { return detail::span_text("linear", initial, last, over); }
};

/// From `initial` to `last` over `over` as half a cosine, then `last`.
struct cosine {
  double initial = 1.0;
  double last = 0.0;
  double over = 1.0;

  double operator()(double progress) const {
    const double phase = std::clamp(progress / over, 0.0, 1.0);
    return last + (initial - last) * 0.5 * (1.0 + std::cos(3.14159265358979323846 * phase));
  }
  void validate() const { detail::check_span(describe(), initial, last, over); }
  std::string describe() const { return detail::span_text("cosine", initial, last, over); }
};

/// Holds a measured KL near a target: each `observe(kl)` with kl > 1.5 target multiplies the
/// strength by 2, with kl < target / 1.5 divides it by 2 (Schulman et al. 2017, arXiv 1707.06347,
/// section 4).
struct adaptive_kl {
  double initial = 1.0;
  double target = 0.01;
  double minimum = 1e-6;
  double maximum = 1e6;
  double scale = 1.0;  ///< what the observations have made of `initial`

  double operator()(double) const { return std::clamp(initial * scale, minimum, maximum); }
  void observe(double kl) {
    if (kl > 1.5 * target && (*this)(0) < maximum) scale *= 2.0;
    if (kl < target / 1.5 && (*this)(0) > minimum) scale *= 0.5;
  }
  void validate() const {
    detail::check_bounds(describe(), initial, target, minimum, maximum, scale);
  }
  std::string describe() const {
    return detail::concat("adaptive_kl{", detail::exact_text(initial), ", target ",
                          detail::exact_text(target), ", from ", detail::exact_text(minimum),
                          " to ", detail::exact_text(maximum), "}");
  }
  std::vector<double> memory() const { return {scale}; }
  void set_memory(const std::vector<double>& values) { scale = values.at(0); }
};

/// Holds a measured KL at a budget by ascent on the multiplier of the constraint KL <= target, in
/// the logarithm, so that it stays positive whatever it began with: each `observe(kl)` does
///
///     c <- clamp(c * exp(rate * clamp(kl / target - 1, -1, 1)), minimum, maximum)
///
/// so one observation changes c by a factor of at most e^rate. It is smoother than adaptive_kl and
/// settles at the target instead of within a band around it; the proportional controller of Ziegler
/// et al. 2019 (arXiv 1909.08593, section 2.2) with wider error limits. The measurement may come
/// from the batch (`last_divergence`), or from states that are not trained on:
/// `term.observe(watch.kl("FAR"))`.
struct dual_ascent {
  double initial = 1.0;
  double target = 0.01;  ///< the budget, in nats where a KL is observed
  double rate = 0.1;
  double minimum = 1e-6;
  double maximum = 1e6;
  double scale = 1.0;  ///< what the observations have made of `initial`

  double operator()(double) const { return std::clamp(initial * scale, minimum, maximum); }
  void observe(double kl) {
    const double moved = (*this)(0) * std::exp(rate * std::clamp(kl / target - 1.0, -1.0, 1.0));
    scale = std::clamp(moved, minimum, maximum) / initial;  // nothing winds up behind a bound
  }
  void validate() const {
    detail::check_bounds(describe(), initial, target, minimum, maximum, scale);
    detail::require(rate > 0 && std::isfinite(rate), describe(),
                    "the rate must be positive and finite");
  }
  std::string describe() const {
    return detail::concat("dual_ascent{", detail::exact_text(initial), ", target ",
                          detail::exact_text(target), ", rate ", detail::exact_text(rate),
                          ", from ", detail::exact_text(minimum), " to ",
                          detail::exact_text(maximum), "}");
  }
  std::vector<double> memory() const { return {scale}; }
  void set_memory(const std::vector<double>& values) { scale = values.at(0); }
};

/// maximum * clamp(1 - R_student / R_teacher, 0, 1), with the student's return given to `observe`
/// (Agarwal et al. 2022, arXiv 2206.01626). `maximum` until the first observation.
struct return_ratio {
  double teacher_return = 1.0;
  double maximum = 1.0;
  double student_return = 0.0;  ///< the last observation

  double operator()(double) const {
    return maximum * std::clamp(1.0 - student_return / teacher_return, 0.0, 1.0);
  }
  void observe(double measured) { student_return = measured; }
  void validate() const {
    detail::require(teacher_return > 0 && std::isfinite(teacher_return), describe(),
                    "the teacher's return must be positive and finite");
    detail::require(detail::is_strength(maximum), describe(),
                    "the maximum must be finite and not negative");
    detail::require(!std::isnan(student_return), describe(),
                    "the student's return must be a number");
  }
  std::string describe() const {
    return detail::concat("return_ratio{", detail::exact_text(teacher_return), ", maximum ",
                          detail::exact_text(maximum), "}");
  }
  std::vector<double> memory() const { return {student_return}; }
  void set_memory(const std::vector<double>& values) { student_return = values.at(0); }
};

}  // namespace retain
