// SPDX-License-Identifier: MIT
// Accumulates the diagonal Fisher batch by batch. The graph walk is used for a parameter that it
// covers if the result agrees with plain gradients. Other parameters are differentiated one sample
// at a time.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/random.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/importance/fisher_slot.hpp>
#include <retain/importance/float32_throughout.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/score_batch.hpp>
#include <retain/importance/steady_forward.hpp>
#include <retain/importance/walked_batch.hpp>
#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

class fisher_estimator {
 public:
  fisher_estimator(const parameter_list& chosen, fisher_settings settings) : settings_(settings) {
    for (const auto& [name, tensor] : chosen) {
      if (tensor.grad_fn())
        throw config_error(
            concat("estimate_fisher: '", name,
                   "' is computed from other tensors: list these tensors instead, because a Fisher "
                   "is estimated for leaf tensors only"));
      slots_.push_back({name, tensor});
    }
  }

  std::int64_t states() const {
    return static_cast<std::int64_t>(states_.defined() ? states_.item<double>() : 0.0);
  }

  /// Returns the number of samples that were differentiated through the graph of their whole batch
  /// because the batch could not be sliced.
  std::int64_t unsliced() const { return unsliced_; }

  template <class Batch, class Forward, class Source>
  void add(const Batch& batch, Forward& forward, Source& source) {
    const at::AutoGradMode with_grad(true);
    const separate_nodes as_written;
    const float32_throughout precise;
    score_batch asked("estimate_fisher", batch, forward, source, settings_.sample_dimension);
    if (asked.empty()) return;
    if (steady_.in_doubt()) asked.check_policy();
    count(asked.valid());
    asked.take_scores();

    // The walk runs over the graphs of all passes at once, so that it finds the uses in every pass.
    graph_walk walk(asked.passes().scores(), asked.samples());
    if (steady_.in_doubt()) asked.check_steady(steady_, /*few=*/settings_.verify > 0);
    walked_batch walked(slots_, settings_, walk, asked.passes(), asked.valid(), asked.dimension(),
                        random_);
    walked.add([&](std::int64_t n, const std::vector<at::Tensor>& wanted, std::size_t pass) {
      std::vector<at::Tensor> gradients;
      asked.each_gradient(n, wanted, pass, pass + 1,
                          [&](std::vector<at::Tensor> g) { gradients = std::move(g); });
      return gradients;
    });
    if (!walked.alone().empty()) add_one_by_one(asked, walked.alone());
  }

  parameter_list values() const {
    if (std::none_of(slots_.begin(), slots_.end(), [](const auto& s) { return s.reached; }) &&
        states() != 0)
      throw config_error("estimate_fisher: the policy's log-probabilities do not depend on any of "
                         "the model's parameters: check that `forward` calls this model and not a "
                         "copy of it");
    if (states() == 0) throw config_error("estimate_fisher: the data has no valid state");
    parameter_list result;
    double largest = 0;
    for (const auto& s : slots_) {
      const at::Tensor mean = s.mean(states_);
      result.push_back({s.name, mean});
      // The largest value is infinite or NaN if any value is.
      const double most = mean.numel() > 0 ? mean.max().template item<double>() : 0.0;
      if (!std::isfinite(most))
        throw state_error(
            concat("estimate_fisher: the Fisher of '", s.name,
                   "' is not finite: look for NaN in the policy's outputs or in the data"));
      largest = std::max(largest, most);
    }
    if (largest == 0) throw_all_zero("estimate_fisher");
    return result;
  }

  std::map<std::string, fisher_path> paths() const {
    std::map<std::string, fisher_path> result;
    for (const auto& s : slots_)
      result[s.name] = !s.reached            ? fisher_path::unused
                       : s.looped > s.walked ? fisher_path::per_sample
                                             : fisher_path::batched;
    return result;
  }

 private:
  void count(const at::Tensor& valid) {
    states_ = states_.defined() ? states_ + valid.sum(at::kDouble) : valid.sum(at::kDouble);
  }

  /// Adds the squared gradients of each sample, summed over the passes.
  template <class Asked>
  void add_one_by_one(Asked& asked, const std::vector<fisher_slot*>& alone) {
    // A longer chain of float additions would lose the last values.
    constexpr std::int64_t together = 256;
    const std::int64_t samples = asked.samples();
    std::vector<at::Tensor> wanted, totals(alone.size());
    for (auto* s : alone) {
      wanted.push_back(s->parameter);
      s->looped += samples;
    }
    for (std::int64_t n = 0; n < samples; ++n) {
      const auto square = [&](const std::vector<at::Tensor>& g) {
        const at::NoGradGuard no_grad;
        for (std::size_t i = 0; i < alone.size(); ++i)
          if (g[i].defined()) add_to(totals[i], widened(g[i]).square());
      };
      const bool sliced = asked.each_gradient(n, wanted, 0, asked.passes().count(), square);
      if (!sliced && samples > 1) ++unsliced_;
      if (n % together == together - 1)
        for (std::size_t i = 0; i < alone.size(); ++i)
          if (totals[i].defined()) alone[i]->add_batch(std::exchange(totals[i], at::Tensor()));
    }
    for (std::size_t i = 0; i < alone.size(); ++i)
      if (totals[i].defined()) alone[i]->add_batch(totals[i]);
  }

  fisher_settings settings_;
  steady_forward steady_{"estimate_fisher"};
  splitmix64 random_{0};
  std::vector<fisher_slot> slots_;
  at::Tensor states_;
  std::int64_t unsliced_ = 0;
};

}  // namespace retain::detail
