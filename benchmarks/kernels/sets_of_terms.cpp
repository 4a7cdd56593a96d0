// SPDX-License-Identifier: MIT
// Benchmarks of `retention`, which holds terms of any type by name, against `compose`, which knows
// them when it is compiled: one update's terms of a small policy, where a cost per call shows most.
#include "subject.hpp"

#include <retain/behavioral_cloning.hpp>
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/retention.hpp>
#include <retain/teacher.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kernels {
namespace {

struct steps_seen {
  at::Tensor observations;
};

struct terms {
  explicit terms(std::int64_t n) : seen{at::randn({n, 8})} {
    retain::parameter_list importance;
    for (const auto& [name, tensor] : retain::parameters(policy))
      importance.push_back({name, at::rand_like(tensor)});
    const retain::ewc ewc{policy, importance};
    const retain::behavioral_cloning cloning{
        at::randn({10'000, 8}), at::randn({10'000, 4}), {.batch_size = n}};
    const retain::kickstarting kickstarting{retain::teacher{policy}};
    known = std::make_unique<known_type>(ewc, cloning, kickstarting);
    set.add(ewc);
    set.add(cloning);
    set.add(kickstarting);
  }

  template <class Set>
  void update(Set& keep) {
    const auto student = [this](const at::Tensor& o) { return policy->forward(o); };
    policy->zero_grad();
    keep.distillation(student, seen).backward();
    keep.add_gradient(policy);
    keep.step(1);
  }

  using known_type =
      retain::composition<retain::ewc, retain::behavioral_cloning<at::Tensor, at::Tensor>,
                          retain::kickstarting<retain::teacher<retain::mlp>>>;
  retain::mlp policy{8, retain::mlp_options{.hidden = {64, 64, 4}}};
  steps_seen seen;
  std::unique_ptr<known_type> known;
  retain::retention<steps_seen> set;
};

subject of_states(std::int64_t n) {
  return {.group = "a set of terms",
          .name = "EWC + BC + KS by name, 8-64-64-4, " + std::to_string(n) + " states",
          .reach = {.usual = 0.95},
          .prepare = [n](at::Device) {
            const auto data = std::make_shared<terms>(n);
            return prepared{.run = [data] { data->update(data->set); },
                            .usual = way{"compose", [data] { data->update(*data->known); }}};
          }};
}

}  // namespace

std::vector<subject> sets_of_terms() { return {of_states(16), of_states(256)}; }

}  // namespace kernels
