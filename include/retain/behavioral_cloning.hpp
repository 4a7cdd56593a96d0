// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/mean.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/uniform.hpp>
#include <retain/teacher.hpp>
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
  std::uint64_t seed = 0;         ///< of the uniform sampler; any other brings its own
  divergence direction = divergence::teacher_student;
  std::int64_t burn_in = 0;  ///< steps of a sequence that only warm a recurrent state
};

/// Marks a target as the expert's actions: int64 [n] or continuous [n, D], as the student's
/// log_prob takes them, in a tensor or whatever can be drawn from. A tensor without this mark holds
/// logits.
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

/// Behavioural cloning of stored pre-training states:
///
///     loss = c / N * sum over drawn states s of w(s) KL(pi*(.|s) || pi(.|s)),   N valid states from the memory
///
/// (Wołczyk et al. 2024, arXiv 2402.02868, section 2), or w(s) (-log pi(a*|s)) where the target is
/// the expert's actions. The memory is a tensor of states [n, ...], or any type with size() and
/// gather(indices). The target is a live teacher, what it said when the states were stored (a
/// tensor of logits [n, ..., A], or a type with size() and gather(indices) -> prediction), or
/// expert_actions:
///
///     behavioral_cloning{states, teacher, {.strength = 2.0, .batch_size = 256}}
///     behavioral_cloning{states, logits, {.strength = 2.0}}
///     behavioral_cloning{states, expert_actions{actions}, stratified{regions}, {.batch_size = 256}}
///
/// The student is asked about observations where the memory keeps them, on its device: a callable
/// may move them.
///
/// States are drawn uniformly with replacement, or as the sampler says that is given third:
/// stratified, prioritised, sequences, or any retain::sampler. w is 1, or the sampler's weights.
/// Equal seeds draw equal batches. At strength 0 nobody is asked, but the draw goes on.
///
/// With a sampler of sequences, observations, targets and answers are [L, N]. A student or teacher
/// that takes (observations, done) is called so, may answer {prediction, state}, and starts from an
/// initial state of its own; a recurrent retain::teacher is reset before every batch, so its
/// initial state has to be one of batch_size sequences. That start is wrong where a sequence begins
/// inside an episode: `burn_in` leaves the first steps of those, and only those, out of the loss.
/// (Later losses still reach back through them, unless the student detaches its state.) Where a
/// memory's own items are sequences [T, N], the student and the teacher see what `gather` returns
/// and mark padding by answering retain::masked.
///
/// Throws config_error for an empty memory, a batch size below 1 or a burn-in that leaves no step;
/// shape_error when targets are not as many as states, or the sampler draws from more items than
/// there are.
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
        throw config_error(detail::concat("behavioral_cloning: a burn-in of ", burn_in_,
                                          " steps leaves nothing of sequences of ",
                                          sampler_.length()));
    if (labels && direction_ != divergence::teacher_student)
      throw config_error("behavioral_cloning: expert actions have no divergence in the direction "
                         "student_teacher; use a teacher or its logits");
    check_sizes(memory_, target_, sampler_);
  }

  /// A 0-dim tensor in the graph of `student`, a callable from observations to a prediction. Draws
  /// the next batch.
  template <class Student>
  at::Tensor loss(Student&& student) {
    draw();
    if (strength() == 0.0) {
      rows_ = at::Tensor();
      return at::zeros({});
    }
    const auto observations = detail::gather(memory_, draw_.indices);
    const at::Tensor padding = on_device_of(observations, draw_.mask),
                     done = on_device_of(observations, draw_.done);
    const auto answer = detail::ask_stored<sequential>(student, observations, done);
    at::Tensor kept;
    if constexpr (labels) {
      kept = valid(padding, detail::mask_of(answer));
      rows_ = surprise(detail::where(detail::distribution_of(answer), kept), kept);
    } else {
      const auto target = ask(observations, done);
      kept = valid(padding, valid(detail::mask_of(target), detail::mask_of(answer)));
      const auto p = detail::where(
          detail::beside(detail::distribution_of(target), detail::distribution_of(answer)), kept);
      const auto q = detail::where(detail::distribution_of(answer), kept);
      rows_ = direction_ == divergence::teacher_student ? kl(p, q) : kl(q, p);
    }
    if (burn_in_ > 0) kept = valid(kept, detail::warm_rows(burn_in_, rows_, draw_.done));
    const at::Tensor mean =
        detail::masked_mean(draw_.weights.defined() ? rows_ * weights_like(rows_) : rows_, kept);
    // rounding takes the divergence of near equals below 0
    rows_ = labels ? rows_.detach() : rows_.detach().clamp_min(0);
    last_ = mean.detach();
    return mean * strength();
  }
  /// The same; the rollout is not looked at.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout&) {
    return loss(student);
  }

  /// What the last `loss` drew, and the divergence (or -log pi) of each row of it, unweighted and
  /// without gradient, undefined at strength 0: new priorities are
  /// sampler().update(last_draw().indices, last_rows()). A divergence is never negative; -log of a
  /// density may be, and is then no priority.
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
  /// A memory, target or sampler that is neither a tensor nor stateful is the caller's to restore.
  /// How many states the saved memory holds may differ from this one's.
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
    // A teacher's copy would share its network: it is loaded in place, as the last that can fail.
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

  /// The uniform sampler's only number stands beside the rest.
  static std::string sampler_prefix(const std::string& prefix) {
    return std::same_as<Sampler, uniform> ? prefix : prefix + "sampler.";
  }

  /// What a state restores as data: loaded into a copy first, so that a failure changes nothing.
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
                                           " rows of ", what, " for ", states, " states"));
    };
    if constexpr (labels)
      check(target.actions, "expert actions");
    else
      check(target, "stored logits");
    if (const auto items = static_cast<std::int64_t>(sampler.size()); items > states)
      throw shape_error(detail::concat("behavioral_cloning: the sampler draws from ", items,
                                       " items, the memory holds ", states));
  }

  void draw() {
    if constexpr (std::same_as<Sampler, uniform>) sampler_.resize(detail::size_of(memory_));
    draw_ = sampler_.sample(batch_size_);
  }

  template <class Observations>
  auto ask(const Observations& observations, [[maybe_unused]] const at::Tensor& done) {
    const at::NoGradGuard no_grad;
    if constexpr (detail::gatherable<Target>) {
      return detail::as_prediction(detail::gather(target_, draw_.indices));
    } else if constexpr (requires { requires Target::recurrent; }) {
      static_assert(
          sequential,
          "a recurrent teacher needs a sampler of sequences, which says where episodes begin");
      target_.reset();
      return target_.step(observations, done);
    } else {
      return detail::ask_stored<sequential>(target_, observations, done);
    }
  }

  /// -log pi(a*|s); what stands for an action in a row that is not kept may be out of the policy's
  /// range, and is replaced.
  template <class Distribution>
  at::Tensor surprise(const Distribution& distribution, const at::Tensor& kept) {
    return distribution
        .log_prob(detail::harmless_actions(detail::gather(target_.actions, draw_.indices), kept))
        .neg();
  }

  /// The rows that both masks keep; an undefined one keeps all.
  static at::Tensor valid(const at::Tensor& first, const at::Tensor& second) {
    return detail::common_mask(name, first, second);
  }

  /// The weights of the items, which are the last dimension of `rows`.
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
};

}  // namespace retain
