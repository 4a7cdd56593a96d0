// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>

#include <ATen/Parallel.h>
#include <optional>
#include <vector>

#include "support.hpp"
#include "weight_penalties.hpp"

namespace ewc_test {

static_assert(retain::weight_term<retain::ewc>);

namespace {

retain::parameter_list random_importance(const retain::parameter_list& model) {
  retain::parameter_list importance;
  for (const auto& [name, tensor] : model)
    importance.push_back({name, torch::rand(tensor.sizes(), at::kDouble)});
  return importance;
}

at::Tensor values_of(const std::vector<at::Tensor>& weights) {
  std::vector<at::Tensor> flat;
  for (const auto& w : weights)
    flat.push_back(
        (w.grad().defined() ? w.grad() : torch::zeros_like(w)).reshape({-1}).to(at::kDouble));
  return torch::cat(flat);
}

/// K tasks learned one after the other: `merged` is one ewc that remembers, `separate` the K terms
/// of it.
struct several_tasks {
  several_tasks(at::ScalarType type, int tasks, const retain::ewc_options& options) {
    torch::manual_seed(11);
    weights = {torch::randn({40}, type), torch::randn({3, 5}, type).t(), torch::randn({}, type)};
    for (auto& w : weights) w.requires_grad_();
    for (int k = 0; k < tasks; ++k) {
      move(0.3);
      auto importance = random_importance(retain::parameters(weights));
      // some weights matter to all tasks but one,
      importance[0].tensor.narrow(0, 4 * k, 4).zero_();
      importance[0].tensor.narrow(0, 30, 10).zero_();  // some to none,
      // some to one alone, not the first
      if (k == 1) importance[0].tensor.narrow(0, 35, 2).fill_(0.7);
      if (merged)
        merged->remember(weights, importance);
      else
        merged.emplace(weights, importance, options);
      separate.emplace_back(weights, importance, options);
    }
    move(1.0);
  }
  void move(double by) {
    const at::NoGradGuard no_grad;
    for (auto& w : weights) w.add_(torch::randn(w.sizes(), w.options().requires_grad(false)) * by);
  }
  /// Value and gradient of some terms, summed.
  std::pair<double, at::Tensor> sum(const std::vector<const retain::ewc*>& terms) {
    for (auto& w : weights) w.mutable_grad() = at::Tensor();
    double value = 0;
    for (const auto* term : terms) value += term->add_gradient(weights).item<double>();
    return {value, values_of(weights)};
  }
  std::pair<double, at::Tensor> sum_of_separate() {
    std::vector<const retain::ewc*> terms;
    for (const auto& term : separate) terms.push_back(&term);
    return sum(terms);
  }

  std::vector<at::Tensor> weights;
  std::optional<retain::ewc> merged;
  std::vector<retain::ewc> separate;
};

struct two_layers : torch::nn::Cloneable<two_layers> {
  two_layers() { reset(); }
  void reset() override {
    body = register_module("body", torch::nn::Linear(4, 3));
    head = register_module("head", torch::nn::Linear(3, 2));
  }
  torch::nn::Linear body{nullptr}, head{nullptr};
};

}  // namespace

TEST_CASE("ewc: value and both gradients in every floating type", "[ewc]") {
  const auto make = [](const auto& weights) {
    return retain::ewc{weights, random_importance(retain::parameters(weights)), {.strength = 30.0}};
  };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
  support::check_gradients(make, at::kBFloat16, 2e-2);
}

TEST_CASE("ewc: the formula, written out", "[ewc]") {
  std::vector<at::Tensor> w{torch::tensor({1.0, 2.0}).requires_grad_()};
  const retain::ewc keep{
      w, retain::parameter_list{{"0", torch::tensor({3.0, 0.5})}}, {.strength = 10.0}};
  {
    const at::NoGradGuard no_grad;
    w[0].add_(torch::tensor({0.1, -2.0}));
  }
  CHECK(keep.add_gradient(w).item<double>() == Approx(10 * (3 * 0.01 + 0.5 * 4)));
  CHECK(w[0].grad()[0].item<double>() == Approx(2 * 10 * 3 * 0.1));
  CHECK(w[0].grad()[1].item<double>() == Approx(2 * 10 * 0.5 * -2));
}

TEST_CASE("ewc: the number of threads changes neither value nor gradient", "[ewc]") {
  torch::manual_seed(5);
  std::vector<at::Tensor> w{torch::randn({700000}).requires_grad_(),
                            torch::randn({300, 700}).requires_grad_()};
  const retain::ewc keep{w, random_importance(retain::parameters(w))};
  {
    const at::NoGradGuard no_grad;
    for (auto& t : w) t.add_(torch::randn(t.sizes()));
  }
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    for (auto& t : w) t.mutable_grad() = at::Tensor();
    const double value = keep.add_gradient(w).item<double>();
    at::set_num_threads(1);
    return std::pair{value, torch::cat({w[0].grad(), w[1].grad().reshape({-1})})};
  };
  const auto [value_one, gradient_one] = run(1);
  const auto [value_two, gradient_two] = run(2);
  CHECK(value_one == value_two);
  CHECK(gradient_one.equal(gradient_two));
}

#if RETAIN_HAS_AVX2_TARGET
TEMPLATE_TEST_CASE("ewc: a processor with AVX2 gives the bits that any other gives", "[ewc]", float,
                   double, at::Half, at::BFloat16) {
  using retain::detail::gradient_mode;
  if (!retain::detail::has_avx2()) {
    skip_test("this processor has no AVX2");
    return;
  }
  using real = retain::detail::accumulate_t<TestType>;
  const auto type = c10::CppTypeToScalarType<TestType>::value;
  torch::manual_seed(3);
  for (const std::int64_t n : {1, 31, 32, 33, 2049, 5000}) {
    // Numbers of all sizes: some that only a subnormal can hold, some that overflow a half.
    const auto some = [&] {
      return (torch::randn({n}) * torch::pow(10, torch::randint(-8, 5, {n}))).to(type);
    };
    const auto theta = some(), anchor = some(), before = some();
    const auto importance = torch::rand({n}).to(c10::CppTypeToScalarType<real>::value);
    const auto at = [](const at::Tensor& x) { return static_cast<TestType*>(x.data_ptr()); };
    const auto* f = static_cast<const real*>(importance.data_ptr());
    auto wide = before.clone(), narrow = before.clone();
    const double first = retain::detail::quadratic_avx2<true, gradient_mode::add>(
        at(theta), at(anchor), f, at(wide), real(0.3), n);
    const double second = retain::detail::quadratic_body<true, gradient_mode::add>(
        at(theta), at(anchor), f, at(narrow), real(0.3), n);
    CHECK(first == second);
    CHECK(torch::equal(wide, narrow));
    retain::detail::quadratic_avx2<false, gradient_mode::assign>(at(theta), at(anchor), f, at(wide),
                                                                 real(0.3), n);
    retain::detail::quadratic_body<false, gradient_mode::assign>(at(theta), at(anchor), f,
                                                                 at(narrow), real(0.3), n);
    CHECK(torch::equal(wide, narrow));
    CHECK(torch::equal(wide.signbit(), narrow.signbit()));  // of zeros
  }
}
#endif

TEST_CASE("ewc: importances that do not fit the model are named", "[ewc]") {
  two_layers net;
  auto good = random_importance(retain::parameters(net));
  CHECK_NOTHROW(retain::ewc{net, good});

  auto missing = good;
  missing.pop_back();
  CHECK_THROWS_AS((retain::ewc{net, missing}), retain::state_error);
  CHECK_THROWS_WITH((retain::ewc{net, missing}),
                    ContainsSubstring("'head.bias'") && ContainsSubstring("no importance"));

  auto extra = good;
  extra.push_back({"critic.weight", torch::ones({1})});
  CHECK_THROWS_WITH((retain::ewc{net, extra}),
                    ContainsSubstring("'critic.weight'") && ContainsSubstring("does not have"));
  CHECK_NOTHROW(retain::ewc{net, extra, {.exclude = {"critic.*"}}});

  auto resized = good;
  resized[0].tensor = torch::ones({4, 3});
  CHECK_THROWS_AS((retain::ewc{net, resized}), retain::shape_error);
  CHECK_THROWS_WITH((retain::ewc{net, resized}), ContainsSubstring("'body.weight'") &&
                                                     ContainsSubstring("[4, 3]") &&
                                                     ContainsSubstring("[3, 4]"));

  for (const double bad : {std::nan(""), -1e-9, static_cast<double>(INFINITY)}) {
    auto poisoned = random_importance(retain::parameters(net));
    poisoned[1].tensor[2] = bad;
    CHECK_THROWS_AS((retain::ewc{net, poisoned}), retain::state_error);
    CHECK_THROWS_WITH((retain::ewc{net, poisoned}), ContainsSubstring("'body.bias'"));
  }
}

TEST_CASE("ewc: new heads are left free by pattern", "[ewc]") {
  two_layers net;
  const retain::ewc keep{
      net, random_importance(retain::parameters(net)), {.strength = 1.0, .exclude = {"head.*"}}};
  keep.add_gradient(net);
  CHECK(net.body->weight.grad().defined());
  CHECK(!net.head->weight.grad().defined());
}

TEST_CASE("ewc: a parameter unfrozen after the estimate has no importance and is named", "[ewc]") {
  two_layers net;
  net.head->bias.requires_grad_(false);
  auto importance = random_importance(retain::parameters(net));
  importance.pop_back();
  const retain::ewc keep{net, importance};
  CHECK_NOTHROW(keep.loss(net));
  net.head->bias.requires_grad_(true);
  CHECK_THROWS_WITH(keep.loss(net), ContainsSubstring("'head.bias' is trained, but it was frozen"));
}

TEST_CASE("ewc: save, load and go on, bit for bit", "[ewc]") {
  const support::temporary_folder folder;
  const auto train = [](two_layers& net, retain::ewc& keep, torch::optim::Adam& adam, int from,
                        int to) {
    for (int step = from; step < to; ++step) {
      torch::manual_seed(100 + step);
      adam.zero_grad();
      net.head(torch::tanh(net.body(torch::randn({8, 4})))).square().mean().backward();
      keep.add_gradient(net);
      adam.step();
      keep.step(step + 1);
    }
  };
  torch::manual_seed(1);
  auto start = std::make_shared<two_layers>();
  const auto importance = random_importance(retain::parameters(start));
  const auto options = [] {
    return retain::ewc_options{.strength = retain::exponential_decay{.initial = 5, .factor = 0.9}};
  };
  const auto adam_of = [](two_layers& net) {
    return torch::optim::Adam(net.parameters(), torch::optim::AdamOptions(1e-2));
  };

  auto whole = std::dynamic_pointer_cast<two_layers>(start->clone());
  retain::ewc keep_whole{whole, importance, options()};
  auto adam_whole = adam_of(*whole);
  train(*whole, keep_whole, adam_whole, 0, 20);

  auto first = std::dynamic_pointer_cast<two_layers>(start->clone());
  retain::ewc keep_first{first, importance, options()};
  auto adam_first = adam_of(*first);
  train(*first, keep_first, adam_first, 0, 10);
  retain::save(folder.file("retention"), keep_first);
  torch::save(adam_first, folder.file("adam"));

  // The next process builds the penalty from the weights it resumed: anchor and importance must
  // come from the file.
  auto second = std::dynamic_pointer_cast<two_layers>(first->clone());
  retain::ewc keep_second{second, random_importance(retain::parameters(second)), options()};
  retain::load(folder.file("retention"), keep_second);
  auto adam_second = adam_of(*second);
  torch::load(adam_second, folder.file("adam"));
  train(*second, keep_second, adam_second, 10, 20);

  for (std::size_t i = 0; i < whole->parameters().size(); ++i)
    CHECK(second->parameters()[i].equal(whole->parameters()[i]));
  CHECK(keep_second.strength() == keep_whole.strength());
}

TEST_CASE("ewc: a state of another network is refused and changes nothing", "[ewc]") {
  const support::temporary_folder folder;
  const auto t = [](std::int64_t n, double v) { return torch::full({n}, v).requires_grad_(); };
  const auto make = [&](std::vector<std::pair<std::string, at::Tensor>> model) {
    return retain::ewc{model, random_importance(retain::parameters(model))};
  };
  auto keep = make({{"a", t(2, 1)}, {"b", t(3, 1)}});
  const std::vector<std::pair<std::string, at::Tensor>> moved{{"a", t(2, 4)}, {"b", t(3, 4)}};
  const double before = keep.loss(moved).item<double>();

  retain::save(folder.file("resized"), make({{"a", t(2, 0)}, {"b", t(4, 0)}}));
  retain::save(folder.file("missing"), make({{"a", t(2, 0)}}));
  retain::save(folder.file("extra"), make({{"a", t(2, 0)}, {"b", t(3, 0)}, {"c", t(1, 0)}}));
  CHECK_THROWS_AS(retain::load(folder.file("resized"), keep), retain::shape_error);
  CHECK_THROWS_WITH(retain::load(folder.file("resized"), keep),
                    ContainsSubstring("'b'") && ContainsSubstring("[4]"));
  CHECK_THROWS_AS(retain::load(folder.file("missing"), keep), retain::state_error);
  CHECK_THROWS_WITH(retain::load(folder.file("missing"), keep), ContainsSubstring("anchor.b"));
  CHECK_THROWS_AS(retain::load(folder.file("extra"), keep), retain::state_error);
  CHECK_THROWS_WITH(retain::load(folder.file("extra"), keep), ContainsSubstring("'anchor.c'"));
  CHECK(keep.loss(moved).item<double>() == before);
}

TEST_CASE("ewc: floor and clip bound the importance, and are checked", "[ewc]") {
  std::vector<at::Tensor> w{torch::zeros({4}).requires_grad_()};
  const retain::parameter_list importance{{"0", torch::tensor({0.0, 0.25, 1.0, 8.0})}};
  const auto value = [&](double at, const retain::ewc_options& options) {
    const retain::ewc keep{w, importance, options};
    const at::NoGradGuard no_grad;
    w[0].fill_(at);
    const double result = keep.loss(w).item<double>();
    w[0].zero_();
    return result;
  };
  CHECK(value(2, {}) == Approx(4 * 9.25));
  CHECK(value(2, {.floor = 0.5}) == Approx(4 * (0.5 + 0.5 + 1 + 8)));
  CHECK(value(2, {.clip = 0.5}) == Approx(4 * (0.25 + 0.5 + 0.5)));
  CHECK(value(2, {.floor = 2.0, .clip = 2.0}) == Approx(4 * 8.0));
  for (const double bad : {-1.0, std::nan(""), static_cast<double>(INFINITY)}) {
    CHECK_THROWS_AS((retain::ewc{w, importance, {.floor = bad}}), retain::config_error);
    CHECK_THROWS_WITH((retain::ewc{w, importance, {.floor = bad}}),
                      ContainsSubstring("ewc: floor"));
  }
  for (const double bad : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_WITH((retain::ewc{w, importance, {.clip = bad}}), ContainsSubstring("ewc: clip"));
  CHECK_THROWS_WITH((retain::ewc{w, importance, {.floor = 2.0, .clip = 1.0}}),
                    ContainsSubstring("below the floor 2"));
  // A floor hides no importance that makes no sense.
  CHECK_THROWS_AS(
      (retain::ewc{w, retain::parameter_list{{"0", torch::full({4}, -1.0)}}, {.floor = 1.0}}),
      retain::state_error);
}

TEST_CASE("ewc: groups of several patterns multiply, over several tasks too", "[ewc]") {
  const auto options = [] {
    return retain::ewc_options{.strength = 3.0, .groups = {{"*", 2.0}, {"0", 5.0}, {"?", 0.5}}};
  };
  several_tasks tasks(at::kDouble, 3, options());
  const auto [value, gradient] = tasks.sum({&*tasks.merged});
  several_tasks plain(at::kDouble, 3, {});
  const auto [plain_value, plain_gradient] = plain.sum({&*plain.merged});
  auto scale = torch::full({56}, 3.0, at::kDouble);
  scale.narrow(0, 0, 40).mul_(5);
  CHECK(support::relative_error(gradient, plain_gradient * scale) < 1e-12);
  CHECK(value == Approx(tasks.sum_of_separate().first));
}

TEST_CASE("ewc: remembering K tasks is the sum of K penalties, value and gradient", "[ewc]") {
  for (const int count : {2, 7}) {
    // In float the merged anchors are rounded to float, once a task.
    for (const auto& [type, tolerance] :
         {std::pair{at::kDouble, 1e-13}, std::pair{at::kFloat, 5e-7}}) {
      several_tasks tasks(type, count, {.strength = 20.0, .floor = 0.0, .clip = 0.9});
      const auto [value, gradient] = tasks.sum({&*tasks.merged});
      const auto [expected_value, expected_gradient] = tasks.sum_of_separate();
      CHECK(value == Approx(expected_value).epsilon(tolerance));
      CHECK(support::relative_error(gradient, expected_gradient) < tolerance);
      CHECK(tasks.merged->loss(tasks.weights).item<double>() ==
            Approx(expected_value).epsilon(10 * tolerance + 1e-6 * (type == at::kFloat)));
      CHECK((gradient.narrow(0, 37, 3) == 0).all().item<bool>());  // matters to no task
    }
  }
}

TEST_CASE("ewc: a task that alone finds a weight important sets its anchor to the bit", "[ewc]") {
  std::vector<at::Tensor> w{torch::tensor({1e10f, 0.1f, 0.1f}).requires_grad_()};
  retain::ewc keep{w, {{"0", torch::tensor({0.0, 1e-30, 0.0})}}};
  {
    const at::NoGradGuard no_grad;
    w[0].fill_(0.7f);
  }
  keep.remember(w, {{"0", torch::tensor({3.0, 0.0, 0.0})}});
  for (auto& p : w) p.mutable_grad() = at::Tensor();
  CHECK(keep.add_gradient(w).item<double>() == Approx(1e-30 * 0.36));
  CHECK(w[0].grad()[0].item<double>() == 0);
  CHECK(w[0].grad()[2].item<double>() == 0);
}

TEST_CASE("ewc: advance moves the anchor and fades what was", "[ewc]") {
  std::vector<at::Tensor> w{torch::tensor({0.0, 0.0}).requires_grad_()};
  retain::ewc keep{w, {{"0", torch::tensor({2.0, 0.0})}}, {.strength = 1.0, .clip = 4.0}};
  const auto to = [&](double at) {
    const at::NoGradGuard no_grad;
    w[0].fill_(at);
  };
  to(1);
  keep.remember(w, {{"0", torch::tensor({1.0, 1.0})}});
  to(5);
  CHECK(keep.loss(w).item<double>() == Approx(2 * 25 + 1 * 16 + 1 * 16));
  keep.advance(w, {{"0", torch::tensor({10.0, 1.0})}}, 0.5);
  CHECK(keep.loss(w).item<double>() == 0);  // no constant of former tasks stays
  to(7);
  CHECK(keep.loss(w).item<double>() == Approx(4 * (0.5 * 3 + 4) + 4 * (0.5 * 1 + 1)));
  keep.advance(w, {{"0", torch::tensor({1.0, 1.0})}}, 0.0);
  to(8);
  CHECK(keep.loss(w).item<double>() == Approx(2));
  for (const double bad : {-0.1, 1.1, std::nan("")})
    CHECK_THROWS_AS(keep.advance(w, retain::parameter_list{{"0", torch::ones({2})}}, bad),
                    retain::config_error);
  retain::fisher estimate;
  estimate.values = {{"0", torch::ones({2})}};
  keep.remember(w, estimate);
  keep.advance(w, estimate, 1.0);
  to(9);
  CHECK(keep.loss(w).item<double>() == Approx(2 * 3));
}

TEST_CASE("ewc: another task that does not fit is named and changes nothing, and a copy keeps its "
          "own tasks",
          "[ewc]") {
  two_layers net;
  auto good = random_importance(retain::parameters(net));
  retain::ewc keep{net, good, {.exclude = {"head.bias"}}};
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net.parameters()) p.add_(1);
  }
  const double before = keep.loss(net).item<double>();
  auto missing = good, resized = good, extra = good,
       poisoned = random_importance(retain::parameters(net));
  missing.erase(missing.begin() + 2);
  resized[2].tensor = torch::ones({3});
  extra.push_back({"critic", torch::ones({1})});
  poisoned[2].tensor[0][0] = -1;
  CHECK_THROWS_WITH(keep.remember(net, missing),
                    ContainsSubstring("'head.weight'") && ContainsSubstring("no importance"));
  CHECK_THROWS_AS(keep.remember(net, resized), retain::shape_error);
  CHECK_THROWS_WITH(keep.advance(net, extra, 1.0), ContainsSubstring("'critic'"));
  CHECK_THROWS_WITH(keep.advance(net, poisoned, 1.0), ContainsSubstring("negative"));
  const std::vector<at::Tensor> other{torch::ones({2}).requires_grad_()};
  CHECK_THROWS_AS(keep.remember(other, good), retain::state_error);
  CHECK(keep.loss(net).item<double>() == before);

  const retain::ewc copy = keep;
  retain::state taken;
  keep.save_state(taken, "");
  keep.remember(net, good);
  CHECK(keep.loss(net).item<double>() == Approx(before));  // the new task adds 0 here
  {
    const at::NoGradGuard no_grad;
    for (auto& p : net.parameters()) p.add_(1);
  }
  CHECK(keep.loss(net).item<double>() > 1.01 * copy.loss(net).item<double>());
  keep.load_state(taken, "");
  CHECK(keep.loss(net).equal(copy.loss(net)));
}

TEST_CASE("ewc: several tasks are saved and loaded, and a state of one task has none more",
          "[ewc]") {
  const support::temporary_folder folder;
  several_tasks tasks(at::kFloat, 3, {.strength = 2.0});
  retain::save(folder.file("three"), *tasks.merged);
  retain::ewc resumed{
      tasks.weights, random_importance(retain::parameters(tasks.weights)), {.strength = 2.0}};
  retain::load(folder.file("three"), resumed);
  CHECK(resumed.loss(tasks.weights).equal(tasks.merged->loss(tasks.weights)));
  const auto importance = random_importance(retain::parameters(tasks.weights));
  resumed.remember(tasks.weights, importance);
  tasks.merged->remember(tasks.weights, importance);
  tasks.move(0.5);
  const auto [value, gradient] = tasks.sum({&resumed});
  const auto [expected_value, expected_gradient] = tasks.sum({&*tasks.merged});
  CHECK(value == expected_value);
  CHECK(gradient.equal(expected_gradient));

  // What was written of one task knows no constant, and loads as it always did.
  retain::state one;
  tasks.separate[0].save_state(one, "");
  CHECK(!one.contains("constant.0"));
  resumed.load_state(one, "");
  CHECK(resumed.loss(tasks.weights).equal(tasks.separate[0].loss(tasks.weights)));

  retain::state damaged;
  tasks.merged->save_state(damaged, "");
  damaged.set("constant.1", -1.0);
  CHECK_THROWS_AS(resumed.load_state(damaged, ""), retain::state_error);
  CHECK(resumed.loss(tasks.weights).equal(tasks.separate[0].loss(tasks.weights)));
}

TEST_CASE("ewc: a parameter that only a later task trains has its importance from then on, in the "
          "state too",
          "[ewc]") {
  const support::temporary_folder folder;
  two_layers net;
  const auto frozen = [&](bool yes) { net.head->bias.requires_grad_(!yes); };
  frozen(true);
  auto first = random_importance(retain::parameters(net)), second = first;
  first.pop_back();
  retain::ewc keep{net, first}, early = keep;
  retain::ewc resumed = keep;
  frozen(false);
  keep.remember(net, second);
  retain::save(folder.file("both"), keep);
  retain::save(folder.file("first"), early);
  {
    const at::NoGradGuard no_grad;
    net.head->bias.add_(2);
  }
  CHECK(keep.loss(net).item<double>() == Approx(4 * second.back().tensor.sum().item<double>()));
  retain::load(folder.file("both"), resumed);
  CHECK(resumed.loss(net).equal(keep.loss(net)));
  retain::load(folder.file("first"), resumed);
  CHECK_THROWS_WITH(resumed.loss(net),
                    ContainsSubstring("'head.bias' is trained, but it was frozen"));
}

TEST_CASE(
    "ewc: advance moves a frozen parameter's task on too, of which the new importance says nothing",
    "[ewc]") {
  auto encoder = torch::zeros({2}).requires_grad_(), head = torch::zeros({2}).requires_grad_();
  const std::vector<retain::named_tensor> model{{"encoder", encoder}, {"head", head}};
  const retain::parameter_list first{{"encoder", torch::ones({2})}, {"head", torch::ones({2})}},
      second{{"head", torch::full({2}, 3.0)}};
  for (const double decay : {0.0, 0.5}) {
    torch::NoGradGuard no_grad;
    encoder.zero_();
    encoder.requires_grad_(true);
    retain::ewc keep{model, first, {.strength = 1.0}};
    encoder.fill_(2);
    encoder.requires_grad_(false);
    keep.advance(model, second, decay);
    encoder.requires_grad_(true);
    CHECK(keep.loss(model).item<double>() == 0);  // the anchor is where it stood
    encoder.add_(1);
    CHECK(keep.loss(model).item<double>() == Approx(2 * decay));
  }
}

TEST_CASE("ewc: the loss of a half model is float at strength 0 too", "[ewc]") {
  auto weight = torch::zeros({2}, torch::kBFloat16).requires_grad_();
  const std::vector<retain::named_tensor> model{{"weight", weight}};
  for (const double strength : {0.0, 1.0})
    CHECK(retain::ewc(model, retain::parameter_list{{"weight", torch::ones({2})}},
                      {.strength = strength})
              .loss(model)
              .scalar_type() == torch::kFloat);
}

TEST_CASE("ewc: an importance grows with its layer, 0 for the new rows and columns", "[ewc]") {
  torch::manual_seed(8);
  const auto old_weight = torch::randn({2, 3}), old_bias = torch::randn({2});
  const retain::parameter_list importance{{"head.weight", torch::rand({2, 3}, at::kDouble)},
                                          {"head.bias", torch::rand({2})},
                                          {"scale", torch::full({}, 0.5)}};
  const retain::parameter_list grown{{"head.weight", torch::randn({4, 5})},
                                     {"head.bias", torch::randn({3})},
                                     {"scale", torch::ones({})}};
  grown[0].tensor.narrow(0, 0, 2).narrow(1, 0, 3).copy_(old_weight);
  grown[1].tensor.narrow(0, 0, 2).copy_(old_bias);
  for (const auto& [name, tensor] : grown) tensor.requires_grad_();

  const auto padded = retain::grown_importance(importance, grown);
  REQUIRE(padded.size() == 3);
  auto expected = torch::zeros({4, 5}, at::kDouble);
  expected.narrow(0, 0, 2).narrow(1, 0, 3).copy_(importance[0].tensor);
  CHECK(padded[0].tensor.equal(expected));
  CHECK(padded[1].tensor.equal(torch::cat({importance[1].tensor, torch::zeros({1})})));
  CHECK(padded[2].tensor.equal(importance[2].tensor));
  CHECK(!padded[2].tensor.is_same(importance[2].tensor));
  retain::fisher fisher;
  fisher.values = importance;
  CHECK(retain::grown_importance(fisher, grown)[0].tensor.equal(expected));

  // The pull is that of the old penalty on the old rows, and none on the new ones.
  const retain::ewc keep{grown, padded, {.strength = 3.0}};
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : grown) at::Tensor(tensor).add_(torch::randn(tensor.sizes()));
  }
  const auto moved =
      (grown[0].tensor.detach().narrow(0, 0, 2).narrow(1, 0, 3) - old_weight).to(at::kDouble);
  keep.add_gradient(grown);
  expected.zero_();
  expected.narrow(0, 0, 2).narrow(1, 0, 3).copy_(6 * importance[0].tensor * moved);
  CHECK(support::relative_error(grown[0].tensor.grad(), expected) < 1e-5);
  CHECK(grown[1].tensor.grad()[2].item<double>() == 0);

  CHECK_THROWS_AS(retain::grown_importance({{"scale", torch::zeros({1})}}, grown),
                  retain::shape_error);
  CHECK_THROWS_WITH(
      retain::grown_importance({{"head.bias", torch::zeros({4})}}, grown),
      ContainsSubstring("'head.bias'") && ContainsSubstring("[4]") && ContainsSubstring("[3]"));
  CHECK(retain::grown_importance({{"other", torch::ones({2})}}, grown)[0].tensor.equal(
      torch::ones({2})));
}

TEST_CASE("ewc: another task's anchor must be finite too, and a state's importance", "[ewc]") {
  const std::vector<at::Tensor> w{torch::ones({2}).requires_grad_(),
                                  torch::ones({3}).requires_grad_()};
  const auto importance = random_importance(retain::parameters(w));
  retain::ewc keep{w, importance};
  const std::vector<at::Tensor> moved{torch::full({2}, 2.0f).requires_grad_(),
                                      torch::full({3}, 2.0f).requires_grad_()};
  const double before = keep.loss(moved).item<double>();
  const std::vector<at::Tensor> broken{torch::zeros({2}).requires_grad_(),
                                       torch::full({3}, std::nan("")).requires_grad_()};
  CHECK_THROWS_AS(keep.remember(broken, importance), retain::state_error);
  CHECK_THROWS_AS(keep.advance(broken, importance, 0.5), retain::state_error);
  CHECK_THROWS_WITH(
      keep.advance(broken, importance, 0.5),
      ContainsSubstring("the model's parameter '1' holds a value that is not finite"));
  CHECK_THROWS_AS((retain::ewc{broken, importance}), retain::state_error);
  CHECK(keep.loss(moved).item<double>() == before);

  for (const double bad : {-1.0, std::nan(""), double(INFINITY)}) {
    retain::state saved;
    keep.save_state(saved, "");
    saved.set("anchor.0", torch::zeros({2}));
    saved.set("importance.1", torch::full({3}, bad));
    CHECK_THROWS_AS(keep.load_state(saved, ""), retain::state_error);
    CHECK_THROWS_WITH(keep.load_state(saved, ""), ContainsSubstring("'1'"));
    CHECK(keep.loss(moved).item<double>() == before);
  }
}

}  // namespace ewc_test
