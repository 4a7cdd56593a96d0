// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>
#include <retain/compose.hpp>
#include <retain/kickstarting.hpp>
#include <retain/teacher.hpp>

#include <torch/script.h>

#include "support.hpp"

namespace teacher_test {

namespace {

struct normalized_net : torch::nn::Cloneable<normalized_net> {
  normalized_net() { reset(); }
  void reset() override {
    layers = register_module(
        "layers",
        torch::nn::Sequential(torch::nn::Linear(4, 8), torch::nn::BatchNorm1d(8), torch::nn::ReLU(),
                              torch::nn::Dropout(0.5), torch::nn::Linear(8, 3)));
  }
  at::Tensor forward(const at::Tensor& x) { return layers->forward(x); }
  torch::nn::Sequential layers{nullptr};
};

struct not_cloneable : torch::nn::Module {
  at::Tensor forward(const at::Tensor& x) { return x; }
};

struct recurrent_net : torch::nn::Cloneable<recurrent_net> {
  recurrent_net() { reset(); }
  void reset() override {
    core = register_module("core", torch::nn::GRUCell(2, 5));
    head = register_module("head", torch::nn::Linear(5, 3));
  }
  torch::nn::GRUCell core{nullptr};
  torch::nn::Linear head{nullptr};
};

/// One step: the state of environments that begin an episode is reset before the step.
const auto one_step = [](auto& net, const at::Tensor& x, const at::Tensor& h,
                         const at::Tensor& episode_start) {
  const auto carried = net->core->forward(x, h * (1 - episode_start).unsqueeze(1));
  return std::tuple{net->head->forward(carried), carried};
};

}  // namespace

TEST_CASE("teacher: with BatchNorm and dropout, bit-identical after the student's train() and a "
          "thousand steps",
          "[teacher]") {
  torch::manual_seed(1);
  auto student = std::make_shared<normalized_net>();
  student->train();
  const auto x = torch::randn({32, 4});
  // running statistics that are not the initial ones
  for (int i = 0; i < 10; ++i) student->forward(x);
  const retain::teacher teacher{student};
  const auto before = teacher(x).logits.clone();
  CHECK(!before.requires_grad());

  torch::optim::Adam adam(student->parameters(), torch::optim::AdamOptions(1e-2));
  for (int step = 0; step < 1000; ++step) {
    student->train();
    adam.zero_grad();
    const auto loss = kl(teacher(x), retain::categorical{student->forward(x)}).mean() +
                      student->forward(x * 3 + 1).square().mean();
    loss.backward();
    adam.step();
  }
  CHECK(teacher(x).logits.equal(before));
  student->eval();
  CHECK(!student->forward(x).equal(before));
}

TEST_CASE("teacher: asking it builds no graph and leaves no gradient", "[teacher]") {
  torch::nn::Sequential net(torch::nn::Linear(4, 3));
  const retain::teacher t{
      net, [](auto& model, const auto& o) { return retain::categorical{model->forward(o)}; }};
  const auto x = torch::randn({2, 4}).requires_grad_();
  CHECK(!t(x).log_probs().requires_grad());
  for (const auto& p : retain::parameters(t.model())) CHECK(!p.tensor.requires_grad());
  for (const auto& p : net->parameters()) CHECK(p.requires_grad());
}

TEST_CASE("teacher: a holder, a shared pointer and a TorchScript module are copied", "[teacher]") {
  torch::nn::Linear holder(2, 2);
  const retain::teacher from_holder{holder};
  auto pointer = std::make_shared<normalized_net>();
  const retain::teacher from_pointer{pointer};
  torch::jit::Module script("m");
  script.register_parameter("w", torch::ones({2, 2}), false);
  script.define("def forward(self, x):\n  return x.mm(self.w)\n");
  const retain::teacher from_script{
      script, [](auto& m, const at::Tensor& x) { return m.forward({x}).toTensor(); }};
  const auto x = torch::ones({1, 2});
  const auto a = from_holder(x).logits.clone(), c = from_script(x).logits.clone();
  {
    const at::NoGradGuard no_grad;
    holder->weight.zero_();
    for (auto p : script.parameters()) p.zero_();
  }
  CHECK(from_holder(x).logits.equal(a));
  CHECK(from_script(x).logits.equal(c));
  CHECK(c.equal(torch::full({1, 2}, 2.0)));
}

TEST_CASE("teacher: a module that cannot be cloned says what to do, and another can be adopted",
          "[teacher]") {
  auto net = std::make_shared<not_cloneable>();
  CHECK_THROWS_WITH(retain::teacher{net}, ContainsSubstring("torch::nn::Cloneable") &&
                                              ContainsSubstring("teacher{policy, fresh, forward}"));
  const retain::teacher adopted{retain::adopt, std::make_shared<not_cloneable>()};
  CHECK(adopted(torch::zeros({2, 3})).num_actions() == 3);
}

TEST_CASE("teacher: a recurrent one resets before the step that episode_start marks", "[teacher]") {
  torch::manual_seed(2);
  auto net = std::make_shared<recurrent_net>();
  const auto zero = torch::zeros({2, 5});
  retain::teacher t{net, one_step, zero};
  static_assert(!std::invocable<decltype(t)&, at::Tensor>);
  const auto xs = torch::randn({4, 2, 2});
  const auto episode_start = torch::tensor({{0., 0.}, {0., 0.}, {1., 0.}, {0., 0.}}, at::kFloat);
  // Environment 0 begins anew at step 2: from there on it must look like a fresh run over the rest.
  std::vector<at::Tensor> out;
  for (int i = 0; i < 4; ++i) out.push_back(t.step(xs[i], episode_start[i]).logits);
  retain::teacher fresh{net, one_step, zero};
  const auto none = torch::zeros({2});
  const auto second = fresh.step(xs[2], none).logits, third = fresh.step(xs[3], none).logits;
  CHECK(out[2][0].equal(second[0]));
  CHECK(out[3][0].equal(third[0]));
  CHECK(!out[2][1].equal(second[1]));
  t.reset();
  CHECK(t.step(xs[0], none).logits.equal(out[0]));
}

TEST_CASE("teacher: a forward function that changes its state in place changes neither the initial "
          "state nor a copy's",
          "[teacher]") {
  const auto in_place = [](auto& net, const at::Tensor& x, at::Tensor h,
                           const at::Tensor& episode_start) {
    h.mul_((1 - episode_start).unsqueeze(1)).add_(x.sum(1, true));
    return std::tuple{net->forward(h), h};
  };
  retain::teacher t{torch::nn::Linear(5, 3), in_place, torch::zeros({2, 5})};
  const auto x = torch::ones({2, 2}), none = torch::zeros({2});
  const auto first = t.step(x, none).logits.clone();
  auto copy = t;
  t.step(x, none);
  CHECK(copy.carried().equal(torch::full({2, 5}, 2.0)));
  t.reset();
  CHECK(t.step(x, none).logits.equal(first));
}

TEST_CASE("teacher: weights, statistics and carried state are saved", "[teacher]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  auto net = std::make_shared<recurrent_net>();
  retain::teacher t{net, one_step, torch::zeros({2, 5})};
  const auto x = torch::randn({2, 2}), none = torch::zeros({2});
  t.step(x, none);
  retain::save(folder.file("t"), t);
  retain::teacher other{std::make_shared<recurrent_net>(), one_step, torch::zeros({2, 5})};
  retain::load(folder.file("t"), other);
  CHECK(other.step(x, none).logits.equal(t.step(x, none).logits));

  auto statistics = std::make_shared<normalized_net>();
  statistics->forward(torch::randn({16, 4}) + 5);
  const retain::teacher normalized{statistics};
  retain::save(folder.file("n"), normalized);
  retain::teacher loaded{std::make_shared<normalized_net>()};
  retain::load(folder.file("n"), loaded);
  const auto y = torch::randn({3, 4});
  CHECK(loaded(y).logits.equal(normalized(y).logits));
  retain::teacher crowd{std::make_shared<recurrent_net>(), one_step, torch::zeros({3, 5})};
  CHECK_THROWS_WITH(retain::load(folder.file("t"), crowd),
                    ContainsSubstring("number of environments"));
  CHECK_THROWS_AS(retain::load(folder.file("t"), loaded), retain::state_error);
  CHECK(loaded(y).logits.equal(normalized(y).logits));

  retain::state saved;
  normalized.save_state(saved, "");
  const std::string last = "layers.4.bias";
  // read before what does not fit
  saved.set("layers.0.weight", saved.tensor("layers.0.weight") + 1);
  saved.set(last, torch::zeros({3}, at::kDouble));
  CHECK_THROWS_WITH(loaded.load_state(saved, ""), ContainsSubstring(last) &&
                                                      ContainsSubstring("double") &&
                                                      ContainsSubstring("float"));
  CHECK_THROWS_AS(loaded.load_state(saved, ""), retain::state_error);
  saved.set(last, torch::zeros({4}));
  CHECK_THROWS_WITH(loaded.load_state(saved, ""), ContainsSubstring(last) &&
                                                      ContainsSubstring("[4]") &&
                                                      ContainsSubstring("another network"));
  CHECK_THROWS_AS(loaded.load_state(saved, ""), retain::shape_error);
  CHECK(loaded(y).logits.equal(normalized(y).logits));
}

namespace {

/// Running statistics as a buffer, made in reset().
struct centered_net : torch::nn::Cloneable<centered_net> {
  centered_net() { reset(); }
  void reset() override {
    mean = register_buffer("mean", torch::zeros({3}));
    head = register_module("head", torch::nn::Linear(3, 2));
  }
  at::Tensor forward(const at::Tensor& x) { return head(x - mean); }
  at::Tensor mean;
  torch::nn::Linear head{nullptr};
};

}  // namespace

TEST_CASE("teacher: a tensor that its student registers as a buffer is its own", "[teacher]") {
  torch::manual_seed(41);
  const auto student = std::make_shared<centered_net>();
  student->mean.fill_(0.5);
  const retain::teacher teacher{student};
  const auto x = torch::randn({4, 3});
  const auto before = teacher(x).logits.clone();
  CHECK(before.equal(student->forward(x)));
  student->mean.add_(2);
  CHECK(teacher(x).logits.equal(before));
  CHECK_FALSE(student->forward(x).equal(before));
}

namespace {

/// Cannot be cloned, and has a buffer.
struct plain_net : torch::nn::Module {
  explicit plain_net(std::int64_t width = 4, bool extra = false) {
    trunk = register_module("trunk", torch::nn::Linear(3, width));
    mean = register_buffer("mean", torch::zeros({3}));
    if (extra) register_parameter("extra", torch::zeros({2}));
  }
  at::Tensor forward(const at::Tensor& x) { return trunk(x - mean); }
  torch::nn::Linear trunk{nullptr};
  at::Tensor mean;
};

struct two_tensors {
  at::Tensor h, c;
};
/// A state that keeps itself.
class kept_state {
 public:
  at::Tensor h;
  void save_state(retain::state& out, const std::string& prefix) const {
    if (h.defined()) out.set(prefix + "h", h);
    out.set(prefix + "there", h.defined() ? 1 : 0);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    h = in.integer<int>(prefix + "there") ? in.tensor(prefix + "h") : at::Tensor();
  }

 private:
  int not_an_aggregate_ = 0;
};

/// Adds the observations up, in place, in a state of any type. The answer is the sum.
template <class State>
struct adding_up {
  static at::Tensor& sum(at::Tensor& state) { return state; }
  static at::Tensor& sum(std::tuple<at::Tensor, at::Tensor>& state) { return std::get<1>(state); }
  static at::Tensor& sum(two_tensors& state) { return state.c; }
  static at::Tensor& sum(kept_state& state) { return state.h; }
  static at::Tensor& sum(std::vector<at::Tensor>& state) {
    if (state.empty()) state.resize(1);
    return state[0];
  }

  template <class Model>
  std::tuple<at::Tensor, State> operator()(Model&, const at::Tensor& x, State state,
                                           const at::Tensor& episode_start) const {
    at::Tensor& total = sum(state);
    if (!total.defined()) total = torch::zeros_like(x);
    total.mul_((1 - episode_start).unsqueeze(1)).add_(x);
    return {total.clone(), state};
  }
};

}  // namespace

TEST_CASE("teacher: weights and buffers are copied by name into a fresh network", "[teacher]") {
  torch::manual_seed(51);
  const auto policy = std::make_shared<plain_net>();
  policy->mean.fill_(0.5);
  policy->to(at::kDouble);
  const auto x = torch::randn({4, 3}, at::kDouble);
  const auto said = policy->forward(x).detach();
  const auto fresh = std::make_shared<plain_net>();
  const retain::teacher teacher{policy, fresh};
  const retain::teacher with_forward{
      policy, std::make_shared<plain_net>(),
      [](auto& net, const at::Tensor& o) { return retain::categorical{net->forward(o) * 2}; }};
  {
    const at::NoGradGuard no_grad;
    policy->trunk->weight.zero_();
    policy->mean.zero_();
  }
  CHECK(teacher(x).logits.equal(said));
  CHECK(with_forward(x).logits.equal(said * 2));
  CHECK(!teacher(x).logits.requires_grad());
  CHECK(policy->trunk->weight.requires_grad());

  torch::nn::Linear holder(3, 2);
  auto same = holder;  // the same network
  CHECK_THROWS_WITH((retain::teacher{holder, same}),
                    ContainsSubstring("'weight' of the fresh network is the policy's") ||
                        ContainsSubstring("'bias' of the fresh network is the policy's"));
  CHECK_THROWS_AS((retain::teacher{policy, policy}), retain::config_error);
  CHECK_THROWS_WITH((retain::teacher{policy, std::make_shared<plain_net>(5, true)}),
                    ContainsSubstring("'extra' [2] is not in the policy") &&
                        ContainsSubstring("'trunk.weight' has shape [4, 3] in the policy and "
                                          "[5, 3]") &&
                        ContainsSubstring("'trunk.bias'"));
  CHECK_THROWS_WITH((retain::teacher{std::make_shared<plain_net>(4, true), policy}),
                    ContainsSubstring("'extra' [2] is not in the fresh network"));
  CHECK(policy->trunk->weight.requires_grad());
}

TEMPLATE_TEST_CASE("teacher: a state of any type is made by the policy, carried, saved and loaded",
                   "[teacher]", at::Tensor, (std::tuple<at::Tensor, at::Tensor>), two_tensors,
                   kept_state, std::vector<at::Tensor>) {
  const support::temporary_folder folder;
  const adding_up<TestType> forward;
  const torch::nn::Linear net(2, 2);
  retain::teacher t{net, forward};
  for (const std::int64_t n : {3, 5}) {  // any number of environments, one after the other
    t.reset();
    const auto x = torch::randn({n, 2}), none = torch::zeros({n});
    CHECK(t.step(x, none).logits.equal(x));
    auto copy = t;
    const auto expected = x * 2;
    CHECK(t.step(x, none).logits.equal(expected));
    CHECK(copy.step(x, none).logits.equal(expected));
    auto begins = none.clone();
    begins[1] = 1;
    CHECK(t.step(x, begins).logits.equal(torch::where(begins.unsqueeze(1).gt(0), x, x * 3)));
  }
  CHECK_THROWS_WITH(t.step(torch::zeros({4, 2}), torch::zeros({4})),
                    ContainsSubstring("belongs to 5 episodes, but this step has 4") &&
                        ContainsSubstring("reset()"));

  // Called with a state, it neither uses nor changes the one that it carries.
  const auto x = torch::randn({2, 2}), none = torch::zeros({2});
  auto [said, next] = t(x, retain::new_episodes{}, none);
  CHECK(said.logits.equal(x));
  CHECK(std::get<0>(t(x, next, none)).logits.equal(x * 2));
  CHECK(std::get<0>(t(x, next, none)).logits.equal(x * 2));  // nor the given one

  t.reset();
  t.step(x, none);
  retain::save(folder.file("t"), t);
  retain::teacher unused{net, forward}, used{net, forward}, given{net, forward, next};
  used.step(x * 7, none);
  retain::load(folder.file("t"), unused);
  retain::load(folder.file("t"), used);
  retain::load(folder.file("t"), given);
  retain::save(folder.file("again"), unused);  // before its first step
  retain::teacher again{net, forward};
  retain::load(folder.file("again"), again);
  for (auto* loaded : {&unused, &used, &again}) CHECK(loaded->step(x, none).logits.equal(x * 2));
  CHECK(given.step(x, none).logits.equal(x * 2));
  given.reset();
  CHECK(given.step(x, none).logits.equal(x * 2));  // from the initial state
}

TEST_CASE("teacher: the carried state has the keys of version 0.1; what is no part of the state is "
          "refused",
          "[teacher]") {
  const adding_up<std::tuple<at::Tensor, at::Tensor>> forward;
  const torch::nn::Linear net(2, 2);
  retain::teacher t{net, forward};
  const auto x = torch::ones({3, 2}), none = torch::zeros({3});
  retain::state saved;
  t.save_state(saved, "t.");
  CHECK(saved.tensor_keys("t.carried.").empty());
  saved.set("t.carried.1", x * 5);
  t.load_state(saved, "t.");
  CHECK(t.step(x, none).logits.equal(x * 6));
  retain::state more;
  t.save_state(more, "");
  CHECK(more.tensor_keys("carried.") == std::vector<std::string>{"carried.1"});
  more.set("carried.2", x);
  retain::teacher other{net, forward};
  other.load_state(more, "");
  CHECK_THROWS_WITH(other.step(x, none), ContainsSubstring("'carried.2' is not a part"));
}

TEST_CASE("teacher: a network that shares the student's tensors is found at the first loss",
          "[teacher]") {
  torch::manual_seed(52);
  const auto x = torch::randn({6, 3});
  struct rollout {
    at::Tensor observations;
  };
  const auto refused = [&](auto make) {
    torch::nn::Linear student(3, 2);
    const auto ask = [&](const at::Tensor& o) { return student->forward(o) * 0.5; };
    auto keep = make(student);
    {
      const at::NoGradGuard no_grad;  // has no graph anyway: nothing is known yet
      CHECK_NOTHROW(keep.loss(ask, rollout{x}));
    }
    CHECK_THROWS_WITH(keep.loss(ask, rollout{x}),
                      ContainsSubstring("shares its tensors with the student") &&
                          ContainsSubstring("NoGradGuard"));
    auto twin = make(student);  // adopted once more, when nothing is trainable any more
    CHECK_NOTHROW(twin.loss(ask, rollout{x}));
  };
  refused([](torch::nn::Linear& student) {
    return retain::kickstarting{retain::teacher{retain::adopt, student}};
  });
  refused([&](torch::nn::Linear& student) {
    return retain::behavioral_cloning{x, retain::teacher{retain::adopt, student}};
  });

  // A student that lists its parameters: exactly, also where a part of it still learns.
  torch::nn::Linear student(3, 2);
  const retain::policy_view view{student, [&](const at::Tensor& o) { return student->forward(o); }};
  retain::kickstarting shared{retain::teacher{retain::adopt, student}};
  student->bias.requires_grad_(true);
  CHECK_THROWS_WITH(shared.loss(view, rollout{x}),
                    ContainsSubstring("'weight' is a parameter of the adopted teacher"));

  // Frozen on purpose beside a network of the teacher's own: nothing to refuse.
  torch::nn::Linear trained(3, 2), own(3, 2);
  for (auto& parameter : trained->parameters()) parameter.requires_grad_(false);
  const retain::policy_view frozen{trained,
                                   [&](const at::Tensor& o) { return trained->forward(o); }};
  retain::kickstarting keep{retain::teacher{retain::adopt, own}};
  CHECK_NOTHROW(keep.loss(frozen, rollout{x}));
  for (auto& parameter : trained->parameters()) parameter.requires_grad_(true);
  keep.loss(frozen, rollout{x}).backward();
  CHECK(trained->weight.grad().defined());
  retain::kickstarting copied{retain::teacher{trained}};
  CHECK_NOTHROW(
      copied.loss([&](const at::Tensor& o) { return trained->forward(o).detach(); }, rollout{x}));
}

}  // namespace teacher_test
