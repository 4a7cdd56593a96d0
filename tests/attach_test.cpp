// SPDX-License-Identifier: MIT
#include <retain/attach.hpp>
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/gradient_projection.hpp>
#include <retain/kfac.hpp>
#include <retain/l2_init.hpp>
#include <retain/memory_aware_synapses.hpp>

#include <memory>
#include <type_traits>

#include "support.hpp"

namespace attach_test {

static_assert(retain::attachable<retain::ewc>);
static_assert(retain::attachable<retain::l2_init>);
static_assert(!retain::attachable<at::Tensor>);
static_assert(std::is_nothrow_move_constructible_v<retain::attachment> &&
              !std::is_copy_constructible_v<retain::attachment>);

namespace {

struct two_layers : torch::nn::Cloneable<two_layers> {
  two_layers() { reset(); }
  void reset() override {
    body = register_module("body", torch::nn::Linear(4, 3));
    head = register_module("head", torch::nn::Linear(3, 2));
  }
  at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(body(x))); }
  torch::nn::Linear body{nullptr}, head{nullptr};
};

std::shared_ptr<two_layers> copy_of(const std::shared_ptr<two_layers>& net) {
  return std::dynamic_pointer_cast<two_layers>(net->clone());
}

retain::parameter_list ones_like(const two_layers& net) {
  retain::parameter_list importance;
  for (const auto& [name, tensor] : retain::parameters(net))
    importance.push_back({name, torch::ones_like(tensor)});
  return importance;
}

/// A parameter that stands 1 away from its anchor 0, so that l2_init's pull is 2 and a loss w.sum()
/// * g adds g.
struct one_weight {
  one_weight() : weights{torch::zeros({2}).requires_grad_()}, keep(weights) { move(1); }
  void move(double by) {
    const at::NoGradGuard no_grad;
    weights[0].add_(by);
  }
  void backward(double g) { (weights[0] * g).sum().backward(); }
  double gradient() const { return weights[0].grad()[0].item<double>(); }
  void zero() { weights[0].mutable_grad() = at::Tensor(); }

  std::vector<at::Tensor> weights;
  retain::l2_init keep;
};

enum class zeroing { none, fill };

void zero_gradients(torch::nn::Module& net, zeroing how) {
  for (auto& p : net.parameters())
    if (how == zeroing::none)
      p.mutable_grad() = at::Tensor();
    else if (p.grad().defined())
      p.mutable_grad().zero_();
}

/// A PPO-like update that knows nothing of retention: epochs over minibatches, `parts` backward
/// passes a step.
template <class Optimizer, class Before>
void update(two_layers& net, Optimizer& optimizer, zeroing how, int parts, Before before_step) {
  for (int rollout = 0; rollout < 3; ++rollout) {
    torch::manual_seed(100 + rollout);
    const auto x = torch::randn({8, 4});
    for (int epoch = 0; epoch < 2; ++epoch)
      for (int minibatch = 0; minibatch < 2; ++minibatch) {
        zero_gradients(net, how);
        for (const auto& part : x.narrow(0, 4 * minibatch, 4).chunk(parts))
          net.forward(part).square().mean().backward();
        before_step();
        optimizer.step();
      }
  }
}

template <class Make>
void compare(Make make_optimizer, zeroing how, int parts, double tolerance) {
  torch::manual_seed(1);
  const auto start = std::make_shared<two_layers>();
  const auto explicit_net = copy_of(start), guarded_net = copy_of(start), free_net = copy_of(start);
  const retain::l2_init keep_explicit{explicit_net, {.strength = 0.7}},
      keep_guarded{guarded_net, {.strength = 0.7}};
  auto first = make_optimizer(*explicit_net), second = make_optimizer(*guarded_net),
       third = make_optimizer(*free_net);
  update(*explicit_net, first, how, parts, [&] { keep_explicit.add_gradient(explicit_net); });
  {
    const auto guard = retain::attach(keep_guarded, guarded_net);
    update(*guarded_net, second, how, parts, [] {});
  }
  update(*free_net, third, how, parts, [] {});
  for (std::size_t i = 0; i < start->parameters().size(); ++i) {
    const auto expected = explicit_net->parameters()[i], got = guarded_net->parameters()[i];
    if (tolerance == 0)
      CHECK(got.equal(expected));
    else
      CHECK(support::relative_error(got, expected) < tolerance);
    CHECK(support::relative_error(free_net->parameters()[i], expected) > 1e-3);
  }
}

const auto adam = [](two_layers& net) {
  return torch::optim::Adam(net.parameters(), torch::optim::AdamOptions(1e-2));
};
const auto sgd = [](two_layers& net) {
  return torch::optim::SGD(net.parameters(), torch::optim::SGDOptions(0.1).momentum(0.5));
};

}  // namespace

TEST_CASE("attach: a training run with the guard is the run with add_gradient, bit for bit with "
          "one backward a step",
          "[attach]") {
  for (const auto how : {zeroing::none, zeroing::fill}) {
    compare(adam, how, 1, 0);
    compare(sgd, how, 1, 0);  // moves parameters through data(): no version counter tells
  }
}

TEST_CASE("attach: several backward passes a step pull once, equal to rounding", "[attach]") {
  for (const auto how : {zeroing::none, zeroing::fill}) {
    compare(adam, how, 2, 1e-4);
    compare(sgd, how, 4, 1e-5);
  }
}

TEST_CASE("attach: ewc pulls by its importance, groups and exclusion as in add_gradient",
          "[attach]") {
  torch::manual_seed(2);
  const auto net = std::make_shared<two_layers>();
  auto importance = ones_like(*net);
  for (auto& [name, values] : importance) values = torch::rand_like(values);
  const retain::ewc keep{
      net, importance, {.strength = 3.0, .exclude = {"head.bias"}, .groups = {{"body.*", 0.5}}}};
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(torch::randn_like(p));
  }
  const auto x = torch::randn({5, 4});
  net->forward(x).square().sum().backward();
  keep.add_gradient(net);
  std::vector<at::Tensor> expected;
  for (auto& p : net->parameters()) expected.push_back(p.grad().clone());
  net->zero_grad();
  const auto guard = retain::attach(keep, net);
  net->forward(x).square().sum().backward();
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(net->parameters()[i].grad().equal(expected[i]));
}

TEST_CASE("attach: once between two steps, whatever marks the step", "[attach]") {
  one_weight w;
  const auto guard = retain::attach(w.keep, w.weights);
  w.backward(10);
  CHECK(w.gradient() == 12);
  w.backward(10);
  w.backward(10);
  CHECK(w.gradient() == 32);

  SECTION("the parameter moves in place") {
    w.move(1);
    w.backward(10);
    CHECK(w.gradient() == 46);  // 32 + 10 + 2 * 2
  }
  SECTION("gradients are reset to none, as after a step that was skipped") {
    w.zero();
    w.backward(1);
    CHECK(w.gradient() == 3);
  }
  SECTION("gradients are zeroed, and the parameter moved through data()") {
    w.weights[0].data().add_(1);
    w.weights[0].mutable_grad().zero_();
    w.backward(1);
    CHECK(w.gradient() == 5);
    w.backward(1);
    CHECK(w.gradient() == 6);
  }
  SECTION("the parameter's data is replaced") {
    w.weights[0].set_data(torch::full({2}, 3.0f));
    w.backward(1);
    CHECK(w.gradient() == 32 + 1 + 6);
  }
  SECTION("neither is visible until renew") {
    w.weights[0].data().add_(1);
    w.weights[0].grad().data().zero_();
    w.backward(1);
    CHECK(w.gradient() == 1);
    auto other = w.keep;  // a guard of a copy pulls on its own account
    auto same = retain::attach(other, w.weights);
    w.backward(1);
    CHECK(w.gradient() == 2 + 4);
    same.detach();
    same.renew();
    w.backward(1);
    CHECK(w.gradient() == 7);
  }
}

TEST_CASE("attach: renew makes the next backward pass pull again", "[attach]") {
  one_weight w;
  auto guard = retain::attach(w.keep, w.weights);
  w.backward(1);
  guard.renew();
  w.backward(1);
  CHECK(w.gradient() == 6);
}

TEST_CASE("attach: the first zeroed gradient is noticed although the first backward made it",
          "[attach]") {
  one_weight w;
  const auto guard = retain::attach(w.keep, w.weights);
  w.backward(1);
  w.weights[0].data().add_(1);
  w.weights[0].mutable_grad().zero_();
  w.backward(1);
  CHECK(w.gradient() == 5);
}

TEST_CASE("attach: a hook of the user's behind the guard's leaves one pull a step", "[attach]") {
  one_weight w;
  const auto guard = retain::attach(w.keep, w.weights);
  w.weights[0].register_hook([](const at::Tensor& g) { return g * 10; });
  for (int i = 0; i < 3; ++i) w.backward(1);
  CHECK(w.gradient() == 30 + 20);
}

TEST_CASE(
    "attach: a parameter that backward does not reach is not pulled, and neither is a frozen one",
    "[attach]") {
  const auto net = std::make_shared<two_layers>();
  net->body->bias.requires_grad_(false);
  const retain::l2_init keep{net};
  const auto guard = retain::attach(keep, net);
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(1);
  }
  net->body(torch::zeros({1, 4})).sum().backward();
  CHECK(support::relative_error(net->body->weight.grad(), torch::full({3, 4}, 2.0)) < 1e-6);
  CHECK(!net->head->weight.grad().defined());
  CHECK(!net->body->bias.grad().defined());
  net->head(torch::zeros({1, 3})).sum().backward();
  CHECK(support::relative_error(net->head->weight.grad(), torch::full({2, 3}, 2.0)) < 1e-6);
}

TEST_CASE("attach: copying parameters without a graph is a step like any other", "[attach]") {
  one_weight w;
  const auto guard = retain::attach(w.keep, w.weights);
  w.backward(0);
  {
    const at::NoGradGuard no_grad;
    w.weights[0].copy_(torch::full({2}, 4.0f));
  }
  w.zero();
  w.backward(0);
  CHECK(w.gradient() == 8);
}

TEST_CASE("attach: a schedule that moves while attached takes effect, strength 0 leaves the "
          "gradient alone",
          "[attach]") {
  one_weight w;
  retain::l2_init keep{w.weights, {.strength = retain::linear{.initial = 1, .last = 0, .over = 2}}};
  w.move(1);
  const auto guard = retain::attach(keep, w.weights);
  w.backward(0);
  CHECK(w.gradient() == 2);
  keep.step(1);
  w.zero();
  w.backward(0);
  CHECK(w.gradient() == 1);
  keep.step(2);
  w.zero();
  w.backward(5);
  CHECK(w.gradient() == 5);
  keep.step(0);
  w.backward(0);
  CHECK(w.gradient() == 7);
}

TEST_CASE("attach: the guard ends with its scope, can be moved, and detached twice", "[attach]") {
  one_weight w;
  const auto pulled = [&] {
    w.zero();
    w.backward(1);
    return w.gradient() == 3;
  };
  {
    auto guard = retain::attach(w.keep, w.weights);
    CHECK(pulled());
    retain::attachment moved(std::move(guard));
    CHECK(pulled());
    CHECK(!guard.attached());
    retain::attachment assigned;
    CHECK(!assigned.attached());
    assigned = std::move(moved);
    CHECK(pulled());
    // two guards of one term would pull twice
    CHECK_THROWS_WITH(assigned = retain::attach(w.keep, w.weights),
                      ContainsSubstring("another guard"));
    CHECK(pulled());
    assigned.detach();
    assigned = retain::attach(w.keep, w.weights);
    CHECK(pulled());
    auto& itself = assigned;
    assigned = std::move(itself);
    CHECK(assigned.attached());
    CHECK(pulled());
    assigned.detach();
    assigned.detach();
    CHECK(!pulled());
    assigned = std::move(itself);  // of one that is attached to nothing
    CHECK(!assigned.attached());
    assigned = retain::attach(w.keep, w.weights);
  }
  CHECK(!pulled());
  CHECK(w.gradient() == 1);
}

TEST_CASE("attach: a guard that lives does not pull at what is estimated, nor at gradients that "
          "are handed out",
          "[attach]") {
  torch::manual_seed(4);
  const auto net = std::make_shared<two_layers>();
  const auto x = torch::randn({12, 4});
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  const retain::l2_init keep{net, {.strength = 100.0}};
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(1);
  }
  const auto estimates = [&] {
    std::vector<at::Tensor> all;
    for (const bool walk : {true, false})
      for (const auto& [name, value] :
           retain::estimate_fisher(net, x, forward, {}, {.batched = walk}).values)
        all.push_back(value);
    for (const auto& layer : retain::estimate_kfac(net, x, forward).layers)
      all.insert(all.end(), {layer.inputs, layer.outputs});
    for (const auto& [name, value] : retain::estimate_sensitivity(net, x, forward))
      all.push_back(value);
    for (const auto& gradient :
         torch::autograd::grad({net->forward(x).square().sum()}, net->parameters()))
      all.push_back(gradient);
    return all;
  };
  const auto free = estimates();
  const auto guard = retain::attach(keep, net);
  const auto guarded = estimates();
  REQUIRE(free.size() == guarded.size());
  for (std::size_t i = 0; i < free.size(); ++i) CHECK(guarded[i].equal(free[i]));
  // And what is estimated between two backward passes of one step changes nothing of the one pull.
  net->zero_grad();
  net->forward(x).square().mean().backward();
  estimates();
  net->forward(x).square().mean().backward();
  std::vector<at::Tensor> pulled;
  for (const auto& p : net->parameters()) pulled.push_back(p.grad().clone());
  net->zero_grad();
  for (int i = 0; i < 2; ++i) net->forward(x).square().mean().backward();
  for (std::size_t i = 0; i < pulled.size(); ++i)
    CHECK(pulled[i].equal(net->parameters()[i].grad()));
}

TEST_CASE(
    "attach: which backward pass hands a parameter's gradient out is read from the pass that runs",
    "[attach]") {
  // A hook on what is computed from the parameter runs in every pass and line of LibTorch, one on
  // the parameter itself in some.
  auto w = torch::ones({2}).requires_grad_(), other = torch::ones({2}).requires_grad_();
  std::vector<bool> seen;
  const auto loss = [&] {
    const auto y = w * other;
    y.register_hook([&](const at::Tensor& g) {
      seen.push_back(retain::detail::handed_out(w));
      return g;
    });
    return y.sum();
  };
  CHECK(!retain::detail::handed_out(w));
  loss().backward();
  torch::autograd::grad({loss()}, {w});
  torch::autograd::grad({loss()}, {other});
  loss().backward({}, {}, false, std::vector<at::Tensor>{w});
  CHECK(seen == std::vector<bool>{false, true, false, false});
  CHECK(!retain::detail::handed_out(torch::ones({2})));
}

TEST_CASE(
    "attach: a paused guard leaves the reference of a projection alone, and pulls again behind it",
    "[attach]") {
  one_weight w;
  auto guard = retain::attach(w.keep, w.weights);
  retain::gradient_projection project;
  guard.pause();
  w.backward(5);
  CHECK(w.gradient() == 5);
  project.store_reference(w.weights);
  guard.resume();
  w.zero();
  w.backward(-3);
  CHECK(w.gradient() == -1);
  CHECK(project.project(w.weights).item<double>() == -10);  // 2 weights, each -1 times 5
  // What stands in .grad already is not added again where a paused pass comes between.
  w.zero();
  w.backward(1);
  guard.pause();
  w.backward(1);
  guard.resume();
  w.backward(1);
  CHECK(w.gradient() == 5);
  retain::attachment none;
  none.pause();
  none.resume();
}

TEST_CASE("attach: the guard does not keep parameters alive after its end", "[attach]") {
  auto net = std::make_shared<two_layers>();
  const c10::weak_intrusive_ptr<c10::TensorImpl> weight(net->body->weight.getIntrusivePtr());
  {
    const auto guard = retain::attach(retain::l2_init{net}, net);
    net->forward(torch::randn({2, 4})).sum().backward();
  }
  net.reset();
  CHECK(weight.expired());
}

TEST_CASE("attach: a penalty is referred to, shared or moved in; several pull side by side",
          "[attach]") {
  one_weight w;
  SECTION("shared") {
    auto keep = std::make_shared<retain::l2_init>(w.weights);
    w.move(1);
    const auto guard = retain::attach(keep, w.weights);
    keep.reset();
    w.backward(1);
    CHECK(w.gradient() == 3);
  }
  SECTION("moved in") {
    const auto guard = retain::attach(retain::l2_init{w.weights}, w.weights);
    w.move(1);
    w.backward(1);
    CHECK(w.gradient() == 3);
  }
  SECTION("the terms of a composition") {
    auto keep = retain::compose(retain::l2_init{w.weights},
                                retain::ewc{w.weights, {{"0", torch::full({2}, 3.0f)}}});
    w.move(1);
    const auto one = retain::attach(keep.term<0>(), w.weights);
    const auto two = retain::attach(keep.term<1>(), w.weights);
    w.backward(1);
    w.backward(1);
    CHECK(w.gradient() == 2 + 2 + 6);
  }
}

TEST_CASE("attach: a sparse gradient becomes dense and keeps what it held; half precision",
          "[attach]") {
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  const retain::l2_init keep{table};
  const auto guard = retain::attach(keep, table);
  {
    const at::NoGradGuard no_grad;
    table->weight.add_(1);
  }
  for (int pass = 1; pass <= 2; ++pass) {
    table->forward(torch::tensor({1, 3})).sum().backward();
    auto expected = torch::full({5, 2}, 2.0);
    expected[1] += pass;
    expected[3] += pass;
    CHECK(support::relative_error(table->weight.grad(), expected) < 1e-6);
  }

  std::vector<at::Tensor> half{torch::zeros({2}, at::kHalf).requires_grad_()};
  const retain::l2_init keep_half{half};
  {
    const at::NoGradGuard no_grad;
    half[0].add_(1);
  }
  const auto guard_half = retain::attach(keep_half, half);
  half[0].backward(torch::ones({2}, at::kHalf));
  CHECK(half[0].grad()[0].item<double>() == 3);
}

TEST_CASE(
    "attach: with create_graph the loss's part stays differentiable and the pull is a constant",
    "[attach]") {
  std::vector<at::Tensor> w{torch::zeros({2}, at::kDouble).requires_grad_()};
  const retain::l2_init keep{w};
  {
    const at::NoGradGuard no_grad;
    w[0].fill_(3);
  }
  const auto guard = retain::attach(keep, w);
  w[0].pow(3).sum().backward({}, {}, /*create_graph=*/true);
  CHECK(w[0].grad()[0].item<double>() == 27 + 6);
  w[0].pow(3).sum().backward({}, {}, /*create_graph=*/true);
  CHECK(w[0].grad()[0].item<double>() == 2 * 27 + 6);
  const auto second = torch::autograd::grad({w[0].grad().sum()}, {w[0]})[0];
  CHECK(second[0].item<double>() == 2 * 6 * 3);
  w[0].mutable_grad() = at::Tensor();  // the graph refers to itself through .grad
}

TEST_CASE("attach: a model that was moved to another type is pulled on", "[attach]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net};
  const auto guard = retain::attach(keep, net);
  net->forward(torch::ones({1, 3})).sum().backward();
  net->zero_grad();
  net->to(at::kDouble);
  for (auto& p : net->parameters()) p.mutable_grad() = at::Tensor();
  {
    const at::NoGradGuard no_grad;
    net->bias.add_(2);
  }
  net->forward(torch::ones({1, 3}, at::kDouble)).sum().backward();
  CHECK(net->bias.grad()[0].item<double>() == Approx(1 + 4));
}

TEST_CASE("attach: what cannot be attached is said when it is tried", "[attach]") {
  const auto t = [](std::int64_t n) { return torch::ones({n}).requires_grad_(); };
  const retain::l2_init keep{retain::parameter_list{{"a", t(2)}}};
  CHECK_THROWS_AS(retain::attach(keep, retain::parameter_list{{"a", t(3)}}), retain::shape_error);
  CHECK_THROWS_AS(retain::attach(keep, retain::parameter_list{{"b", t(2)}}), retain::state_error);
  const retain::parameter_list computed{{"a", t(2) * 2}}, frozen{{"a", torch::ones({2})}};
  CHECK_THROWS_AS(retain::attach(keep, computed), retain::config_error);
  CHECK_THROWS_WITH(retain::attach(keep, computed), ContainsSubstring("'a' is computed"));
  CHECK_THROWS_WITH(retain::attach(keep, frozen), ContainsSubstring("no trainable parameter"));
  CHECK_THROWS_AS(retain::attach(std::shared_ptr<retain::l2_init>(), frozen), retain::config_error);
}

}  // namespace attach_test
