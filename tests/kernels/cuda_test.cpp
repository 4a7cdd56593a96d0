// SPDX-License-Identifier: MIT
// Everything that computes, on a GPU, held to the same on the CPU. Without a GPU each case runs on
// the CPU alone, so that the checks themselves are known to hold, and is reported as SKIPPED.
#include <retain/retain.hpp>

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <limits>
#include <optional>
#include <set>
#include <vector>

#include "support.hpp"

namespace cuda_test {

namespace {

/// Calls check(device) for the CPU and for the GPU where there is one.
template <class Check>
void on_devices(Check check) {
  check(at::Device(at::kCPU));
  if (torch::cuda::is_available())
    check(at::Device(at::kCUDA));
  else
    skip_test("no GPU that LibTorch can use");
}

struct network : torch::nn::Cloneable<network> {
  network() { reset(); }
  void reset() override {
    convolution =
        register_module("convolution", torch::nn::Conv2d(torch::nn::Conv2dOptions(2, 4, 3)));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({16})));
    head = register_module("head", torch::nn::Linear(16, 5));
  }
  at::Tensor forward(const at::Tensor& x) {
    return head(torch::tanh(norm(torch::relu(convolution(x)).flatten(1))));
  }
  torch::nn::Conv2d convolution{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear head{nullptr};
};
using network_ptr = std::shared_ptr<network>;

network_ptr make_network(at::Device device) {
  torch::manual_seed(4);
  auto net = std::make_shared<network>();
  net->to(device);
  return net;
}
network_ptr moved(const network& net, double by) {
  auto result = std::dynamic_pointer_cast<network>(net.clone());
  const at::NoGradGuard no_grad;
  for (auto& p : result->parameters()) p.add_(by);
  return result;
}
at::Tensor observations(at::Device device) {
  torch::manual_seed(5);
  return torch::randn({12, 2, 4, 4}).to(device);
}

struct rollout {
  at::Tensor observations, mask;
};

}  // namespace

TEST_CASE("cuda: weight penalties, value and both gradients", "[cuda]") {
  std::vector<double> values;
  std::vector<std::vector<at::Tensor>> gradients;
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    retain::parameter_list importance;
    for (const auto& [name, p] : retain::parameters(net))
      importance.push_back({name, p.detach().abs()});
    const retain::ewc keep{net, importance, {.strength = 30.0, .groups = {{"head.*", 0.5}}}};
    const auto now = moved(*net, 0.25);

    const auto value = keep.add_gradient(now);
    // reading it is the caller's to decide: nothing here waits for the device
    CHECK(value.device().type() == device.type());
    values.push_back(value.item<double>());
    std::vector<at::Tensor> fused;
    for (auto& p : now->parameters()) {
      CHECK(p.grad().device().type() == device.type());
      fused.push_back(p.grad().cpu().clone());
      p.mutable_grad() = at::Tensor();
    }
    keep.loss(now).backward();
    for (std::size_t i = 0; i < fused.size(); ++i)
      CHECK(support::relative_error(now->parameters()[i].grad().cpu(), fused[i]) < 1e-6);
    gradients.push_back(fused);
  });
  for (std::size_t d = 1; d < values.size(); ++d) {
    CHECK(values[d] == Approx(values[0]).epsilon(1e-6));
    for (std::size_t i = 0; i < gradients[0].size(); ++i)
      CHECK(support::relative_error(gradients[d][i], gradients[0][i]) < 1e-6);
  }
}

TEST_CASE("cuda: penalties on tensors of every type, size and place", "[cuda]") {
  const auto type = GENERATE(at::kFloat, at::kDouble, at::kHalf, at::kBFloat16);
  const bool weighted = GENERATE(true, false);
  const double tolerance = type == at::kDouble  ? 1e-12
                           : type == at::kFloat ? 1e-6
                           : type == at::kHalf  ? 1e-3
                                                : 4e-3;
  std::vector<at::Tensor> anchors, moved, importances;  // as they are on every device
  torch::manual_seed(9);
  std::vector<std::int64_t> sizes{0, 1, 7, 8191, 8192, 8193, 50'000};
  sizes.resize(90, 33);  // more than a launch takes
  for (const auto n : sizes) {
    anchors.push_back(torch::randn({n}));
    moved.push_back(anchors.back() + 0.5 * torch::randn({n}));
    importances.push_back(torch::rand({n}));
  }
  double expected = 0;
  on_devices([&](at::Device device) {
    std::vector<at::Tensor> weights;
    retain::parameter_list importance;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      // Every other one begins beside a multiple of 16 bytes.
      auto place = torch::zeros({sizes[i] + 1}, at::TensorOptions().dtype(type).device(device))
                       .narrow(0, i % 2 ? 1 : 0, sizes[i]);
      place.copy_(anchors[i]);
      weights.push_back(place.detach().set_requires_grad(true));
      importance.push_back({std::to_string(i), importances[i].to(device)});
    }
    const auto check = [&](const auto& keep) {
      std::vector<at::Tensor> forces;  // F d, in double
      double truth = 0;
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        const at::NoGradGuard no_grad;
        const auto was =
            weights[i].to(at::kCPU, at::kDouble, /*non_blocking=*/false, /*copy=*/true);
        weights[i].copy_(moved[i]);
        weights[i].mutable_grad() = torch::ones_like(weights[i]);
        const auto d = weights[i].to(at::kCPU, at::kDouble) - was;
        forces.push_back(weighted ? d * importances[i].to(at::kDouble) : d);
        truth += 0.75 * (forces[i] * d).sum().template item<double>();
      }
      const auto check_gradients = [&](double before) {
        for (std::size_t i = 1; i < sizes.size(); ++i) {
          INFO(device << ", " << type << ", tensor " << i << " of " << sizes[i]);
          CHECK(support::relative_error(weights[i].grad().cpu(), before + 1.5 * forces[i]) <
                tolerance);
          weights[i].mutable_grad() = at::Tensor();
        }
      };
      const double value = keep.add_gradient(weights).template item<double>();
      CHECK(value == Approx(truth).epsilon(type == at::kDouble ? 1e-12 : 1e-6));
      check_gradients(1);
      keep.loss(weights).backward();  // assigns where add_gradient adds
      check_gradients(0);
      if (device.is_cpu())
        expected = value;
      else
        CHECK(value == Approx(expected).epsilon(1e-6));
    };
    if (weighted)
      check(retain::ewc{weights, importance, {.strength = 0.75}});
    else
      check(retain::l2_init{weights, {.strength = 0.75}});
  });
}

TEST_CASE("cuda: a penalty waits for what is queued before it on a stream of the caller's",
          "[cuda]") {
  on_devices([&](at::Device device) {
    const at::TensorOptions on_device{device};
    auto weight = torch::zeros({1 << 20}, on_device).set_requires_grad(true);
    const retain::l2_init keep{std::vector{weight}, {.strength = 2.0}};
    const auto slow = torch::rand({2048, 2048}, on_device) / 1024;
    const auto ones = torch::ones({1 << 20}, on_device);
    keep.add_gradient(std::vector{weight});  // what is compiled once is compiled

    std::optional<c10::StreamGuard> aside;
    if (device.is_cuda()) {
      torch::cuda::synchronize();
      aside.emplace(
          c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(at::Device(at::kCUDA, 0)));
    }
    auto product = slow;
    for (int i = 0; i < (device.is_cuda() ? 50 : 1); ++i) product = product.mm(slow);
    {
      const at::NoGradGuard no_grad;
      weight.add_(ones + 0 * product[0][0]);
    }
    CHECK(keep.add_gradient(std::vector{weight}).item<double>() == 2.0 * (1 << 20));
    CHECK((weight.grad() == 4.0).all().item<bool>());
  });
}

TEST_CASE(
    "cuda: a penalty follows a model that is moved, and a state goes from one device to the other",
    "[cuda]") {
  const support::temporary_folder folder;
  on_devices([&](at::Device device) {
    const auto net = make_network(at::Device(at::kCPU));
    retain::l2_init keep{net, {.strength = 2.0}};
    const auto now = moved(*net, 0.5);
    const double expected = keep.loss(now).item<double>();
    now->to(device);
    CHECK(keep.loss(now).item<double>() == Approx(expected).epsilon(1e-6));
    CHECK(keep.add_gradient(now).item<double>() == Approx(expected).epsilon(1e-6));

    retain::save(folder.file("state"), keep);
    retain::l2_init again{now, {.strength = 2.0}};
    retain::load(folder.file("state"), again);
    CHECK(again.loss(now).item<double>() == Approx(expected).epsilon(1e-6));
  });
}

#if RETAIN_HAS_CUDA_KERNELS
TEST_CASE("cuda: the kernel's source and what starts it agree on sizes", "[cuda]") {
  const std::string source = retain::detail::cuda_quadratic_source;
  const auto has = [&](const std::string& text) { return source.find(text) != std::string::npos; };
  CHECK(has("chunk = " + std::to_string(retain::detail::cuda_quadratic_chunk) + ","));
  CHECK(has("threads = " + std::to_string(retain::detail::cuda_quadratic_threads) + ","));
  CHECK(has("tensors[" + std::to_string(retain::detail::cuda_quadratic_arguments::most) + "]"));
  CHECK(std::string(retain::detail::cuda_kl_source)
            .find("all.kept + " + std::to_string(retain::detail::kl_numbers) + " * row") !=
        std::string::npos);
  CHECK(sizeof(retain::detail::cuda_quadratic_arguments) <= 4096);
}

TEST_CASE("cuda: a kernel is known by its source too", "[cuda]") {
  retain::detail::cuda_kernel_cache cache;
  const std::vector<std::string> options{"-Dnumber=float"}, none;
  std::vector<retain::detail::cuda_function*> places;
  const auto is_new = [&](int device, const char* name, const std::vector<std::string>& words,
                          const std::string& source) {
    const auto [place, made] =
        cache.place(static_cast<c10::DeviceIndex>(device), name, words, source);
    places.push_back(place);
    return made;
  };
  CHECK(is_new(0, "add", options, "one source"));
  CHECK(is_new(0, "add", options, "another one"));
  CHECK(is_new(0, "add", none, "one source"));
  CHECK(is_new(0, "sub", options, "one source"));
  CHECK(is_new(1, "add", options, "one source"));
  CHECK(std::set(places.begin(), places.end()).size() == 5);
  CHECK(!is_new(0, "add", options, "one source"));
  CHECK(places.back() == places.front());
  CHECK(*places.back() == nullptr);
}
#endif

TEST_CASE("cuda: the Fisher, by the walk and one sample at a time", "[cuda]") {
  std::vector<retain::fisher> found;
  const bool in_tf32 = at::globalContext().allowTF32CuDNN();
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    const auto forward = [&](const at::Tensor& o) { return retain::categorical{net->forward(o)}; };
    for (const bool walk : {true, false}) {
      found.push_back(retain::estimate_fisher(net, observations(device), forward,
                                              retain::exact_actions{}, {.batched = walk}));
      for (const auto& [name, path] : found.back().paths)
        CHECK((path == (walk ? retain::fisher_path::batched : retain::fisher_path::per_sample)));
    }
    // Actions are drawn from numbers of the CPU's generator, so that equal seeds draw equal actions
    // on every device.
    found.push_back(retain::estimate_fisher(net, observations(device), forward,
                                            retain::sampled_actions{.per_state = 2, .seed = 3}));
  });
  CHECK(at::globalContext().allowTF32CuDNN() == in_tf32);  // as it was
  for (std::size_t d = 3; d < found.size(); ++d)
    for (std::size_t i = 0; i < found[d].values.size(); ++i) {
      INFO(found[d].values[i].name);
      CHECK(support::relative_error(found[d].values[i].tensor.cpu(),
                                    found[d - 3].values[i].tensor) < 1e-3);
    }
  for (std::size_t i = 0; i < found[0].values.size(); ++i)
    CHECK(support::relative_error(found[0].values[i].tensor, found[1].values[i].tensor) < 1e-4);
}

TEST_CASE("cuda: the Fisher of an LSTM in eval mode", "[cuda]") {
  struct lstm_policy : torch::nn::Module {
    lstm_policy() {
      core = register_module("core", torch::nn::LSTM(3, 6));
      head = register_module("head", torch::nn::Linear(6, 4));
    }
    torch::nn::LSTM core{nullptr};
    torch::nn::Linear head{nullptr};
  };
  std::vector<retain::fisher> found;
  on_devices([&](at::Device device) {
    torch::manual_seed(6);
    lstm_policy net;
    const auto states = torch::randn({5, 3, 3}).to(device);  // [T, N, 3]
    net.to(device);
    net.eval();
    const auto forward = [&](const at::Tensor& o) {
      return retain::categorical{net.head(std::get<0>(net.core->forward(o)))};
    };
    const auto estimate = [&] {
      return retain::estimate_fisher(net, std::vector{states}, forward,
                                     retain::sampled_actions{.per_state = 1, .seed = 1});
    };
    if (device.is_cuda()) {
      CHECK_THROWS_AS(estimate(), retain::config_error);  // says what to do, which is this:
      at::globalContext().setUserEnabledCuDNN(false);
    }
    found.push_back(estimate());
    at::globalContext().setUserEnabledCuDNN(true);
  });
  for (std::size_t d = 1; d < found.size(); ++d)
    for (std::size_t i = 0; i < found[d].values.size(); ++i) {
      INFO(found[d].values[i].name);
      CHECK(support::relative_error(found[d].values[i].tensor.cpu(), found[0].values[i].tensor) <
            1e-3);
    }
  CHECK(found[0].states == 15);
}

TEST_CASE("cuda: KL of categoricals, value and both gradients", "[cuda]") {
  const auto sizes =
      GENERATE(std::vector<std::int64_t>{1, 1}, std::vector<std::int64_t>{5, 18},
               std::vector<std::int64_t>{301, 121}, std::vector<std::int64_t>{3, 7, 33},
               std::vector<std::int64_t>{9, 4096}, std::vector<std::int64_t>{40});
  const bool alike = GENERATE(true, false);  // what comes in for each row
  torch::manual_seed(11);
  auto p = 3 * torch::randn(sizes, at::kDouble) + 100,
       q = 3 * torch::randn(sizes, at::kDouble) - 50;
  if (sizes.back() > 2) {  // actions that only the teacher leaves out, and one that both do
    p.select(-1, 0).fill_(-std::numeric_limits<double>::infinity());
    p.select(-1, 2).fill_(-std::numeric_limits<double>::infinity());
    q.select(-1, 2).fill_(-std::numeric_limits<double>::infinity());
  }
  p = p.to(at::kFloat).to(at::kDouble).set_requires_grad(true);
  q = q.to(at::kFloat).to(at::kDouble).set_requires_grad(true);
  const auto weights = torch::rand(at::IntArrayRef(sizes).slice(0, sizes.size() - 1), at::kDouble);
  const auto total = [&](const at::Tensor& rows) {
    return alike ? rows.mean() : (rows * weights.to(rows.options())).sum();
  };
  const auto expected =
      retain::detail::kl_by_operations(retain::categorical{p}, retain::categorical{q});
  const auto forces = torch::autograd::grad({total(expected)}, {p, q});
  on_devices([&](at::Device device) {
    const auto on = [&](const at::Tensor& x) {
      return x.detach().to(device, at::kFloat).set_requires_grad(true);
    };
    const auto left = on(p), right = on(q);
    const auto rows = kl(retain::categorical{left}, retain::categorical{right});
    CHECK(support::relative_error(rows.cpu(), expected) < 1e-5);
    const auto gradients = torch::autograd::grad({total(rows)}, {left, right});
    INFO(device << " " << p.sizes());
    for (std::size_t i = 0; i < 2; ++i)
      CHECK((gradients[i].cpu().to(at::kDouble) - forces[i]).norm().item<double>() <=
            1e-5 * (forces[0].norm() + forces[1].norm()).item<double>());
    const auto alone = torch::autograd::grad(
        {total(kl(retain::categorical{left.detach()}, retain::categorical{right}))}, {right});
    CHECK(at::equal(alone[0], gradients[1]));
  });
}

TEST_CASE("cuda: kickstarting and cloning, value and gradient", "[cuda]") {
  std::vector<double> values;
  std::vector<at::Tensor> gradients;
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    const retain::teacher teacher{net};
    auto keep = retain::compose(
        retain::kickstarting{teacher, {.strength = 0.5}},
        retain::behavioral_cloning{
            observations(device), teacher, {.strength = 2.0, .batch_size = 7, .seed = 2}});
    const auto now = moved(*net, 0.25);
    const auto student = [&](const at::Tensor& o) { return retain::categorical{now->forward(o)}; };
    auto mask = torch::ones({12});
    mask[3] = 0;
    const auto loss = keep.distillation(student, rollout{observations(device), mask.to(device)});
    CHECK(loss.device().type() == device.type());
    loss.backward();
    values.push_back(loss.item<double>());
    gradients.push_back(now->head->weight.grad().cpu());
  });
  for (std::size_t d = 1; d < values.size(); ++d) {
    CHECK(values[d] == Approx(values[0]).epsilon(1e-4));
    CHECK(support::relative_error(gradients[d], gradients[0]) < 1e-3);
  }
  CHECK(values[0] > 0);
}

}  // namespace cuda_test
