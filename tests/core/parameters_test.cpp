// SPDX-License-Identifier: MIT
#include <retain/parameters.hpp>

#include <torch/script.h>
#include <map>

#include "support.hpp"

namespace parameters_test {

namespace {

struct plain_module : torch::nn::Module {
  plain_module() { weight = register_parameter("weight", torch::ones({2})); }
  at::Tensor weight;
};
struct own_type {
  at::Tensor w = torch::ones({1});
  std::vector<std::pair<std::string, at::Tensor>> named_parameters() const { return {{"w", w}}; }
};

static_assert(retain::parameter_source<torch::nn::Linear>);
static_assert(retain::parameter_source<torch::nn::LinearImpl>);
static_assert(retain::parameter_source<torch::nn::Module>);
static_assert(retain::parameter_source<std::shared_ptr<plain_module>>);
static_assert(retain::parameter_source<plain_module*>);
static_assert(retain::parameter_source<torch::jit::Module>);
static_assert(retain::parameter_source<std::vector<at::Tensor>>);
static_assert(retain::parameter_source<retain::parameter_list>);
static_assert(retain::parameter_source<std::map<std::string, at::Tensor>>);
static_assert(retain::parameter_source<torch::OrderedDict<std::string, at::Tensor>>);
static_assert(retain::parameter_source<own_type>);
static_assert(!retain::parameter_source<int>);
static_assert(!retain::parameter_source<std::string>);
static_assert(!retain::parameter_source<std::vector<int>>);
static_assert(!retain::parameter_source<std::map<std::string, int>>);

std::vector<std::string> names(const retain::parameter_list& list) {
  std::vector<std::string> result;
  for (const auto& entry : list) result.push_back(entry.name);
  return result;
}

}  // namespace

TEST_CASE("parameters: a module, a holder, a pointer and a reference give the same list",
          "[parameters]") {
  torch::nn::Linear linear(3, 2);
  const std::vector<std::string> expected{"weight", "bias"};
  CHECK(names(retain::parameters(linear)) == expected);
  CHECK(names(retain::parameters(*linear)) == expected);
  CHECK(names(retain::parameters(linear.ptr())) == expected);
  const torch::nn::Module& base = *linear;
  CHECK(names(retain::parameters(base)) == expected);
  CHECK(retain::parameters(linear)[0].tensor.is_same(linear->weight));
}

TEST_CASE("parameters: tensors are numbered, named ranges keep their names", "[parameters]") {
  const std::vector<at::Tensor> tensors{torch::ones({1}), torch::ones({2})};
  CHECK(names(retain::parameters(tensors)) == std::vector<std::string>{"0", "1"});
  CHECK(names(retain::parameters(std::map<std::string, at::Tensor>{
            {"b", tensors[0]}, {"a", tensors[1]}})) == std::vector<std::string>{"a", "b"});
  CHECK(names(retain::parameters(own_type{})) == std::vector<std::string>{"w"});
}

TEST_CASE("parameters: a tied tensor is listed once, under its first name", "[parameters]") {
  struct tied : torch::nn::Module {
    tied() {
      const auto shared = torch::ones({2, 2});
      register_parameter("encoder", shared);
      register_parameter("decoder", shared);
    }
  };
  CHECK(names(retain::parameters(tied{})) == std::vector<std::string>{"encoder"});
}

TEST_CASE("parameters: two tensors of one name are refused", "[parameters]") {
  const retain::parameter_list twice{{"weight", torch::ones({1})}, {"weight", torch::ones({2})}};
  CHECK_THROWS_AS(retain::parameters(twice), retain::config_error);
  CHECK_THROWS_WITH(retain::parameters(twice), ContainsSubstring("'weight'"));
}

TEST_CASE("parameters: a TorchScript module", "[parameters]") {
  torch::jit::Module module("policy");
  module.register_parameter("weight", torch::ones({2, 2}), false);
  CHECK(names(retain::parameters(module)) == std::vector<std::string>{"weight"});
}

}  // namespace parameters_test
