// SPDX-License-Identifier: MIT
// Benchmarks of weight penalties: the value, and the gradient that is added to .grad.
#include "subject.hpp"

#include <retain/ewc.hpp>
#include <retain/kfac_ewc.hpp>
#include <retain/l2_init.hpp>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kernels {
namespace {

/// Weights that have moved from their anchors, with a gradient buffer.
struct weights {
  std::vector<at::Tensor> parameters, anchors;
  retain::parameter_list importances;

  weights(at::Device device, std::int64_t total, std::int64_t tensors,
          at::ScalarType type = at::kFloat) {
    for (std::int64_t i = 0; i < tensors; ++i) {
      const auto anchor = at::rand({total / tensors}, device);
      anchors.push_back(anchor.to(type));
      parameters.push_back(anchor.to(type).clone().set_requires_grad(true));
      parameters.back().mutable_grad() = at::zeros_like(anchors.back());
      importances.push_back({std::to_string(i), at::rand({total / tensors}, device)});
    }
  }

  void move() {
    const at::NoGradGuard no_grad;
    for (auto& parameter : parameters) parameter.mul_(1.01);
  }
  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> list;
    for (const auto& parameter : parameters) list.push_back(parameter.grad().clone());
    return list;
  }
  void clear() {
    for (auto& parameter : parameters) parameter.mutable_grad().zero_();
  }
  /// Returns ||ours - theirs|| / ||theirs|| of the gradients that two implementations compute.
  double disagreement(const std::function<void()>& ours, const std::function<void()>& theirs) {
    clear();
    ours();
    const auto mine = gradients();
    clear();
    theirs();
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const auto reference = parameters[i].grad().to(at::kDouble);
      difference += (mine[i].to(at::kDouble) - reference).square().sum().item<double>();
      size += reference.square().sum().item<double>();
    }
    clear();
    return std::sqrt(difference / size);
  }
};

constexpr double strength = 0.3;

/// The penalty as public code computes it: in the graph, tensor by tensor. If `importance` is
/// false, all importances are 1. Scales default to 1.
std::function<void()> by_autograd(const std::shared_ptr<weights>& w, bool importance,
                                  std::vector<double> scales = {}) {
  return [w, importance, scales] {
    at::Tensor sum = at::zeros({}, w->parameters.front().device());
    for (std::size_t i = 0; i < w->parameters.size(); ++i) {
      if (!w->parameters[i].requires_grad()) continue;
      auto square = (w->parameters[i] - w->anchors[i]).pow(2);
      if (importance) square = w->importances[i].tensor * square;
      sum = sum + square.sum() * (scales.empty() ? 1.0 : scales[i]);
    }
    (sum * strength).backward();
  };
}

subject penalty(std::string name, double bytes, goals reach,
                std::function<prepared(at::Device)> prepare) {
  return {.group = "weight penalties",
          .name = std::move(name),
          .limited_by = bound::memory,
          .work = bytes,
          .reach = reach,
          .prepare = std::move(prepare),
          .on_gpu = true};
}

template <class Penalty>
prepared compare(const std::shared_ptr<weights>& w, Penalty keep, std::function<void()> usual) {
  auto shared = std::make_shared<Penalty>(std::move(keep));
  w->move();
  const auto run = [w, shared] { shared->add_gradient(w->parameters); };
  return {.run = run, .usual = way{"autograd, tensor by tensor", usual}, .error = [w, run, usual] {
            return w->disagreement(run, usual);
          }};
}

subject ewc(const std::string& name, std::int64_t total, std::int64_t tensors, goals reach) {
  return penalty("ewc, " + name, 20.0 * static_cast<double>(total), reach, [=](at::Device device) {
    const auto w = std::make_shared<weights>(device, total, tensors);
    return compare(w, retain::ewc{w->parameters, w->importances, {.strength = strength}},
                   by_autograd(w, true));
  });
}

constexpr std::int64_t million = 1'000'000;

subject l2_init() {
  return penalty("l2_init, 30M in 60 tensors", 16.0 * 30 * million, {.limit = 0.9, .usual = 3.0},
                 [](at::Device device) {
                   const auto w = std::make_shared<weights>(device, 30 * million, 60);
                   return compare(w, retain::l2_init{w->parameters, {.strength = strength}},
                                  by_autograd(w, false));
                 });
}

subject three_tasks() {
  return penalty(
      "ewc of 3 tasks, 30M in 60", 20.0 * 30 * million, {.limit = 0.85}, [](at::Device device) {
        const auto w = std::make_shared<weights>(device, 30 * million, 60);
        retain::ewc keep{w->parameters, w->importances, {.strength = strength}};
        struct task {
          std::vector<at::Tensor> anchors;
        };
        const auto tasks = std::make_shared<std::vector<task>>(1, task{w->anchors});
        for (int more = 0; more < 2; ++more) {
          w->move();
          std::vector<at::Tensor> anchors;
          for (const auto& parameter : w->parameters) anchors.push_back(parameter.detach().clone());
          tasks->push_back({anchors});
          keep.remember(w->parameters, w->importances);
        }
        const auto usual = [w, tasks] {
          at::Tensor sum = at::zeros({}, w->parameters.front().device());
          for (const auto& each : *tasks)
            for (std::size_t i = 0; i < w->parameters.size(); ++i)
              sum = sum +
                    (w->importances[i].tensor * (w->parameters[i] - each.anchors[i]).pow(2)).sum();
          (sum * strength).backward();
        };
        return compare(w, std::move(keep), usual);
      });
}

subject grouped() {
  return penalty("ewc with 3 groups, 30M in 60", 20.0 * 30 * million, {.limit = 0.85},
                 [](at::Device device) {
                   const auto w = std::make_shared<weights>(device, 30 * million, 60);
                   std::vector<double> scales;
                   for (int i = 0; i < 60; ++i)
                     scales.push_back(i < 10 ? 0.5 : i < 20 ? 2.0 : i < 30 ? 4.0 : 1.0);
                   retain::ewc_options options{.strength = strength,
                                               .groups = {{"?", 0.5}, {"1?", 2.0}, {"2?", 4.0}}};
                   return compare(w, retain::ewc{w->parameters, w->importances, options},
                                  by_autograd(w, true, scales));
                 });
}

subject half_frozen() {
  return penalty("ewc, 30M of which 15M frozen", 20.0 * 15 * million, {.limit = 0.85},
                 [](at::Device device) {
                   const auto w = std::make_shared<weights>(device, 30 * million, 60);
                   retain::ewc keep{w->parameters, w->importances, {.strength = strength}};
                   for (std::size_t i = 0; i < 30; ++i) w->parameters[i].set_requires_grad(false);
                   w->clear();
                   return compare(w, std::move(keep), by_autograd(w, true));
                 });
}

subject reduced(const std::string& name, at::ScalarType type) {
  // 2 bytes each for theta, the anchor, and the gradient (read and written), and 4 bytes for the
  // importance.
  return penalty("ewc in " + name + ", 30M in 60", 12.0 * 30 * million, {.limit = 0.85},
                 [type](at::Device device) {
                   const auto w = std::make_shared<weights>(device, 30 * million, 60, type);
                   return compare(
                       w, retain::ewc{w->parameters, w->importances, {.strength = strength}},
                       by_autograd(w, true));
                 });
}

/// tr(G D A D^T) over square layers: two matrix products per layer.
subject kronecker() {
  constexpr std::int64_t layers = 4, width = 1024;
  const double operations = layers * 4.0 * width * width * width;
  return {
      .group = "weight penalties",
      .name = "kfac_ewc, 4 layers of 1024 x 1024",
      .limited_by = bound::products,
      .work = operations,
      .reach = {.limit = 0.7},
      .prepare =
          [](at::Device device) {
            auto w = std::make_shared<weights>(device, 0, 0);
            retain::kronecker_fisher factors;
            for (std::int64_t l = 0; l < layers; ++l) {
              const auto anchor = at::rand({width, width}, device);
              w->anchors.push_back(anchor);
              w->parameters.push_back(anchor.clone().set_requires_grad(true));
              w->parameters.back().mutable_grad() = at::zeros_like(anchor);
              const auto factor = [&] {
                const auto rows = at::randn({2 * width, width},
                                            at::TensorOptions().dtype(at::kDouble).device(device));
                return rows.t().mm(rows) / (2.0 * width);
              };
              factors.layers.push_back({std::to_string(l), "", factor(), factor()});
            }
            const auto usual =
                [w, factors = std::make_shared<std::vector<std::pair<at::Tensor, at::Tensor>>>([&] {
                      std::vector<std::pair<at::Tensor, at::Tensor>> list;
                      for (const auto& layer : factors.layers)
                        list.emplace_back(layer.inputs.to(at::kFloat),
                                          layer.outputs.to(at::kFloat));
                      return list;
                    }())] {
                  at::Tensor sum = at::zeros({}, w->parameters.front().device());
                  for (std::size_t l = 0; l < w->parameters.size(); ++l) {
                    const auto moved = w->parameters[l] - w->anchors[l];
                    const auto& [inputs, outputs] = (*factors)[l];
                    sum = sum + (outputs.mm(moved).mm(inputs) * moved).sum();
                  }
                  (sum * strength).backward();
                };
            return compare(w, retain::kfac_ewc{w->parameters, factors, {.strength = strength}},
                           usual);
          },
      .on_gpu = true};
}

}  // namespace

std::vector<subject> weight_penalties() {
  return {ewc("30M in 60 tensors", 30 * million, 60, {.limit = 0.85, .usual = 3.0}),
          ewc("1M in 20", million, 20, {.limit = 0.8, .usual = 5.0}),
          ewc("300M in 200", 300 * million, 200, {.limit = 0.8, .usual = 5.0}),
          l2_init(),
          three_tasks(),
          grouped(),
          half_frozen(),
          reduced("bfloat16", at::kBFloat16),
          reduced("float16", at::kHalf),
          kronecker()};
}

}  // namespace kernels
