// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/text.hpp>
#include <retain/core/new_episodes.hpp>
#include <retain/core/state.hpp>
#include <retain/steps.hpp>
#include <retain/terms/ask.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace retain {

struct mahalanobis_gate_options {
  /// the fraction of the pre-training states that the gate accepts, in (0, 1]
  double quantile = 0.99;
  /// multiplied by the mean variance of the features and added to the diagonal of the covariance;
  /// needed for features that hardly vary
  double ridge = 1e-6;
};

namespace detail {
struct observations_themselves {
  at::Tensor operator()(const at::Tensor& observations) const { return observations; }
};
/// A feature function may return {features, state}.
struct read_features {
  template <class Answer>
  at::Tensor operator()(const Answer& answer) const {
    if constexpr (is_several<Answer>::value)
      return std::get<0>(answer);
    else
      return answer;
  }
};
}  // namespace detail

/// A gate for kickstarting that accepts states that are similar to the pre-training states. The
/// weight of a state s is 1 if
///
///     d^2(s) = (f(s) - mu)^T Sigma^-1 (f(s) - mu)
///            <= the `quantile` of d^2 over the pre-training states
///
/// and 0 otherwise. f(s) in R^d is the feature vector of the state. mu and Sigma are the mean and
/// the covariance of the features over the pre-training states. Good features are the activations
/// of the teacher's last hidden layer. By default the features are the observations themselves.
///
///     mahalanobis_gate gate{seen_states, [&](const auto& o) { return teacher_net->trunk(o); }};
///     gate(observations)   // observations of rows [...] -> bool [...]
///
/// `seen` holds n states and is passed to the feature function. The features must be [n, d], or
/// [..., d] for sequences. The Gaussian is fitted in double. A call of the gate costs one matrix
/// product in the floating-point type of the features, on their device.
///
/// The feature function of a recurrent teacher takes (observations, state, episode_start) and
/// returns the features, or {features, state}. It gets new_episodes{}: the features start anew in
/// every rollout. Then `seen` is retain::steps with episode_start; steps that its mask drops are
/// not fitted.
///
///     mahalanobis_gate gate{steps{.observations = seen, .episode_start = episode_start},
///                           [&](const auto& o, const at::Tensor& state, const auto& start) {
///                             return teacher_net->core(o, state, start);
///                           }};
///
/// If n is not much larger than d, the quantile over the fitted states gives a threshold that is
/// too strict. In this case call `calibrate` with states that were not used for the fit.
///
/// Throws shape_error if there are fewer than two states or no feature. Throws config_error for an
/// invalid option, for features that are not finite, and for a covariance without a Cholesky
/// factor.
///
/// Paper: Lee et al. 2018, arXiv 1807.03888, which uses one Gaussian per class; this gate uses a
/// single Gaussian.
template <class Features = detail::observations_themselves>
class mahalanobis_gate {
 public:
  template <class Observations>
  explicit mahalanobis_gate(const Observations& seen, Features features = {},
                            mahalanobis_gate_options options = {})
      : features_(std::move(features)), quantile_(options.quantile) {
    if (!(options.quantile > 0 && options.quantile <= 1))
      throw config_error(detail::concat("mahalanobis_gate: the quantile must be in (0, 1], got ",
                                        options.quantile));
    if (!(options.ridge >= 0) || !std::isfinite(options.ridge))
      throw config_error(detail::concat(
          "mahalanobis_gate: the ridge must be finite and not negative, got ", options.ridge));
    const at::Tensor rows = rows_of(seen);
    if (rows.size(0) < 2)
      throw shape_error(detail::concat(
          "mahalanobis_gate: the covariance needs at least two states, got ", rows.size(0)));
    mean_ = rows.mean(0);
    const auto centered = rows - mean_;
    const auto covariance =
        centered.t().mm(centered).div_(static_cast<double>(rows.size(0) - 1)).contiguous();

    using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Index size = rows.size(1);
    matrix sigma =
        Eigen::Map<const matrix>(static_cast<const double*>(covariance.data_ptr()), size, size);
    // If all features are constant, sigma contains only rounding errors of the means.
    if (sigma.trace() <= 1e-26 * mean_.square().sum().template item<double>()) sigma.setZero();
    sigma.diagonal().array() += options.ridge * sigma.trace() / static_cast<double>(size);
    const Eigen::LLT<matrix> factor(sigma);
    if (factor.info() != Eigen::Success)
      throw config_error("mahalanobis_gate: the covariance of the features is singular: give more "
                         "states than features, or a larger ridge");
    // Sigma = L L^T, so that d^2 = || L^-1 (f - mu) ||^2.
    const matrix inverse = factor.matrixL().solve(matrix::Identity(size, size));
    whitening_ = at::empty_like(covariance);
    Eigen::Map<matrix>(static_cast<double*>(whitening_.data_ptr()), size, size) = inverse;
    threshold_ = quantile_of(distances(rows));
  }

  /// Computes the threshold from states that were not used to fit the Gaussian.
  template <class Observations>
  void calibrate(const Observations& held_out) {
    const at::Tensor rows = rows_of(held_out);
    if (rows.size(0) < 1 || rows.size(1) != mean_.size(0))
      throw shape_error(detail::concat("mahalanobis_gate: cannot calibrate on features of shape ",
                                       detail::shape_text(rows.sizes()),
                                       ", the gate was fitted to ", mean_.size(0),
                                       " features per state"));
    threshold_ = quantile_of(distances(rows));
  }

  /// Returns d^2 of every state, [...].
  template <class Observations>
  at::Tensor distance(const Observations& observations) const {
    const at::NoGradGuard no_grad;
    return distance_of(features_of(observations));
  }

  /// Returns true for accepted states, bool [...]. Features that are not finite are rejected.
  template <class Observations>
  at::Tensor operator()(const Observations& observations) const
    requires std::invocable<Features&, const Observations&>
  {
    return distance(observations).le(threshold_);
  }
  /// The same for features with memory; a feature function may return {features, state}.
  template <class Observations, class State>
  at::Tensor operator()(const Observations& observations, const State& carried,
                        const at::Tensor& episode_start) const
    requires std::invocable<Features&, const Observations&, const State&, const at::Tensor&>
  {
    const at::NoGradGuard no_grad;
    return distance_of(detail::read_features{}(features_(observations, carried, episode_start)))
        .le(threshold_);
  }

  double threshold() const { return threshold_; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "mean", mean_);
    out.set(prefix + "whitening", whitening_);
    out.set(prefix + "threshold", threshold_);
  }
  /// Throws shape_error and changes nothing if the saved gate was fitted to another number of
  /// features. Throws state_error and changes nothing if the saved values are invalid. The state
  /// does not contain the feature function.
  void load_state(const state& in, const std::string& prefix) {
    const auto& mean = in.tensor(prefix + "mean");
    const auto& whitening = in.tensor(prefix + "whitening");
    const double threshold = in.number(prefix + "threshold");
    if (mean.sizes() != mean_.sizes() || whitening.sizes() != whitening_.sizes())
      throw shape_error(
          detail::concat("mahalanobis_gate: the state holds a gate for features of shape ",
                         detail::shape_text(mean.sizes()), ", but the features here have shape ",
                         detail::shape_text(mean_.sizes())));
    if (mean.scalar_type() != at::kDouble || whitening.scalar_type() != at::kDouble)
      throw state_error("mahalanobis_gate: the saved mean and whitening matrix must be float64");
    if (!detail::all_finite(mean) || !detail::all_finite(whitening) ||
        !whitening.diagonal().gt(0).all().item<bool>() || !(threshold >= 0) ||
        !std::isfinite(threshold))
      throw state_error(detail::concat(
          "mahalanobis_gate: the saved mean, whitening matrix and threshold ", threshold,
          " are invalid: all must be finite, the diagonal of the matrix must be positive, and the "
          "threshold must not be negative"));
    mean_ = mean.to(at::kCPU);
    whitening_ = whitening.to(at::kCPU);
    asked_mean_ = asked_whitening_ = at::Tensor();
    threshold_ = threshold;
  }

 private:
  /// Returns the features of all states as float64 rows on the CPU. Checks their shape and that
  /// they are finite.
  template <class Observations>
  at::Tensor rows_of(const Observations& observations) const {
    const at::NoGradGuard no_grad;
    at::Tensor given = features_of(observations);
    if (given.dim() < 2 || given.size(-1) < 1)
      throw shape_error(detail::concat("mahalanobis_gate: features need the shape [n, d], got ",
                                       detail::shape_text(given.sizes())));
    if constexpr (detail::is_steps<Observations>::value)
      if (const at::Tensor& mask = observations.mask; mask.defined()) {
        if (mask.sizes() != given.sizes().slice(0, static_cast<std::size_t>(given.dim() - 1)))
          throw shape_error(detail::concat(
              "mahalanobis_gate: a mask of shape ", detail::shape_text(mask.sizes()),
              " does not fit features of shape ", detail::shape_text(given.sizes())));
        const auto kept = mask.to(given.device(), at::kBool).reshape({-1}).nonzero().squeeze(1);
        given = given.reshape({-1, given.size(-1)}).index_select(0, kept);
      }
    const auto rows = given.detach().reshape({-1, given.size(-1)}).to(at::kCPU, at::kDouble);
    if (!at::isfinite(rows).all().template item<bool>())
      throw config_error("mahalanobis_gate: the features of the pre-training states hold values "
                         "that are not finite");
    return rows;
  }

  /// Returns the features of states or of retain::steps.
  template <class Observations>
  at::Tensor features_of(const Observations& observations) const {
    if constexpr (detail::is_steps<Observations>::value) {
      detail::check_rollout<Observations>();
      using observed = std::remove_cvref_t<decltype(observations.observations)>;
      if constexpr (std::invocable<Features&, const observed&, new_episodes, const at::Tensor&>) {
        if (!observations.episode_start.defined())
          throw config_error("mahalanobis_gate: the feature function takes (observations, state, "
                             "episode_start), but the steps have no episode_start");
        return detail::read_features{}(
            features_(observations.observations, new_episodes{}, observations.episode_start));
      } else {
        return detail::read_features{}(features_(observations.observations));
      }
    } else {
      return detail::read_features{}(features_(observations));
    }
  }

  at::Tensor distance_of(const at::Tensor& given) const {
    if (given.dim() < 1 || given.size(-1) != mean_.size(0))
      throw shape_error(detail::concat("mahalanobis_gate: features of shape ",
                                       detail::shape_text(given.sizes()),
                                       ", but the gate was fitted to [..., ", mean_.size(0), "]"));
    return distances(at::isFloatingType(given.scalar_type()) ? given : given.to(at::kFloat));
  }

  at::Tensor distances(const at::Tensor& given) const {
    // Half types are computed in float, because their precision is too low for a distance.
    const auto type = given.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    if (!asked_mean_.defined() || asked_mean_.device() != given.device() ||
        asked_mean_.scalar_type() != type) {
      asked_mean_ = mean_.to(given.device(), type);
      asked_whitening_ = whitening_.to(given.device(), type);
    }
    return (given.to(type) - asked_mean_).matmul(asked_whitening_.t()).square().sum(-1);
  }

  /// Returns the smallest distance d such that a fraction of at least `quantile` of the distances
  /// is <= d.
  double quantile_of(const at::Tensor& squared) const {
    const auto n = squared.numel();
    const auto rank =
        static_cast<std::int64_t>(std::ceil(quantile_ * static_cast<double>(n) - 1e-9));
    return std::get<0>(squared.sort())
        .select(0, std::clamp<std::int64_t>(rank, 1, n) - 1)
        .template item<double>();
  }

  mutable Features features_;  // mutable: networks are rarely const
  double quantile_;
  at::Tensor mean_, whitening_;  // float64, on the CPU
  // copies in the type and on the device of the last call
  mutable at::Tensor asked_mean_, asked_whitening_;
  double threshold_ = 0;
};

template <class Observations>
mahalanobis_gate(const Observations&) -> mahalanobis_gate<>;
template <class Observations, class Features>
mahalanobis_gate(const Observations&, Features) -> mahalanobis_gate<Features>;
template <class Observations, class Features>
mahalanobis_gate(const Observations&, Features, mahalanobis_gate_options)
    -> mahalanobis_gate<Features>;

}  // namespace retain
