// SPDX-License-Identifier: MIT
// The definition of a diagonal Fisher, which every way of computing it is held against.
#pragma once

#include "support.hpp"

#include <retain/categorical.hpp>
#include <retain/fisher.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace support {

using retain::fisher_path;

struct opaque_batch {  // cannot be sliced
  at::Tensor observations;
};

/// The definition: one sample, one gradient, one square.
template <class Model, class Forward>
std::vector<at::Tensor> per_sample_loop(Model& model, const at::Tensor& data,
                                        const at::Tensor& actions, Forward forward,
                                        std::int64_t dim) {
  std::vector<at::Tensor> sums;
  for (const auto& [name, p] : retain::parameters(model))
    sums.push_back(torch::zeros_like(p, at::kDouble));
  for (std::int64_t n = 0; n < data.size(dim); ++n) {
    auto list = retain::parameters(model);
    for (auto& [name, p] : list) p.mutable_grad() = at::Tensor();
    forward(data.narrow(dim, n, 1)).log_prob(actions.narrow(dim, n, 1)).sum().backward();
    for (std::size_t i = 0; i < list.size(); ++i)
      if (list[i].tensor.grad().defined())
        sums[i] += list[i].tensor.grad().to_dense().to(at::kDouble).square();
  }
  for (auto& [name, p] : retain::parameters(model)) p.mutable_grad() = at::Tensor();
  for (auto& s : sums) s /= static_cast<double>(actions.numel());
  return sums;
}

/// Checks estimate_fisher on dataset actions against the loop, and the path each parameter took.
template <class Model, class Forward>
void check(Model& model, const at::Tensor& data, std::int64_t num_actions, Forward forward,
           const std::map<std::string, fisher_path>& expected, double tolerance = 2e-6,
           bool sequences = false) {
  const std::int64_t dim = sequences ? 1 : 0;
  const auto rows = sequences ? std::vector<std::int64_t>{data.size(0), data.size(1)}
                              : std::vector<std::int64_t>{data.size(0)};
  const auto actions = torch::randint(num_actions, rows);
  const auto truth = per_sample_loop(model, data, actions, forward, dim);
  const auto f =
      retain::estimate_fisher(model, std::vector{data}, forward,
                              retain::dataset_actions{[&](const at::Tensor&) { return actions; }});
  INFO(f.report());
  REQUIRE(f.values.size() == truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    INFO(f.values[i].name);
    CHECK(relative_error(f.values[i].tensor, truth[i]) < tolerance);
    const auto path =
        expected.count(f.values[i].name) ? expected.at(f.values[i].name) : fisher_path::batched;
    CHECK((f.paths.at(f.values[i].name) == path));
  }
  CHECK(f.states == actions.numel());
  for (const auto& [name, p] : retain::parameters(model)) CHECK(!p.grad().defined());
}

}  // namespace support
