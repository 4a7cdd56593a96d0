// SPDX-License-Identifier: MIT
// Accumulates the diagonal Fisher batch by batch: the graph walk where it covers a parameter and agrees with plain
// gradients, one sample at a time elsewhere.
#pragma once

#include <retain/concepts.hpp>
#include <retain/detail/graph_walk.hpp>
#include <retain/detail/per_sample_squares.hpp>
#include <retain/detail/random.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>
#include <retain/parameters.hpp>
#include <retain/teacher.hpp>

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct sampled_actions;
struct exact_actions;

/// How a parameter's Fisher was computed.
enum class fisher_path {
  graph_walk,  ///< all samples of a batch at once
  per_sample,  ///< one sample at a time
  unused,      ///< the policy's distributions do not depend on it: 0
};

namespace detail {

inline const char* path_name(fisher_path path) {
  constexpr std::array names{"graph walk", "one sample at a time", "unused"};
  return names[static_cast<std::size_t>(path)];
}

struct batch_actions {
  template <class Batch>
  decltype(auto) operator()(const Batch& batch) const {
    return (batch.actions);
  }
};

struct fisher_settings {
  int sample_dimension = -1;
  bool walk = true;
  int verify = 2;
  std::int64_t memory = 64 << 20;
};

/// One backward pass: log-probabilities of `actions`, each row times `weight` (0 where the row does not count).
struct score_pass {
  at::Tensor actions;
  at::Tensor weight;
};

/// `count` numbers in [0, 1) a row, as log-probabilities have the rows. Each sample draws from a stream of its own, so that neither
/// the batch it is in nor the padding behind it changes what it draws.
inline std::vector<at::Tensor> uniform_rows(splitmix64& random, at::IntArrayRef shape, std::int64_t sample_dimension, int count) {
  const std::int64_t samples = shape[static_cast<std::size_t>(sample_dimension)];
  const std::int64_t steps = shape.size() == 2 ? shape[static_cast<std::size_t>(1 - sample_dimension)] : 1;
  auto drawn = at::empty({samples, steps, count}, at::TensorOptions().dtype(at::kDouble));
  auto* u = static_cast<double*>(drawn.data_ptr());
  for (std::int64_t n = 0; n < samples; ++n) {
    splitmix64 own(random());
    for (std::int64_t i = 0; i < steps * count; ++i) *u++ = static_cast<double>(own() >> 11) * 0x1p-53;
  }
  std::vector<at::Tensor> rows;
  for (int k = 0; k < count; ++k) {
    const auto one = drawn.select(2, k);
    rows.push_back((sample_dimension == 0 ? one : one.t()).reshape(shape));
  }
  return rows;
}

struct sampled_source {
  static constexpr const char* name = "sampled";
  int per_state;
  splitmix64 random;

  template <class Distribution, class Batch>
  std::vector<score_pass> operator()(const Distribution& d, const Batch&, const at::Tensor& valid, std::int64_t sample_dimension) {
    std::vector<score_pass> passes;
    const auto weight = valid * (1.0 / std::sqrt(static_cast<double>(per_state)));
    if constexpr (requires { d.at_quantile(valid); })
      for (const auto& u : uniform_rows(random, valid.sizes(), sample_dimension, per_state)) passes.push_back({d.at_quantile(u), weight});
    else
      for (int k = 0; k < per_state; ++k) passes.push_back({d.sample(), weight});
    return passes;
  }
};

struct exact_source {
  static constexpr const char* name = "exact";

  template <class Distribution, class Batch>
  std::vector<score_pass> operator()(const Distribution& d, const Batch&, const at::Tensor& valid, std::int64_t sample_dimension) {
    static_assert(requires { d.num_actions(); }, "exact_actions needs a distribution with num_actions(), such as retain::categorical");
    std::vector<score_pass> passes;
    const at::NoGradGuard no_grad;
    for (std::int64_t a = 0; a < d.num_actions(); ++a) {
      const auto actions = at::full(valid.sizes(), a, valid.options().dtype(at::kLong));
      const auto weight = valid * (d.log_prob(actions) * 0.5).exp().to(valid.scalar_type());
      if (valid.dim() < 2) {
        passes.push_back({actions, weight});
        continue;
      }
      // Steps of a sequence one by one: their scores must not be summed under one and the same action.
      const std::int64_t time = 1 - sample_dimension;
      for (std::int64_t t = 0; t < valid.size(time); ++t) {
        auto only = at::zeros_like(weight);
        only.select(time, t).copy_(weight.select(time, t));
        passes.push_back({actions, only});
      }
    }
    return passes;
  }
};

template <class Actions>
struct dataset_source {
  static constexpr const char* name = "dataset";
  Actions actions;

  template <class Distribution, class Batch>
  std::vector<score_pass> operator()(const Distribution&, const Batch& batch, const at::Tensor& valid, std::int64_t) {
    const at::Tensor taken = actions(batch);
    if (taken.dim() < valid.dim() || taken.sizes().slice(0, static_cast<std::size_t>(valid.dim())) != valid.sizes())
      throw shape_error(concat("estimate_fisher: dataset actions of shape ", shape_text(taken.sizes()), " for log-probabilities of shape ",
                               shape_text(valid.sizes())));
    at::Tensor padding = valid == 0;
    while (padding.dim() < taken.dim()) padding = padding.unsqueeze(-1);
    return {{taken.masked_fill(padding, 0), valid}};  // what stands in padding need not be an action
  }
};

template <class Actions>
auto make_action_source(const Actions& actions) {
  if constexpr (std::same_as<Actions, sampled_actions>) {
    if (actions.per_state < 1) throw config_error(concat("estimate_fisher: per_state must be at least 1, got ", actions.per_state));
    return sampled_source{actions.per_state, splitmix64(actions.seed)};
  } else if constexpr (std::same_as<Actions, exact_actions>) {
    return exact_source{};
  } else {
    static_assert(requires { actions.actions; }, "choose sampled_actions{}, exact_actions{} or dataset_actions{...}");
    return dataset_source<decltype(actions.actions)>{actions.actions};
  }
}

template <class Batch>
concept sliceable_batch = std::convertible_to<const Batch&, at::Tensor> || requires(const Batch& batch, std::int64_t i) { batch.narrow(i, i); };

template <sliceable_batch Batch>
auto slice_of(const Batch& batch, std::int64_t sample_dimension, std::int64_t n) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>)
    return at::Tensor(batch).narrow(sample_dimension, n, 1);
  else
    return batch.narrow(n, 1);
}

/// Whether a tensor has the batch's samples along the dimension in which log-probabilities have them.
template <class Batch>
bool samples_fit(const Batch& batch, std::int64_t dimension, std::int64_t samples) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>) {
    const at::Tensor tensor(batch);
    return dimension < tensor.dim() && tensor.size(dimension) == samples;
  }
  return true;
}

class fisher_estimator {
 public:
  fisher_estimator(const parameter_list& chosen, fisher_settings settings) : settings_(settings) {
    for (const auto& [name, tensor] : chosen) {
      if (tensor.grad_fn())
        throw config_error(concat("estimate_fisher: '", name, "' is computed from other tensors: list those instead, a Fisher is of leaves"));
      const auto type = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      slots_.push_back({name, tensor, at::zeros_like(tensor, tensor.options().dtype(type).requires_grad(false))});
    }
  }

  std::int64_t states() const { return static_cast<std::int64_t>(states_.defined() ? states_.item<double>() : 0.0); }

  template <class Batch, class Forward, class Source>
  void add(const Batch& batch, Forward& forward, Source& draw) {
    const at::AutoGradMode with_grad(true);
    const auto answer = as_prediction(forward(batch));
    const auto d = without_padding(answer);
    at::Tensor valid = ones_per_row(d);
    const std::int64_t dimension = sample_dimension(valid);
    const std::int64_t samples = valid.size(dimension);
    if (valid.numel() == 0) return;

    if (const at::Tensor mask = mask_of(answer); mask.defined()) valid = mask.to(valid.options());
    states_ = states_.defined() ? states_ + valid.sum(at::kDouble) : valid.sum(at::kDouble);

    const auto passes = draw(d, batch, valid, dimension);
    std::vector<at::Tensor> rows;
    for (const auto& pass : passes) rows.push_back(rows_of(d, pass));
    if (!rows.front().requires_grad())
      throw config_error("estimate_fisher: the policy's log-probabilities have no gradient: every parameter is frozen, or forward runs "
                         "without autograd");

    auto one_row = valid.sizes().vec();
    one_row[static_cast<std::size_t>(dimension)] = 1;
    bool slices = samples_fit(batch, dimension, samples);
    const auto one_sample = [&](std::int64_t n, const std::vector<at::Tensor>& wanted, std::size_t first_passes, auto receive) {
      if constexpr (sliceable_batch<Batch>) {
        if (slices) {
          const auto single = as_prediction(forward(slice_of(batch, dimension, n)));
          const at::Tensor mask = mask_of(single);  // a mask that forward takes from elsewhere is still the whole batch's
          slices = ones_per_row(distribution_of(single)).sizes() == at::IntArrayRef(one_row) &&
                   (!mask.defined() || mask.sizes() == at::IntArrayRef(one_row));
          if (slices) {
            const auto alone_in_batch = without_padding(single);
            for (std::size_t p = 0; p < first_passes; ++p) {
              const score_pass narrowed{passes[p].actions.narrow(dimension, n, 1), passes[p].weight.narrow(dimension, n, 1)};
              receive(gradients(rows_of(alone_in_batch, narrowed).sum(), wanted));
            }
            return;
          }
        }
      }
      // Through the whole batch's graph: always right, at the cost of a whole backward pass a sample.
      for (std::size_t p = 0; p < first_passes; ++p) receive(gradients(rows[p].select(dimension, n).sum(), wanted));
    };

    // The walk is built over all passes at once, so that a use in any of them is seen.
    graph_walk walk(rows);
    std::vector<at::Tensor> walked;
    std::vector<std::pair<slot*, std::vector<parameter_use>>> covered;
    std::vector<slot*> alone;
    for (auto& s : slots_) {
      if (!walk.reaches(s.parameter)) continue;
      s.reached = true;
      auto uses = settings_.walk && s.walkable && samples > 1 ? walk.uses_of(s.parameter) : std::vector<parameter_use>{};
      if (uses.empty()) {
        alone.push_back(&s);
      } else {
        covered.emplace_back(&s, std::move(uses));
        walked.push_back(s.parameter);
      }
    }

    const auto is_alone = [&](slot* s) { return std::find(alone.begin(), alone.end(), s) != alone.end(); };
    std::map<slot*, at::Tensor> sums;
    for (std::size_t p = 0; p < passes.size() && !covered.empty(); ++p) {
      walk.capture_during([&] { gradients(rows[p].sum(), walked); });
      const at::NoGradGuard no_grad;
      std::vector<std::pair<slot*, std::vector<parameter_use>>*> unchecked;
      for (auto& entry : covered) {
        auto& [s, uses] = entry;
        if (is_alone(s)) continue;
        if (!per_sample_squares::supported(uses, s->parameter, samples))
          alone.push_back(s);
        else if (!(per_sample_squares::ambiguous(uses, samples) ? s->order.has_value() : s->checked))
          unchecked.push_back(&entry);
      }
      if (!unchecked.empty()) {
        const auto probes = probe_samples(rows[p], dimension);
        std::vector<at::Tensor> wanted;
        for (const auto* entry : unchecked) wanted.push_back(entry->first->parameter);
        std::vector<std::vector<at::Tensor>> plain(probes.size());
        for (std::size_t i = 0; i < probes.size(); ++i) {
          const at::AutoGradMode grad_again(true);
          one_sample(probes[i], wanted, p + 1, [&](std::vector<at::Tensor> g) { plain[i] = std::move(g); });  // the last is pass p
        }
        for (std::size_t w = 0; w < unchecked.size(); ++w) {
          auto& [s, uses] = *unchecked[w];
          std::vector<at::Tensor> truths;
          for (const auto& g : plain) truths.push_back(squared(g[w], s->sum));
          if (!choose_order(*s, uses, samples, probes, truths)) alone.push_back(s);
        }
      }
      for (auto& [s, uses] : covered) {
        if (is_alone(s)) continue;
        const auto order = per_sample_squares::ambiguous(uses, samples) ? *s->order : row_order::sample_major;
        const at::Tensor sum = per_sample_squares(uses, s->parameter, samples, order, elements()).sum(0, samples);
        auto& total = sums[s];
        total = total.defined() ? total + sum : sum;
      }
    }
    for (auto& [s, sum] : sums) {
      if (is_alone(s)) continue;
      s->sum.add_(sum);
      s->walked += samples;
    }

    if (alone.empty()) return;
    std::vector<at::Tensor> wanted;
    for (auto* s : alone) {
      wanted.push_back(s->parameter);
      s->looped += samples;
    }
    for (std::int64_t n = 0; n < samples; ++n)
      one_sample(n, wanted, passes.size(), [&](const std::vector<at::Tensor>& g) {
        const at::NoGradGuard no_grad;
        for (std::size_t i = 0; i < alone.size(); ++i)
          if (g[i].defined()) alone[i]->sum.add_(squared(g[i], alone[i]->sum));
      });
  }

  parameter_list values() const {
    if (std::none_of(slots_.begin(), slots_.end(), [](const auto& s) { return s.reached; }) && states() != 0)
      throw config_error("estimate_fisher: the policy's log-probabilities depend on none of the model's parameters: is `forward` another copy of the model?");
    if (states() == 0) throw config_error("estimate_fisher: the data has no valid state");
    parameter_list result;
    for (const auto& s : slots_) {
      result.push_back({s.name, s.sum / states_.to(s.sum.options())});
      if (!result.back().tensor.isfinite().all().template item<bool>())
        throw state_error(concat("estimate_fisher: the Fisher of '", s.name, "' is not finite: look for NaN in the policy's outputs or in the data"));
    }
    return result;
  }

  std::map<std::string, fisher_path> paths() const {
    std::map<std::string, fisher_path> result;
    for (const auto& s : slots_)
      result[s.name] = !s.reached ? fisher_path::unused : s.looped > s.walked ? fisher_path::per_sample : fisher_path::graph_walk;
    return result;
  }

 private:
  struct slot {
    std::string name;
    at::Tensor parameter;
    at::Tensor sum;
    std::optional<row_order> order = {};  // of batches where it matters; set once a batch has decided it
    bool checked = false;                 // a batch of several samples with one row each has agreed
    bool walkable = true;
    bool reached = false;
    std::int64_t walked = 0, looped = 0;  // samples
  };

  /// The distributions with padded rows replaced by harmless ones. Throws shape_error when the mask does not fit.
  template <prediction Prediction>
  static auto without_padding(const Prediction& answer) {
    const auto& d = distribution_of(answer);
    const at::Tensor mask = mask_of(answer);
    if (mask.defined()) {
      const at::Tensor rows = ones_per_row(d);
      if (mask.sizes() != rows.sizes())
        throw shape_error(concat("estimate_fisher: a mask of shape ", shape_text(mask.sizes()), " does not fit log-probabilities of shape ",
                                 shape_text(rows.sizes())));
    }
    return where(d, mask);
  }

  template <class Distribution>
  static at::Tensor ones_per_row(const Distribution& d) {
    const at::NoGradGuard no_grad;
    return at::ones_like(d.log_prob(d.mode()));
  }

  std::int64_t sample_dimension(const at::Tensor& rows) const {
    if (rows.dim() < 1 || rows.dim() > 2)
      throw shape_error(concat("estimate_fisher: log-probabilities need the shape [N] or [T, N], got ", shape_text(rows.sizes())));
    const std::int64_t given = settings_.sample_dimension;
    if (given >= rows.dim()) throw config_error(concat("estimate_fisher: sample_dimension ", given, " for rows of shape ", shape_text(rows.sizes())));
    return given >= 0 ? given : rows.dim() - 1;
  }

  template <class Distribution>
  static at::Tensor rows_of(const Distribution& d, const score_pass& pass) {
    const at::Tensor log_prob = d.log_prob(pass.actions);
    return log_prob.masked_fill(pass.weight == 0, 0) * pass.weight;
  }

  static std::vector<at::Tensor> gradients(const at::Tensor& root, const std::vector<at::Tensor>& wanted) {
    return torch::autograd::grad({root}, wanted, {}, /*retain_graph=*/true, /*create_graph=*/false, /*allow_unused=*/true);
  }

  static at::Tensor squared(const at::Tensor& gradient, const at::Tensor& like) {
    return gradient.defined() ? gradient.to_dense().to(like.scalar_type()).square() : at::zeros_like(like);
  }

  std::int64_t elements() const { return std::max<std::int64_t>(1, settings_.memory / 8); }

  /// A few samples with large gradients: those whose actions were least likely. Masked ones have the row 0 and come last.
  std::vector<std::int64_t> probe_samples(const at::Tensor& rows, std::int64_t dimension) const {
    const at::Tensor score = rows.dim() == 2 ? rows.sum(1 - dimension) : rows;
    const std::int64_t count = std::min<std::int64_t>(score.size(0), std::max(settings_.verify, 1));
    const at::Tensor least = std::get<1>(score.topk(count, 0, /*largest=*/false)).to(at::kCPU);
    const auto* index = static_cast<const std::int64_t*>(least.data_ptr());
    return {index, index + count};
  }

  /// Finds the order of rows under which the walk's squares equal plain gradients' on the probes. A probe whose gradient is 0
  /// decides nothing. When none fits the parameter is not walkable; when several do, or nothing was decided, not in this batch.
  bool choose_order(slot& s, const std::vector<parameter_use>& uses, std::int64_t samples, const std::vector<std::int64_t>& probes,
                    const std::vector<at::Tensor>& truths) {
    const bool ambiguous = per_sample_squares::ambiguous(uses, samples);
    if (settings_.verify < 1 && !ambiguous) return s.checked = true;
    std::vector<row_order> candidates{row_order::sample_major};
    if (ambiguous) candidates.push_back(row_order::time_major);
    bool decided = false;
    for (std::size_t i = 0; i < probes.size(); ++i) {
      const double size = truths[i].norm().item<double>();
      if (size == 0) continue;
      decided = true;
      const double tolerance = s.parameter.scalar_type() == at::kDouble ? 1e-8 : s.parameter.scalar_type() == at::kFloat ? 1e-3 : 5e-2;
      std::erase_if(candidates, [&](row_order order) {
        const per_sample_squares squares(uses, s.parameter, samples, order, elements());
        return !((squares.sum(probes[i], probes[i] + 1) - truths[i]).norm().item<double>() <= tolerance * size);
      });
    }
    if (candidates.empty()) s.walkable = false;
    if (!decided || candidates.size() != 1) return false;
    if (ambiguous)
      s.order = candidates.front();
    else
      s.checked = true;
    return true;
  }

  fisher_settings settings_;
  std::vector<slot> slots_;
  at::Tensor states_;
};

}  // namespace detail
}  // namespace retain
