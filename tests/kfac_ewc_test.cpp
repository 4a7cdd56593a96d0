// SPDX-License-Identifier: MIT
#include <retain/attach.hpp>
#include <retain/compose.hpp>
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>
#include <retain/kfac_ewc.hpp>

#include <vector>

#include "support.hpp"

namespace kfac_ewc_test {

static_assert(retain::weight_term<retain::kfac_ewc>);
static_assert(retain::attachable<retain::kfac_ewc>);
static_assert(retain::stateful<retain::kfac_ewc>);
static_assert(!std::is_convertible_v<retain::kfac_ewc*, retain::detail::quadratic_penalty*>);

namespace {

struct network : torch::nn::Cloneable<network> {
  network() { reset(); }
  void reset() override {
    body = register_module("body", torch::nn::Linear(3, 4));
    head = register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 2).bias(false)));
  }
  at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(body(x))); }
  torch::nn::Linear body{nullptr}, head{nullptr};
};

at::Tensor random_moment(std::int64_t n) {
  const auto x = torch::randn({n + 3, n}, at::kDouble);
  return x.t().mm(x) / static_cast<double>(n);
}

retain::kronecker_fisher random_factors() {
  return {{{"body.weight", "body.bias", random_moment(4), random_moment(4)},
           {"head.weight", "", random_moment(4), random_moment(2)}},
          1,
          "given"};
}

void displace(torch::nn::Module& net, double by = 0.5) {
  const at::NoGradGuard no_grad;
  for (auto& p : net.parameters()) p.add_(torch::randn_like(p) * by);
}

void forget_gradients(torch::nn::Module& net) {
  for (auto& p : net.parameters()) p.mutable_grad() = at::Tensor();
}

/// Columns one behind the other, as A (x) G has them: the movement of a layer's parameters.
at::Tensor columns(const at::Tensor& weight, const at::Tensor& bias = {}) {
  const auto w = weight.detach().to(at::kDouble);
  return (bias.defined() ? torch::cat({w, bias.detach().to(at::kDouble).unsqueeze(1)}, 1) : w)
      .t()
      .reshape({-1});
}

}  // namespace

TEST_CASE("kfac_ewc: value and gradient against the Kronecker products written out, in every "
          "floating type",
          "[kfac_ewc]") {
  for (const auto& [type, tolerance] :
       {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 1e-5}, std::pair{at::kHalf, 5e-3}}) {
    torch::manual_seed(1);
    const auto net = std::make_shared<network>();
    net->to(type);
    const auto factors = random_factors();
    const retain::kfac_ewc keep{net, factors, {.strength = 3.0}};
    const auto start = std::dynamic_pointer_cast<network>(net->clone());
    {
      const at::NoGradGuard no_grad;
      for (auto& p : net->parameters()) p.add_(torch::randn(p.sizes()).to(type));
    }
    const auto body = columns(net->body->weight, net->body->bias) -
                      columns(start->body->weight, start->body->bias);
    const auto head = columns(net->head->weight) - columns(start->head->weight);
    const auto pull_body =
        torch::kron(factors.layers[0].inputs, factors.layers[0].outputs).mv(body);
    const auto pull_head =
        torch::kron(factors.layers[1].inputs, factors.layers[1].outputs).mv(head);
    const double value = 3.0 * (body.dot(pull_body) + head.dot(pull_head)).item<double>();

    const auto gradients_fit = [&] {
      CHECK(support::relative_error(columns(net->body->weight.grad(), net->body->bias.grad()),
                                    6 * pull_body) < tolerance);
      CHECK(support::relative_error(columns(net->head->weight.grad()), 6 * pull_head) < tolerance);
    };
    CHECK(keep.add_gradient(net).item<double>() == Approx(value).epsilon(tolerance));
    gradients_fit();
    forget_gradients(*net);
    const auto loss = keep.loss(net);
    CHECK(loss.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
    CHECK(loss.item<double>() == Approx(value).epsilon(tolerance));
    loss.backward();
    gradients_fit();
    forget_gradients(*net);
    const auto list = retain::parameters(net);
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i].tensor.mutable_grad() = torch::zeros_like(list[i].tensor);
      keep.add_gradient_of(list, i, list[i].tensor.mutable_grad());
    }
    gradients_fit();
    if (type == at::kDouble) {
      const auto numeric = support::finite_differences(
          net->body->weight.detach(), [&] { return keep.loss(net).item<double>(); });
      CHECK(support::relative_error(net->body->weight.grad(), numeric) < 1e-7);
    }
  }
}

TEST_CASE("kfac_ewc: for one state it is the square of the layers' scores, which a diagonal is not",
          "[kfac_ewc]") {
  torch::manual_seed(2);
  network net;
  net.to(at::kDouble);
  const auto x = torch::randn({1, 3}, at::kDouble);
  const auto action = torch::ones({1}, at::kLong);
  const auto forward = [&](const auto& o) { return retain::categorical{net.forward(o)}; };
  const auto given = [&](const auto&) { return action; };
  const retain::kfac_ewc keep{
      net, retain::estimate_kfac(net, x, forward, retain::dataset_actions{given})};
  const retain::ewc diagonal{
      net, retain::estimate_fisher(net, x, forward, retain::dataset_actions{given})};
  const auto g = torch::autograd::grad({forward(x).log_prob(action).sum()},
                                       {net.body->weight, net.body->bias, net.head->weight});
  std::vector<at::Tensor> before;
  for (const auto& p : net.parameters()) before.push_back(p.detach().clone());
  displace(net);
  std::vector<double> along;
  for (std::size_t i = 0; i < 3; ++i)
    along.push_back((g[i] * (net.parameters()[i].detach() - before[i])).sum().item<double>());
  const double expected = std::pow(along[0] + along[1], 2) + std::pow(along[2], 2);
  CHECK(keep.loss(net).item<double>() == Approx(expected));
  CHECK(std::abs(diagonal.loss(net).item<double>() - expected) > 0.05 * expected);
}

TEST_CASE("kfac_ewc: groups stand before movements as roots, frozen and excluded parameters count "
          "as not moved",
          "[kfac_ewc]") {
  torch::manual_seed(3);
  network net;
  net.to(at::kDouble);
  const auto factors = random_factors();
  const retain::kfac_ewc plain{net, factors},
      grouped{net, factors, {.strength = 2.0, .groups = {{"body.*", 4.0}, {"*.weight", 0.25}}}};
  const retain::kfac_ewc no_bias{net, factors, {.exclude = {"body.bias"}}},
      head_only{net, factors, {.exclude = {"body.*"}}};
  const auto weight = net.body->weight.detach().clone(), bias = net.body->bias.detach().clone(),
             head = net.head->weight.detach().clone();
  displace(net);
  const double value = grouped.add_gradient(net).item<double>();
  const auto gradient = net.body->bias.grad().clone();
  {
    // sqrt(4 / 4) of the weight's movement, sqrt(4) of the bias's, sqrt(1 / 4) of the head's
    const at::NoGradGuard no_grad;
    net.body->bias.copy_(bias + 2 * (net.body->bias - bias));
    net.head->weight.copy_(head + 0.5 * (net.head->weight - head));
  }
  CHECK(value == Approx(2 * plain.loss(net).item<double>()));
  forget_gradients(net);
  plain.add_gradient(net);
  CHECK(support::relative_error(gradient, 2 * 2 * net.body->bias.grad()) < 1e-12);

  const double with_bias = plain.loss(net).item<double>();
  net.body->bias.requires_grad_(false);
  const double frozen = plain.loss(net).item<double>();
  CHECK(frozen == Approx(no_bias.loss(net).item<double>()));
  CHECK(std::abs(frozen - with_bias) > 1e-3);
  forget_gradients(net);
  CHECK(plain.add_gradient(net).item<double>() == Approx(frozen));
  CHECK(!net.body->bias.grad().defined());
  net.body->bias.requires_grad_(true);
  net.body->weight.requires_grad_(false);
  const auto block = factors.layers[0];
  const auto moved = net.body->bias.detach() - bias;
  CHECK(plain.loss(net).item<double>() - head_only.loss(net).item<double>() ==
        Approx((moved.dot(block.outputs.mv(moved)) * block.inputs[3][3]).item<double>()));
  net.body->weight.requires_grad_(true);
  CHECK(no_bias.covers("body.weight"));
  CHECK(!no_bias.covers("body.bias"));

  const retain::kfac_ewc off{net, factors, {.strength = 0.0}};
  forget_gradients(net);
  CHECK(off.add_gradient(net).item<double>() == 0);
  CHECK(off.loss(net).item<double>() == 0);
  CHECK(!net.head->weight.grad().defined());
}

TEST_CASE("kfac_ewc: an attached guard trains as add_gradient does, and a composition takes it",
          "[kfac_ewc]") {
  torch::manual_seed(4);
  const auto start = std::make_shared<network>();
  start->to(at::kDouble);
  const auto factors = random_factors();
  const auto train = [&](network& net, bool attached) {
    auto keep =
        retain::compose(retain::kfac_ewc{net, factors, {.strength = 0.3}},
                        retain::ewc{net, [&] {
                                      retain::parameter_list ones;
                                      for (const auto& [name, tensor] : retain::parameters(net))
                                        ones.push_back({name, torch::ones_like(tensor)});
                                      return ones;
                                    }()});
    retain::attachment one, two;
    if (attached) {
      one = retain::attach(keep.term<0>(), net);
      two = retain::attach(keep.term<1>(), net);
    }
    torch::optim::Adam adam(net.parameters(), torch::optim::AdamOptions(0.02));
    for (int step = 0; step < 10; ++step) {
      adam.zero_grad();
      torch::manual_seed(50 + step);
      net.forward(torch::randn({5, 3}, at::kDouble)).square().sum().backward();
      if (!attached) keep.add_gradient(net);
      adam.step();
    }
  };
  const auto explicit_net = std::dynamic_pointer_cast<network>(start->clone()),
             attached_net = std::dynamic_pointer_cast<network>(start->clone());
  train(*explicit_net, false);
  train(*attached_net, true);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(support::relative_error(attached_net->parameters()[i], explicit_net->parameters()[i]) <
          1e-12);
    CHECK(support::relative_error(attached_net->parameters()[i], start->parameters()[i]) > 1e-3);
  }
}

TEST_CASE("kfac_ewc: factors are second moments: made symmetric, freed of rounding, damped, and "
          "refused otherwise",
          "[kfac_ewc]") {
  torch::manual_seed(5);
  torch::nn::Linear net(torch::nn::LinearOptions(2, 2).bias(false));
  net->to(at::kDouble);
  const auto with = [&](const at::Tensor& a, const at::Tensor& g, double damping = 0.0) {
    return retain::kfac_ewc{
        net, retain::kronecker_fisher{{{"weight", "", a, g}}, 1, "given"}, {.damping = damping}};
  };
  const auto value = [&](const retain::kfac_ewc& keep, const at::Tensor& moved) {
    const at::NoGradGuard no_grad;
    net->weight.add_(moved);
    const double result = keep.loss(net).item<double>();
    net->weight.sub_(moved);
    return result;
  };
  const auto moved = torch::tensor({{1.0, 2.0}, {-1.0, 0.5}}, at::kDouble);
  const auto eye = torch::eye(2, at::kDouble);
  const auto expected = [&](const at::Tensor& a, const at::Tensor& g) {
    return (g.mm(moved).mm(a) * moved).sum().item<double>();
  };
  CHECK(value(with(torch::tensor({{2.0, 0.6}, {0.2, 1.0}}, at::kDouble), eye), moved) ==
        Approx(expected(torch::tensor({{2.0, 0.4}, {0.4, 1.0}}, at::kDouble), eye)));
  // Eigenvalues 2 and -1e-7: the second is rounding, and nothing is gained by moving along it.
  const auto nearly = torch::tensor({{1.0, 1.0 + 1e-7}, {1.0 + 1e-7, 1.0}}, at::kDouble);
  const double along =
      value(with(nearly, eye), torch::tensor({{1e4, -1e4}, {0.0, 0.0}}, at::kDouble));
  CHECK(along > -1e-6);
  CHECK(expected(nearly, eye) == Approx(value(with(nearly, eye), moved)).epsilon(1e-5));
  CHECK_THROWS_AS(with(torch::tensor({{1.0, 2.0}, {2.0, 1.0}}, at::kDouble), eye),
                  retain::state_error);
  CHECK_THROWS_WITH(
      with(eye, torch::tensor({{1.0, 2.0}, {2.0, 1.0}}, at::kDouble)),
      ContainsSubstring("factor G of 'weight'") && ContainsSubstring("eigenvalue -1"));
  CHECK_THROWS_WITH(with(eye * std::nan(""), eye),
                    ContainsSubstring("factor A of 'weight'") && ContainsSubstring("not finite"));
  CHECK_THROWS_AS(with(torch::ones({2, 3}), eye), retain::shape_error);

  // Damped as Martens and Grosse do: pi^2 is the ratio of the mean eigenvalues, 4 over 1.
  const auto damped = with(4 * eye, eye, 0.09);
  CHECK(value(damped, moved) == Approx(expected((4 + 2 * 0.3) * eye, (1 + 0.3 / 2) * eye)));
  CHECK(value(with(0 * eye, 0 * eye, 0.09), moved) == Approx(expected(0.3 * eye, 0.3 * eye)));
  CHECK_THROWS_AS(with(eye, eye, -1.0), retain::config_error);
}

TEST_CASE("kfac_ewc: factors that do not fit the model are named", "[kfac_ewc]") {
  network net;
  auto factors = random_factors();
  CHECK_NOTHROW(retain::kfac_ewc{net, factors});
  auto missing = factors;
  missing.layers.pop_back();
  CHECK_THROWS_AS((retain::kfac_ewc{net, missing}), retain::state_error);
  CHECK_THROWS_WITH((retain::kfac_ewc{net, missing}),
                    ContainsSubstring("'head.weight'") && ContainsSubstring("retain::ewc"));
  CHECK_NOTHROW(retain::kfac_ewc{net, missing, {.exclude = {"head.*"}}});
  auto extra = factors;
  extra.layers.push_back({"value.weight", "value.bias", random_moment(5), random_moment(1)});
  CHECK_THROWS_WITH((retain::kfac_ewc{net, extra}), ContainsSubstring("'value.weight'"));
  CHECK_NOTHROW(retain::kfac_ewc{net, extra, {.exclude = {"value.*"}}});
  auto resized = factors;
  resized.layers[1].inputs = random_moment(7);
  CHECK_THROWS_AS((retain::kfac_ewc{net, resized}), retain::shape_error);
  CHECK_THROWS_WITH((retain::kfac_ewc{net, resized}),
                    ContainsSubstring("[2, 7]") && ContainsSubstring("[2, 4]"));

  const retain::kfac_ewc keep{net, factors};
  torch::nn::Linear other(3, 4);
  CHECK_THROWS_AS(keep.loss(other), retain::state_error);
  net.head->weight.requires_grad_(false);
  const retain::kfac_ewc early{net, missing};
  net.head->weight.requires_grad_(true);
  CHECK_THROWS_WITH(early.add_gradient(net), ContainsSubstring("'head.weight' was frozen"));
}

TEST_CASE("kfac_ewc: save, load and go on, bit for bit; a state of another network changes nothing",
          "[kfac_ewc]") {
  const support::temporary_folder folder;
  torch::manual_seed(6);
  const auto net = std::make_shared<network>();
  const auto options = [] {
    return retain::kfac_ewc_options{.strength =
                                        retain::exponential_decay{.initial = 2, .factor = 0.5}};
  };
  retain::kfac_ewc keep{net, random_factors(), options()};
  keep.step(1);
  retain::save(folder.file("kfac"), keep);
  displace(*net);
  retain::kfac_ewc resumed{net, random_factors(), options()};
  const auto copy = resumed;
  CHECK(resumed.loss(net).item<double>() == 0);
  retain::load(folder.file("kfac"), resumed);
  CHECK(resumed.strength() == 1.0);
  CHECK(copy.strength() == 2.0);
  CHECK(copy.loss(net).item<double>() == 0);
  CHECK(resumed.loss(net).equal(keep.loss(net)));
  resumed.add_gradient(net);
  const auto gradient = net->body->weight.grad().clone();
  forget_gradients(*net);
  keep.add_gradient(net);
  CHECK(gradient.equal(net->body->weight.grad()));

  retain::state other;
  keep.save_state(other, "");
  other.set("outputs.head.weight", torch::ones({3, 3}));
  CHECK_THROWS_AS(resumed.load_state(other, ""), retain::shape_error);
  other.set("outputs.head.weight", torch::full({2, 2}, std::nan("")));
  CHECK_THROWS_WITH(resumed.load_state(other, ""),
                    ContainsSubstring("'head.weight' is not finite"));
  other.set("outputs.head.weight", -torch::eye(2));
  CHECK_THROWS_WITH(resumed.load_state(other, ""),
                    ContainsSubstring("'head.weight'") &&
                        ContainsSubstring("a second moment has no negative eigenvalue"));
  other.set("outputs.head.weight", torch::tensor({{2.0f, 1.0f}, {0.0f, 2.0f}}));
  CHECK_THROWS_WITH(resumed.load_state(other, ""),
                    ContainsSubstring("'head.weight' is not symmetric"));
  CHECK(resumed.loss(net).equal(keep.loss(net)));
}

TEST_CASE("kfac_ewc: a model that was moved to another type keeps its anchor and factors",
          "[kfac_ewc]") {
  torch::manual_seed(7);
  network net;
  const retain::kfac_ewc keep{net, random_factors()};
  displace(net);
  const double before = keep.loss(net).item<double>();
  net.to(at::kDouble);
  CHECK(keep.loss(net).scalar_type() == at::kDouble);
  CHECK(keep.loss(net).item<double>() == Approx(before).epsilon(1e-5));
  CHECK(keep.add_gradient(net).item<double>() == Approx(before).epsilon(1e-5));
}

TEST_CASE("kfac_ewc: a view has no gradient to add to, and a model that is not finite is no anchor",
          "[kfac_ewc]") {
  network net;
  const retain::kfac_ewc keep{net, random_factors()};
  displace(net);
  retain::parameter_list computed;
  for (const auto& [name, tensor] : retain::parameters(net)) computed.push_back({name, tensor * 1});
  CHECK_THROWS_AS(keep.add_gradient(computed), retain::config_error);
  keep.loss(computed).backward();
  const auto gradient = net.body->weight.grad().clone();
  forget_gradients(net);
  keep.add_gradient(net);
  CHECK(support::relative_error(gradient, net.body->weight.grad()) < 1e-5);
  net.head->weight.detach().fill_(INFINITY);
  CHECK_THROWS_WITH((retain::kfac_ewc{net, random_factors()}),
                    ContainsSubstring("'head.weight' holds a value that is not finite"));
}

}  // namespace kfac_ewc_test
