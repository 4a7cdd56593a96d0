// SPDX-License-Identifier: MIT
#include <retain/kfac_ewc.hpp>
#include <retain/retain.hpp>
#include <retain/term.hpp>

#include <string>
#include <vector>

#include "own_term/l1_penalty.hpp"
#include "own_term/tempered_distillation.hpp"
#include "support.hpp"

namespace term_test {

using own_teacher = retain::teacher<torch::nn::Linear>;
using own_distillation = tempered_distillation<own_teacher>;
using logits_function = at::Tensor (*)(const at::Tensor&);

static_assert(retain::output_term<own_distillation, logits_function, retain::steps>);
static_assert(!retain::weight_term<own_distillation>);
static_assert(!retain::output_term<l1_penalty, logits_function, retain::steps>);
static_assert(!retain::output_term<own_teacher, logits_function, retain::steps>);
static_assert(retain::weight_term<l1_penalty>);
static_assert(retain::retention_term<l1_penalty>);
static_assert(!retain::attachable<l1_penalty>);
static_assert(!retain::weight_term<at::Tensor>);
static_assert(!retain::weight_term<retain::anchors>);
static_assert(!retain::weight_term<retain::strength_schedule>);

TEST_CASE("term: the penalty of the example, against its formula", "[term]") {
  torch::manual_seed(1);
  torch::nn::Linear net(3, 2);
  net->bias.requires_grad_(false);
  const auto anchor = net->weight.detach().clone();
  l1_penalty keep{net, 2.0};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(torch::randn_like(net->weight));
    net->bias.add_(1);  // frozen: not counted
  }
  const auto list = retain::parameters(net);
  const double expected = 2 * (net->weight - anchor).abs().sum().item<double>();
  CHECK(keep.loss(list).item<double>() == Approx(expected));
  net->weight.mutable_grad() = torch::ones_like(net->weight);
  const auto kept = net->weight.grad();
  CHECK(keep.add_gradient(list).item<double>() == Approx(expected));
  CHECK(kept.is_same(net->weight.grad()));  // added in place
  CHECK(kept.equal(1 + 2 * (net->weight - anchor).sign()));
  CHECK(!net->bias.grad().defined());
}

TEST_CASE("term: the distillation of the example, against its formula", "[term]") {
  torch::manual_seed(4);
  torch::nn::Linear net(3, 4), student(3, 4);
  own_distillation keep{own_teacher{net}, 2.0, 5.0};
  retain::steps rollout{.observations = torch::randn({6, 3})};
  const auto at_temperature = [&](torch::nn::Linear model, const at::Tensor& o) {
    return torch::softmax(model->forward(o).to(at::kDouble) / 2, -1);
  };
  const auto expected = [&](const at::Tensor& o) {
    const auto p = at_temperature(net, o), q = at_temperature(student, o);
    return 5 * 4 * (p * (p / q).log()).sum(-1).mean().item<double>();
  };
  const auto forward = [&](const at::Tensor& o) { return student->forward(o); };
  CHECK(keep.loss(forward, rollout).item<double>() ==
        Approx(expected(rollout.observations)).epsilon(1e-5));
  rollout.mask = torch::tensor({1, 1, 0, 0, 1, 0});
  CHECK(keep.loss(forward, rollout).item<double>() ==
        Approx(expected(rollout.observations.index_select(0, torch::tensor({0, 1, 4}))))
            .epsilon(1e-5));
  // the answers in padding may be anything
  const auto broken = [&](const at::Tensor& o) {
    return student->forward(o).masked_fill(rollout.mask.eq(0).unsqueeze(-1), std::nan(""));
  };
  keep.loss(broken, rollout).backward();
  CHECK(student->weight.grad().isfinite().all().item<bool>());
  CHECK(student->weight.grad().abs().sum().item<double>() > 0);
  CHECK(!net->weight.grad().defined());
}

TEST_CASE("term: a teacher with memory is not given the student's state", "[term]") {
  const auto sum = [](const torch::nn::Linear&, const at::Tensor& o, const at::Tensor& state,
                      const at::Tensor& start) {
    const auto from = state.defined() ? state : at::zeros_like(o[0]);
    const auto next = from.masked_fill(start[0].unsqueeze(-1), 0) + o[0];
    return std::tuple{retain::categorical{next.unsqueeze(0)}, next};
  };
  retain::teacher teacher{torch::nn::Linear(1, 1), sum};
  const retain::steps rollout{.observations = torch::ones({1, 2, 3}),
                              .episode_start = torch::zeros({1, 2}, at::kBool),
                              .state = torch::full({2, 3}, 100.0)};
  CHECK(retain::ask_teacher(teacher, rollout).logits.equal(torch::ones({1, 2, 3})));
  CHECK(retain::ask_teacher(teacher, rollout).logits.equal(torch::full({1, 2, 3}, 2.0)));
}

TEST_CASE("term: at strength 0 every loss is a zero without a graph", "[term]") {
  torch::manual_seed(6);
  torch::nn::Linear net(3, 2);
  const auto states = torch::randn({8, 3});
  const auto actions = torch::randint(0, 2, {8});
  const auto student = [&](const at::Tensor& o) { return net->forward(o); };
  const retain::steps rollout{.observations = states, .actions = actions};
  const auto fisher = retain::estimate_fisher(net, states, student);
  const auto factors = retain::estimate_kfac(net, states, student);
  const auto sensitivity = retain::estimate_sensitivity(net, states, student);
  const retain::teacher teacher{net};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
  }
  const auto none = [](const at::Tensor& loss) {
    CHECK(loss.dim() == 0);
    CHECK(loss.item<double>() == 0);
    CHECK(!loss.requires_grad());
  };
  const auto weights = [&](auto term) {
    INFO(decltype(term)::name);
    none(term.loss(retain::parameters(net)));
    const auto value = term.add_gradient(retain::parameters(net));
    none(value);
    CHECK(value.scalar_type() == at::kDouble);
    CHECK(!net->weight.grad().defined());
  };
  weights(retain::l2_init{net, {.strength = 0.0}});
  weights(retain::ewc{net, fisher, {.strength = 0.0}});
  weights(retain::kfac_ewc{net, factors, {.strength = 0.0}});
  weights(retain::memory_aware_synapses{net, sensitivity, {.strength = 0.0}});
  weights(retain::synaptic_intelligence{net, {.strength = 0.0}});
  weights(l1_penalty{net, 0.0});

  const auto outputs = [&](auto term) {
    INFO(decltype(term)::name);
    none(term.loss(student, rollout));
  };
  outputs(retain::kickstarting{teacher, {.strength = 0.0}});
  outputs(retain::behavioral_cloning{states, teacher, {.strength = 0.0}});
  outputs(retain::reference_kl{teacher, {.strength = 0.0}});
  outputs(own_distillation{teacher, 2.0, 0.0});
  retain::dark_experience_replay replay{{.strength = 0.0, .capacity = 8}};
  replay.push(states, torch::randn({8, 2}), actions);
  outputs(replay);

  retain::retention<> set;
  set.add(retain::l2_init{net, {.strength = 0.0}});
  set.add(retain::kickstarting{teacher, {.strength = 0.0}});
  none(set.distillation(student, rollout));
  none(set.loss(retain::policy_view{net, student}, rollout));
  none(set.add_gradient(net));
}

TEST_CASE("term: own terms in a set, saved and resumed to the bit", "[term]") {
  torch::manual_seed(2);
  torch::nn::Linear net(3, 2);
  const support::temporary_folder folder;
  const retain::steps rollout{.observations = torch::randn({7, 3})};
  const auto made = [&] {
    retain::retention<> keep;
    keep.add(l1_penalty{net, 2.0});
    keep.add(retain::l2_init{net});
    keep.add(own_distillation{own_teacher{net}, 2.0, 1.0});
    return keep;
  };
  auto keep = made();
  keep.set_strength("l1", retain::linear{.initial = 4, .last = 0, .over = 8});
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(torch::randn_like(net->weight));
  }
  keep.step(2);
  CHECK(keep.strength("l1") == 3);
  retain::save(folder.file("keep"), keep);
  auto resumed = made();  // around other weights, with the constructor's strength
  retain::load(folder.file("keep"), resumed);
  for (const double progress : {2, 6}) {
    keep.step(progress);
    resumed.step(progress);
    const retain::policy_view view{net, [&](const at::Tensor& o) { return net->forward(o); }};
    CHECK(resumed.loss(view, rollout).equal(keep.loss(view, rollout)));
  }
}

TEST_CASE("term: anchors give the quadratic of l2_init, with importances that of ewc", "[term]") {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(4, 3), torch::nn::Linear(3, 2));
  const retain::anchor_options options{.exclude = {"1.bias"}, .groups = {{"0", 0.5}}};
  retain::anchors anchors{"mine", *net, options};
  const retain::l2_init l2{*net, {.strength = 3.0, .exclude = {"1.bias"}, .groups = {{"0", 0.5}}}};
  retain::parameter_list importance;
  for (const auto& [name, t] : retain::parameters(*net))
    if (name != "1.bias") importance.push_back({name, torch::rand_like(t)});
  const retain::ewc ewc{
      *net, importance, {.strength = 3.0, .exclude = {"1.bias"}, .groups = {{"0", 0.5}}}};
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(torch::randn_like(p));
  }
  const auto same = [&](const auto& term) {
    CHECK(anchors.quadratic_loss(*net, 3.0).equal(term.loss(*net)));
    net->zero_grad();
    anchors.add_quadratic_gradient(*net, 3.0);
    std::vector<at::Tensor> own;
    for (const auto& p : net->parameters())
      own.push_back(p.grad().defined() ? p.grad().clone() : at::Tensor());
    net->zero_grad();
    term.add_gradient(*net);
    std::size_t i = 0;
    for (const auto& p : net->parameters()) {
      CHECK(own[i].defined() == p.grad().defined());
      if (own[i].defined()) CHECK(own[i].equal(p.grad()));
      ++i;
    }
  };
  same(l2);
  anchors.set_importance(importance);
  same(ewc);
  auto wrong = importance;
  wrong.pop_back();
  CHECK_THROWS_WITH(anchors.set_importance(wrong), ContainsSubstring("mine: 2 importances"));
  wrong = importance;
  wrong[0].tensor = -wrong[0].tensor;
  CHECK_THROWS_AS(anchors.set_importance(wrong), retain::state_error);
  wrong[0] = {"0.weight", torch::ones({2, 2})};
  CHECK_THROWS_AS(anchors.set_importance(wrong), retain::shape_error);
  wrong[0] = {"other", torch::ones({2, 2})};
  CHECK_THROWS_AS(anchors.set_importance(wrong), retain::state_error);
  same(ewc);
}

TEST_CASE("term: a gradient of a loss leaves computed tensors, frozen and unused ones alone",
          "[term]") {
  struct first_only {
    at::Tensor loss(const retain::parameter_list& model) const {
      return model[0].tensor.square().sum();
    }
  };
  const auto used = torch::ones({2}).requires_grad_(), unused = torch::ones({2}).requires_grad_();
  const first_only term;
  const retain::parameter_list model{{"used", used}, {"unused", unused}};
  {
    const at::NoGradGuard no_grad;  // the call stands where gradients are off
    CHECK(retain::add_gradient_of_loss(term, model).item<double>() == 2);
  }
  CHECK(used.grad().equal(torch::full({2}, 2.0)));
  CHECK(!unused.grad().defined());
  const retain::parameter_list computed{{"used", used * 2}};
  CHECK_THROWS_AS(retain::add_gradient_of_loss(term, computed), retain::config_error);
}

}  // namespace term_test
