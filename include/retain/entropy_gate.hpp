// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>

#include <ATen/core/Tensor.h>

#include <cmath>

namespace retain {

/// A gate for kickstarting that uses the entropy of the teacher's prediction. The weight of a step
/// is 1 if the entropy is at most `most` nats, otherwise 0.
///
///     kickstarting{teacher, {.strength = 0.5}, entropy_gate{1.2}}
///
/// A low entropy does not mean that the teacher is right: a teacher can be certain and wrong on
/// states that it was not trained on. mahalanobis_gate uses the similarity of states instead. The
/// differential entropy of a Gaussian may be negative, so `most` may be negative too. Throws
/// config_error if `most` is NaN.
class entropy_gate {
 public:
  explicit entropy_gate(double most) : most_(most) {
    if (std::isnan(most_))
      throw config_error(
          detail::concat("entropy_gate: the largest entropy must be a number, got ", most_));
  }

  /// Returns the weights, bool [...], for a prediction over rows [...].
  template <class Observations, prediction Prediction>
  at::Tensor operator()(const Observations&, const Prediction& teacher) const {
    return detail::distribution_of(teacher).entropy().le(most_);
  }

 private:
  double most_;
};

}  // namespace retain
