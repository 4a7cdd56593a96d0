// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/mean.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/distillation.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace retain {

struct dark_experience_replay_options {
  strength_schedule strength = 1.0;        ///< alpha in the formula
  strength_schedule label_strength = 0.0;  ///< beta in the formula; above 0 for DER++
  std::int64_t batch_size = 256;           ///< states drawn for each of the two means
  std::int64_t capacity = 10'000;          ///< states kept
  std::uint64_t seed = 0;
  at::Device device = at::kCPU;  ///< the device that stores the states
};

/// Dark experience replay (DER): keeps the logits of the student close to the logits that the
/// policy itself produced earlier, on a uniform subset of all states seen so far. DER++ adds the
/// cross-entropy of labels.
///
///     loss = alpha * mean over drawn (s, z) of ||z - h(s)||^2
///          + beta  * mean over drawn (s, y) of -log pi(y|s)
///
/// h(s) are the logits of the student. The squared norm is a sum over the A actions. (If an
/// implementation uses the mean over actions, the same loss needs an alpha that is A times as
/// large.) Each of the two means uses its own draw.
///
/// The distance of logits is stricter than a KL divergence: a constant that is added to all logits
/// changes the distance, but not the policy.
///
/// An action that both the student and the stored logits forbid (a logit of -inf, as in
/// masked_categorical) adds 0 to the distance. An action that only one of them forbids makes the
/// distance infinite. In this case loss() throws config_error on the CPU. On other devices the loss
/// is +inf, because a check would have to wait for the device. Therefore use the same mask for the
/// student and the stored logits.
///
///     dark_experience_replay keep{
///         {.strength = 0.5, .label_strength = 0.5, .capacity = 5000}};
///     keep.push(observations, logits, actions);  // [n, ...], [n, A], int64 [n]
///     auto loss = ppo_loss + keep.loss(student);
///
/// DER does not need the labels (here `actions`). The loss is 0 as long as no states have been
/// pushed. Equal seeds keep and draw the same states. At strength 0 the term still draws its
/// batches. Throws config_error for a batch size or a capacity below 1, and if label_strength is
/// above 0 but labels are missing.
///
/// Paper: Buzzega et al. 2020, arXiv 2004.07211.
class dark_experience_replay : public detail::distillation_base {
 public:
  static constexpr const char* name = "dark_experience_replay";

  explicit dark_experience_replay(dark_experience_replay_options options = {})
      : distillation_base(std::move(options.strength), divergence::teacher_student),
        label_schedule_(std::move(options.label_strength)),
        batch_size_(options.batch_size),
        device_(options.device),
        memory_({.capacity = options.capacity, .seed = options.seed, .device = options.device}) {
    if (batch_size_ < 1)
      throw config_error(detail::concat(
          "dark_experience_replay: batch_size must be at least 1, got ", batch_size_));
  }

  /// Adds states with the logits of the policy, and optionally with labels. Either all pushes have
  /// labels or none has. Labels have an integral type, for example int64. Throws shape_error for a
  /// wrong shape. Throws config_error for logits that are NaN or +inf, if the states are stored on
  /// the CPU.
  void push(const at::Tensor& observations, const at::Tensor& said, const at::Tensor& labels = {}) {
    if (said.dim() != 2)
      throw shape_error(
          detail::concat("dark_experience_replay: logits need the shape [n, actions], got ",
                         detail::shape_text(said.sizes())));
    const at::Tensor logits = said.detach().to(device_);
    if (memory_.size() == 0)
      detail::refuse_probabilities("dark_experience_replay: the pushed states",
                                   categorical{logits});
    const bool forbids = holds_impossible(logits);
    if (!labels.defined()) {
      if (label_schedule_.value() > 0)
        throw config_error("dark_experience_replay: label_strength is above 0, but the labels are "
                           "missing: call push(observations, logits, labels), or set "
                           "label_strength to 0");
      memory_.push({{"observations", observations}, {"logits", logits}});
      forbids_ = forbids_ || forbids;
      return;
    }
    if (!at::isIntegralType(labels.scalar_type(), true) || labels.dim() != 1)
      throw shape_error(detail::concat("dark_experience_replay: labels must be int64 [n], got ",
                                       labels.dtype(), " ", detail::shape_text(labels.sizes())));
    memory_.push({{"observations", observations},
                  {"logits", logits},
                  {"labels", detail::counted(name, "labels", labels, labels.device())}});
    labelled_ = true;
    forbids_ = forbids_ || forbids;
  }

  /// Returns a 0-dim tensor in the graph of `student`. `student` is a callable that maps single
  /// observations to logits or to a categorical. Throws shape_error if the student's logits and the
  /// stored logits have different shapes. Throws config_error as described above.
  template <class Student>
  [[nodiscard]] at::Tensor loss(Student&& student) {
    if (memory_.size() == 0) return at::zeros({});
    if (!labelled_ && label_strength() > 0)
      throw config_error("dark_experience_replay: label_strength is above 0, but the pushed states "
                         "have no labels: call push(observations, logits, labels)");
    const transitions dark = memory_.sample(batch_size_);
    const transitions light = labelled_ ? memory_.sample(batch_size_) : transitions();
    at::Tensor sum;
    if (strength() > 0) {
      const auto answer = detail::ask_stored<false>(student, dark["observations"]);
      if (!asked_) detail::refuse_probabilities("dark_experience_replay: the student", answer);
      asked_ = true;
      const at::Tensor logits =
          detail::where(detail::distribution_of(answer), detail::mask_of(answer)).logits;
      const at::Tensor stored = dark["logits"].to(logits.device());
      if (logits.sizes() != stored.sizes())
        throw shape_error(detail::concat("dark_experience_replay: the student's logits have shape ",
                                         detail::shape_text(logits.sizes()), ", the stored ones ",
                                         detail::shape_text(stored.sizes())));
      at::Tensor apart = stored - logits;
      if (forbids_)
        apart = apart.masked_fill(stored.eq(impossible).bitwise_and(logits.eq(impossible)), 0);
      const at::Tensor kept = detail::common_mask(name, detail::mask_of(answer), {});
      const at::Tensor distance = detail::masked_mean(apart.square().sum(-1), kept);
      if (distance.is_cpu() && !std::isfinite(distance.item<double>()))
        check_masks(stored, logits.detach(), kept);
      last_ = distance.detach();
      sum = distance * strength();
    }
    if (labelled_ && label_strength() > 0) {
      const auto answer = detail::ask_stored<false>(student, light["observations"]);
      const at::Tensor surprise =
          detail::where(detail::distribution_of(answer), detail::mask_of(answer))
              .log_prob(light["labels"])
              .neg();
      const at::Tensor mean =
          detail::masked_mean(surprise, detail::common_mask(name, detail::mask_of(answer), {}));
      sum = sum.defined() ? sum + mean * label_strength() : mean * label_strength();
    }
    return sum.defined() ? sum : at::zeros({});
  }
  /// The same as loss(student). Ignores the rollout.
  template <class Student, class Rollout>
  [[nodiscard]] at::Tensor loss(Student&& student, const Rollout&) {
    return loss(student);
  }

  double label_strength() const { return label_schedule_.value(); }
  /// Replaces beta, as set_strength replaces alpha.
  void set_label_strength(strength_schedule strength) { label_schedule_.set(std::move(strength)); }
  /// Moves both schedules to `progress`.
  void step(double progress) {
    check_step(progress);
    schedule_.step(progress);
    label_schedule_.step(progress);
  }
  /// Throws the exceptions that `step` would throw, but does not move the schedules.
  void check_step(double progress) const {
    schedule_.check_step(progress);
    label_schedule_.check_step(progress);
  }
  const reservoir_memory& memory() const { return memory_; }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    label_schedule_.save_state(out, prefix + "label_schedule.");
    out.set(prefix + "labelled", static_cast<int>(labelled_));
    memory_.save_state(out, prefix + "memory.");
  }
  /// Throws state_error and changes nothing if the saved memory has no observations or no logits,
  /// or if its labels do not agree with the saved 'labelled' flag.
  void load_state(const state& in, const std::string& prefix) {
    auto schedule = schedule_, labels = label_schedule_;
    schedule.load_state(in, prefix + "schedule.");
    labels.load_state(in, prefix + "label_schedule.");
    const int labelled = in.integer<int>(prefix + "labelled");
    reservoir_memory memory = memory_;
    memory.load_state(in, prefix + "memory.");
    if (memory.size() > 0) {
      const transitions columns = memory.gather(at::zeros({0}, at::kLong));
      const auto has = [&](const std::string& column) {
        return std::any_of(columns.begin(), columns.end(),
                           [&](const auto& entry) { return entry.name == column; });
      };
      const bool held = has("observations") && has("logits") && has("labels") == (labelled == 1);
      if (!held || labelled < 0 || labelled > 1)
        throw state_error(detail::concat("the state's '", prefix, "labelled' is ", labelled,
                                         ", which does not match the columns of its memory: the "
                                         "state belongs to another object"));
    } else if (labelled != 0) {
      throw state_error(
          detail::concat("the state's '", prefix, "labelled' is ", labelled,
                         ", but its memory is empty: the state belongs to another object"));
    }
    memory_ = std::move(memory);
    schedule_ = std::move(schedule);
    label_schedule_ = std::move(labels);
    labelled_ = labelled == 1;
    forbids_ = true;  // may be true; a check of the whole memory costs more than a check per batch
  }

 private:
  static constexpr double impossible = -std::numeric_limits<double>::infinity();

  /// Returns whether logits may contain -inf. Only checks logits on the CPU; for other devices
  /// returns true to avoid waiting.
  static bool holds_impossible(const at::Tensor& logits) {
    if (!logits.is_cpu() || logits.numel() == 0) return true;
    const auto number = [](const at::Tensor& one) { return one.to(at::kDouble).item<double>(); };
    if (!(number(logits.max()) < std::numeric_limits<double>::infinity()))
      throw config_error("dark_experience_replay: the pushed logits contain NaN or +inf: check the "
                         "outputs of the policy");
    return number(logits.min()) == impossible;
  }
  /// Throws config_error if an action of a valid row is forbidden on one side only. Does not check
  /// for NaN in the student's logits; the loss is then NaN.
  static void check_masks(const at::Tensor& stored, const at::Tensor& logits,
                          const at::Tensor& kept) {
    at::Tensor one_sided = stored.eq(impossible).logical_xor(logits.eq(impossible)).any(-1);
    if (kept.defined()) one_sided = one_sided.bitwise_and(kept.to(one_sided.device()));
    if (one_sided.any().item<bool>())
      throw config_error("dark_experience_replay: an action is forbidden (a logit of -inf) in the "
                         "stored logits but allowed by the student, or the other way round. The "
                         "distance is then infinite: mask the student with the mask of the stored "
                         "policy");
  }

  strength_schedule label_schedule_;
  std::int64_t batch_size_;
  at::Device device_;
  bool labelled_ = false;
  bool asked_ = false;
  bool forbids_ = false;  // whether stored logits may be -inf
  reservoir_memory memory_;
};

}  // namespace retain
