// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>
#include <retain/l2_init.hpp>

#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <cmath>
#include <string>

#include "support.hpp"
#include "weight_penalties.hpp"

namespace l2_init_test {

static_assert(retain::weight_term<retain::l2_init>);
static_assert(!retain::weight_term<at::Tensor>);
static_assert(!retain::weight_term<retain::strength_schedule>);

TEST_CASE("l2_init: value and both gradients in every floating type", "[l2_init]") {
  const auto make = [](const auto& weights) { return retain::l2_init{weights, {.strength = 0.7}}; };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
  support::check_gradients(make, at::kBFloat16, 2e-2);
}

TEST_CASE("l2_init: the value is c times the squared distance, groups scale it", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init plain{net, {.strength = 2.0}};
  const retain::l2_init grouped{net, {.strength = 2.0, .groups = {{"w*", 10.0}, {"bias", 0.0}}}};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(0.5);
    net->bias.sub_(1.0);
  }
  CHECK(plain.add_gradient(net).item<double>() == Approx(2.0 * (6 * 0.25 + 2 * 1.0)));
  CHECK(grouped.add_gradient(net).item<double>() == Approx(2.0 * 10 * 6 * 0.25));
  CHECK_THROWS_WITH((retain::l2_init{net, {.groups = {{"head.*", 1.0}}}}),
                    ContainsSubstring("head.*"));
  CHECK_THROWS_AS((retain::l2_init{net, {.groups = {{"*", -1.0}}}}), retain::config_error);
}

TEST_CASE("l2_init: a pattern covers by the name of a module, whole or with wildcards, and no "
          "other that begins alike",
          "[l2_init]") {
  const auto t = [] { return torch::ones({1}).requires_grad_(); };
  const retain::parameter_list net{{"body.0.weight", t()},
                                   {"body.0.bias", t()},
                                   {"body2.weight", t()},
                                   {"head.out.weight", t()}};
  const auto kept = [&](const std::string& pattern) {
    const retain::l2_init keep{net, {.exclude = {pattern}}};
    std::vector<std::string> names;
    for (const auto& [name, tensor] : net)
      if (keep.covers(name)) names.push_back(name);
    return names;
  };
  using names = std::vector<std::string>;
  CHECK(kept("body") == names{"body2.weight", "head.out.weight"});
  CHECK(kept("body.0") == names{"body2.weight", "head.out.weight"});
  CHECK(kept("body?") == names{"body.0.weight", "body.0.bias", "head.out.weight"});
  CHECK(kept("head.out.weight") == names{"body.0.weight", "body.0.bias", "body2.weight"});
  // a name is read from its beginning, so this matches nothing
  CHECK_THROWS_AS(kept("out"), retain::config_error);
  CHECK(kept("*.out") == names{"body.0.weight", "body.0.bias", "body2.weight"});

  const retain::l2_init grouped{net, {.groups = {{"body", 3.0}, {"head.*", 0.5}}}};
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : net) at::Tensor(tensor).add_(1);
  CHECK(grouped.add_gradient(net).item<double>() == Approx(3 + 3 + 1 + 0.5));
  CHECK_THROWS_WITH((retain::l2_init{net, {.groups = {{"bod", 1.0}}}}),
                    ContainsSubstring("'bod' matches no parameter"));
}

TEST_CASE("l2_init: frozen parameters are skipped, and penalized again once unfrozen",
          "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
    net->bias.add_(1);
  }
  net->weight.requires_grad_(false);
  CHECK(keep.add_gradient(net).item<double>() == Approx(2));
  CHECK(!net->weight.grad().defined());
  net->weight.requires_grad_(true);
  CHECK(keep.loss(net).item<double>() == Approx(8));
  net->weight.requires_grad_(false);
  net->bias.requires_grad_(false);
  CHECK(keep.loss(net).item<double>() == 0);
  CHECK(keep.add_gradient(net).item<double>() == 0);
}

TEST_CASE("l2_init: strength 0 does nothing, not even make gradients", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net, {.strength = 0.0}};
  CHECK(keep.add_gradient(net).item<double>() == 0);
  CHECK(!net->weight.grad().defined());
}

TEST_CASE("l2_init: a tied weight counts once", "[l2_init]") {
  struct tied_net : torch::nn::Module {
    tied_net() {
      shared = register_parameter("a", torch::zeros({2}));
      register_parameter("b", shared);
    }
    at::Tensor shared;
  };
  tied_net net;
  const retain::l2_init keep{net};
  {
    const at::NoGradGuard no_grad;
    net.shared.add_(3);
  }
  CHECK(keep.add_gradient(net).item<double>() == 18);
}

TEST_CASE("l2_init: a sparse gradient becomes dense and keeps what it held", "[l2_init]") {
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  const retain::l2_init keep{table, {.strength = 1.0}};
  table->forward(torch::tensor({1, 3})).sum().backward();
  REQUIRE(table->weight.grad().is_sparse());
  {
    const at::NoGradGuard no_grad;
    table->weight.add_(1);
  }
  keep.add_gradient(table);
  auto expected = torch::full({5, 2}, 2.0);
  expected[1] += 1;
  expected[3] += 1;
  CHECK(!table->weight.grad().is_sparse());
  CHECK(support::relative_error(table->weight.grad(), expected) < 1e-5);
}

TEST_CASE("l2_init: a model that was moved to another type keeps its anchor", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net};
  net->to(at::kDouble);
  {
    const at::NoGradGuard no_grad;
    net->bias.add_(2);
  }
  CHECK(keep.loss(net).item<double>() == Approx(8));
  CHECK(keep.add_gradient(net).item<double>() == Approx(8));
}

TEST_CASE("l2_init: half precision through LibTorch's operations does not underflow", "[l2_init]") {
  // A strided gradient keeps the fused pass away; 2 c d is representable where c alone times d^2
  // would not be.
  std::vector<at::Tensor> w{torch::zeros({4, 4}, at::kHalf).requires_grad_()};
  const retain::l2_init keep{w, {.strength = 1e-3}};
  w[0].mutable_grad() = torch::zeros({4, 8}, at::kHalf).slice(1, 0, 8, 2);
  {
    const at::NoGradGuard no_grad;
    w[0].fill_(1e-3);
  }
  CHECK(keep.add_gradient(w).item<double>() == Approx(16 * 1e-3 * 1e-6).epsilon(1e-2));
  CHECK(w[0].grad()[1][2].item<double>() == Approx(2e-6).epsilon(5e-2));
}

TEST_CASE("l2_init: the graph can be differentiated twice", "[l2_init]") {
  std::vector<at::Tensor> w{torch::tensor({1.0, 2.0}, at::kDouble).requires_grad_()};
  const retain::l2_init keep{w, {.strength = 1.5}};
  {
    const at::NoGradGuard no_grad;
    w[0].add_(1);
  }
  const auto first =
      torch::autograd::grad({w[0].pow(3).sum() + keep.loss(w)}, {w[0]}, {}, true, true)[0];
  const auto second = torch::autograd::grad({first.sum()}, {w[0]})[0];
  CHECK(support::relative_error(second, 6 * w[0].detach() + 3) < 1e-12);
}

TEST_CASE("l2_init: a model that does not fit is named, and nothing is written", "[l2_init]") {
  const auto t = [](std::int64_t n) { return torch::ones({n}).requires_grad_(); };
  const retain::l2_init keep{retain::parameter_list{{"a", t(2)}, {"b", t(3)}}};
  const retain::parameter_list resized{{"a", t(2)}, {"b", t(4)}}, missing{{"a", t(2)}},
      extra{{"a", t(2)}, {"b", t(3)}, {"head", t(1)}};
  CHECK_THROWS_AS(keep.add_gradient(resized), retain::shape_error);
  CHECK_THROWS_WITH(keep.add_gradient(resized), ContainsSubstring("'b'") &&
                                                    ContainsSubstring("[4]") &&
                                                    ContainsSubstring("[3]"));
  CHECK(!resized[0].tensor.grad().defined());
  CHECK_THROWS_AS(keep.loss(missing), retain::state_error);
  CHECK_THROWS_WITH(keep.loss(missing), ContainsSubstring("'b'") && ContainsSubstring("missing"));
  CHECK_THROWS_WITH(keep.loss(extra),
                    ContainsSubstring("'head'") && ContainsSubstring("no anchor"));
  const retain::l2_init headless{
      extra, retain::parameter_list{{"a", t(2)}, {"b", t(3)}}, {.exclude = {"head*"}}};
  CHECK_NOTHROW(headless.loss(extra));
}

TEST_CASE("l2_init: an anchor other than the present weights, as a model or as a list, under the "
          "options of always",
          "[l2_init]") {
  torch::nn::Linear pretrained(3, 2), net(3, 2);
  const auto distance = [&](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).square().sum().item<double>();
  };
  const double weight = distance(net->weight, pretrained->weight),
               bias = distance(net->bias, pretrained->bias);
  retain::parameter_list list = retain::parameters(pretrained);
  const retain::l2_init from_model{net, pretrained, {.strength = 2.0, .groups = {{"bias", 3.0}}}};
  const retain::l2_init from_list{net, list};
  CHECK(from_model.add_gradient(net).item<double>() == Approx(2 * (weight + 3 * bias)));
  CHECK(support::relative_error(net->bias.grad(), 2 * 2 * 3 * (net->bias - pretrained->bias)) <
        1e-6);
  {
    const at::NoGradGuard no_grad;
    pretrained->weight.zero_();  // the anchor is a copy
  }
  CHECK(from_list.loss(net).item<double>() == Approx(weight + bias));

  const retain::l2_init body_only{
      net,
      retain::parameter_list{{"weight", torch::zeros({2, 3}, at::kDouble)}},
      {.exclude = {"bias"}}};
  CHECK(body_only.loss(net).item<double>() == Approx(net->weight.square().sum().item<double>()));

  const retain::parameter_list missing{{"weight", torch::zeros({2, 3})}};
  CHECK_THROWS_AS((retain::l2_init{net, missing}), retain::state_error);
  CHECK_THROWS_WITH((retain::l2_init{net, missing}),
                    ContainsSubstring("'bias'") && ContainsSubstring("has no anchor: exclude"));
  list.push_back({"head.weight", torch::zeros({1})});
  CHECK_THROWS_WITH((retain::l2_init{net, list}),
                    ContainsSubstring("'head.weight'") && ContainsSubstring("does not have"));
  CHECK_THROWS_AS((retain::l2_init{net, torch::nn::Linear(4, 2)}), retain::shape_error);
  CHECK_THROWS_WITH((retain::l2_init{net, torch::nn::Linear(4, 2)}),
                    ContainsSubstring("[2, 4]") && ContainsSubstring("[2, 3]"));
  const retain::parameter_list poisoned{{"weight", torch::zeros({2, 3})},
                                        {"bias", torch::full({2}, std::nan(""))}};
  CHECK_THROWS_WITH((retain::l2_init{net, poisoned}),
                    ContainsSubstring("'bias'") && ContainsSubstring("not finite"));
}

TEST_CASE("l2_init: the scales of several patterns that match one name multiply, frozen parameters "
          "among them",
          "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net,
                             {.strength = 5.0, .groups = {{"*", 2.0}, {"w*", 10.0}, {"*t", 0.5}}}};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
    net->bias.add_(1);
  }
  CHECK(keep.loss(net).item<double>() == Approx(5 * (2 * 10 * 0.5 * 6 + 2 * 2)));
  net->weight.requires_grad_(false);
  CHECK(keep.loss(net).item<double>() == Approx(5 * 2 * 2));
  keep.add_gradient(net);
  CHECK(support::relative_error(net->bias.grad(), torch::full({2}, 2 * 5 * 2.0)) < 1e-6);
}

TEST_CASE("l2_init: an anchor that was given is saved and loaded with the rest", "[l2_init]") {
  const support::temporary_folder folder;
  torch::nn::Linear net(3, 2), pretrained(3, 2);
  const retain::l2_init keep{net, pretrained};
  retain::save(folder.file("l2"), keep);
  retain::l2_init resumed{net};
  CHECK(resumed.loss(net).item<double>() == 0);
  retain::load(folder.file("l2"), resumed);
  CHECK(resumed.loss(net).equal(keep.loss(net)));
}

namespace {

/// Two parameters that have moved from their anchors by 0.5 and -1, and a penalty of them.
struct moved_weights {
  explicit moved_weights(at::ScalarType type = at::kFloat)
      : weights{torch::randn({3, 2}, type).requires_grad_(),
                torch::randn({4}, type).requires_grad_()},
        keep(weights, {.strength = 3.0}) {
    const at::NoGradGuard no_grad;
    weights[0].add_(0.5);
    weights[1].sub_(1);
  }
  std::vector<at::Tensor> weights;
  retain::l2_init keep;
};

struct dual_level {
  std::uint64_t index = torch::autograd::ForwardADLevel::get_next_idx();
  dual_level() = default;
  ~dual_level() { torch::autograd::ForwardADLevel::release_idx(index); }
  dual_level(const dual_level&) = delete;
  dual_level& operator=(const dual_level&) = delete;
};

}  // namespace

TEST_CASE(
    "l2_init: a view or another computed tensor has no .grad to add to, and its loss flows on",
    "[l2_init]") {
  torch::nn::Linear old_head(3, 2), grown(3, 4);
  const retain::parameter_list old{{"head.weight", old_head->weight}};
  const retain::l2_init keep{old, {.strength = 2.0}};
  const retain::parameter_list rows{{"head.weight", grown->weight.narrow(0, 0, 2)}};
  CHECK_THROWS_AS(keep.add_gradient(rows), retain::config_error);
  CHECK_THROWS_WITH(keep.add_gradient(rows),
                    ContainsSubstring("'head.weight' [2, 3] is computed") &&
                        ContainsSubstring("grown_importance"));
  CHECK(!grown->weight.grad().defined());
  {
    const at::NoGradGuard no_grad;  // looks like a leaf, and is none
    CHECK_THROWS_AS(
        keep.add_gradient(retain::parameter_list{{"head.weight", grown->weight.narrow(0, 0, 2)}}),
        retain::config_error);
  }
  CHECK_THROWS_AS(keep.add_gradient(retain::parameter_list{{"head.weight", old_head->weight * 2}}),
                  retain::config_error);
  // frozen
  CHECK_NOTHROW(
      keep.add_gradient(retain::parameter_list{{"head.weight", old_head->weight.detach()}}));

  keep.loss(rows).backward();
  const auto expected = torch::zeros({4, 3});
  expected.narrow(0, 0, 2).copy_(4 * (grown->weight.narrow(0, 0, 2) - old_head->weight).detach());
  CHECK(support::relative_error(grown->weight.grad(), expected) < 1e-6);

  // A leaf of its own is a parameter, though its memory is part of another's.
  const auto flat = torch::randn({8});
  const std::vector<at::Tensor> part{flat.narrow(0, 0, 4).requires_grad_()};
  const retain::l2_init of_part{part};
  CHECK_NOTHROW(of_part.add_gradient(part));
  CHECK(part[0].grad().defined());
}

TEST_CASE("l2_init: a graph that holds .grad is told that it was added to", "[l2_init]") {
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf}) {
    moved_weights m(type);
    auto& w = m.weights[0];
    (w.sum() * 2).backward();
    const auto v = torch::randn_like(w).requires_grad_();
    const auto y = (w.grad() * v).sum();
    const auto before = w.grad()._version();
    m.keep.add_gradient(m.weights);
    CHECK(w.grad()._version() == before + 1);
    CHECK_THROWS_WITH(y.backward(), ContainsSubstring("modified by an inplace operation"));
    static_cast<void>(m.keep.loss(m.weights));
    CHECK(w.grad()._version() == before + 1);  // which writes nothing
  }
  // A tensor of inference mode has no counter.
  moved_weights m;
  {
    const c10::InferenceMode inference;
    m.keep.add_gradient(m.weights);
  }
  CHECK(m.weights[0].grad().is_inference());
  m.keep.add_gradient(m.weights);
  CHECK(support::relative_error(m.weights[0].grad(), torch::full({3, 2}, 2 * 2 * 3 * 0.5)) < 1e-6);
}

TEST_CASE("l2_init: a trace of the loss answers for other weights", "[l2_init]") {
  moved_weights m;
  const auto importance =
      retain::parameter_list{{"0", torch::rand({3, 2})}, {"1", torch::rand({4})}};
  const retain::ewc weighted{m.weights, importance, {.strength = 3.0, .groups = {{"1", 2.0}}}};
  for (const bool with_importance : {false, true}) {
    const auto ask = [&](const std::vector<at::Tensor>& weights) {
      return with_importance ? weighted.loss(weights) : m.keep.loss(weights);
    };
    const auto traced = torch::jit::tracer::trace(
        {m.weights[0], m.weights[1]},
        [&](torch::jit::Stack in) -> torch::jit::Stack {
          return {ask({in[0].toTensor(), in[1].toTensor()})};
        },
        [](const torch::autograd::Variable&) { return std::string(); });
    const std::vector<at::Tensor> others{torch::randn({3, 2}).requires_grad_(),
                                         torch::randn({4}).requires_grad_()};
    torch::jit::GraphExecutor graph(traced.first->graph, "traced");
    torch::jit::Stack stack{others[0], others[1]};
    graph.run(stack);
    const auto answer = stack[0].toTensor(), expected = ask(others);
    CHECK(answer.item<double>() == Approx(expected.item<double>()));
    const auto gradient = torch::autograd::grad({answer}, {others[0]})[0];
    CHECK(support::relative_error(gradient, torch::autograd::grad({expected}, {others[0]})[0]) <
          1e-5);
  }
}

TEST_CASE("l2_init: the forward-mode derivative of the loss, and of its gradient", "[l2_init]") {
  for (const auto type : {at::kDouble, at::kHalf}) {
    moved_weights m(type);
    const auto along = torch::randn_like(m.weights[0]);
    const double expected = (2 * 3 * 0.5 * along.to(at::kDouble)).sum().item<double>();
    const dual_level level;
    const auto index = static_cast<std::int64_t>(level.index);
    const std::vector<at::Tensor> dual{at::_make_dual(m.weights[0], along, index), m.weights[1]};
    const auto loss = m.keep.loss(dual);
    CHECK(loss.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
    CHECK(loss.item<double>() == Approx(m.keep.loss(m.weights).item<double>()));
    CHECK(std::get<1>(at::_unpack_dual(loss, index)).item<double>() ==
          Approx(expected).epsilon(type == at::kDouble ? 1e-10 : 1e-2));
  }
  // Forward over backward where only a factor behind the loss has a tangent t: the gradient's is t
  // times the gradient.
  moved_weights m(at::kDouble);
  const dual_level level;
  const auto index = static_cast<std::int64_t>(level.index);
  const auto factor =
      at::_make_dual(torch::full({}, 2.0, at::kDouble), torch::full({}, 7.0, at::kDouble), index);
  const auto gradient = torch::autograd::grad({m.keep.loss(m.weights) * factor}, {m.weights[0]})[0];
  const auto [primal, tangent] = at::_unpack_dual(gradient, index);
  REQUIRE(tangent.defined());
  CHECK(support::relative_error(primal, torch::full({3, 2}, 2 * 2 * 3 * 0.5)) < 1e-12);
  CHECK(support::relative_error(tangent, torch::full({3, 2}, 7 * 2 * 3 * 0.5)) < 1e-12);
}

TEST_CASE("l2_init: create_graph in half precision is that of double, where the factor alone would "
          "overflow",
          "[l2_init]") {
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    torch::manual_seed(6);
    // Steps that half types hold exactly: no difference but the rounding of the result is left.
    const auto steps = torch::randint(-4, 5, {50}, at::kDouble) / 512;
    const std::vector<at::Tensor> w{torch::zeros({50}, type).requires_grad_()},
        exact{torch::zeros({50}, at::kDouble).requires_grad_()};
    const retain::l2_init keep{w, {.strength = 1e6}}, reference{exact, {.strength = 1e6}};
    {
      const at::NoGradGuard no_grad;
      at::Tensor(w[0]).copy_(steps);
      at::Tensor(exact[0]).copy_(steps);
    }
    const auto gradient = torch::autograd::grad({keep.loss(w)}, {w[0]}, {}, true, true)[0];
    const auto expected =
        torch::autograd::grad({reference.loss(exact)}, {exact[0]}, {}, true, true)[0];
    CHECK(gradient.scalar_type() == type);
    CHECK(gradient.isfinite().all().item<bool>());
    CHECK(gradient.detach().to(at::kDouble).equal(expected.detach().to(type).to(at::kDouble)));
    CHECK(torch::autograd::grad({keep.loss(w)}, {w[0]})[0].equal(gradient.detach()));
  }
  std::vector<at::Tensor> w{torch::zeros({1}, at::kHalf).requires_grad_()};
  const retain::l2_init keep{w, {.strength = 1e6}};
  {
    const at::NoGradGuard no_grad;
    w[0].fill_(0.0078);
  }
  const double d = w[0].item<double>();
  const auto gradient = torch::autograd::grad({keep.loss(w)}, {w[0]}, {}, true, true)[0];
  CHECK(gradient.item<double>() == Approx(2e6 * d).epsilon(1e-3));
}

TEST_CASE("l2_init: numbers that memory does not hold are taken by LibTorch's operations",
          "[l2_init]") {
  const std::vector<at::Tensor> w{torch::ones({4}).requires_grad_()};
  const retain::l2_init keep{w};
  {
    const at::NoGradGuard no_grad;
    at::Tensor(w[0]).add_(1);
  }
  at::Tensor(w[0]).mutable_grad() = at::_neg_view(torch::full({4}, 5.0f));  // -5
  keep.add_gradient(w);
  CHECK(w[0].grad().equal(torch::full({4}, -3.0f)));
}

TEST_CASE("l2_init: a model that holds NaN is no anchor, but where it is frozen", "[l2_init]") {
  for (const double bad : {std::nan(""), double(INFINITY)})
    for (const auto type : {at::kFloat, at::kDouble, at::kHalf}) {
      const retain::parameter_list model{{"body", torch::ones({2}, type).requires_grad_()},
                                         {"head", torch::ones({3, 2}, type).requires_grad_()}};
      model[1].tensor.detach()[2][1] = bad;
      CHECK_THROWS_AS((retain::l2_init{model}), retain::state_error);
      CHECK_THROWS_WITH(
          (retain::l2_init{model}),
          ContainsSubstring(
              "l2_init: the model's parameter 'head' holds a value that is not finite"));
      CHECK_NOTHROW((retain::l2_init{model, {.exclude = {"head"}}}));

      model[1].tensor.requires_grad_(false);
      const retain::l2_init keep{model};
      CHECK(keep.loss(model).item<double>() == 0);
      model[1].tensor.requires_grad_(true);
      CHECK_THROWS_WITH(keep.loss(model),
                        ContainsSubstring("'head' is trained, but it was frozen and not finite"));
    }
  // The largest numbers are numbers: their sum is not.
  const std::vector<at::Tensor> large{torch::full({4}, 3e38f).requires_grad_(),
                                      torch::full({4}, 6e4, at::kHalf).requires_grad_()};
  CHECK_NOTHROW((retain::l2_init{large}));
}

TEST_CASE(
    "l2_init: a state with an anchor that is not finite is refused, by name, and changes nothing",
    "[l2_init]") {
  moved_weights m;
  const double before = m.keep.loss(m.weights).item<double>();
  retain::state saved;
  m.keep.save_state(saved, "");
  const auto refused = [&](const char* key, auto value, const char* text) {
    retain::state changed;
    m.keep.save_state(changed, "");
    changed.set("anchor.0", torch::zeros({3, 2}));
    changed.set(key, value);
    CHECK_THROWS_AS(m.keep.load_state(changed, ""), retain::state_error);
    CHECK_THROWS_WITH(m.keep.load_state(changed, ""), ContainsSubstring(text));
    CHECK(m.keep.loss(m.weights).item<double>() == before);
  };
  refused("anchor.1", torch::full({4}, std::nan("")), "the saved anchor of '1'");
  refused("anchor.1", torch::full({4}, INFINITY), "the saved anchor of '1'");
  refused("constant.1", -1.0, "the constant of '1'");
  refused("constant.1", std::nan(""), "the constant of '1'");
  refused("schedule.progress", std::nan(""), "progress");
  m.keep.load_state(saved, "");
  CHECK(m.keep.loss(m.weights).item<double>() == before);
}

}  // namespace l2_init_test
