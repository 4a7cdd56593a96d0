// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/distillation.hpp>
#include <retain/detail/random.hpp>
#include <retain/teacher.hpp>

#include <cstdint>

namespace retain {

struct behavioral_cloning_options {
  strength_schedule strength = 1.0;
  std::int64_t batch_size = 256;  ///< states (or sequences) drawn for each loss
  std::uint64_t seed = 0;
  divergence direction = divergence::teacher_student;
};

namespace detail {

/// States that can be drawn from: at::Tensor [n, ...] as it is, or any type with size() and gather(indices) -> observations,
/// where indices is an int64 tensor [batch] with values in [0, size()).
template <class M>
concept gatherable = std::convertible_to<M, at::Tensor> || requires(const M& memory, const at::Tensor& indices) {
  { memory.size() } -> std::convertible_to<std::int64_t>;
  memory.gather(indices);
};

template <gatherable M>
std::int64_t size_of(const M& memory) {
  if constexpr (std::convertible_to<M, at::Tensor>)
    return memory.dim() == 0 ? 0 : memory.size(0);
  else
    return static_cast<std::int64_t>(memory.size());
}
template <gatherable M>
auto gather(const M& memory, const at::Tensor& indices) {
  if constexpr (std::convertible_to<M, at::Tensor>)
    return memory.index_select(0, indices.to(memory.device()));
  else
    return memory.gather(indices);
}

}  // namespace detail

/// Behavioural cloning of stored pre-training states:
///
///     loss = c * mean over drawn states s of KL(pi*(.|s) || pi(.|s)),   s from the memory, drawn uniformly with replacement
///
/// (Wołczyk et al. 2024, arXiv 2402.02868, section 2). The target is a live teacher, or what it said when the states were
/// stored: a tensor of logits [n, ..., A], or a type with gather(indices) -> prediction.
///
///     behavioral_cloning{states, teacher, {.strength = 2.0, .batch_size = 256}}
///     behavioral_cloning{states, logits, {.strength = 2.0}}
///
/// Equal seeds draw equal batches. At strength 0 nobody is asked, but the draw goes on. Where a state is a sequence, the student and the teacher see what `gather` returns, and mark
/// padding by answering retain::masked. Throws config_error for an empty memory or a batch size below 1, shape_error when
/// stored logits are not as many as states.
template <detail::gatherable Memory, class Target>
class behavioral_cloning : public detail::distillation_base {
 public:
  static constexpr const char* name = "behavioral_cloning";

  behavioral_cloning(Memory memory, Target target, behavioral_cloning_options options = {})
      : distillation_base(std::move(options.strength), options.direction),
        memory_(std::move(memory)),
        target_(std::move(target)),
        batch_size_(options.batch_size),
        random_(options.seed) {
    if (detail::size_of(memory_) < 1) throw config_error("behavioral_cloning: the memory of states is empty");
    if (batch_size_ < 1) throw config_error(detail::concat("behavioral_cloning: batch_size must be at least 1, got ", batch_size_));
    if constexpr (std::convertible_to<Target, at::Tensor>)
      if (detail::size_of(target_) != detail::size_of(memory_))
        throw shape_error(detail::concat("behavioral_cloning: ", detail::size_of(target_), " rows of stored logits for ",
                                         detail::size_of(memory_), " states"));
  }

  /// A 0-dim tensor in the graph of `student`, a callable from observations to a prediction. Draws the next batch.
  template <class Student>
  at::Tensor loss(Student&& student) {
    const at::Tensor indices = draw();
    if (strength() == 0.0) return at::zeros({});
    const auto observations = detail::gather(memory_, indices);
    return weighted(ask(observations, indices), detail::as_prediction(student(observations)), {});
  }
  /// The same; the rollout is not looked at.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout&) {
    return loss(student);
  }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    out.set(prefix + "random", random_.state());
    if constexpr (std::convertible_to<Memory, at::Tensor>) out.set(prefix + "memory", memory_);
    if constexpr (stateful<Memory>) memory_.save_state(out, prefix + "memory.");
    if constexpr (std::convertible_to<Target, at::Tensor>) out.set(prefix + "target", target_);
    if constexpr (stateful<Target>) target_.save_state(out, prefix + "target.");
  }
  /// A memory that is neither a tensor nor stateful is the caller's to restore.
  void load_state(const state& in, const std::string& prefix) {
    const auto random = in.integer<std::uint64_t>(prefix + "random");
    at::Tensor memory, target;
    if constexpr (std::convertible_to<Memory, at::Tensor>) memory = saved(in, prefix + "memory", memory_);
    if constexpr (std::convertible_to<Target, at::Tensor>) target = saved(in, prefix + "target", target_);
    if (memory.defined() && target.defined() && memory.size(0) != target.size(0))
      throw shape_error(detail::concat("behavioral_cloning: the state holds ", memory.size(0), " states and ", target.size(0), " targets"));
    if constexpr (stateful<Memory>) memory_.load_state(in, prefix + "memory.");
    if constexpr (stateful<Target>) target_.load_state(in, prefix + "target.");
    if constexpr (std::convertible_to<Memory, at::Tensor>) memory_ = memory;
    if constexpr (std::convertible_to<Target, at::Tensor>) target_ = target;
    schedule_.load_state(in, prefix + "schedule.");
    random_.set_state(random);
  }

 private:
  /// A saved tensor of rows like those of `current`; how many may differ.
  static at::Tensor saved(const state& in, const std::string& key, const at::Tensor& current) {
    const at::Tensor& tensor = in.tensor(key);
    if (tensor.dim() != current.dim() || tensor.sizes().slice(1) != current.sizes().slice(1) || tensor.size(0) < 1)
      throw shape_error(detail::concat("behavioral_cloning: the saved '", key, "' has shape ", detail::shape_text(tensor.sizes()),
                                       ", this term's is ", detail::shape_text(current.sizes()), ": the state belongs to other data"));
    if (tensor.scalar_type() != current.scalar_type())
      throw state_error(detail::concat("behavioral_cloning: the saved '", key, "' is ", tensor.dtype(), ", this term's is ", current.dtype()));
    return tensor.to(current.device());
  }

  at::Tensor draw() {
    auto indices = at::empty({batch_size_}, at::TensorOptions().dtype(at::kLong));
    auto* index = static_cast<std::int64_t*>(indices.data_ptr());
    const auto bound = static_cast<std::uint64_t>(detail::size_of(memory_));
    for (std::int64_t i = 0; i < batch_size_; ++i) index[i] = static_cast<std::int64_t>(random_.below(bound));
    return indices;
  }

  template <class Observations>
  auto ask(const Observations& observations, const at::Tensor& indices) const {
    const at::NoGradGuard no_grad;
    if constexpr (detail::gatherable<Target>)
      return detail::as_prediction(detail::gather(target_, indices));
    else
      return detail::as_prediction(target_(observations));
  }

  Memory memory_;
  Target target_;
  std::int64_t batch_size_;
  detail::splitmix64 random_;
};

}  // namespace retain
