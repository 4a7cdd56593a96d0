// SPDX-License-Identifier: MIT
// The part of a batch's Fisher that the graph walk covers: the assignment of rows to samples, the
// comparison with plain gradients, and the sums over all samples.
#pragma once

#include <retain/base/random.hpp>
#include <retain/importance/fisher_slot.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/per_sample_squares.hpp>
#include <retain/importance/score_batch.hpp>
#include <retain/importance/scores.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace retain::detail {

/// A parameter that the walk may cover, with its uses in the graph of one batch.
struct covered_slot {
  fisher_slot* owner;
  std::vector<parameter_use> uses;
};

/// The Fisher of one batch. Divides the parameters into those that the walk covers and those that
/// are computed one sample at a time. Captures and sums every pass. Compares a new layout with
/// plain gradients first.
class walked_batch {
 public:
  /// Divides the parameters that the scores depend on. `random` gives the factors of
  /// orders_of_rows.
  walked_batch(std::vector<fisher_slot>& slots, const fisher_settings& settings, graph_walk& walk,
               const score_passes& passes, const at::Tensor& valid, std::int64_t dimension,
               splitmix64& random)
      : settings_(settings), walk_(walk), passes_(passes), valid_(valid), dimension_(dimension) {
    for (auto& s : slots) {
      if (!walk.reaches(s.parameter)) continue;
      s.reached = true;
      auto uses = settings.walk && s.walkable && samples() > 1 ? walk.uses_of(s.parameter)
                                                               : std::vector<parameter_use>{};
      if (uses.empty())
        alone_.push_back(&s);
      else
        covered_.push_back({&s, std::move(uses)});
    }
    if (!covered_.empty() && !walk.places_rows_by_shape()) orders_ = orders_of_rows(random);
  }

  /// Runs all passes and adds their sums to the slots. `plain(n, parameters, pass)` returns
  /// the gradients of sample n in one pass.
  template <class Plain>
  void add(Plain plain) {
    for (std::size_t p = 0; p < passes_.count() && !covered_.empty(); ++p) {
      const at::Tensor scores = passes_.of_batch(p);
      explained([&] { walk_.capture(scores.sum()); });
      const at::NoGradGuard no_grad;
      auto [summed, trials] = choose();
      if (!trials.empty()) probe(trials, scores, p, plain);
      for (const auto& each : trials) conclude(each);
      for (const auto* entry : summed) sum(*entry);
    }
    for (auto* s : undecided_)
      if (!s->checked && !is_alone(s)) alone_.push_back(s);
    hand_over();
  }

  /// Returns the parameters that must be computed one sample at a time: the walk does not cover
  /// them, or its result differs from plain gradients.
  const std::vector<fisher_slot*>& alone() const { return alone_; }

 private:
  /// The orders of rows with which a parameter's walk agrees with all plain gradients so far.
  struct trial {
    const covered_slot* entry;
    bool ambiguous;
    std::vector<row_order> candidates;
    int agreed = 0;  // the number of probes with a gradient other than 0; 0 proves nothing

    bool open(int wanted) const {
      return !candidates.empty() && (candidates.size() > 1 || agreed < wanted);
    }
  };
  struct chosen {
    std::vector<const covered_slot*> summed;
    std::vector<trial> trials;
  };

  std::int64_t samples() const { return valid_.size(dimension_); }
  std::int64_t elements() const { return std::max<std::int64_t>(1, settings_.memory / 8); }
  bool is_alone(fisher_slot* s) const {
    return std::find(alone_.begin(), alone_.end(), s) != alone_.end();
  }

  /// Returns the layout of a batch. The order of rows is determined for each layout separately. A
  /// sequence of another length, or another number of entities, may have another order.
  std::vector<std::int64_t> layout(const std::vector<parameter_use>& uses) const {
    auto key = per_sample_squares::rows_a_sample(uses, samples());
    key.push_back(valid_.dim() == 2 ? valid_.size(1 - dimension_) : 1);
    return key;
  }
  const row_order* decided(const covered_slot& entry) const {
    const auto found = entry.owner->orders.find(layout(entry.uses));
    return found == entry.owner->orders.end() ? nullptr : &found->second;
  }
  bool may_be(fisher_slot* s, row_order order) const {
    const auto found = orders_.find(s);
    return found == orders_.end() ||
           std::find(found->second.begin(), found->second.end(), order) != found->second.end();
  }

  /// Chooses the parameters to sum in the last captured pass, and those of them that are compared
  /// with plain gradients first.
  chosen choose() {
    chosen result;
    for (const auto& entry : covered_) {
      auto* s = entry.owner;
      if (is_alone(s)) continue;
      const bool ambiguous = per_sample_squares::ambiguous(entry.uses, samples());
      const auto* known = ambiguous ? decided(entry) : nullptr;
      const bool moved =
          ambiguous ? known && !may_be(s, *known) : !may_be(s, row_order::sample_major);
      if (moved || !per_sample_squares::supported(entry.uses, s->parameter, samples())) {
        alone_.push_back(s);
        continue;
      }
      const bool known_good = ambiguous ? known != nullptr : s->checked;
      // A pass for another head gives no information about this parameter and adds nothing to it.
      if (!known_good && per_sample_squares::silent(entry.uses)) continue;
      result.summed.push_back(&entry);
      if (known_good) continue;
      trial next{&entry, ambiguous,
                 ambiguous ? std::vector{row_order::sample_major, row_order::time_major}
                           : std::vector{row_order::sample_major}};
      std::erase_if(next.candidates, [&](row_order order) { return !may_be(s, order); });
      result.trials.push_back(std::move(next));
    }
    return result;
  }

  /// Compares the walk with the plain gradients of a few samples of pass p.
  template <class Plain>
  void probe(std::vector<trial>& trials, const at::Tensor& scores, std::size_t p, Plain& plain) {
    for (const std::int64_t n : probe_samples(scores, passes_.weight_of_batch(p))) {
      std::vector<trial*> open;
      std::vector<at::Tensor> wanted, gradients;
      for (auto& each : trials)
        if (each.open(settings_.verify)) {
          open.push_back(&each);
          wanted.push_back(each.entry->owner->parameter);
        }
      if (open.empty()) return;
      {
        const at::AutoGradMode grad_again(true);
        gradients = plain(n, wanted, p);
      }
      for (std::size_t i = 0; i < open.size(); ++i) compare(*open[i], n, gradients[i]);
    }
  }

  /// Returns a few samples with large gradients: those with the least likely actions. Masked
  /// samples come last.
  std::vector<std::int64_t> probe_samples(const at::Tensor& scores,
                                          const at::Tensor& weight) const {
    const auto by_sample = [&](const at::Tensor& rows) {
      return rows.dim() == 2 ? rows.sum(1 - dimension_) : rows;
    };
    const at::Tensor score =
        by_sample(scores.detach())
            .masked_fill(by_sample(weight != 0) == 0, std::numeric_limits<double>::infinity());
    constexpr int spare = 3;  // for parameters whose gradient is 0 in the first samples
    const std::int64_t count =
        std::min<std::int64_t>(score.size(0), std::max<std::int64_t>(settings_.verify, 1) + spare);
    const at::Tensor least = std::get<1>(score.topk(count, 0, /*largest=*/false)).to(at::kCPU);
    const auto* index = static_cast<const std::int64_t*>(least.data_ptr());
    return {index, index + count};
  }

  /// Removes the orders with which the walk's squares differ from the squared plain gradient of
  /// sample n.
  void compare(trial& t, std::int64_t n, const at::Tensor& gradient) const {
    const at::Tensor& parameter = t.entry->owner->parameter;
    const double tolerance = parameter.scalar_type() == at::kDouble  ? 1e-8
                             : parameter.scalar_type() == at::kFloat ? 1e-3
                                                                     : 5e-2;
    bool decides = false;
    std::erase_if(t.candidates, [&](row_order order) {
      at::Tensor squares =
          per_sample_squares(t.entry->uses, parameter, samples(), order, elements()).sum(n, n + 1);
      const double size = squares.norm().item<double>();
      if (gradient.defined()) {
        const at::Tensor truth = widened(gradient);
        squares.addcmul_(truth, truth, -1);
      }
      const double difference = squares.norm().item<double>();
      decides = decides || size != 0 || difference != 0;
      return !(difference <= tolerance * size);
    });
    if (decides) ++t.agreed;
  }

  /// Stores the result of one parameter's probes: its order of rows, that the walk covers it, or
  /// that it must be computed one sample at a time.
  void conclude(const trial& t) {
    auto& s = *t.entry->owner;
    if (t.candidates.empty()) s.walkable = false;
    if (t.candidates.empty() || (t.ambiguous && t.candidates.size() > 1))
      alone_.push_back(&s);
    else if (t.ambiguous)
      s.orders[layout(t.entry->uses)] = t.candidates.front();
    else if (t.agreed > 0 || settings_.verify < 1)
      s.checked = true;
    else
      undecided_.push_back(&s);  // summed; used only if a later pass agrees
  }

  void sum(const covered_slot& entry) {
    const auto& [s, uses] = entry;
    if (is_alone(s) || per_sample_squares::unreached(uses)) return;
    const auto order =
        per_sample_squares::ambiguous(uses, samples()) ? *decided(entry) : row_order::sample_major;
    const per_sample_squares squares(uses, s->parameter, samples(), order, elements());
    if (passes_.count() > 1 && per_sample_squares::separable(uses, samples()))
      add_to(squared_gradients_[s], squares.squared_gradients());
    else
      add_to(sums_[s], squares.sum(0, samples()));
  }

  /// Adds the batch's sums to the slots.
  void hand_over() {
    const at::NoGradGuard no_grad;
    for (const auto& [s, uses] : covered_) {
      if (is_alone(s)) continue;
      if (const auto once = squared_gradients_.find(s); once != squared_gradients_.end())
        add_to(sums_[s], per_sample_squares(uses, s->parameter, samples(), row_order::sample_major,
                                            elements())
                             .product_of_squares(once->second));
      if (const auto total = sums_.find(s); total != sums_.end()) s->add_batch(total->second);
      s->walked += samples();
    }
  }

  /// Returns, for each parameter, the orders in which all rows of its uses belong to the samples.
  /// Parameters whose rows cannot be divided among the samples are left out. The test multiplies
  /// the scores of each sample by a random factor. In the right order, the gradients of a sample's
  /// rows are multiplied by the factor of the sample, and no other rows are.
  std::map<fisher_slot*, std::vector<row_order>> orders_of_rows(splitmix64& random) {
    const at::Tensor mixture = passes_.mixture(random);
    const at::Tensor weights = random_factors(random, samples());
    explained([&] { walk_.capture(mixture.sum()); });
    std::map<fisher_slot*, std::vector<at::Tensor>> plain;
    for (const auto& [s, uses] : covered_)
      if (per_sample_squares::supported(uses, s->parameter, samples()))
        for (const auto& use : uses) plain[s].push_back(*use.gradient);
    auto along_samples = std::vector<std::int64_t>(static_cast<std::size_t>(mixture.dim()), 1);
    along_samples[static_cast<std::size_t>(dimension_)] = samples();
    explained([&] {
      walk_.capture(
          (mixture * weights.view(along_samples).to(mixture.options().requires_grad(false))).sum());
    });

    const at::NoGradGuard no_grad;
    std::map<fisher_slot*, std::vector<row_order>> orders;
    for (const auto& [s, uses] : covered_) {
      const auto before = plain.find(s);
      if (before == plain.end()) continue;
      for (const auto order : {row_order::sample_major, row_order::time_major}) {
        bool fits = true;
        for (std::size_t u = 0; u < uses.size() && fits; ++u)
          fits = per_sample_squares::belong(uses[u], before->second[u], weights, order,
                                            rows_tolerance(s->parameter));
        if (fits) orders[s].push_back(order);
      }
      orders.try_emplace(s);
    }
    return orders;
  }

  const fisher_settings& settings_;
  graph_walk& walk_;
  const score_passes& passes_;
  const at::Tensor& valid_;
  std::int64_t dimension_;
  std::vector<covered_slot> covered_;
  std::vector<fisher_slot*> alone_, undecided_;
  std::map<fisher_slot*, std::vector<row_order>> orders_;
  std::map<fisher_slot*, at::Tensor> sums_, squared_gradients_;
};

}  // namespace retain::detail
