// SPDX-License-Identifier: MIT
// The strength of a term, and the functions by which it is read and changed.
#pragma once

#include <retain/core/strength_schedule.hpp>

#include <utility>

namespace retain {

/// The strength c of a term: the functions that every term of this library has. A term of your own
/// may derive from it, or may hold a strength_schedule as a member and have
/// `strength_schedule& schedule()` only.
class scheduled_strength {
 public:
  /// The current strength c.
  double strength() const { return schedule_.value(); }
  /// Replaces the strength by a number or a schedule. The progress stays. The new schedule is part
  /// of the state: it is saved, and loading restores it. Throws config_error, and changes nothing,
  /// if the strength is negative or not finite.
  ///
  ///     keep.set_strength(100.0);
  ///     keep.set_strength(retain::linear{.initial = 100, .last = 0, .over = 1e6});
  void set_strength(strength_schedule strength) { schedule_.set(std::move(strength)); }

  /// Moves the schedule to `progress`, in the caller's unit.
  void step(double progress) { schedule_.step(progress); }
  /// Makes the checks of `step` and throws the same errors, without changing the progress.
  void check_step(double progress) const { schedule_.check_step(progress); }
  /// Passes a measurement to a schedule that adapts, for example adaptive_kl.
  void observe(double measurement) { schedule_.observe(measurement); }

  strength_schedule& schedule() { return schedule_; }
  const strength_schedule& schedule() const { return schedule_; }

 protected:
  explicit scheduled_strength(strength_schedule strength) : schedule_(std::move(strength)) {}

  strength_schedule schedule_;
};

}  // namespace retain
