// SPDX-License-Identifier: MIT
// Running mean and variance of observations and rewards, for normalization.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/marks.hpp>
#include <retain/base/text.hpp>
#include <retain/core/state.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct running_statistics_options {
  /// weight, in samples, of the initial mean 0 and variance 1; 0 disables the initial values
  double initial_count = 1e-4;
  double epsilon = 0;  ///< added to the variance before the square root
};

/// Running mean and variance for each element of a shape, over batches of any size:
///
///     n = a + b,   delta = mean_b - mean_a,   mean = mean_a + delta b / n
///     M2 = M2_a + M2_b + delta^2 a b / n,   variance = M2 / n
///
/// The computation is in double. The variance divides by n, not by n - 1. The initial values, with
/// a weight of `initial_count` samples, are stored apart from the samples. After merge() the
/// initial values of this object still count only once.
///
/// Paper: Chan, Golub and LeVeque 1979 (the pairwise update).
class running_statistics {
 public:
  /// Throws config_error if the initial count or epsilon is negative or not finite.
  explicit running_statistics(std::vector<std::int64_t> shape = {},
                              running_statistics_options options = {})
      : shape_(std::move(shape)),
        options_(options),
        mean_(at::zeros(shape_, at::TensorOptions().dtype(at::kDouble))),
        squares_(at::zeros(shape_, at::TensorOptions().dtype(at::kDouble))) {
    if (!(options_.initial_count >= 0) || !std::isfinite(options_.initial_count) ||
        !(options_.epsilon >= 0) || !std::isfinite(options_.epsilon))
      throw config_error(detail::concat(
          "running_statistics: initial_count and epsilon must be finite and not negative, got ",
          options_.initial_count, " and ", options_.epsilon));
  }

  /// Adds a batch [..., shape]; the leading dimensions count samples. Throws shape_error if the
  /// batch has another shape, and state_error if a value is not finite. If update() throws, the
  /// statistics do not change.
  void update(const at::Tensor& batch) {
    const at::NoGradGuard no_grad;
    const auto kept = static_cast<std::int64_t>(shape_.size());
    if (batch.dim() < kept || batch.sizes().slice(static_cast<std::size_t>(batch.dim() - kept)) !=
                                  at::IntArrayRef(shape_))
      throw shape_error(detail::concat(
          "running_statistics: a batch of shape ", detail::shape_text(batch.sizes()),
          " does not end in the shape of the statistics, ", detail::shape_text(shape_)));
    if (batch.numel() == 0) return;
    std::vector<std::int64_t> sizes{-1};
    sizes.insert(sizes.end(), shape_.begin(), shape_.end());
    const auto samples = batch.detach().reshape(sizes);
    moments seen{count_, mean_.to(batch.device()), squares_.to(batch.device())};
    // Image observations need much more memory in double than in their own type. Therefore only a
    // part of the batch is converted at a time.
    const std::int64_t rows =
        std::max<std::int64_t>(1, part / std::max<std::int64_t>(1, mean_.numel()));
    for (std::int64_t begin = 0; begin < samples.size(0); begin += rows) {
      const auto some =
          samples.narrow(0, begin, std::min(rows, samples.size(0) - begin)).to(at::kDouble);
      const auto mean = some.mean(0);
      seen = merged(seen, {static_cast<double>(some.size(0)), mean, (some - mean).square().sum(0)});
    }
    if (!seen.squares.isfinite().all().item<bool>())
      throw state_error(
          "running_statistics: a batch holds a value that is not finite: check the code "
          "that computes the batch");
    take(std::move(seen));
  }

  /// Adds the samples of `other`. The result is that of one object that received the batches of
  /// both. Throws shape_error if the shapes differ.
  void merge(const running_statistics& other) {
    if (other.shape_ != shape_)
      throw shape_error(detail::concat(
          "running_statistics: statistics of shape ", detail::shape_text(other.shape_),
          " cannot be merged into those of ", detail::shape_text(shape_)));
    take(merged({count_, mean_, squares_},
                {other.count_, other.mean_.to(mean_.device()), other.squares_.to(mean_.device())}));
  }

  /// Returns the number of samples, without `initial_count`.
  double count() const { return count_; }
  at::IntArrayRef shape() const { return shape_; }

  /// Return the mean and the variance, [shape], double. Before the first sample they are 0 and 1.
  at::Tensor mean() const { return all().mean; }
  at::Tensor variance() const {
    const auto seen = all();
    return seen.count > 0 ? seen.squares / seen.count : at::ones_like(seen.squares);
  }
  /// Returns sqrt(variance + epsilon).
  at::Tensor deviation() const { return (variance() + options_.epsilon).sqrt(); }

  /// Returns (x - mean) / deviation, clipped to [-clip, clip] if clip is above 0. x is [..., shape]
  /// of any type. The result has the type of x, or float if x is of an integral type. Elements that
  /// never varied become 0.
  at::Tensor normalize(const at::Tensor& x, double clip = 0) const {
    const auto type = at::isFloatingType(x.scalar_type()) ? x.scalar_type() : at::kFloat;
    const auto center = mean(), spread = deviation();
    const auto factor = spread.reciprocal().masked_fill(
        options_.epsilon > 0 ? spread == 0 : spread <= 1e-13 * center.abs(), 0);
    const auto result = (x.to(type) - center.to(x.device(), type)) * factor.to(x.device(), type);
    return clip > 0 ? result.clamp(-clip, clip) : result;
  }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "count", count_);
    out.set(prefix + "mean", mean_);
    out.set(prefix + "squares", squares_);
  }
  /// Throws state_error or shape_error, and changes nothing, if the state belongs to other
  /// statistics or holds values that no batches can produce.
  void load_state(const state& in, const std::string& prefix) {
    const double count = in.number(prefix + "count");
    if (!(count >= 0) || !std::isfinite(count))
      throw state_error(detail::concat("running_statistics: the state holds a count of ", count));
    const auto mean = saved(in, prefix + "mean"), squares = saved(in, prefix + "squares");
    if (!detail::all_finite(mean) || !detail::all_finite(squares) ||
        squares.lt(0).any().item<bool>() || (count == 0 && squares.ne(0).any().item<bool>()))
      throw state_error(detail::concat("running_statistics: the state's '", prefix, "mean' and '",
                                       prefix, "squares' cannot come from ", count, " samples"));
    take({count, mean, squares});
  }

 private:
  static constexpr std::int64_t part = 1 << 22;

  struct moments {
    double count;
    at::Tensor mean, squares;  // squares: the sum of squared distances from the mean
  };

  static moments merged(const moments& a, const moments& b) {
    const double count = a.count + b.count;
    if (count == 0) return a;
    const auto delta = b.mean - a.mean;
    return {count, a.mean + delta * (b.count / count),
            a.squares + b.squares + delta.square() * (a.count * b.count / count)};
  }
  moments all() const {
    const double initial = options_.initial_count;
    return merged({initial, at::zeros_like(mean_), at::full_like(mean_, initial)},
                  {count_, mean_, squares_});
  }
  void take(moments seen) {
    count_ = seen.count;
    mean_ = std::move(seen.mean);
    squares_ = std::move(seen.squares);
  }
  at::Tensor saved(const state& in, const std::string& key) const {
    const at::Tensor& tensor = in.tensor(key);
    if (tensor.sizes() != mean_.sizes())
      throw shape_error(
          detail::concat("running_statistics: the saved '", key, "' has shape ",
                         detail::shape_text(tensor.sizes()), ", but the statistics have shape ",
                         detail::shape_text(shape_), ": the state belongs to other observations"));
    if (tensor.scalar_type() != at::kDouble)
      throw state_error(detail::concat("running_statistics: the saved '", key, "' is ",
                                       tensor.dtype(), ", not double"));
    return tensor.to(mean_.device());
  }

  std::vector<std::int64_t> shape_;
  running_statistics_options options_;
  double count_ = 0;
  // Every update replaces these tensors and never writes into them, because copies and states share
  // them.
  at::Tensor mean_, squares_;
};

struct discounted_return_scale_options {
  double gamma = 0.99;
  double initial_count = 1e-4;  ///< see running_statistics_options
  double epsilon = 0;
};

/// Divides rewards by the running standard deviation of their discounted sum, so that values are of
/// order one. R is the following sum, and its deviation is computed over time and environments:
///
///     R_t = gamma R_{t-1} + r_t,   one R per environment
///
/// The mean is not subtracted, because this would change the reward of doing nothing. By default, R
/// continues across the ends of episodes, as in Burda et al. 2018 (arXiv 1810.12894) for intrinsic
/// rewards. If update() receives `ended`, R restarts at 0 after every marked step.
class discounted_return_scale {
 public:
  /// Throws config_error if there is no environment or if gamma is outside [0, 1].
  explicit discounted_return_scale(std::int64_t environments,
                                   discounted_return_scale_options options = {})
      : gamma_(options.gamma),
        statistics_({}, {.initial_count = options.initial_count, .epsilon = options.epsilon}) {
    if (environments < 1)
      throw config_error(detail::concat(
          "discounted_return_scale: needs at least one environment, got ", environments));
    if (!(gamma_ >= 0 && gamma_ <= 1))
      throw config_error(
          detail::concat("discounted_return_scale: gamma must lie in [0, 1], got ", gamma_));
    returns_ = at::zeros({environments}, at::TensorOptions().dtype(at::kDouble));
  }

  /// Adds T steps of every environment. rewards is [T, N]. ended is optional, [T, N], bool or 0 and
  /// 1, and marks the last step of an episode, terminated or truncated; the reward of this step
  /// belongs to the episode. Throws shape_error if the shapes do not fit, config_error if, on the
  /// CPU, ended holds another number than 0 and 1, and state_error if a reward is not finite. If
  /// update() throws, nothing changes.
  void update(const at::Tensor& rewards, const at::Tensor& ended = {}) {
    const at::NoGradGuard no_grad;
    if (rewards.dim() != 2 || rewards.size(1) != returns_.size(0) ||
        (ended.defined() && ended.sizes() != rewards.sizes()))
      throw shape_error(
          detail::concat("discounted_return_scale: rewards need the shape [T, ", returns_.size(0),
                         "], and ended the same shape; got ", detail::shape_text(rewards.sizes()),
                         ended.defined() ? " and " + detail::shape_text(ended.sizes()) : ""));
    const auto earned = rewards.detach().to(at::kDouble);
    const auto going_on =
        ended.defined()
            ? 1 - detail::marked("discounted_return_scale", "ended", ended).to(earned.options())
            : at::Tensor();
    auto carried = returns_.to(earned.device());
    auto all = at::empty_like(earned);
    for (std::int64_t t = 0; t < earned.size(0); ++t) {
      carried = carried * gamma_ + earned[t];
      all[t].copy_(carried);
      if (going_on.defined()) carried = carried * going_on[t];
    }
    statistics_.update(all);
    returns_ = std::move(carried);
  }

  /// Returns rewards / deviation(), for rewards of any shape. The result has the type of the
  /// rewards, or float if they are of an integral type. If R never varied, the rewards are not
  /// scaled.
  at::Tensor scale(const at::Tensor& rewards) const {
    const auto type =
        at::isFloatingType(rewards.scalar_type()) ? rewards.scalar_type() : at::kFloat;
    const auto spread = deviation();
    const auto divisor = spread.masked_fill(spread <= 1e-13 * statistics_.mean().abs(), 1);
    return rewards.to(type) / divisor.to(rewards.device(), type);
  }
  /// Returns the deviation of R, 0-dim, double.
  at::Tensor deviation() const { return statistics_.deviation(); }
  const running_statistics& statistics() const { return statistics_; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "returns", returns_);
    statistics_.save_state(out, prefix + "statistics.");
  }
  /// Throws state_error or shape_error, and changes nothing, if the state has another number of
  /// environments.
  void load_state(const state& in, const std::string& prefix) {
    const at::Tensor& returns = in.tensor(prefix + "returns");
    if (returns.sizes() != returns_.sizes())
      throw shape_error(detail::concat("discounted_return_scale: the saved returns have shape ",
                                       detail::shape_text(returns.sizes()),
                                       ", but here they have shape ",
                                       detail::shape_text(returns_.sizes()),
                                       ": the state belongs to another number of environments"));
    if (returns.scalar_type() != at::kDouble)
      throw state_error(detail::concat("discounted_return_scale: the saved returns are ",
                                       returns.dtype(), ", not double"));
    if (!detail::all_finite(returns))
      throw state_error(
          "discounted_return_scale: the saved returns hold a value that is not finite");
    auto carried = returns.to(returns_.device());
    statistics_.load_state(in, prefix + "statistics.");
    returns_ = std::move(carried);
  }

 private:
  double gamma_;
  at::Tensor returns_;  // [N]; every update replaces this tensor
  running_statistics statistics_;
};

}  // namespace retain
