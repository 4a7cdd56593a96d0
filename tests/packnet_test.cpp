// SPDX-License-Identifier: MIT
#include <retain/packnet.hpp>

#include <cmath>
#include <map>

#include "support.hpp"

namespace packnet_test {

namespace {

struct net : torch::nn::Module {
  net() {
    body = register_module("body", torch::nn::Linear(5, 6));
    head = register_module("head", torch::nn::Linear(6, 4));
    value_head = register_module("value_head", torch::nn::Linear(6, 1));
  }
  at::Tensor forward(const at::Tensor& x) { return head->forward(torch::tanh(body->forward(x))); }
  at::Tensor value(const at::Tensor& x) {
    return value_head->forward(torch::tanh(body->forward(x)));
  }
  torch::nn::Linear body{nullptr}, head{nullptr}, value_head{nullptr};
};

const retain::packnet_options free_value{.exclude = {"value_head.*"}};

std::map<std::string, at::Tensor> by_name(const retain::parameter_list& list) {
  std::map<std::string, at::Tensor> map;
  for (const auto& [name, tensor] : list) map.emplace(name, tensor.detach().clone());
  return map;
}
void train(net& model, const retain::packnet& owned, torch::optim::Optimizer& optimizer, int steps,
           bool guarded = true) {
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const auto x = torch::randn({16, 5});
    (model.forward(x) - 1).square().sum().backward();
    (model.value(x) - 1).square().sum().backward();
    if (guarded) owned.mask_gradient(model);
    optimizer.step();
    if (guarded) owned.restore(model);
  }
}

}  // namespace

static_assert(retain::stateful<retain::packnet>);

TEST_CASE("packnet: prunes the smallest of each layer, exactly the share", "[packnet]") {
  auto weight =
      torch::tensor({{0.1f, -0.9f, 0.3f, -0.2f}, {0.8f, 0.05f, -0.6f, 0.7f}}).requires_grad_();
  // a layer of large weights takes nothing from one of small ones
  auto other = torch::full({3, 3}, 100.0f).requires_grad_();
  auto bias = torch::tensor({0.001f, 2.0f}).requires_grad_();
  const std::vector<at::Tensor> model{weight, other, bias};
  retain::packnet owned{model};
  owned.prune(model, 0.5);
  CHECK(weight.equal(torch::tensor({{0.f, -0.9f, 0.f, 0.f}, {0.8f, 0.f, -0.6f, 0.7f}})));
  CHECK(other.count_nonzero().item<std::int64_t>() == 5);  // 4.5, rounded
  CHECK(bias.equal(torch::tensor({0.001f, 2.0f})));
  const auto owners = by_name(owned.owners());
  CHECK(owners.at("0").equal(weight.ne(0).to(at::kByte)));
  CHECK(owners.at("2").equal(torch::ones({2}, at::kByte)));
  CHECK(owned.tasks() == 1);
  {
    const at::NoGradGuard no_grad;
    // task 2 has learned
    weight.copy_(torch::tensor({{5.f, -0.9f, 2.f, 1.f}, {0.8f, 4.f, -0.6f, 0.7f}}));
  }
  owned.release(model);
  owned.prune(model, 0.5);  // of the four that were free
  CHECK(weight.equal(torch::tensor({{5.f, -0.9f, 0.f, 0.f}, {0.8f, 4.f, -0.6f, 0.7f}})));
  CHECK(by_name(owned.owners())
            .at("0")
            .equal(torch::tensor({{2, 1, 0, 0}, {1, 2, 1, 1}}, at::kByte)));
}

TEST_CASE("packnet: owned weights stand still to the bit under momentum and weight decay, the free "
          "ones learn",
          "[packnet]") {
  torch::manual_seed(1);
  for (const bool adam : {true, false}) {
    net model;
    retain::packnet owned{model, free_value};
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    if (adam)
      optimizer = std::make_unique<torch::optim::AdamW>(
          model.parameters(), torch::optim::AdamWOptions(1e-2).weight_decay(0.1));
    else
      optimizer = std::make_unique<torch::optim::SGD>(
          model.parameters(), torch::optim::SGDOptions(1e-3).momentum(0.9).weight_decay(0.1));
    train(model, owned, *optimizer, 3, false);  // momentum to be carried on with

    owned.prune(model, 0.6);
    const auto owners = by_name(owned.owners());
    const auto pruned = by_name(retain::parameters(model));
    train(model, owned, *optimizer, 5);  // what is kept learns again, what was pruned stays 0
    for (const auto& [name, tensor] : by_name(retain::parameters(model))) {
      if (!owners.count(name)) continue;
      CHECK(tensor.masked_select(owners.at(name).eq(0)).count_nonzero().item<std::int64_t>() == 0);
      CHECK(!tensor.masked_select(owners.at(name).eq(1))
                 .equal(pruned.at(name).masked_select(owners.at(name).eq(1))));
    }

    owned.release(model);
    const auto before = by_name(retain::parameters(model));
    const auto x = torch::randn({7, 5});
    const auto of_first_task = model.forward(x).detach();
    train(model, owned, *optimizer, 5);
    for (const auto& [name, tensor] : by_name(retain::parameters(model))) {
      if (!owners.count(name)) {
        CHECK(!tensor.equal(before.at(name)));  // the value head learns all along
        continue;
      }
      CHECK(tensor.masked_select(owners.at(name).eq(1))
                .equal(before.at(name).masked_select(owners.at(name).eq(1))));
      if (tensor.dim() == 2)
        CHECK(tensor.masked_select(owners.at(name).eq(0)).abs().min().item<double>() > 0);
    }
    CHECK(!model.forward(x).equal(of_first_task));
    net first;
    const auto weights = by_name(owned.weights_of(model, 1));
    {
      const at::NoGradGuard no_grad;
      for (const auto& [name, tensor] : retain::parameters(first))
        tensor.detach().copy_(weights.at(name));
    }
    // the pre-trained network is still there, to the bit
    CHECK(first.forward(x).equal(of_first_task));
  }
}

TEST_CASE(
    "packnet: without masks the owned weights would have moved; gradients alone are not enough",
    "[packnet]") {
  torch::manual_seed(2);
  net model;
  retain::packnet owned{model, free_value};
  torch::optim::SGD sgd(model.parameters(), torch::optim::SGDOptions(1e-3).momentum(0.9));
  train(model, owned, sgd, 2, false);
  owned.prune(model, 0.5);
  owned.release(model);
  const auto before = by_name(retain::parameters(model)).at("body.weight");
  sgd.zero_grad();
  model.forward(torch::randn({4, 5})).sum().backward();
  owned.mask_gradient(model);
  const auto mask = by_name(owned.owners()).at("body.weight").eq(1);
  CHECK(model.body->weight.grad().masked_select(mask).count_nonzero().item<std::int64_t>() == 0);
  sgd.step();
  CHECK(!model.body->weight.masked_select(mask).equal(before.masked_select(mask)));
  owned.restore(model);
  CHECK(model.body->weight.masked_select(mask).equal(before.masked_select(mask)));
}

TEST_CASE("packnet: parameters without a gradient, frozen ones and half types", "[packnet]") {
  auto frozen = torch::randn({4, 4}), half = torch::randn({4, 4}).to(at::kHalf).requires_grad_();
  const std::vector<at::Tensor> model{frozen, half};
  retain::packnet owned{model};
  owned.prune(model, 0.25);
  CHECK(frozen.count_nonzero().item<std::int64_t>() == 4);
  CHECK(half.count_nonzero().item<std::int64_t>() == 4);
  owned.release(model);
  owned.mask_gradient(model);
  CHECK(!half.grad().defined());
  half.mutable_grad() = torch::ones_like(half);
  owned.mask_gradient(model);
  CHECK(half.grad().count_nonzero().item<std::int64_t>() == 12);
  owned.prune(model, 1.0);
  CHECK(by_name(owned.owners()).at("1").min().item<int>() == 1);
}

TEST_CASE("packnet: saved, restored and gone on with, bit for bit; copies stay as they were",
          "[packnet]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  net model;
  retain::packnet owned{model, free_value};
  owned.prune(model, 0.5);
  const auto copy = owned;
  owned.release(model);
  retain::save(folder.file("p"), owned);
  retain::packnet resumed{model, free_value};
  retain::load(folder.file("p"), resumed);
  CHECK(resumed.tasks() == 1);
  {
    const at::NoGradGuard no_grad;
    for (auto& p : model.parameters()) p.add_(1);
  }
  owned.restore(model);
  const auto expected = by_name(retain::parameters(model));
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : retain::parameters(model))
      if (name.find("value") == std::string::npos)
        tensor.detach().masked_fill_(by_name(owned.owners()).at(name).ne(0), 9);
  }
  resumed.restore(model);
  for (const auto& [name, tensor] : by_name(retain::parameters(model)))
    CHECK(tensor.equal(expected.at(name)));
  owned.prune(model, 0.5);
  CHECK(copy.tasks() == 1);
  CHECK(by_name(copy.owners()).at("body.weight").max().item<int>() == 1);
  std::vector<at::Tensor> small{torch::zeros({2, 2})};
  retain::packnet other{small};
  CHECK_THROWS_AS(retain::load(folder.file("p"), other), retain::state_error);
}

TEST_CASE("packnet: a state that does not fit is refused and changes nothing", "[packnet]") {
  torch::manual_seed(5);
  net model;
  retain::packnet owned{model, free_value};
  owned.prune(model, 0.5);
  const auto owners = by_name(owned.owners()), network = by_name(owned.weights_of(model, 1));
  const auto refused = [&](const auto& change) {
    retain::packnet other{model, free_value};
    other.prune(model, 1.0);
    other.release(model);
    retain::state saved;
    other.save_state(saved, "");
    change(saved);
    std::string said;
    try {
      owned.load_state(saved, "");
    } catch (const retain::shape_error& e) {
      said = std::string("shape: ") + e.what();
    } catch (const retain::state_error& e) {
      said = std::string("state: ") + e.what();
    }
    CHECK(owned.tasks() == 1);
    CHECK_THROWS_WITH(owned.prune(model, 0.5), ContainsSubstring("pruned already"));
    for (const auto& [name, tensor] : by_name(owned.owners())) CHECK(tensor.equal(owners.at(name)));
    owned.restore(model);
    for (const auto& [name, tensor] : by_name(owned.weights_of(model, 1)))
      CHECK(tensor.equal(network.at(name)));
    return said;
  };
  const auto with = [&](const char* key, const at::Tensor& tensor) {
    return refused([&](retain::state& s) { s.set(key, tensor); });
  };
  CHECK_THAT(with("owner.head.weight", torch::full({4, 6}, 2, at::kByte)),
             ContainsSubstring("state: ") && ContainsSubstring("'head.weight'"));
  CHECK_THAT(refused([](retain::state& s) { s.set("pruned", 2); }),
             ContainsSubstring("state: ") && ContainsSubstring("'pruned' is 2"));
  CHECK_THAT(with("owner.head.weight", torch::zeros({4, 5}, at::kByte)),
             ContainsSubstring("shape: ") && ContainsSubstring("[4, 5]"));
  CHECK_THAT(with("fixed.head.weight", torch::zeros({6, 4})),
             ContainsSubstring("shape: ") && ContainsSubstring("[6, 4]"));
  CHECK_THAT(with("owner.head.weight", torch::zeros({4, 6})),
             ContainsSubstring("state: ") && ContainsSubstring("'owner.head.weight' is float"));
  CHECK_THAT(with("fixed.head.weight", torch::zeros({4, 6}, at::kDouble)),
             ContainsSubstring("state: ") && ContainsSubstring("double"));
  for (const int task : {-1, 0, 257})
    CHECK_THAT(refused([&](retain::state& s) { s.set("task", task); }),
               ContainsSubstring("state: "));
  CHECK_THAT(refused([](retain::state& s) {
               s.set("task", 256);
               s.set("pruned", 1);
             }),
             ContainsSubstring("state: ") && ContainsSubstring("the saved task is 256"));
}

TEST_CASE("packnet: an owner is a byte, so there are 255 tasks and no more", "[packnet]") {
  const std::vector<at::Tensor> model{torch::ones({1, 300}).requires_grad_()};
  retain::packnet owned{model};
  for (int task = 1; task <= 255; ++task) {
    owned.prune(model, 1.0 / (301 - task));  // one weight each
    owned.release(model);
    const at::NoGradGuard no_grad;
    model[0].masked_fill_(model[0].eq(0), 1);
  }
  CHECK(owned.tasks() == 255);
  const auto owners = by_name(owned.owners()).at("0");
  CHECK(owners.eq(0).sum().item<int>() == 45);
  CHECK(std::get<0>(owners.masked_select(owners.ne(0)).sort())
            .equal(torch::arange(1, 256, at::kByte)));
  CHECK_THROWS_AS(owned.prune(model, 0.5), retain::config_error);
  CHECK_THROWS_WITH(owned.prune(model, 0.5), ContainsSubstring("at most 255 tasks"));
  CHECK(by_name(owned.weights_of(model, 254)).at("0").count_nonzero().item<int>() == 254);
  const support::temporary_folder folder;
  retain::save(folder.file("p"), owned);
  retain::packnet resumed{model};
  retain::load(folder.file("p"), resumed);
  CHECK(resumed.tasks() == 255);
}

TEST_CASE("packnet: misuse says what to do", "[packnet]") {
  net model;
  retain::packnet owned{model, free_value};
  CHECK_THROWS_AS(owned.weights_of(model, 0), retain::config_error);
  for (const double keep : {-0.5, 1.5, std::nan("")})
    CHECK_THROWS_WITH(owned.prune(model, keep), ContainsSubstring("must be in (0, 1]"));
  CHECK_THROWS_WITH(owned.release(model), ContainsSubstring("call prune()"));
  CHECK_THROWS_WITH(owned.weights_of(model, 1), ContainsSubstring("no network of task 1"));
  CHECK_THROWS_AS(owned.prune(model, 0), retain::config_error);
  const auto before = by_name(retain::parameters(model));
  std::vector<at::Tensor> other{torch::zeros({2, 2})};
  CHECK_THROWS_WITH(owned.prune(other, 0.5), ContainsSubstring("'0' [2, 2]"));
  CHECK_THROWS_WITH(owned.prune(retain::parameter_list{{"body.weight", torch::zeros({1, 1})}}, 0.5),
                    ContainsSubstring("[1, 1]") && ContainsSubstring("[6, 5]"));
  CHECK_THROWS_WITH(owned.prune(retain::parameter_list{{"body.bias", torch::zeros({6})}}, 0.5),
                    ContainsSubstring("1 of the 4"));
  for (const auto& [name, tensor] : by_name(retain::parameters(model)))
    CHECK(tensor.equal(before.at(name)));
  owned.prune(model, 0.5);
  CHECK_THROWS_AS(owned.weights_of(model, 0), retain::config_error);
  CHECK_THROWS_WITH(owned.weights_of(model, 2),
                    ContainsSubstring("no network of task 2 yet: 1 have"));
  CHECK_THROWS_WITH(owned.prune(model, 0.5), ContainsSubstring("task 1 is pruned already"));
  CHECK_THROWS_AS((retain::packnet{model, {.exclude = {"*"}}}), retain::config_error);
}

TEST_CASE("packnet: a view of a parameter has no gradient to mask, and a graph is told of what is "
          "written",
          "[packnet]") {
  const std::vector<at::Tensor> weights{torch::randn({4, 3}).requires_grad_()};
  retain::packnet owned{weights};
  const std::vector<at::Tensor> view{weights[0].view({4, 3})};
  CHECK_THROWS_AS(owned.mask_gradient(view), retain::config_error);
  CHECK_THROWS_WITH(owned.prune(view, 0.5), ContainsSubstring("packnet: '0' [4, 3] is computed"));
  const auto v = torch::randn({4, 3}).requires_grad_();
  const auto y = (weights[0] * v).sum();
  owned.prune(weights, 0.5);
  CHECK_THROWS_WITH(y.backward(), ContainsSubstring("modified by an inplace operation"));
}

TEST_CASE("packnet: a sparse gradient is masked as a dense one is, and stays sparse", "[packnet]") {
  torch::manual_seed(8);
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 3).sparse(true));
  retain::packnet owned{*table};
  owned.prune(*table, 0.5);
  owned.release(*table);
  const auto rows = torch::tensor({1, 3, 1});
  const auto weights = torch::randn({3, 3});
  (table(rows) * weights).sum().backward();
  REQUIRE(table->weight.grad().is_sparse());
  const auto expected =
      table->weight.grad().to_dense().masked_fill(owned.owners()[0].tensor.ne(0), 0);
  REQUIRE(expected.count_nonzero().item<std::int64_t>() > 0);
  REQUIRE(!expected.equal(table->weight.grad().to_dense()));
  owned.mask_gradient(*table);
  CHECK(table->weight.grad().is_sparse());
  CHECK(table->weight.grad().to_dense().equal(expected));
  owned.mask_gradient(*table);
  CHECK(table->weight.grad().to_dense().equal(expected));

  // One whose every number has an index of its own, one without any number, and one that is not of
  // coordinates.
  auto& gradient = table->weight.mutable_grad();
  gradient = torch::ones({5, 3}).to_sparse();
  owned.mask_gradient(*table);
  CHECK(gradient.to_dense().equal(owned.owners()[0].tensor.eq(0).to(at::kFloat)));
  gradient = torch::zeros({5, 3}).to_sparse();
  owned.mask_gradient(*table);
  CHECK(gradient.to_dense().equal(torch::zeros({5, 3})));
  gradient = torch::ones({5, 3}).to_sparse_csr();
  owned.mask_gradient(*table);
  CHECK(gradient.to_dense().equal(owned.owners()[0].tensor.eq(0).to(at::kFloat)));
}

}  // namespace packnet_test
