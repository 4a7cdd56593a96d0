// SPDX-License-Identifier: MIT
// Strengths of retention terms as functions of progress.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <string>
#include <vector>

namespace retain {

/// A schedule s(progress) -> strength. Progress is in the unit that the caller passes to `.step`:
/// for example, environment steps, updates or epochs. Optional members:
///
///     observe(measurement)           adapts the strength to a measurement
///     memory(), set_memory(values)   save and restore what observe() learned
///     describe()                     names the schedule and its parameters in a saved state
///     validate()                     throws config_error if a parameter or the memory is invalid
///
/// validate() runs when a term is constructed with the schedule and when a state is loaded.
template <class S>
concept schedule = std::copy_constructible<S> && requires(const S& s, double progress) {
  { s(progress) } -> std::convertible_to<double>;
};

namespace detail {
inline std::string span_text(const char* kind, double initial, double last, double over) {
  return concat(kind, "{", exact_text(initial), " to ", exact_text(last), " over ",
                exact_text(over), "}");
}

/// Throws config_error unless `holds`. A comparison with NaN is false, so a NaN parameter throws
/// too.
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
          "the scale computed from observations must be positive and finite");
}
}  // namespace detail

/// A constant strength.
struct constant {
  double value = 1.0;

  double operator()(double) const { return value; }
  std::string describe() const {
    return detail::concat("constant{", detail::exact_text(value), "}");
  }
};

/// max(floor, initial * factor^(progress / per)).
///
/// For the kickstarting of Wołczyk et al. 2024, progress counts optimizer steps. The paper uses
/// {.initial = 0.5}. The code of its best agent uses {.initial = 0.75, .factor = 0.99998, .floor =
/// 0.33}; with `.step(updates)` this schedule reaches its floor at update 41 049.
struct exponential_decay {
  double initial = 1.0;
  double factor = 0.99998;
  double floor = 0.0;
  double per = 1.0;  ///< how much progress one multiplication by `factor` takes

  double operator()(double progress) const {
    const double value = initial * std::pow(factor, progress / per);
    return value < floor ? floor : value;  // NaN stays NaN, so that later checks find it
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

/// Changes linearly from `initial` to `last` while the progress goes from 0 to `over`, then stays
/// at `last`.
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

/// Changes from `initial` to `last` as half a cosine while the progress goes from 0 to `over`, then
/// stays at `last`.
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

/// Keeps a measured KL near a target. Each `observe(kl)` multiplies the strength by 2 if kl > 1.5
/// target, and divides the strength by 2 if kl < target / 1.5 (Schulman et al. 2017, arXiv
/// 1707.06347, section 4).
struct adaptive_kl {
  double initial = 1.0;
  double target = 0.01;
  double minimum = 1e-6;
  double maximum = 1e6;
  double scale = 1.0;  ///< factor on `initial` from the observations

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

/// Keeps a measured KL at a budget by ascent on the multiplier c of the constraint KL <= target.
/// The ascent is in log c, so c stays positive. Each `observe(kl)` computes
///
///     c <- clamp(c * exp(rate * clamp(kl / target - 1, -1, 1)), minimum, maximum)
///
/// One observation changes c by a factor of at most e^rate. The strength changes more smoothly than
/// with adaptive_kl, and the KL settles at the target instead of within a band around it. This is
/// the proportional controller of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2) with wider
/// error limits.
///
/// The measurement may come from the batch (`last_divergence`) or from states outside the training:
/// `term.observe(watch.kl("FAR"))`.
struct dual_ascent {
  double initial = 1.0;
  double target = 0.01;  ///< the budget, in nats for a KL
  double rate = 0.1;
  double minimum = 1e-6;
  double maximum = 1e6;
  double scale = 1.0;  ///< factor on `initial` from the observations

  double operator()(double) const { return std::clamp(initial * scale, minimum, maximum); }
  void observe(double kl) {
    const double moved = (*this)(0) * std::exp(rate * std::clamp(kl / target - 1.0, -1.0, 1.0));
    // The clamp keeps `scale` from growing while the strength is at a bound.
    scale = std::clamp(moved, minimum, maximum) / initial;
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

/// Holds a KL on probe states near a target, also if the right strength is unknown by several
/// powers of ten: `retention::adapt` uses it. Each `observe(kl)` computes
///
///     c <- clamp(c * exp(rate * clamp(log(kl / target), -1/2, 1)), minimum, maximum)
///
/// but leaves c as it is while the KL is coming back: above the target and at least a tenth below
/// the previous measurement, or below the target and at least a tenth above it. The KL follows the
/// strength with a delay, and without this rule the strength would overshoot. The strength rises
/// faster than it falls, because what was forgotten is hard to get back. With rate 1, one
/// measurement multiplies the strength by 2.7 at most and by 0.6 at least.
///
/// Begin with a strength that is rather too large: the KL then reaches the target from below. With
/// one that is a thousand times too small, the KL first overshoots for about ten measurements.
///
/// If no strength of the term reaches the target, the strength rises to `maximum`. A weight term
/// has such a floor: an optimizer with steps of fixed size, such as Adam, keeps the weights moving.
struct hold_kl {
  double initial = 1.0;
  double target = 0.02;  ///< in nats
  double rate = 1.0;
  double minimum = 1e-6;
  double maximum = 1e9;
  double scale = 1.0;  ///< factor on `initial` from the observations
  double last = -1.0;  ///< the previous measurement; negative before the first one
  /// the progress of this measurement, -infinity before the first; set by retention::adapt
  double at = -std::numeric_limits<double>::infinity();

  double operator()(double) const { return std::clamp(initial * scale, minimum, maximum); }
  void observe(double kl) {
    const double error = kl > 0 ? std::clamp(std::log(kl / target), -0.5, 1.0) : -0.5;
    const bool coming_back = last >= 0 && (error > 0 ? kl < 0.9 * last : kl > 1.1 * last);
    if (!coming_back)
      scale = std::clamp((*this)(0) * std::exp(rate * error), minimum, maximum) / initial;
    last = std::max(kl, 0.0);  // rounding can make a KL negative
  }
  void validate() const {
    detail::check_bounds(describe(), initial, target, minimum, maximum, scale);
    detail::require(rate > 0 && std::isfinite(rate), describe(),
                    "the rate must be positive and finite");
    detail::require(!std::isnan(last) && !std::isnan(at), describe(),
                    "the previous measurement must be a number");
  }
  std::string describe() const {
    return detail::concat("hold_kl{", detail::exact_text(initial), ", target ",
                          detail::exact_text(target), ", rate ", detail::exact_text(rate),
                          ", from ", detail::exact_text(minimum), " to ",
                          detail::exact_text(maximum), "}");
  }
  std::vector<double> memory() const { return {scale, last, at}; }
  void set_memory(const std::vector<double>& values) {
    scale = values.at(0), last = values.at(1), at = values.at(2);
  }
};

/// maximum * clamp(1 - R_student / R_teacher, 0, 1). The caller passes the student's return to
/// `observe`. Before the first observation the strength is `maximum`. Paper: Agarwal et al. 2022
/// (arXiv 2206.01626).
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
