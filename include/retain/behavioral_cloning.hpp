// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/mean.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/uniform.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/distillation.hpp>
#include <retain/terms/stored_data.hpp>

#include <ATen/core/grad_mode.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace retain {

struct behavioral_cloning_options {
  strength_schedule strength = 1.0;
  std::int64_t batch_size = 256;  ///< states (or sequences) drawn for each loss
  std::uint64_t seed = 0;  ///< the seed of the uniform sampler; another sampler has its own seed
  divergence direction = divergence::teacher_student;
  /// number of first steps that the loss leaves out in a sequence that begins inside an episode
  std::int64_t burn_in = 0;
};

/// Marks a target as the expert's actions: int64 [n], or continuous [n, D], in the form that the
/// student's log_prob takes. The actions are a tensor or a type with size() and gather(indices). A
/// tensor without this mark holds logits.
template <detail::gatherable Actions>
struct expert_actions {
  Actions actions;
};
template <class Actions>
expert_actions(Actions) -> expert_actions<Actions>;

namespace detail {

template <class T>
struct is_expert_actions : std::false_type {};
template <class A>
struct is_expert_actions<expert_actions<A>> : std::true_type {};

}  // namespace detail

/// Behavioral cloning of stored pre-training states:
///
///     loss = c / N * sum over drawn states s of w(s) KL(pi*(.|s) || pi(.|s))
///     N    = number of valid states that were drawn from the memory
///
/// If the target is the expert's actions, the summand is w(s) (-log pi(a*|s)). w(s) is 1, or the
/// sampler's weight.
///
/// `memory` is a tensor of states [n, ...], or any type with size() and gather(indices). `target`
/// is one of these:
/// - a live teacher;
/// - the teacher's stored answers: a tensor of logits [n, ..., A], or a type with size() and
///   gather(indices) -> prediction;
/// - expert_actions.
///
///     behavioral_cloning{states, teacher, {.strength = 2.0, .batch_size = 256}}
///     behavioral_cloning{states, logits, {.strength = 2.0}}
///     behavioral_cloning{states, expert_actions{actions}, stratified{regions},
///                        {.batch_size = 256}}
///
/// The student receives the observations on the memory's device. A callable student may move them
/// to another device.
///
/// By default, states are drawn uniformly with replacement. The third argument may give another
/// sampler: stratified, prioritized, sequences, or any retain::sampler. Equal seeds draw equal
/// batches. At strength 0 neither student nor teacher is called, but a batch is still drawn.
///
/// With a sampler of sequences, observations, targets and answers are [L, N]. A student or teacher
/// that takes (observations, state, episode_start) (see recurrent_policy) gets new_episodes{} and
/// the draw's episode_start. A recurrent retain::teacher with an initial state starts from it in
/// every batch, so it must be one of batch_size sequences; its carried state does not change.
///
/// The initial state is wrong for a sequence that begins inside an episode. `burn_in` leaves the
/// first steps of these sequences out of the loss; other sequences keep all their steps. Gradients
/// of later losses still flow through the steps left out, unless the student detaches its state.
///
/// If the items of a memory are sequences themselves, [T, N], the student and the teacher receive
/// what `gather` returns. They mark padding by returning retain::masked.
///
/// Throws config_error if the memory is empty, the batch size is below 1, or the burn-in leaves no
/// step. Throws shape_error if the number of targets differs from the number of states, or if the
/// sampler draws from more items than the memory holds.
///
/// Paper: Wołczyk et al. 2024 (arXiv 2402.02868, section 2).
template <detail::gatherable Memory, class Target, sampler Sampler = uniform>
class behavioral_cloning : public detail::distillation_base {
 public:
  static constexpr const char* name = "behavioral_cloning";

  behavioral_cloning(Memory memory, Target target, behavioral_cloning_options options = {})
    requires std::same_as<Sampler, uniform>
      : behavioral_cloning(memory, std::move(target),
                           uniform(detail::size_of(memory), options.seed), options) {}

  behavioral_cloning(Memory memory, Target target, Sampler sampler,
                     behavioral_cloning_options options = {})
      : distillation_base(std::move(options.strength), options.direction),
        memory_(std::move(memory)),
        target_(std::move(target)),
        sampler_(std::move(sampler)),
        batch_size_(options.batch_size),
        burn_in_(options.burn_in) {
    if (detail::size_of(memory_) < 1)
      throw config_error("behavioral_cloning: the memory of states is empty");
    if (batch_size_ < 1)
      throw config_error(
          detail::concat("behavioral_cloning: batch_size must be at least 1, got ", batch_size_));
    if (burn_in_ < 0)
      throw config_error(
          detail::concat("behavioral_cloning: burn_in must not be negative, got ", burn_in_));
    if constexpr (sequence_sampler<Sampler>)
      if (burn_in_ >= sampler_.length())
        throw config_error(detail::concat("behavioral_cloning: a burn_in of ", burn_in_,
                                          " steps leaves no step of sequences of length ",
                                          sampler_.length()));
    if (labels && direction_ != divergence::teacher_student)
      throw config_error("behavioral_cloning: with expert actions the direction must be "
                         "teacher_student; for student_teacher use a teacher or its logits");
    check_sizes(memory_, target_, sampler_);
  }

  /// Draws the next batch and returns its loss, a 0-dim tensor in the graph of `student`. `student`
  /// is a callable from observations to a prediction, or a recurrent_policy for sequences. Throws
  /// config_error at the first loss with gradients if the teacher adopted the student's tensors
  /// (see teacher).
  template <class Student>
  [[nodiscard]] at::Tensor loss(Student&& student) {
    draw();
    if (strength() == 0.0) {
      rows_ = at::Tensor();
      return at::zeros({});
    }
    const auto observations = detail::gather(memory_, draw_.indices);
    const at::Tensor padding = on_device_of(observations, draw_.mask),
                     episode_start = on_device_of(observations, draw_.episode_start);
    const auto answer = detail::ask_stored<sequential>(student, observations, episode_start);
    if (!asked_) detail::refuse_probabilities("behavioral_cloning: the student", answer);
    at::Tensor kept;
    if constexpr (labels) {
      kept = valid(padding, detail::mask_of(answer));
      rows_ = surprise(detail::where(detail::distribution_of(answer), kept), kept);
    } else {
      const auto target = targets(observations, episode_start);
      if (!asked_) detail::refuse_probabilities("behavioral_cloning: the target", target);
      kept = valid(padding, valid(detail::mask_of(target), detail::mask_of(answer)));
      const auto p = detail::where(
          detail::beside(detail::distribution_of(target), detail::distribution_of(answer)), kept);
      const auto q = detail::where(detail::distribution_of(answer), kept);
      rows_ = direction_ == divergence::teacher_student ? kl(p, q) : kl(q, p);
    }
    if (burn_in_ > 0) kept = valid(kept, detail::warm_rows(burn_in_, rows_, draw_.episode_start));
    const at::Tensor mean =
        detail::masked_mean(draw_.weights.defined() ? rows_ * weights_like(rows_) : rows_, kept);
    // rounding can make the divergence of nearly equal distributions negative
    rows_ = labels ? rows_.detach() : rows_.detach().clamp_min(0);
    last_ = mean.detach();
    asked_ = true;
    if (!checked_ && at::GradMode::is_enabled()) {
      detail::check_adopted(name, target_, student, mean);
      checked_ = true;
    }
    return mean * strength();
  }
  /// Returns loss(student). The rollout is not used.
  template <class Student, class Rollout>
  [[nodiscard]] at::Tensor loss(Student&& student, const Rollout&) {
    return loss(student);
  }

  /// The batch that the last `loss` drew, and the divergence (or -log pi) of each of its rows. The
  /// values are unweighted and without gradient. They are undefined at strength 0. To update the
  /// priorities, call sampler().update(last_draw().indices, last_rows()). A divergence is never
  /// negative. -log of a density may be negative; then it must not be used as a priority.
  const drawn& last_draw() const { return draw_; }
  const at::Tensor& last_rows() const { return rows_; }
  Sampler& sampler() { return sampler_; }
  const Memory& memory() const { return memory_; }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    if constexpr (stateful<Sampler>) sampler_.save_state(out, sampler_prefix(prefix));
    detail::save_part(out, prefix + "memory", memory_);
    if constexpr (labels)
      detail::save_part(out, prefix + "target", target_.actions);
    else
      detail::save_part(out, prefix + "target", target_);
  }
  /// The caller must restore a memory, target or sampler that is neither a tensor nor stateful.
  /// The saved memory may hold another number of states than the current memory.
  void load_state(const state& in, const std::string& prefix) {
    auto schedule = schedule_;
    schedule.load_state(in, prefix + "schedule.");
    Sampler sampler = sampler_;
    if constexpr (stateful<Sampler>) sampler.load_state(in, sampler_prefix(prefix));
    auto&& memory = to_load(memory_);
    detail::load_part(name, in, prefix + "memory", memory);
    auto&& target = to_load(target_);
    if constexpr (labels)
      detail::load_part(name, in, prefix + "target", target.actions);
    else if constexpr (detail::gatherable<Target>)
      detail::load_part(name, in, prefix + "target", target);
    if constexpr (std::same_as<Sampler, uniform>) sampler.resize(detail::size_of(memory));
    check_sizes(memory, target, sampler);
    // A copy of a teacher would share its network, so the teacher itself is loaded. This is the
    // last step that can fail: a failure changes nothing.
    if constexpr (stateful<Target> && !detail::gatherable<Target>)
      target_.load_state(in, prefix + "target.");
    if constexpr (data<Target>) target_ = std::move(target);
    if constexpr (data<Memory>) memory_ = std::move(memory);
    schedule_ = std::move(schedule);
    sampler_ = std::move(sampler);
  }

 private:
  static constexpr bool labels = detail::is_expert_actions<Target>::value;
  static constexpr bool sequential = sequence_sampler<Sampler>;

  /// Returns the prefix for the sampler's state. The uniform sampler has no prefix of its own.
  static std::string sampler_prefix(const std::string& prefix) {
    return std::same_as<Sampler, uniform> ? prefix : prefix + "sampler.";
  }

  /// Whether a part is loaded as data: into a copy first, so that a failure changes nothing.
  template <class Part>
  static constexpr bool data =
      detail::is_expert_actions<Part>::value || std::convertible_to<Part, at::Tensor> ||
      (stateful<Part> && detail::gatherable<Part>);
  template <class Part>
  static std::conditional_t<data<Part>, Part, Part&> to_load(Part& part) {
    return part;
  }

  static void check_sizes(const Memory& memory, const Target& target, const Sampler& sampler) {
    const std::int64_t states = detail::size_of(memory);
    const auto check = [&](const auto& part, const char* what) {
      if constexpr (detail::gatherable<std::remove_cvref_t<decltype(part)>>)
        if (detail::size_of(part) != states)
          throw shape_error(detail::concat("behavioral_cloning: ", detail::size_of(part),
                                           " rows of ", what, " were given for ", states,
                                           " states; each state needs one row"));
    };
    if constexpr (labels)
      check(target.actions, "expert actions");
    else
      check(target, "stored logits");
    if (const auto items = static_cast<std::int64_t>(sampler.size()); items > states)
      throw shape_error(detail::concat("behavioral_cloning: the sampler draws from ", items,
                                       " items, but the memory holds only ", states));
  }

  void draw() {
    if constexpr (std::same_as<Sampler, uniform>) sampler_.resize(detail::size_of(memory_));
    draw_ = sampler_.sample(batch_size_);
  }

  template <class Observations>
  auto targets(const Observations& observations, [[maybe_unused]] const at::Tensor& episode_start) {
    const at::NoGradGuard no_grad;
    if constexpr (detail::gatherable<Target>)
      return detail::as_prediction(detail::gather(target_, draw_.indices));
    else
      return detail::ask_stored<sequential>(target_, observations, episode_start);
  }

  /// Returns -log pi(a*|s). In a row that is not kept, the stored action may be outside the
  /// policy's range, so it is replaced.
  template <class Distribution>
  at::Tensor surprise(const Distribution& distribution, const at::Tensor& kept) {
    return distribution
        .log_prob(detail::harmless_actions(detail::gather(target_.actions, draw_.indices), kept))
        .neg();
  }

  /// Returns the rows that both masks keep. An undefined mask keeps all rows.
  static at::Tensor valid(const at::Tensor& first, const at::Tensor& second) {
    return detail::common_mask(name, first, second);
  }

  /// Returns the weights of the items. The items are the last dimension of `rows`.
  at::Tensor weights_like(const at::Tensor& rows) const {
    if (draw_.weights.dim() != 1 || rows.dim() < 1 || draw_.weights.size(0) != rows.size(-1))
      throw shape_error(detail::concat("behavioral_cloning: the sampler's weights of shape ",
                                       detail::shape_text(draw_.weights.sizes()),
                                       " do not fit rows of shape ",
                                       detail::shape_text(rows.sizes())));
    return draw_.weights.to(rows.options());
  }

  template <class Observations>
  static at::Tensor on_device_of(const Observations& observations, const at::Tensor& mask) {
    if constexpr (requires { mask.to(observations.device()); })
      return mask.defined() ? mask.to(observations.device()) : mask;
    else
      return mask;
  }

  Memory memory_;
  Target target_;
  Sampler sampler_;
  std::int64_t batch_size_, burn_in_;
  drawn draw_;
  at::Tensor rows_;
  bool asked_ = false;
  bool checked_ = false;  // whether the teacher may share tensors with the student
};

}  // namespace retain
