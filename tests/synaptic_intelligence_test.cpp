// SPDX-License-Identifier: MIT
#include <retain/attach.hpp>
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>
#include <retain/synaptic_intelligence.hpp>

#include <functional>
#include <string>
#include <vector>

#include "support.hpp"
#include "weight_penalties.hpp"

namespace synaptic_intelligence_test {

static_assert(retain::weight_term<retain::synaptic_intelligence>);
static_assert(retain::attachable<retain::synaptic_intelligence>);

namespace {

/// A loss with curvature and coupling between the weights.
at::Tensor task(const std::vector<at::Tensor>& w, double target) {
  const auto x = torch::linspace(-1, 1, 3, w[0].options().requires_grad(false));
  return (torch::tanh(w[0].matmul(x)) - target).square().sum() +
         (w[1] * w[0].sum() - target).square().sum();
}

std::vector<at::Tensor> weights(at::ScalarType type = at::kDouble) {
  torch::manual_seed(1);
  std::vector<at::Tensor> w{torch::randn({4, 3}, type), torch::randn({2}, type)};
  for (auto& p : w) p.requires_grad_();
  return w;
}

void zero(std::vector<at::Tensor>& w) {
  for (auto& p : w) p.mutable_grad() = at::Tensor();
}

/// How the penalty's pull comes into .grad.
enum class way { add_gradient, graph, guard };

/// Trains on a task with the penalty, observing every step, and returns the path written out: minus
/// the task's gradient alone times the movement.
std::vector<at::Tensor> train(std::vector<at::Tensor>& w, retain::synaptic_intelligence& keep,
                              double target, int steps, way how, double rate = 0.05) {
  std::vector<at::Tensor> path;
  for (const auto& p : w) path.push_back(torch::zeros_like(p, at::kDouble));
  torch::optim::Adam adam(w, torch::optim::AdamOptions(rate));
  retain::attachment guard;
  if (how == way::guard) guard = retain::attach(keep, w);
  for (int t = 0; t < steps; ++t) {
    zero(w);
    // copies that no guard hooks: from LibTorch 2 on hooks run in autograd::grad too
    std::vector<at::Tensor> still;
    for (const auto& p : w) still.push_back(p.detach().clone().requires_grad_());
    const auto alone = torch::autograd::grad({task(still, target)}, still);
    auto loss = task(w, target);
    if (how == way::graph) loss = loss + keep.loss(w);
    loss.backward();
    if (how == way::add_gradient) keep.add_gradient(w);
    std::vector<at::Tensor> before;
    for (const auto& p : w) before.push_back(p.detach().clone());
    adam.step();
    keep.accumulate(w);
    for (std::size_t i = 0; i < w.size(); ++i)
      path[i] -= alone[i].to(at::kDouble) * (w[i].detach().to(at::kDouble) - before[i]);
  }
  return path;
}

}  // namespace

TEST_CASE("synaptic_intelligence: value and both gradients once importances are there",
          "[synaptic_intelligence]") {
  // The importance is what one step along random gradients makes of it; the harness moves the
  // weights from the anchor.
  const auto make = [](const auto& w) {
    retain::synaptic_intelligence keep{w, {.strength = 30.0, .damping = 0.5}};
    for (const auto& p : w) {
      const at::NoGradGuard no_grad;
      p.mutable_grad() = torch::rand_like(p);
      p.sub_(p.grad());
    }
    keep.accumulate(w);
    keep.consolidate(w);
    for (const auto& p : w) p.mutable_grad() = at::Tensor();
    CHECK(keep.importance()[0].tensor.max().template item<double>() > 0.01);
    return keep;
  };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
  support::check_gradients(make, at::kBFloat16, 2e-2);
}

TEST_CASE("synaptic_intelligence: importances of two tasks against the formula written out, "
          "however the pull comes in",
          "[synaptic_intelligence]") {
  for (const auto how : {way::add_gradient, way::graph, way::guard}) {
    auto w = weights();
    retain::synaptic_intelligence keep{
        w,
        {.strength = retain::linear{.initial = 0.5, .last = 2.0, .over = 1},
         .groups = {{"1", 3.0}},
         .damping = 0.02}};
    std::vector<at::Tensor> anchor, importance;
    for (const auto& p : w) {
      anchor.push_back(p.detach().clone());
      importance.push_back(torch::zeros_like(p).detach());
    }
    for (const double target : {0.3, -0.6}) {
      const auto path = train(w, keep, target, 15, how);
      keep.consolidate(w);
      keep.step(1);
      for (std::size_t i = 0; i < w.size(); ++i) {
        importance[i] =
            (importance[i] + path[i] / ((w[i].detach() - anchor[i]).square() + 0.02)).clamp_min(0);
        anchor[i] = w[i].detach().clone();
        CHECK(support::relative_error(keep.importance()[i].tensor, importance[i]) < 1e-12);
      }
    }
    CHECK(keep.loss(w).item<double>() == 0);
    zero(w);
    const at::NoGradGuard no_grad;
    double expected = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i].add_(0.1);
      expected += 2.0 * (i == 1 ? 3 : 1) * importance[i].sum().item<double>() * 0.01;
    }
    CHECK(keep.add_gradient(w).item<double>() == Approx(expected));
  }
}

TEST_CASE("synaptic_intelligence: the path of small steps sums to the fall of the loss",
          "[synaptic_intelligence]") {
  auto w = weights();
  retain::synaptic_intelligence keep{w, {.damping = 1e9}};  // so that the importance is omega / xi
  const double before = task(w, 0.3).item<double>();
  const auto path = train(w, keep, 0.3, 400, way::add_gradient, 5e-4);
  const double fall = before - task(w, 0.3).item<double>();
  REQUIRE(fall > 0.3);
  CHECK(path[0].sum().item<double>() + path[1].sum().item<double>() == Approx(fall).epsilon(5e-3));
  keep.consolidate(w);
  double sum = 0;
  for (const auto& [name, values] : keep.importance()) sum += values.sum().item<double>() * 1e9;
  const double negative =
      path[0].clamp_max(0).sum().item<double>() + path[1].clamp_max(0).sum().item<double>();
  CHECK(sum == Approx(fall - negative).epsilon(5e-3));
}

TEST_CASE("synaptic_intelligence: harm done by a later task takes from an importance, down to 0",
          "[synaptic_intelligence]") {
  std::vector<at::Tensor> w{torch::zeros({3}, at::kDouble).requires_grad_()};
  retain::synaptic_intelligence keep{w, {.strength = 0.0, .damping = 1.0}};
  const auto move = [&](const at::Tensor& gradient, const at::Tensor& by) {
    w[0].mutable_grad() = gradient;
    {
      const at::NoGradGuard no_grad;
      w[0].add_(by);
    }
    keep.accumulate(w);
  };
  move(torch::tensor({-4.0, -4.0, 4.0}, at::kDouble), torch::ones({3}, at::kDouble));
  keep.consolidate(w);
  CHECK(keep.importance()[0].tensor.equal(torch::tensor({2.0, 2.0, 0.0}, at::kDouble)));
  move(torch::tensor({2.0, 8.0, -2.0}, at::kDouble), torch::ones({3}, at::kDouble));
  keep.consolidate(w);
  CHECK(keep.importance()[0].tensor.equal(torch::tensor({1.0, 0.0, 1.0}, at::kDouble)));
  keep.consolidate(w);  // nothing was learned: nothing changes
  CHECK(keep.importance()[0].tensor.equal(torch::tensor({1.0, 0.0, 1.0}, at::kDouble)));
}

TEST_CASE(
    "synaptic_intelligence: saved in the middle of a task, loaded and gone on with, bit for bit",
    "[synaptic_intelligence]") {
  const support::temporary_folder folder;
  const auto options = [] {
    return retain::synaptic_intelligence_options{.strength = 0.3, .damping = 0.05};
  };
  const auto sgd = [](std::vector<at::Tensor>& w, retain::synaptic_intelligence& keep, int steps) {
    torch::optim::SGD optimizer(w, torch::optim::SGDOptions(0.02));
    for (int t = 0; t < steps; ++t) {
      zero(w);
      task(w, -0.4).backward();
      keep.add_gradient(w);
      optimizer.step();
      keep.accumulate(w);
    }
  };
  auto w = weights(at::kFloat);
  retain::synaptic_intelligence keep{w, options()};
  sgd(w, keep, 5);
  keep.consolidate(w);
  sgd(w, keep, 5);
  retain::save(folder.file("si"), keep);
  std::vector<at::Tensor> copied;
  for (const auto& p : w) copied.push_back(p.detach().clone().requires_grad_());
  retain::state taken;
  keep.save_state(taken, "");
  auto copy = keep;

  sgd(w, keep, 5);
  keep.consolidate(w);

  auto resumed_weights = weights(at::kFloat);
  retain::synaptic_intelligence resumed{resumed_weights, options()};
  retain::load(folder.file("si"), resumed);
  retain::synaptic_intelligence from_state{resumed_weights, options()};
  from_state.load_state(taken, "");
  for (auto* other : {&resumed, &from_state, &copy}) {
    std::vector<at::Tensor> again;
    for (const auto& p : copied) again.push_back(p.detach().clone().requires_grad_());
    sgd(again, *other, 5);
    other->consolidate(again);
    for (std::size_t i = 0; i < w.size(); ++i) {
      CHECK(again[i].equal(w[i]));
      CHECK(other->importance()[i].tensor.equal(keep.importance()[i].tensor));
    }
  }

  // A state of another network changes nothing.
  const std::vector<at::Tensor> other_weights{torch::zeros({2}).requires_grad_(),
                                              torch::zeros({2}).requires_grad_()};
  retain::save(folder.file("other"), retain::synaptic_intelligence{other_weights, options()});
  CHECK_THROWS_AS(retain::load(folder.file("other"), resumed), retain::shape_error);
  retain::save(folder.file("ewc"), retain::ewc{w, keep.importance(), {.strength = 0.3}});
  CHECK_THROWS_WITH(retain::load(folder.file("ewc"), resumed), ContainsSubstring("previous.0"));
  CHECK(resumed.importance()[0].tensor.equal(keep.importance()[0].tensor));
}

TEST_CASE("synaptic_intelligence: frozen parameters, undefined and sparse gradients, a model that "
          "changes its type",
          "[synaptic_intelligence]") {
  torch::nn::Linear net(2, 2);
  net->bias.requires_grad_(false);
  retain::synaptic_intelligence keep{net, {.damping = 1.0}};
  const auto move = [&] {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
  };
  move();
  keep.accumulate(net);  // no gradient: this movement is not of the task
  net->weight.mutable_grad() = torch::full({2, 2}, -3.0f);
  move();
  keep.accumulate(net);
  net->to(at::kDouble);
  net->weight.mutable_grad() = torch::full({2, 2}, -2.0, at::kDouble);
  move();
  keep.accumulate(net);
  keep.consolidate(net);
  CHECK(support::relative_error(keep.importance()[1].tensor, torch::full({2, 2}, 5.0 / 10.0)) <
        1e-6);
  CHECK((keep.importance()[0].tensor == 0).all().item<bool>());

  torch::nn::Embedding table(torch::nn::EmbeddingOptions(3, 2).sparse(true));
  retain::synaptic_intelligence sparse{table, {.damping = 1.0}};
  table->forward(torch::tensor({2})).sum().backward();
  {
    const at::NoGradGuard no_grad;
    table->weight.sub_(1);
  }
  sparse.accumulate(table);
  sparse.consolidate(table);
  CHECK(support::relative_error(sparse.importance()[0].tensor,
                                torch::tensor({{0.0, 0.0}, {0.0, 0.0}, {0.5, 0.5}})) < 1e-6);
}

TEST_CASE("synaptic_intelligence: what does not fit is named and changes nothing",
          "[synaptic_intelligence]") {
  auto w = weights();
  for (const double bad : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_AS((retain::synaptic_intelligence{w, {.damping = bad}}), retain::config_error);
  retain::synaptic_intelligence keep{w};
  CHECK_THROWS_AS(keep.accumulate(std::vector<at::Tensor>{w[0]}), retain::state_error);
  CHECK_THROWS_AS(keep.consolidate(std::vector<at::Tensor>{w[1], w[0]}), retain::shape_error);
  keep.accumulate(w);
  w[0].mutable_grad() = torch::full({4, 3}, std::nan(""), at::kDouble);
  auto poisoned = keep;
  {
    const at::NoGradGuard no_grad;
    w[0].add_(1);
  }
  poisoned.accumulate(w);
  CHECK_THROWS_WITH(poisoned.consolidate(w),
                    ContainsSubstring("'0'") && ContainsSubstring("not finite"));
  CHECK(poisoned.loss(w).item<double>() == 0);
  CHECK_NOTHROW(keep.consolidate(w));  // the copy's path is its own
  // a measurement, for a schedule that does not adapt
  CHECK_THROWS_AS(keep.observe(0.5), retain::config_error);
}

TEST_CASE("synaptic_intelligence: a view has no gradient to observe, and a state with a path that "
          "is not finite is refused",
          "[synaptic_intelligence]") {
  const std::vector<at::Tensor> w{torch::randn({4}).requires_grad_()};
  retain::synaptic_intelligence keep{w};
  const std::vector<at::Tensor> view{w[0].view({4})};
  CHECK_THROWS_AS(keep.accumulate(view), retain::config_error);
  CHECK_THROWS_WITH(keep.add_gradient(view), ContainsSubstring("'0' [4] is computed"));
  w[0].square().sum().backward();
  keep.accumulate(w);
  for (const char* key : {"path.0", "previous.0", "anchor.0"}) {
    retain::state saved;
    keep.save_state(saved, "");
    saved.set(key, torch::full({4}, std::nan(""),
                               std::string(key) == "path.0" ? at::kDouble : at::kFloat));
    INFO(key);
    CHECK_THROWS_AS(keep.load_state(saved, ""), retain::state_error);
    CHECK_THROWS_WITH(keep.load_state(saved, ""), ContainsSubstring("of '0'"));
  }
  {
    const at::NoGradGuard no_grad;
    at::Tensor(w[0]).fill_(std::nan(""));
  }
  CHECK_THROWS_AS(keep.consolidate(w), retain::state_error);
  CHECK_THROWS_AS((retain::synaptic_intelligence{w}), retain::state_error);
}

TEST_CASE("synaptic_intelligence: a loop that observes behind zero_grad, or never, is told the "
          "order when the task ends",
          "[synaptic_intelligence]") {
  enum class order { right, none, zeros, never };
  const auto learn = [](torch::nn::Module& net, retain::synaptic_intelligence& keep, order how) {
    torch::optim::SGD sgd(net.parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    const auto loss = [&] {
      at::Tensor sum = torch::zeros({});
      for (const auto& p : net.parameters())
        if (p.numel() > 2) sum = sum + (p - 3).square().sum();  // nothing reaches the bias
      return sum;
    };
    for (int t = 0; t < 3; ++t) {
      for (auto& p : net.parameters()) p.mutable_grad() = at::Tensor();
      loss().backward();
      keep.add_gradient(net);
      sgd.step();
      if (how == order::none)
        for (auto& p : net.parameters()) p.mutable_grad() = at::Tensor();
      if (how == order::zeros)
        for (auto& p : net.parameters()) p.mutable_grad() = torch::zeros_like(p);
      if (how != order::never) keep.accumulate(net);
    }
  };
  torch::manual_seed(2);
  for (const auto how : {order::none, order::zeros, order::never}) {
    torch::nn::Linear net(2, 2);
    retain::synaptic_intelligence keep{net};
    learn(*net, keep, how);
    const std::string cause = how == order::never ? "accumulate() was never called"
                                                  : "every accumulate() found no gradient";
    CHECK_THROWS_WITH(
        keep.consolidate(net),
        ContainsSubstring(cause) &&
            ContainsSubstring("optimizer.step(), accumulate(), and only then zero_grad()"));
    CHECK_THROWS_AS(keep.consolidate(net), retain::state_error);  // nothing was changed
    CHECK((keep.importance()[1].tensor == 0).all().item<bool>());
    // The same task goes on in the right order and ends.
    learn(*net, keep, order::right);
    CHECK_NOTHROW(keep.consolidate(net));
    CHECK(keep.importance()[1].tensor.max().item<double>() > 0);
    // With importances there the penalty's own pull must not count as a gradient that was seen.
    learn(*net, keep, how);
    CHECK_THROWS_WITH(keep.consolidate(net), ContainsSubstring(cause));
  }

  const support::temporary_folder folder;
  torch::nn::Linear net(2, 2);
  retain::synaptic_intelligence keep{net}, loaded{net};
  learn(*net, keep, order::right);
  retain::save(folder.file("si"), keep);
  retain::load(folder.file("si"), loaded);
  CHECK_NOTHROW(loaded.consolidate(net));  // its path says that gradients were seen
  CHECK(loaded.importance()[1].tensor.max().item<double>() > 0);
  keep.consolidate(net);
  // Everything frozen, or parameters without a gradient beside one that has it, is no error.
  for (auto& p : net->parameters()) p.requires_grad_(false);
  for (auto& p : net->parameters()) p.add_(1);
  keep.accumulate(net);
  CHECK_NOTHROW(keep.consolidate(net));
}

}  // namespace synaptic_intelligence_test
