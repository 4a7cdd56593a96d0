// SPDX-License-Identifier: MIT
// One row of a monitor's measurements.
#pragma once

#include <string>

namespace retain {

/// One measurement on one probe (a named set of states). A value that was not measured is NaN.
struct probe_report {
  std::string probe;
  double progress = 0;
  double kl = 0;  ///< KL(teacher || policy), mean over the states, in nats
  /// fraction of states on which the most likely actions of teacher and policy are equal; NaN if
  /// the actions are not discrete
  double agreement = 0;
  double success = 0;     ///< last value passed to report_success since the previous measurement
  double forgetting = 0;  ///< the best success so far minus the last one
  double states = 0;      ///< number of states behind kl and agreement; 0 for a row that was loaded
};

}  // namespace retain
