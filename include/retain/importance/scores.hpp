// SPDX-License-Identifier: MIT
// The scores that a Fisher is estimated from, and the backward passes over them. There are three
// sources of scores: sampled actions, actions of the data, and rows whose squared gradients sum to
// the exact expectation.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/random.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace retain {

struct sampled_actions;
struct exact_actions;

namespace detail {

struct batch_actions {
  template <class Batch>
  decltype(auto) operator()(const Batch& batch) const {
    return (batch.actions);
  }
};

/// A distribution that provides its Fisher as rows of scores [...], with sum_k (d score(k))^2 = E_a
/// (d log pi(a|s))^2.
template <class D>
concept lists_scores = requires(const D& d, std::int64_t k) {
  { d.num_scores() } -> std::convertible_to<std::int64_t>;
  { d.score(k) } -> std::convertible_to<at::Tensor>;
};
/// A distribution with a finite number of actions: 0 to num_actions() - 1.
template <class D>
concept lists_actions = requires(const D& d) {
  { d.num_actions() } -> std::convertible_to<std::int64_t>;
};

/// One scalar per state to differentiate: log pi of given actions, or one row of the exact Fisher.
struct score_row {
  at::Tensor actions;  // if undefined, this is the row `index` of the exact Fisher
  std::int64_t index = 0;
  at::Tensor weight;  // [N] or [T, N], 0 for invalid rows

  score_row narrow(std::int64_t dimension, std::int64_t start, std::int64_t length = 1) const {
    return {actions.defined() ? actions.narrow(dimension, start, length) : at::Tensor(), index,
            weight.narrow(dimension, start, length)};
  }
};

/// Returns the scores of `row` in the graph of `d`, with the shape of the weight.
template <class Distribution>
at::Tensor scores_of(const Distribution& d, const score_row& row) {
  at::Tensor score;
  if (row.actions.defined()) {
    score = d.log_prob(row.actions);
  } else if constexpr (lists_scores<Distribution>) {
    score = d.score(row.index);
  } else if constexpr (lists_actions<Distribution>) {
    // The score is sqrt(pi(a)) log pi(a), where sqrt(pi(a)) is a constant. For an action of
    // probability 0 the score is 0.
    score =
        d.log_prob(at::full(row.weight.sizes(), row.index, row.weight.options().dtype(at::kLong)));
    const auto root = (score.detach() * 0.5).exp();
    score = score.masked_fill(root == 0, 0) * root;
  }
  return score.masked_fill(row.weight == 0, 0) * row.weight;
}

/// Returns `count` tensors of random numbers in [0, 1), each with the shape `actions`, which is
/// [N, ...] or [T, N, ...]. `dimensions` (1 or 2) is the number of leading dimensions N or T, N.
/// Each sample has its own random stream. Therefore its numbers depend neither on the other samples
/// of the batch nor on the padding after its steps.
inline std::vector<at::Tensor> uniform_actions(splitmix64& random, at::IntArrayRef actions,
                                               std::size_t dimensions,
                                               std::int64_t sample_dimension, int count) {
  const auto event = actions.slice(dimensions);
  const std::int64_t numbers =
      std::accumulate(event.begin(), event.end(), std::int64_t{1}, std::multiplies<>());
  const std::int64_t samples = actions[static_cast<std::size_t>(sample_dimension)];
  const std::int64_t step_count =
      dimensions == 2 ? actions[static_cast<std::size_t>(1 - sample_dimension)] : 1;
  auto drawn =
      at::empty({samples, step_count, count, numbers}, at::TensorOptions().dtype(at::kDouble));
  auto* u = static_cast<double*>(drawn.data_ptr());
  for (std::int64_t n = 0; n < samples; ++n) {
    splitmix64 own(random());
    for (std::int64_t i = 0; i < step_count * count * numbers; ++i)
      *u++ = static_cast<double>(own() >> 11) * 0x1p-53;
  }
  std::vector<at::Tensor> uniform;
  for (int k = 0; k < count; ++k) {
    const auto one = drawn.select(2, k);
    uniform.push_back((sample_dimension == 0 ? one : one.transpose(0, 1)).reshape(actions));
  }
  return uniform;
}

/// A source creates the rows of scores for the distributions `d` of a batch. `valid` is 1 for valid
/// states. `scored` returns the distribution that the scores are computed from. If `steps_apart` is
/// true, the scores of different steps of a sequence must be squared before they are summed.
struct own_actions {
  /// Returns the distribution before the squashing, if the distribution is squashed. A fixed
  /// bijection of the actions does not change the scores, and inverting it would lose precision.
  template <class Distribution>
  static decltype(auto) scored(const Distribution& d) {
    if constexpr (requires { d.unsquashed(); })
      return (d.unsquashed());
    else
      return (d);
  }
};

struct sampled_source : own_actions {
  static constexpr const char* name = "sampled";
  static constexpr bool steps_apart = false;
  int per_state;
  splitmix64 random;

  sampled_source(int draws, std::uint64_t seed) : per_state(draws), random(seed) {}

  template <class Distribution, class Batch>
  std::vector<score_row> operator()(const Distribution& d, const Batch&, const at::Tensor& valid,
                                    std::int64_t sample_dimension) {
    std::vector<score_row> rows;
    const auto weight = valid * (1.0 / std::sqrt(static_cast<double>(per_state)));
    if constexpr (requires { d.at_quantile(valid); }) {
      const auto dimensions = static_cast<std::size_t>(valid.dim());
      const auto uniform =
          uniform_actions(random, d.mode().sizes(), dimensions, sample_dimension, per_state);
      for (const auto& u : uniform) rows.push_back({d.at_quantile(u), 0, weight});
    } else {
      for (int k = 0; k < per_state; ++k) rows.push_back({d.sample(), 0, weight});
    }
    return rows;
  }
};

struct exact_source : own_actions {
  static constexpr const char* name = "exact";
  static constexpr bool steps_apart = true;

  template <class Distribution, class Batch>
  std::vector<score_row> operator()(const Distribution& d, const Batch&, const at::Tensor& valid,
                                    std::int64_t) {
    static_assert(lists_scores<Distribution> || lists_actions<Distribution>,
                  "exact_actions needs a distribution with num_scores() and score(k), such as "
                  "those of retain, or with num_actions()");
    std::int64_t count = 0;
    if constexpr (lists_scores<Distribution>)
      count = d.num_scores();
    else
      count = d.num_actions();
    std::vector<score_row> rows;
    for (std::int64_t k = 0; k < count; ++k) rows.push_back({{}, k, valid});
    return rows;
  }
};

template <class Actions>
struct dataset_source {
  static constexpr const char* name = "dataset";
  static constexpr bool steps_apart = false;
  Actions actions;

  template <class Distribution>
  static const Distribution& scored(const Distribution& d) {
    return d;  // NOLINT(bugprone-return-const-ref-from-parameter): the caller holds it
  }

  template <class Distribution, class Batch>
  std::vector<score_row> operator()(const Distribution&, const Batch& batch,
                                    const at::Tensor& valid, std::int64_t) {
    const at::Tensor taken = actions(batch);
    if (taken.dim() < valid.dim() ||
        taken.sizes().slice(0, static_cast<std::size_t>(valid.dim())) != valid.sizes())
      throw shape_error(concat("estimate_fisher: dataset actions of shape ",
                               shape_text(taken.sizes()), " do not fit log-probabilities of shape ",
                               shape_text(valid.sizes())));
    at::Tensor padding = (valid == 0).to(taken.device());
    while (padding.dim() < taken.dim()) padding = padding.unsqueeze(-1);
    // padding may contain values that are not valid actions
    return {{taken.masked_fill(padding, 0), 0, valid}};
  }
};

template <class Actions>
auto make_action_source(const Actions& actions) {
  if constexpr (std::same_as<Actions, sampled_actions>) {
    if (actions.per_state < 1)
      throw config_error(
          concat("estimate_fisher: per_state must be at least 1, got ", actions.per_state));
    return sampled_source{actions.per_state, actions.seed};
  } else if constexpr (std::same_as<Actions, exact_actions>) {
    return exact_source{};
  } else {
    static_assert(
        requires { actions.actions; },
        "choose sampled_actions{}, exact_actions{} or dataset_actions{...}");
    return dataset_source<decltype(actions.actions)>{actions.actions};
  }
}

/// Returns `count` random numbers in (-2, 2), float64 on the CPU. Two of them are rarely close to
/// each other.
inline at::Tensor random_factors(splitmix64& random, std::int64_t count) {
  auto factors = at::empty({count}, at::TensorOptions().dtype(at::kDouble));
  auto* f = static_cast<double*>(factors.data_ptr());
  for (std::int64_t i = 0; i < count; ++i) f[i] = static_cast<double>(random() >> 11) * 0x1p-51 - 2;
  return factors;
}

/// The backward passes over one batch: one pass per row of scores. If the steps of a sequence are
/// squared separately, there is one pass per row and step. All rows are stored for the whole batch,
/// so that the graph walk sees the complete graph. The scores of a single pass are selected when
/// the pass runs.
class score_passes {
 public:
  explicit score_passes(std::vector<score_row> rows = {}, std::int64_t sample_dimension = 0,
                        std::int64_t step_count = 1)
      : rows_(std::move(rows)), sample_dimension_(sample_dimension), steps_(step_count) {}

  /// Computes the scores of the whole batch from its distributions. Rows without a gradient add
  /// nothing and are removed.
  template <class Distribution>
  void take(const Distribution& d) {
    std::vector<score_row> with_gradient;
    for (auto& row : rows_) {
      auto scores = scores_of(d, row);
      if (!scores.requires_grad()) continue;
      scores_.push_back(std::move(scores));
      with_gradient.push_back(std::move(row));
    }
    rows_ = std::move(with_gradient);
  }

  std::size_t count() const { return rows_.size() * static_cast<std::size_t>(steps_); }
  const std::vector<at::Tensor>& scores() const { return scores_; }

  /// Returns the scores of pass p for all samples.
  at::Tensor of_batch(std::size_t p) const { return step_of(scores_[row(p)], p); }
  at::Tensor weight_of_batch(std::size_t p) const { return step_of(rows_[row(p)].weight, p); }
  /// Returns the sum of the scores of all passes, each multiplied by a random factor, so that its
  /// gradient contains a part of every pass. [N] or [T, N].
  at::Tensor mixture(splitmix64& random) const {
    at::Tensor sum;
    for (const auto& scores : scores_) {
      auto sizes = std::vector<std::int64_t>(static_cast<std::size_t>(scores.dim()), 1);
      if (steps_ > 1) sizes[static_cast<std::size_t>(1 - sample_dimension_)] = steps_;
      const at::Tensor term =
          scores *
          random_factors(random, steps_).view(sizes).to(scores.options().requires_grad(false));
      sum = sum.defined() ? sum + term : term;
    }
    return sum;
  }

  /// Returns the scores of pass p for sample n, in the graph of the whole batch.
  at::Tensor of_batch(std::size_t p, std::int64_t n) const {
    return step_of(scores_[row(p)].narrow(sample_dimension_, n, 1), p);
  }
  /// Returns the scores of pass p for sample n, in the graph of the distributions `d` of this
  /// sample.
  template <class Distribution>
  at::Tensor of_sample(const Distribution& d, std::size_t p, std::int64_t n) const {
    return step_of(scores_of(d, rows_[row(p)].narrow(sample_dimension_, n)), p);
  }
  /// Returns the scores of all rows for the first `count` samples, whose distributions are `d`,
  /// without a graph.
  template <class Distribution>
  std::vector<at::Tensor> of_first(const Distribution& d, std::int64_t count) const {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> scores;
    for (const auto& row : rows_)
      scores.push_back(scores_of(d, row.narrow(sample_dimension_, 0, count)));
    return scores;
  }

 private:
  std::size_t row(std::size_t p) const { return p / static_cast<std::size_t>(steps_); }
  at::Tensor step_of(const at::Tensor& scores, std::size_t p) const {
    return steps_ == 1
               ? scores
               : scores.select(1 - sample_dimension_, static_cast<std::int64_t>(p) % steps_);
  }

  std::vector<score_row> rows_;
  std::vector<at::Tensor> scores_;
  std::int64_t sample_dimension_, steps_;
};

}  // namespace detail
}  // namespace retain
