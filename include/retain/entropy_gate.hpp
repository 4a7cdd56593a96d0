// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>

#include <ATen/core/Tensor.h>

#include <cmath>

namespace retain {

/// Opens where the teacher is sure of itself: weight 1 where the entropy of its prediction is at
/// most `most` nats, else 0. A teacher can be sure and wrong where it was never trained;
/// mahalanobis_gate asks the states instead. Differential entropies, of Gaussians, may be negative,
/// and so may `most`.
///
///     kickstarting{teacher, {.strength = 0.5}, entropy_gate{1.2}}
///
/// Throws config_error unless `most` is a number.
class entropy_gate {
 public:
  explicit entropy_gate(double most) : most_(most) {
    if (std::isnan(most_))
      throw config_error(
          detail::concat("entropy_gate: the largest entropy must be a number, got ", most_));
  }

  /// The weights [...], bool, of a prediction over rows [...].
  template <class Observations, prediction Prediction>
  at::Tensor operator()(const Observations&, const Prediction& teacher) const {
    return detail::distribution_of(teacher).entropy().le(most_);
  }

 private:
  double most_;
};

}  // namespace retain
