// SPDX-License-Identifier: MIT
#include <retain/freeze.hpp>
#include <retain/l2_init.hpp>

#include <torch/script.h>

#include <map>
#include <memory>

#include "support.hpp"

namespace freeze_test {

using names = std::vector<std::string>;

namespace {

struct net : torch::nn::Module {
  net() {
    encoder = register_module(
        "encoder", torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4),
                                         torch::nn::Dropout(0.5)));
    plain = register_module("plain",
                            torch::nn::BatchNorm1d(torch::nn::BatchNorm1dOptions(4).affine(false)));
    head = register_module("head", torch::nn::Linear(4, 2));
  }
  at::Tensor forward(const at::Tensor& x) {
    return head->forward(plain->forward(encoder->forward(x)));
  }
  torch::nn::Sequential encoder{nullptr};
  torch::nn::BatchNorm1d plain{nullptr};
  torch::nn::Linear head{nullptr};
};

std::map<std::string, at::Tensor> everything(const net& model) {
  std::map<std::string, at::Tensor> all;
  for (const auto& p : model.named_parameters()) all[p.key()] = p.value().detach().clone();
  for (const auto& b : model.named_buffers()) all[b.key()] = b.value().clone();
  return all;
}
names changed(const std::map<std::string, at::Tensor>& before, const net& model) {
  names list;
  for (const auto& [name, tensor] : everything(model))
    if (!tensor.equal(before.at(name))) list.push_back(name);
  return list;
}

}  // namespace

TEST_CASE("freeze: parameters, momentum, weight decay and BatchNorm statistics stand still over "
          "train(), the rest learns",
          "[freeze]") {
  torch::manual_seed(1);
  auto model = std::make_shared<net>();
  const auto x = torch::randn({16, 3});
  torch::optim::Adam adam(model->parameters(), torch::optim::AdamOptions(1e-2).weight_decay(0.1));
  torch::optim::SGD sgd(model->parameters(),
                        torch::optim::SGDOptions(1e-2).momentum(0.9).weight_decay(0.1));
  const auto update = [&] {
    for (torch::optim::Optimizer* optimizer : {static_cast<torch::optim::Optimizer*>(&adam),
                                               static_cast<torch::optim::Optimizer*>(&sgd)}) {
      optimizer->zero_grad();
      model->forward(x).square().sum().backward();
      optimizer->step();
    }
  };
  for (int i = 0; i < 3; ++i) update();  // momentum to be carried on with
  {
    retain::frozen hold{*model, {"encoder", "plain"}};
    CHECK(hold.parameters() ==
          names{"encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"});
    for (const auto& p : model->encoder->parameters())
      CHECK((!p.requires_grad() && !p.grad().defined()));
    CHECK(model->is_training());
    const auto before = everything(*model);
    for (int i = 0; i < 3; ++i) {
      model->train();
      hold.enforce();
      update();
    }
    CHECK(changed(before, *model) == names{"head.bias", "head.weight"});
    CHECK(model->forward(x).equal(model->forward(x)));  // dropout is off
    model->train();  // not followed by enforce(): what the promise is about
    model->forward(x);
    CHECK(changed(before, *model).size() > 2);
    model->eval();
    model->train();
  }
  for (const auto& p : model->parameters()) CHECK(p.requires_grad());
  for (const auto& m : model->modules(false)) CHECK(m->is_training());
  const auto before = everything(*model);
  update();
  CHECK(changed(before, *model).size() == before.size());
}

TEST_CASE("freeze: everything is given back as it was, and not more", "[freeze]") {
  auto model = std::make_shared<net>();
  model->head->bias.requires_grad_(false);
  model->encoder[1]->eval();
  {
    retain::frozen hold{model, {"*"}};
    CHECK(!model->is_training());
    CHECK(hold.parameters().size() == 6);
    CHECK_THROWS(model->forward(torch::randn({4, 3})).sum().backward());
  }
  CHECK(model->head->weight.requires_grad());
  CHECK(!model->head->bias.requires_grad());
  CHECK(model->is_training());
  CHECK(model->plain->is_training());
  CHECK(!model->encoder[1]->is_training());

  // While it was frozen the model went into eval mode: nothing of it may come back in training
  // mode.
  retain::frozen hold{*model, {"encoder"}};
  model->eval();
  hold.release();
  for (const auto& m : model->modules(false)) CHECK(!m->is_training());
  CHECK(hold.parameters().empty());
}

TEST_CASE("freeze: a module that is frozen in part keeps its mode; its parameterless children go "
          "with one that is frozen whole",
          "[freeze]") {
  auto model = std::make_shared<net>();
  const auto dropout = model->encoder[2];
  {
    retain::frozen weights{*model, {"*.weight"}};
    CHECK(model->encoder[1]->is_training());
    CHECK(dropout->is_training());
  }
  {
    retain::frozen both{*model, {"encoder.?.weight", "encoder.?.bias"}};
    CHECK(!model->encoder->is_training());
    CHECK(!dropout->is_training());
    CHECK(model->plain->is_training());
  }
  CHECK(dropout->is_training());
  retain::frozen one{*model, {"encoder.2"}};
  CHECK(!dropout->is_training());
  CHECK(one.parameters().empty());
}

TEST_CASE("freeze: a gradient of zeros would have moved the weight", "[freeze]") {
  // Why `.grad` must be undefined: the same momentum, once with zeros and once frozen.
  torch::nn::Linear a(2, 1), b(2, 1);
  for (auto* layer : {&a, &b}) {
    torch::optim::SGD sgd((*layer)->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    (*layer)->forward(torch::ones({1, 2})).sum().backward();
    sgd.step();
    const auto before = (*layer)->weight.detach().clone();
    retain::frozen hold{**layer, {layer == &a ? "weight" : "bias"}};
    if (layer == &b) (*layer)->weight.mutable_grad().zero_();
    sgd.step();
    CHECK((*layer)->weight.equal(before) == (layer == &a));
  }
}

TEST_CASE("freeze: penalties leave frozen parameters alone", "[freeze]") {
  auto model = std::make_shared<net>();
  const retain::l2_init keep{*model};
  {
    const at::NoGradGuard no_grad;
    for (auto& p : model->parameters()) p.add_(1);
  }
  retain::frozen hold{*model, {"encoder"}};
  keep.add_gradient(*model);
  CHECK(!model->encoder->named_parameters()["0.weight"].grad().defined());
  CHECK(model->head->weight.grad().defined());
}

TEST_CASE("freeze: TorchScript modules and bare parameters", "[freeze]") {
  torch::jit::Module script("m"), child("c");
  child.register_parameter("w", torch::ones({2}), false);
  child.register_attribute("training", c10::BoolType::get(), true);
  script.register_attribute("training", c10::BoolType::get(), true);
  script.register_parameter("v", torch::ones({2}), false);
  script.register_module("child", child);
  for (auto p : script.parameters()) p.requires_grad_();
  {
    retain::frozen hold{script, {"child"}};
    CHECK(hold.parameters() == names{"child.w"});
    CHECK(!script.attr("child").toModule().is_training());
    script.train();
    hold.enforce();
    CHECK(script.is_training());
    CHECK(!script.attr("child").toModule().is_training());
  }
  CHECK(script.attr("child").toModule().is_training());
  for (auto p : script.parameters()) CHECK(p.requires_grad());

  std::vector<at::Tensor> bare{torch::ones({1}).requires_grad_(),
                               torch::ones({1}).requires_grad_()};
  {
    retain::frozen hold{bare, {"1"}};
    CHECK(bare[0].requires_grad());
    CHECK(!bare[1].requires_grad());
  }
  CHECK(bare[1].requires_grad());
}

TEST_CASE("freeze: by schedule, saved and restored", "[freeze]") {
  auto model = std::make_shared<net>();
  const auto make = [](const std::shared_ptr<net>& m) {
    return retain::freeze_schedule{
        *m,
        {{.pattern = "encoder.*", .until = 10}, {.pattern = "head.bias", .from = 5, .until = 20}}};
  };
  auto layers = make(model);
  const auto count = [&] { return layers.parameters().size(); };
  CHECK(count() == 4);
  CHECK(!model->encoder[1]->is_training());
  CHECK(!layers.step(4.9));
  CHECK(layers.step(5));
  CHECK(count() == 5);
  CHECK(layers.step(10));
  CHECK(layers.parameters() == names{"head.bias"});
  CHECK(model->encoder[1]->is_training());
  CHECK(model->encoder->parameters()[0].requires_grad());
  model->train();
  CHECK(layers.step(20));
  CHECK(count() == 0);
  CHECK(layers.step(7));
  model->train();
  model->encoder->parameters()[0].requires_grad_();
  layers.enforce();
  CHECK(!model->encoder->parameters()[0].requires_grad());
  CHECK(!model->encoder->is_training());
  CHECK(model->plain->is_training());

  const support::temporary_folder folder;
  retain::save(folder.file("f"), layers);
  auto other = std::make_shared<net>();
  auto resumed = make(other);
  retain::load(folder.file("f"), resumed);
  CHECK(resumed.progress() == 7);
  CHECK(resumed.parameters() == layers.parameters());
  CHECK(!other->head->bias.requires_grad());
  retain::freeze_schedule another{*other, {{.pattern = "head", .until = 3}}};
  CHECK_THROWS_WITH(retain::load(folder.file("f"), another),
                    ContainsSubstring("'head' from 0 until 3") && ContainsSubstring("encoder"));
}

TEST_CASE("freeze: what makes no sense is refused", "[freeze]") {
  auto model = std::make_shared<net>();
  CHECK_THROWS_WITH((retain::frozen{*model, {"enc"}}),
                    ContainsSubstring("'enc' matches no parameter"));
  CHECK(model->encoder->parameters()[0].requires_grad());
  CHECK_THROWS_WITH((retain::freeze_schedule{*model, {{.pattern = "head", .from = 3, .until = 3}}}),
                    ContainsSubstring("from 3 until 3"));
  CHECK_THROWS_WITH((retain::freeze_schedule{*model, {{.pattern = "head"}, {.pattern = "tail"}}}),
                    ContainsSubstring("'tail' matches no parameter"));
  CHECK(model->head->weight.requires_grad());
  retain::freeze_schedule layers{*model, {}};
  CHECK_THROWS_AS(layers.step(std::nan("")), retain::config_error);
}

TEST_CASE("freeze: a train() between freezing and releasing is remembered, whoever looks first",
          "[freeze]") {
  torch::nn::Sequential model(torch::nn::Linear(2, 2), torch::nn::BatchNorm1d(2),
                              torch::nn::Linear(2, 1));
  model->eval();
  retain::freeze_schedule schedule{*model,
                                   {{.pattern = "0", .until = 10}, {.pattern = "1", .until = 10}}};
  model->train();
  schedule.step(1);
  CHECK_FALSE(model[1]->is_training());
  schedule.step(20);
  CHECK(model[0]->is_training());
  CHECK(model[1]->is_training());
}

TEST_CASE(
    "freeze: a gradient that came while a parameter was frozen goes at its release, others stay",
    "[freeze]") {
  torch::nn::Linear layer(2, 1);
  const auto learn = [&] { layer->forward(torch::ones({1, 2})).sum().backward(); };
  const auto both = [&](auto& hold, auto release) {
    layer->weight.requires_grad_(true);  // not followed by enforce()
    learn();
    REQUIRE(layer->weight.grad().defined());
    const auto bias = layer->bias.grad().clone();
    release(hold);
    CHECK(layer->weight.requires_grad());
    CHECK_FALSE(layer->weight.grad().defined());
    CHECK(layer->bias.grad().equal(bias));
    learn();
    release(hold);  // there is nothing to give back any more
    CHECK(layer->weight.grad().equal(torch::ones({1, 2})));
  };
  retain::frozen hold{*layer, {"weight"}};
  both(hold, [](auto& h) { h.release(); });
  retain::freeze_schedule schedule{*layer, {{.pattern = "weight", .until = 5}}};
  both(schedule, [](auto& s) { s.step(s.progress() + 5); });
}

TEST_CASE("freeze: a shared tensor is named by its first name, another alone is refused",
          "[freeze]") {
  struct shared : torch::nn::Module {
    explicit shared(const at::Tensor& weight) { register_parameter("weight", weight); }
  };
  struct tied_net : torch::nn::Module {
    torch::nn::Linear encoder =
        register_module("encoder", torch::nn::Linear(torch::nn::LinearOptions(3, 3).bias(false)));
    std::shared_ptr<shared> decoder =
        register_module("decoder", std::make_shared<shared>(encoder->weight));
  };
  tied_net model;
  CHECK_THROWS_WITH((retain::frozen{model, {"decoder"}}),
                    ContainsSubstring("decoder.weight") && ContainsSubstring("encoder.weight"));
  CHECK(model.encoder->weight.requires_grad());
  {
    const retain::frozen both{model, {"encoder", "decoder"}};
    CHECK_FALSE(model.encoder->weight.requires_grad());
  }
  const retain::frozen first{model, {"encoder"}};
  CHECK_FALSE(model.encoder->weight.requires_grad());
}

}  // namespace freeze_test
