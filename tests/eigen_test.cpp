// SPDX-License-Identifier: MIT
#include <retain/eigen.hpp>
#include <retain/ewc.hpp>
#include <retain/l2_init.hpp>

#include <Eigen/Dense>

#include "support.hpp"

namespace eigen_test {

namespace {

static_assert(retain::parameter_source<retain::eigen_parameters>);
static_assert(!retain::parameter_source<Eigen::MatrixXf>);  // no name, no place for a gradient
static_assert(!retain::parameter_source<Eigen::VectorXd>);

template <class E>
concept can_be_added = requires(retain::eigen_parameters& model, E&& values) {
  model.add("w", std::forward<E>(values));
};
static_assert(can_be_added<Eigen::MatrixXf&>);
static_assert(can_be_added<const Eigen::ArrayXd&>);
static_assert(can_be_added<Eigen::Map<Eigen::VectorXf>>);
static_assert(can_be_added<Eigen::Ref<Eigen::MatrixXd>>);
static_assert(!can_be_added<Eigen::MatrixXi&>);
static_assert(
    !can_be_added<decltype(std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>())>);
static_assert(!can_be_added<float&>);

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

TEST_CASE("eigen: ewc on a model written in Eigen is the formula in Eigen", "[eigen]") {
  std::srand(3);
  Eigen::MatrixXf W = Eigen::MatrixXf::Random(5, 7), dW = Eigen::MatrixXf::Zero(5, 7);
  Eigen::VectorXf b = Eigen::VectorXf::Random(5), db = Eigen::VectorXf::Ones(5);
  row_major V = row_major::Random(3, 4), dV = row_major::Zero(3, 4);
  const Eigen::MatrixXf W0 = W, FW = Eigen::MatrixXf::Random(5, 7).cwiseAbs();
  const Eigen::VectorXf b0 = b, Fb = Eigen::VectorXf::Random(5).cwiseAbs();
  const row_major V0 = V, FV = row_major::Random(3, 4).cwiseAbs();

  retain::eigen_parameters model, importance;
  model.add("W", W, dW).add("b", b, db).add("V", V, dV);
  importance.add("W", FW).add("b", Fb).add("V", FV);
  const retain::ewc keep{model, importance.named_parameters(), {.strength = 3.0}};

  W += 0.1f * Eigen::MatrixXf::Random(5, 7);
  b *= 1.5f;
  V.row(1).setZero();
  const double expected = 3.0 * (FW.cwiseProduct((W - W0).cwiseAbs2()).sum() +
                                 Fb.cwiseProduct((b - b0).cwiseAbs2()).sum() +
                                 FV.cwiseProduct((V - V0).cwiseAbs2()).sum());
  CHECK(keep.add_gradient(model).item<double>() == Approx(expected).epsilon(1e-6));
  CHECK((dW - 6.0f * FW.cwiseProduct(W - W0)).norm() <= 1e-6f * dW.norm());
  // added to what was there
  CHECK((db - Eigen::VectorXf::Ones(5) - 6.0f * Fb.cwiseProduct(b - b0)).norm() <=
        1e-6f * db.norm());
  CHECK((dV - 6.0f * FV.cwiseProduct(V - V0)).norm() <= 1e-6f * dV.norm());

  // The graph's way ends in the same memory.
  dW.setZero();
  db.setZero();
  dV.setZero();
  const auto loss = keep.loss(model);
  CHECK(loss.item<double>() == Approx(expected).epsilon(1e-6));
  loss.backward();
  CHECK((dW - 6.0f * FW.cwiseProduct(W - W0)).norm() <= 1e-6f * dW.norm());
}

TEST_CASE("eigen: maps, blocks with gaps, double and half", "[eigen]") {
  std::vector<double> memory(12, 1.0), slopes(12, 0.0);
  Eigen::Map<Eigen::MatrixXd> all(memory.data(), 3, 4), d_all(slopes.data(), 3, 4);
  Eigen::Matrix<Eigen::half, Eigen::Dynamic, 1> h = Eigen::VectorXf::Ones(3).cast<Eigen::half>(),
                                                dh = Eigen::VectorXf::Zero(3).cast<Eigen::half>();
  retain::eigen_parameters model;
  model.add("block", all.topRows(2), d_all.topRows(2))
      .add("row", all.row(2), d_all.row(2))
      .add("h", h, dh);
  const retain::l2_init keep{model, {.strength = 0.5}};
  all *= 3.0;
  h *= Eigen::half(2.0f);
  CHECK(keep.add_gradient(model).item<double>() == Approx(0.5 * (12 * 4.0 + 3 * 1.0)));
  for (const double slope : slopes) CHECK(slope == 2.0);
  for (int i = 0; i < 3; ++i) CHECK(static_cast<float>(dh[i]) == 1.0f);
}

TEST_CASE("eigen: a parameter without a gradient is frozen", "[eigen]") {
  Eigen::VectorXf w = Eigen::VectorXf::Ones(2), dw = Eigen::VectorXf::Zero(2);
  Eigen::VectorXf fixed = Eigen::VectorXf::Ones(3);
  retain::eigen_parameters model;
  model.add("w", w, dw).add("fixed", fixed);
  const retain::l2_init keep{model};
  w.array() += 1.0f;
  fixed.array() += 1.0f;
  CHECK(keep.add_gradient(model).item<double>() == 2.0);
  CHECK(dw == Eigen::VectorXf::Constant(2, 2.0f));
}

TEST_CASE("eigen: views follow a matrix that moves in memory", "[eigen]") {
  Eigen::MatrixXf w = Eigen::MatrixXf::Ones(2, 3), dw = Eigen::MatrixXf::Zero(2, 3);
  retain::eigen_parameters model;
  model.add("w", w, dw);
  const retain::l2_init keep{model};
  Eigen::MatrixXf elsewhere = Eigen::MatrixXf::Constant(2, 3, 2.0f);
  w.swap(elsewhere);  // exchanges the pointers
  CHECK(keep.add_gradient(model).item<double>() == 6.0);
  CHECK(dw == Eigen::MatrixXf::Constant(2, 3, 2.0f));

  w.resize(3, 3);
  CHECK_THROWS_AS(keep.add_gradient(model), retain::shape_error);
  CHECK_THROWS_WITH(keep.add_gradient(model), ContainsSubstring("'w'") &&
                                                  ContainsSubstring("[3, 3]") &&
                                                  ContainsSubstring("[2, 3]"));
  dw.resize(3, 3);
  CHECK_THROWS_WITH(keep.add_gradient(model),
                    ContainsSubstring("anchor") && ContainsSubstring("[2, 3]"));
}

TEST_CASE("eigen: what cannot belong together is refused by name", "[eigen]") {
  Eigen::MatrixXf w = Eigen::MatrixXf::Ones(2, 3), dw = Eigen::MatrixXf::Zero(3, 2);
  retain::eigen_parameters model;
  CHECK_THROWS_AS(model.add("w", w, dw), retain::shape_error);
  CHECK(retain::parameters(model).empty());
  model.add("w", w);
  CHECK_THROWS_WITH(model.add("w", dw), ContainsSubstring("'w'"));
}

TEST_CASE("eigen: save, load and go on", "[eigen]") {
  const support::temporary_folder folder;
  Eigen::MatrixXd w = Eigen::MatrixXd::Random(4, 3), dw = Eigen::MatrixXd::Zero(4, 3);
  retain::eigen_parameters model;
  model.add("w", w, dw);
  const retain::l2_init keep{model, {.strength = 2.0}};
  retain::save(folder.file("state"), keep);
  w.setRandom();
  const double expected = keep.loss(model).item<double>();
  retain::l2_init again{model, {.strength = 2.0}};
  CHECK(again.loss(model).item<double>() == 0.0);
  retain::load(folder.file("state"), again);
  CHECK(again.loss(model).item<double>() == expected);
}

}  // namespace eigen_test
