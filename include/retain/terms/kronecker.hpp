// SPDX-License-Identifier: MIT
// Computations with Kronecker factors in Eigen. float64 tensors on the CPU are mapped, not copied.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <string>

namespace retain::detail {

using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Maps the elements of a contiguous float64 matrix on the CPU.
inline Eigen::Map<row_major> mapped(const at::Tensor& matrix) {
  return {static_cast<double*>(matrix.data_ptr()), matrix.size(0), matrix.size(1)};
}

/// Returns a copy of a factor as a symmetric matrix without negative eigenvalues, in float64 on the
/// CPU. Because of rounding, a second moment may have eigenvalues just below 0; they are set to 0.
/// Throws shape_error if the matrix is not square. Throws state_error if a value is not finite, or
/// if an eigenvalue is below -rounding times the largest element. Cost: a factorization with n^3 /
/// 3 operations. The eigenvalues are only computed if the factorization fails.
inline at::Tensor second_moment(const at::Tensor& given, const std::string& what,
                                double rounding = 1e-6) {
  if (given.dim() != 2 || given.size(0) != given.size(1))
    throw shape_error(
        concat(what, " has shape ", shape_text(given.sizes()), ", but must be square"));
  const at::Tensor factor =
      given.detach().to(at::kCPU, at::kDouble).clone(at::MemoryFormat::Contiguous);
  auto matrix = mapped(factor);
  if (!matrix.allFinite())
    throw state_error(concat(
        what,
        " holds a value that is not finite: look for NaN in the policy's outputs on the data"));
  matrix = (0.5 * (matrix + matrix.transpose())).eval();
  const double size = matrix.rows() == 0 ? 0.0 : matrix.cwiseAbs().maxCoeff(),
               tolerance = rounding * size;
  if (size == 0.0) return factor;

  row_major shifted = matrix;
  shifted.diagonal().array() += 1e-12 * size;
  if (Eigen::LLT<row_major>(shifted).info() == Eigen::Success) return factor;
  const Eigen::SelfAdjointEigenSolver<row_major> solver(matrix);
  if (solver.eigenvalues().minCoeff() < -tolerance)
    throw state_error(concat(what, " has the eigenvalue ", solver.eigenvalues().minCoeff(),
                             ": a second moment has no negative eigenvalue"));
  matrix = solver.eigenvectors() * solver.eigenvalues().cwiseMax(0.0).asDiagonal() *
           solver.eigenvectors().transpose();
  return factor;
}

/// Throws the exceptions of second_moment, and state_error if the factor is not symmetric. Use it
/// for a factor that is not changed afterwards. For a factor that was rounded to float, small
/// negative eigenvalues are allowed.
inline void check_second_moment(const at::Tensor& factor, const std::string& what) {
  const double rounding = factor.scalar_type() == at::kDouble
                              ? 1e-6
                              : std::max(1e-6, 1e-7 * static_cast<double>(factor.size(0)));
  second_moment(factor, what, rounding);
  if (factor.numel() == 0) return;
  const at::Tensor given = factor.detach().to(at::kCPU, at::kDouble);
  if (!((given - given.t()).abs().max().item<double>() <= 1e-6 * given.abs().max().item<double>()))
    throw state_error(concat(what, " is not symmetric"));
}

/// Damps A (x) G towards A (x) G + damping I, in place. A becomes A + pi sqrt(damping) I and G
/// becomes G + sqrt(damping) / pi I. pi^2 is the ratio of the mean eigenvalues of A and G (Martens
/// and Grosse 2015, arXiv 1503.05671, section 6.3).
inline void damp(const at::Tensor& inputs, const at::Tensor& outputs, double damping) {
  if (damping == 0.0) return;
  auto a = mapped(inputs), g = mapped(outputs);
  const double mean_a = a.trace() / static_cast<double>(a.rows()),
               mean_g = g.trace() / static_cast<double>(g.rows());
  const double pi = mean_a > 0.0 && mean_g > 0.0 ? std::sqrt(mean_a / mean_g) : 1.0;
  a.diagonal().array() += pi * std::sqrt(damping);
  g.diagonal().array() += std::sqrt(damping) / pi;
}

}  // namespace retain::detail
