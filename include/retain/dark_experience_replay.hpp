// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/mean.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/distillation.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace retain {

struct dark_experience_replay_options {
  strength_schedule strength = 1.0;        ///< alpha of the formula
  strength_schedule label_strength = 0.0;  ///< beta of the formula; above 0 it is DER++
  std::int64_t batch_size = 256;           ///< states drawn for each of the two means
  std::int64_t capacity = 10'000;          ///< states kept
  std::uint64_t seed = 0;
  at::Device device = at::kCPU;  ///< where they are kept
};

/// Dark experience replay: stay close to the logits that the policy itself gave when the states
/// were seen, on a uniform subset of all states ever seen; DER++ adds the cross-entropy of labels
/// (Buzzega et al. 2020, arXiv 2004.07211):
///
///     loss = alpha * mean over drawn (s, z) of ||z - h(s)||^2  +  beta * mean over drawn (s, y) of -log pi(y|s)
///
/// where h are the student's logits and the norm is a sum over the A actions (where an
/// implementation takes their mean, its alpha is A times this one); the two means are over two
/// independent draws. Unlike a KL the distance also holds what all logits have in common, which the
/// policy does not depend on. What both hold impossible, a logit of -inf as masked_categorical
/// makes it, is no distance. What one side alone does is an infinite one: on the CPU loss() throws
/// config_error, on other devices, where looking would mean waiting, it is +inf. Give both the same
/// mask.
///
///     dark_experience_replay keep{{.strength = 0.5, .label_strength = 0.5, .capacity = 5000}};
///     keep.push(observations, logits, actions);         // as they come: [n, ...], [n, A], int64 [n]; labels may be left out for DER
///     auto loss = ppo_loss + keep.loss(student);
///
/// The loss is 0 while nothing was pushed. Equal seeds keep and draw equal states; at strength 0
/// the draws go on. Throws config_error for a batch size or a capacity below 1, and for
/// label_strength above 0 when pushed without labels.
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

  /// Adds states and what the policy said of them: its logits, and labels where there are any.
  /// Either all pushes have labels or none. Labels are int64 or of another integral type. Throws
  /// shape_error for another shape, and where states are kept on the CPU config_error for logits
  /// that are NaN or +inf.
  void push(const at::Tensor& observations, const at::Tensor& said, const at::Tensor& labels = {}) {
    if (said.dim() != 2)
      throw shape_error(
          detail::concat("dark_experience_replay: logits need the shape [n, actions], got ",
                         detail::shape_text(said.sizes())));
    const at::Tensor logits = said.detach().to(device_);
    const bool forbids = holds_impossible(logits);
    if (!labels.defined()) {
      if (label_schedule_.value() > 0)
        throw config_error("dark_experience_replay: label_strength is above 0: push(observations, "
                           "logits, labels), or set it to 0");
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

  /// A 0-dim tensor in the graph of `student`, a callable from observations to logits or a
  /// categorical. Throws shape_error when it has other actions than were stored, config_error as
  /// said above.
  template <class Student>
  at::Tensor loss(Student&& student) {
    if (memory_.size() == 0) return at::zeros({});
    if (!labelled_ && label_strength() > 0)
      throw config_error("dark_experience_replay: label_strength is above 0 by now, and what was "
                         "pushed has no labels: push(observations, logits, labels)");
    const transitions dark = memory_.sample(batch_size_);
    const transitions light = labelled_ ? memory_.sample(batch_size_) : transitions();
    at::Tensor sum;
    if (strength() > 0) {
      const auto answer = detail::as_prediction(student(dark["observations"]));
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
      const auto answer = detail::as_prediction(student(light["observations"]));
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
  /// The same; the rollout is not looked at.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout&) {
    return loss(student);
  }

  double label_strength() const { return label_schedule_.value(); }
  /// Moves both schedules.
  void step(double progress) {
    check_step(progress);
    schedule_.step(progress);
    label_schedule_.step(progress);
  }
  /// Throws what `step` would, and moves nothing.
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
  /// Throws state_error, and changes nothing, when the saved memory has no observations and logits,
  /// or labels only by its own word.
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
        throw state_error(detail::concat(
            "the state's '", prefix, "labelled' is ", labelled,
            ", which its memory's columns do not fit: it was saved from something else"));
    } else if (labelled != 0) {
      throw state_error(
          detail::concat("the state's '", prefix, "labelled' is ", labelled,
                         " and its memory is empty: it was saved from something else"));
    }
    memory_ = std::move(memory);
    schedule_ = std::move(schedule);
    label_schedule_ = std::move(labels);
    labelled_ = labelled == 1;
    forbids_ = true;  // it may: looking through a large memory is dearer than asking each batch
  }

 private:
  static constexpr double impossible = -std::numeric_limits<double>::infinity();

  /// Whether logits may hold what a policy held impossible. Looked for where it costs no waiting.
  static bool holds_impossible(const at::Tensor& logits) {
    if (!logits.is_cpu() || logits.numel() == 0) return true;
    const auto number = [](const at::Tensor& one) { return one.to(at::kDouble).item<double>(); };
    if (!(number(logits.max()) < std::numeric_limits<double>::infinity()))
      throw config_error("dark_experience_replay: logits that are NaN or +inf cannot be kept: look "
                         "for them where the policy made them");
    return number(logits.min()) == impossible;
  }
  /// Throws where one side forbids in a row that counts what the other allows; a student that is no
  /// number anymore is left to its loss.
  static void check_masks(const at::Tensor& stored, const at::Tensor& logits,
                          const at::Tensor& kept) {
    at::Tensor one_sided = stored.eq(impossible).logical_xor(logits.eq(impossible)).any(-1);
    if (kept.defined()) one_sided = one_sided.bitwise_and(kept.to(one_sided.device()));
    if (one_sided.any().item<bool>())
      throw config_error("dark_experience_replay: an action that was forbidden when its state was "
                         "stored is allowed now, or the other way round: a logit of "
                         "-inf on one side is an infinite distance; mask the student as the stored "
                         "policy was masked, by the observation");
  }

  strength_schedule label_schedule_;
  std::int64_t batch_size_;
  at::Device device_;
  bool labelled_ = false;
  bool forbids_ = false;  // whether stored logits may be -inf
  reservoir_memory memory_;
};

}  // namespace retain
