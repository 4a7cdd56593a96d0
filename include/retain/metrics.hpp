// SPDX-License-Identifier: MIT
// Common metrics of forgetting and transfer. All functions only read their arguments.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace retain {

/// results[i][j] is the performance of the model on task j after training on tasks 0 to i, in the
/// order of training. Larger is better. Row i needs at least i + 1 entries. For forward transfer,
/// row i needs one more entry.
using result_matrix = std::vector<std::vector<double>>;

namespace detail {

inline void check_results(const char* metric, const result_matrix& results, std::size_t ahead) {
  if (results.size() < 2)
    throw config_error(
        concat(metric, ": needs results after at least two tasks, got ", results.size()));
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto needed = std::min(i + 1 + ahead, results.size());
    if (results[i].size() < needed)
      throw shape_error(concat(metric, ": the results after task ", i, " are of ",
                               results[i].size(), " tasks, but at least ", needed, " are needed"));
    for (std::size_t j = 0; j < needed; ++j)
      if (!std::isfinite(results[i][j]))
        throw config_error(
            concat(metric, ": the result after task ", i, " on task ", j, " is ", results[i][j]));
  }
}

}  // namespace detail

/// Returns the forgetting of each task except the last one. With T tasks, counted from 1:
///
///     f_j = max over l in 1..T-1 of a_{l,j} - a_{T,j},   j < T
///
/// f_j is the best result on task j before the last task, minus the result on task j after the last
/// task. It is negative if the last task improved the result on task j. If row l has results for a
/// task before its training (l < j), they are included, as in the definition. Throws config_error
/// for fewer than two tasks.
///
/// Paper: Chaudhry et al. 2018, arXiv 1801.10112.
inline std::vector<double> forgetting_by_task(const result_matrix& results) {
  detail::check_results("forgetting", results, 0);
  const auto last = results.size() - 1;
  std::vector<double> forgotten;
  for (std::size_t j = 0; j < last; ++j) {
    double best = results[j][j];
    for (std::size_t l = 0; l < last; ++l)
      if (j < results[l].size()) best = std::max(best, results[l][j]);
    forgotten.push_back(best - results[last][j]);
  }
  return forgotten;
}

/// Returns the mean of `forgetting_by_task`: F = 1 / (T - 1) sum_j f_j.
inline double forgetting(const result_matrix& results) {
  double sum = 0;
  for (const double f : forgetting_by_task(results)) sum += f;
  return sum / static_cast<double>(results.size() - 1);
}

/// Returns the mean change of earlier tasks by later training. It is negative if tasks are
/// forgotten.
///
///     BWT = 1 / (T - 1) sum over i < T of R_{T,i} - R_{i,i}
///
/// Paper: Lopez-Paz and Ranzato 2017, arXiv 1706.08840.
inline double backward_transfer(const result_matrix& results) {
  detail::check_results("backward_transfer", results, 0);
  const auto last = results.size() - 1;
  double sum = 0;
  for (std::size_t i = 0; i < last; ++i) sum += results[last][i] - results[i][i];
  return sum / static_cast<double>(last);
}

/// Returns the mean performance on tasks before they are trained, minus the performance of a random
/// initialization.
///
///     FWT = 1 / (T - 1) sum over i > 1 of R_{i-1,i} - b_i,    b_i = untrained[i]
///
/// Paper: Lopez-Paz and Ranzato 2017, arXiv 1706.08840.
inline double forward_transfer(const result_matrix& results, const std::vector<double>& untrained) {
  detail::check_results("forward_transfer", results, 1);
  if (untrained.size() != results.size())
    throw shape_error(detail::concat("forward_transfer: ", untrained.size(),
                                     " results of the untrained model for ", results.size(),
                                     " tasks"));
  double sum = 0;
  for (std::size_t i = 1; i < results.size(); ++i) sum += results[i - 1][i] - untrained[i];
  return sum / static_cast<double>(results.size() - 1);
}

/// Returns the mean of the last row: the mean performance on all tasks after all training.
inline double average_result(const result_matrix& results) {
  if (results.empty() || results.back().empty())
    throw config_error("average_result: there are no results");
  double sum = 0;
  for (const double value : results.back()) sum += value;
  return sum / static_cast<double>(results.back().size());
}

/// Returns the area under a curve, divided by the length of the curve's interval. This is the mean
/// performance of a training run. The curve has `values` at the increasing positions `at`. The area
/// is computed with the trapezoidal rule. Throws shape_error if the sizes differ. Throws
/// config_error for fewer than two points, and if the positions do not increase.
inline double area_under_curve(const std::vector<double>& at, const std::vector<double>& values) {
  if (at.size() != values.size())
    throw shape_error(
        detail::concat("area_under_curve: ", values.size(), " values at ", at.size(), " points"));
  if (at.size() < 2)
    throw config_error(detail::concat("area_under_curve: needs two points, got ", at.size()));
  double area = 0;
  for (std::size_t i = 1; i < at.size(); ++i) {
    if (!(at[i] > at[i - 1]))
      throw config_error(detail::concat("area_under_curve: points must increase, got ", at[i],
                                        " after ", at[i - 1]));
    area += (at[i] - at[i - 1]) * 0.5 * (values[i] + values[i - 1]);
  }
  return area / (at.back() - at.front());
}

/// Returns the forward transfer of a training run, compared with a run from scratch. The
/// performances must be in [0, 1], for example success rates.
///
///     FT = (AUC - AUC_b) / (1 - AUC_b)
///
/// `area` is AUC, the area of the run. `scratch` is AUC_b, the area of the run from scratch. The
/// result is 1 if the run is perfect from the start. It is 0 if both runs are equally good, and
/// negative if the run from scratch is better. Throws config_error for an area outside [0, 1], and
/// for a `scratch` of 1.
///
/// Paper: Wołczyk et al. 2021, arXiv 2105.10919.
inline double forward_transfer(double area, double scratch) {
  if (!(area >= 0 && area <= 1 && scratch >= 0 && scratch <= 1))
    throw config_error(detail::concat("forward_transfer: areas must lie in [0, 1], got ", area,
                                      " and ", scratch,
                                      " from scratch: scale the performance to [0, 1]"));
  if (scratch == 1)
    throw config_error(
        "forward_transfer: the area from scratch is 1, so the forward transfer is undefined");
  return (area - scratch) / (1 - scratch);
}

/// Returns the linear centered kernel alignment (CKA) of two representations of the same n states.
///
///     CKA(X, Y) = ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F),   columns centered
///
/// x is [n, p] and y is [n, q]. The result is in [0, 1]. It is 1 if one representation is a
/// rotation and scaling of the other. Computed in double. Throws shape_error if x and y do not have
/// the same number of rows. Throws config_error if a representation is the same for all states.
///
/// Paper: Kornblith et al. 2019, arXiv 1905.00414.
inline double linear_cka(const at::Tensor& x, const at::Tensor& y) {
  if (x.dim() != 2 || y.dim() != 2 || x.size(0) != y.size(0) || x.size(0) < 2)
    throw shape_error(
        detail::concat("linear_cka: needs [n, p] and [n, q] of the same n > 1 states, got ",
                       detail::shape_text(x.sizes()), " and ", detail::shape_text(y.sizes())));
  const at::NoGradGuard no_grad;
  // Sets a column to 0 if it contains only the rounding error of its mean. Such a column does not
  // vary.
  const auto centered = [](const at::Tensor& columns) {
    const auto left = columns - columns.mean(0);
    return left.masked_fill(left.square().sum(0) <= 1e-24 * columns.square().sum(0), 0);
  };
  const auto p = centered(x.to(at::kDouble)), q = centered(y.to(at::kDouble));
  // If there are fewer states than features, the Gram matrices over the states are smaller.
  const bool by_state = p.size(0) < std::min(p.size(1), q.size(1));
  const auto inner = [&](const at::Tensor& u, const at::Tensor& v) {
    return by_state ? (u.mm(u.t()) * v.mm(v.t())).sum().template item<double>()
                    : u.t().mm(v).square().sum().template item<double>();
  };
  const double size = std::sqrt(inner(p, p) * inner(q, q));
  if (!(size > 0))
    throw config_error(
        "linear_cka: a representation is the same for all states, so the alignment is undefined");
  return inner(p, q) / size;
}

}  // namespace retain
