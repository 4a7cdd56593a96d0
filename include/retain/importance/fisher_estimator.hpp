// SPDX-License-Identifier: MIT
// Accumulates the diagonal Fisher batch by batch: the graph walk where it covers a parameter and
// agrees with plain gradients, one sample at a time elsewhere.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/random.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/parameters.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/per_sample_squares.hpp>
#include <retain/importance/scores.hpp>
#include <retain/importance/steady_forward.hpp>
#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

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

struct fisher_settings {
  int sample_dimension = -1;
  bool walk = true;
  int verify = 1;
  std::int64_t memory = 64 << 20;
};

template <class Batch>
concept sliceable_batch = std::convertible_to<const Batch&, at::Tensor> ||
                          requires(const Batch& batch, std::int64_t i) { batch.narrow(i, i); };

template <sliceable_batch Batch>
auto slice_of(const Batch& batch, std::int64_t sample_dimension, std::int64_t start,
              std::int64_t length = 1) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>)
    return at::Tensor(batch).narrow(sample_dimension, start, length);
  else
    return batch.narrow(start, length);
}

/// Whether a tensor has the batch's samples along the dimension in which log-probabilities have
/// them.
template <class Batch>
bool samples_fit(const Batch& batch, std::int64_t dimension, std::int64_t samples) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>) {
    const at::Tensor tensor(batch);
    return dimension < tensor.dim() && tensor.size(dimension) == samples;
  }
  return true;
}

/// While it lives, products and convolutions of float32 on a GPU are made in float32, not in TF32,
/// whose 10 bits of mantissa would move a gradient by a thousandth, and the batch's gradients away
/// from those of single samples. For the whole process, as LibTorch has the switches.
class float32_throughout {
 public:
  float32_throughout() {
    if (!at::hasCUDA()) return;
    try {
      convolutions_ = at::globalContext().allowTF32CuDNN();
      products_ = at::globalContext().allowTF32CuBLAS();
      // set through LibTorch's newer switches, which these do not mix with: as the caller wants it
    } catch (const c10::Error&) {
      convolutions_ = products_ = false;
    }
    set(false);
  }
  ~float32_throughout() { set(true); }
  float32_throughout(const float32_throughout&) = delete;
  float32_throughout& operator=(const float32_throughout&) = delete;

 private:
  void set(bool on) const {
    if (convolutions_) at::globalContext().setAllowTF32CuDNN(on);
    if (products_) at::globalContext().setAllowTF32CuBLAS(on);
  }
  bool convolutions_ = false, products_ = false;
};

class fisher_estimator {
 public:
  fisher_estimator(const parameter_list& chosen, fisher_settings settings) : settings_(settings) {
    for (const auto& [name, tensor] : chosen) {
      if (tensor.grad_fn())
        throw config_error(
            concat("estimate_fisher: '", name,
                   "' is computed from other tensors: list those instead, a Fisher is of leaves"));
      slots_.push_back({name, tensor});
    }
  }

  std::int64_t states() const {
    return static_cast<std::int64_t>(states_.defined() ? states_.item<double>() : 0.0);
  }

  /// How many samples were differentiated through the graph of their whole batch, since it could
  /// not be sliced.
  std::int64_t unsliced() const { return unsliced_; }

  template <class Batch, class Forward, class Source>
  void add(const Batch& batch, Forward& forward, Source& source) {
    const at::AutoGradMode with_grad(true);
    const separate_nodes as_written;
    const float32_throughout precise;
    const auto answer = as_prediction(forward(batch));
    const auto unpadded = without_padding(answer);
    const auto& d = Source::scored(unpadded);
    at::Tensor valid = ones_per_row(d);
    const std::int64_t dimension = sample_dimension(valid);
    const std::int64_t samples = valid.size(dimension);
    if (valid.numel() == 0) return;

    if (const at::Tensor mask = mask_of(answer); mask.defined()) valid = mask.to(valid.options());
    states_ = states_.defined() ? states_ + valid.sum(at::kDouble) : valid.sum(at::kDouble);

    score_passes passes(source(d, batch, valid, dimension), dimension,
                        Source::steps_apart && valid.dim() == 2 ? valid.size(1 - dimension) : 1);
    passes.take(d);
    if (passes.count() == 0)
      throw config_error("estimate_fisher: the policy's log-probabilities have no gradient: every "
                         "parameter is frozen, or forward runs "
                         "without autograd");

    auto one_row = valid.sizes().vec();
    one_row[static_cast<std::size_t>(dimension)] = 1;
    bool slices = samples_fit(batch, dimension, samples);

    // The walk is built over all passes at once, so that a use in any of them is seen.
    graph_walk walk(passes.scores(), samples);
    if (steady_.in_doubt())
      ask_again(batch, forward, answer, passes, source, valid, dimension, slices);

    // Gives `receive` the gradients of sample n in the passes from `first` on, and says whether the
    // batch could be sliced for it.
    const auto one_sample = [&](std::int64_t n, const std::vector<at::Tensor>& wanted,
                                std::size_t first, std::size_t last, auto receive) {
      if constexpr (sliceable_batch<Batch>) {
        if (slices) {
          const auto single = as_prediction(forward(slice_of(batch, dimension, n)));
          // a mask that forward takes from elsewhere is still the whole batch's
          const at::Tensor mask = mask_of(single);
          slices = ones_per_row(distribution_of(single)).sizes() == at::IntArrayRef(one_row) &&
                   (!mask.defined() || mask.sizes() == at::IntArrayRef(one_row));
          if (slices) {
            const auto alone_in_batch = without_padding(single);
            const auto& alone = Source::scored(alone_in_batch);
            for (std::size_t p = first; p < last; ++p)
              receive(gradients(passes.of_sample(alone, p, n).sum(), wanted));
            return true;
          }
        }
      }
      // Through the whole batch's graph: always right, at the cost of a whole backward pass a
      // sample.
      for (std::size_t p = first; p < last; ++p)
        receive(gradients(passes.of_batch(p, n).sum(), wanted));
      return false;
    };

    std::vector<covered_slot> covered;
    std::vector<slot*> alone;
    for (auto& s : slots_) {
      if (!walk.reaches(s.parameter)) continue;
      s.reached = true;
      auto uses = settings_.walk && s.walkable && samples > 1 ? walk.uses_of(s.parameter)
                                                              : std::vector<parameter_use>{};
      if (uses.empty()) {
        alone.push_back(&s);
      } else {
        covered.push_back({&s, std::move(uses)});
      }
    }

    const auto is_alone = [&](slot* s) {
      return std::find(alone.begin(), alone.end(), s) != alone.end();
    };
    std::map<slot*, at::Tensor> sums, squared_gradients;
    std::map<slot*, std::vector<row_order>> orders;
    if (!covered.empty() && !walk.places_rows_by_shape())
      orders = orders_of_rows(walk, passes, covered, dimension);
    // A sequence of another length, or another number of entities, may have its rows in another
    // order: each layout is decided by itself.
    const auto layout = [&](const std::vector<parameter_use>& uses) {
      auto key = per_sample_squares::rows_a_sample(uses, samples);
      key.push_back(valid.dim() == 2 ? valid.size(1 - dimension) : 1);
      return key;
    };
    const auto decided = [&](const covered_slot& entry) -> const row_order* {
      const auto found = entry.owner->orders.find(layout(entry.uses));
      return found == entry.owner->orders.end() ? nullptr : &found->second;
    };
    const auto may_be = [&](slot* s, row_order order) {
      const auto found = orders.find(s);
      return found == orders.end() ||
             std::find(found->second.begin(), found->second.end(), order) != found->second.end();
    };
    std::vector<slot*> undecided;  // summed in the hope that a later pass agrees
    for (std::size_t p = 0; p < passes.count() && !covered.empty(); ++p) {
      const at::Tensor scores = passes.of_batch(p);
      explained([&] { walk.capture(scores.sum()); });
      const at::NoGradGuard no_grad;
      std::vector<covered_slot*> summed;
      std::vector<trial> trials;
      for (auto& entry : covered) {
        auto& [s, uses] = entry;
        if (is_alone(s)) continue;
        const bool ambiguous = per_sample_squares::ambiguous(uses, samples);
        const auto* known = ambiguous ? decided(entry) : nullptr;
        const bool moved =
            ambiguous ? known && !may_be(s, *known) : !may_be(s, row_order::sample_major);
        if (moved || !per_sample_squares::supported(uses, s->parameter, samples)) {
          alone.push_back(s);
        } else if (ambiguous ? known != nullptr : s->checked) {
          summed.push_back(&entry);
          // a pass over another head says nothing of this one, and adds nothing to it
        } else if (!per_sample_squares::silent(uses)) {
          summed.push_back(&entry);
          trials.emplace_back(entry, samples);
          std::erase_if(trials.back().candidates,
                        [&](row_order order) { return !may_be(s, order); });
        }
      }
      for (const std::int64_t probe :
           trials.empty() ? std::vector<std::int64_t>{}
                          : probe_samples(scores, passes.weight_of_batch(p), dimension)) {
        std::vector<trial*> open;
        std::vector<at::Tensor> wanted, plain;
        for (auto& each : trials)
          if (each.open(settings_.verify)) {
            open.push_back(&each);
            wanted.push_back(each.entry->owner->parameter);
          }
        if (open.empty()) break;
        {
          const at::AutoGradMode grad_again(true);
          one_sample(probe, wanted, p, p + 1,
                     [&](std::vector<at::Tensor> g) { plain = std::move(g); });
        }
        for (std::size_t i = 0; i < open.size(); ++i) compare(*open[i], samples, probe, plain[i]);
      }
      for (const auto& each : trials) {
        slot& s = *each.entry->owner;
        if (each.candidates.empty()) s.walkable = false;
        if (each.candidates.empty() || (each.ambiguous && each.candidates.size() > 1))
          alone.push_back(&s);
        else if (each.ambiguous)
          s.orders[layout(each.entry->uses)] = each.candidates.front();
        else if (each.agreed > 0 || settings_.verify < 1)
          s.checked = true;
        else
          undecided.push_back(&s);
      }
      for (auto* entry : summed) {
        auto& [s, uses] = *entry;
        if (is_alone(s) || per_sample_squares::unreached(uses)) continue;
        const auto order = per_sample_squares::ambiguous(uses, samples) ? *decided(*entry)
                                                                        : row_order::sample_major;
        const per_sample_squares squares(uses, s->parameter, samples, order, elements());
        if (passes.count() > 1 && per_sample_squares::separable(uses, samples))
          add_to(squared_gradients[s], squares.squared_gradients());
        else
          add_to(sums[s], squares.sum(0, samples));
      }
    }
    for (auto* s : undecided)
      if (!s->checked && !is_alone(s)) alone.push_back(s);
    for (auto& [s, uses] : covered) {
      if (is_alone(s)) continue;
      const at::NoGradGuard no_grad;
      if (const auto once = squared_gradients.find(s); once != squared_gradients.end())
        add_to(sums[s],
               per_sample_squares(uses, s->parameter, samples, row_order::sample_major, elements())
                   .product_of_squares(once->second));
      if (const auto sum = sums.find(s); sum != sums.end()) s->add_batch(sum->second);
      s->walked += samples;
    }

    if (alone.empty()) return;
    std::vector<at::Tensor> wanted, totals(alone.size());
    for (auto* s : alone) {
      wanted.push_back(s->parameter);
      s->looped += samples;
    }
    for (std::int64_t n = 0; n < samples; ++n) {
      const bool sliced =
          one_sample(n, wanted, 0, passes.count(), [&](const std::vector<at::Tensor>& g) {
            const at::NoGradGuard no_grad;
            for (std::size_t i = 0; i < alone.size(); ++i)
              if (g[i].defined()) add_to(totals[i], widened(g[i]).square());
          });
      if (!sliced && samples > 1) ++unsliced_;
      // a longer chain of float additions would lose the last ones
      constexpr std::int64_t together = 256;
      if (n % together == together - 1)
        for (std::size_t i = 0; i < alone.size(); ++i)
          if (totals[i].defined()) alone[i]->add_batch(std::exchange(totals[i], at::Tensor()));
    }
    for (std::size_t i = 0; i < alone.size(); ++i)
      if (totals[i].defined()) alone[i]->add_batch(totals[i]);
  }

  parameter_list values() const {
    if (std::none_of(slots_.begin(), slots_.end(), [](const auto& s) { return s.reached; }) &&
        states() != 0)
      throw config_error("estimate_fisher: the policy's log-probabilities depend on none of the "
                         "model's parameters: is `forward` another copy of the model?");
    if (states() == 0) throw config_error("estimate_fisher: the data has no valid state");
    parameter_list result;
    for (const auto& s : slots_) {
      const at::Tensor mean = s.mean(states_);
      result.push_back({s.name, mean});
      // The largest value is infinite or NaN where any is.
      if (mean.numel() > 0 && !mean.max().isfinite().template item<bool>())
        throw state_error(
            concat("estimate_fisher: the Fisher of '", s.name,
                   "' is not finite: look for NaN in the policy's outputs or in the data"));
    }
    return result;
  }

  std::map<std::string, fisher_path> paths() const {
    std::map<std::string, fisher_path> result;
    for (const auto& s : slots_)
      result[s.name] = !s.reached            ? fisher_path::unused
                       : s.looped > s.walked ? fisher_path::per_sample
                                             : fisher_path::graph_walk;
    return result;
  }

 private:
  struct slot {
    std::string name;
    at::Tensor parameter;
    // sums over the last batch, and in double over those before it
    at::Tensor last = {}, before = {};
    // by layout, of batches where it matters; set once a batch has decided it
    std::map<std::vector<std::int64_t>, row_order> orders = {};
    bool checked = false;  // a batch of several samples with one row each has agreed
    bool walkable = true;
    bool reached = false;
    std::int64_t walked = 0, looped = 0;  // samples

    /// Sums over batches, or parts of them, are added in double: a float total would lose what one
    /// adds to that of some millions of states.
    void add_batch(const at::Tensor& sum) {
      if (last.defined()) before = before.defined() ? before.add_(last) : last.to(at::kDouble);
      last = sum;
    }
    /// In float, or in double for a double parameter.
    at::Tensor mean(const at::Tensor& states) const {
      const auto type = parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      if (!last.defined())
        return at::zeros_like(parameter, parameter.options().dtype(type).requires_grad(false));
      const at::Tensor sum = before.defined() ? before + last : last;
      return (sum / states.to(sum.options())).to(type);
    }
  };
  struct covered_slot {
    slot* owner;
    std::vector<parameter_use> uses;
  };

  /// The distributions with padded rows replaced by harmless ones. Throws shape_error when the mask
  /// does not fit.
  template <prediction Prediction>
  static auto without_padding(const Prediction& answer) {
    const auto& d = distribution_of(answer);
    const at::Tensor mask = mask_of(answer);
    if (mask.defined()) {
      const at::Tensor rows = ones_per_row(d);
      if (mask.sizes() != rows.sizes())
        throw shape_error(concat("estimate_fisher: a mask of shape ", shape_text(mask.sizes()),
                                 " does not fit log-probabilities of shape ",
                                 shape_text(rows.sizes())));
    }
    return where(d, mask);
  }

  /// Throws config_error where forward says something else when it is asked again: about the whole
  /// batch, or the first samples of a large one, which costs little. Random numbers go on from
  /// where they would have been.
  template <class Batch, class Forward, prediction Prediction, class Source>
  void ask_again(const Batch& batch, Forward& forward, const Prediction& answer,
                 const score_passes& passes, const Source&, const at::Tensor& valid,
                 std::int64_t dimension, bool slices) {
    const generators_as_they_were undisturbed(valid.device());
    const auto said = [&](const auto& given, std::int64_t count) -> std::vector<at::Tensor> {
      auto rows = valid.sizes().vec();
      rows[static_cast<std::size_t>(dimension)] = count;
      const at::Tensor mask = mask_of(given);
      if (ones_per_row(distribution_of(given)).sizes() != at::IntArrayRef(rows) ||
          (mask.defined() && mask.sizes() != at::IntArrayRef(rows)))
        return {};
      const auto unpadded = without_padding(given);
      auto numbers = passes.of_first(Source::scored(unpadded), count);
      if (mask.defined()) numbers.push_back(mask);
      return numbers;
    };
    if constexpr (sliceable_batch<Batch>) {
      constexpr std::int64_t few = steady_forward::enough;
      if (slices && valid.size(dimension) > 2 * few && settings_.verify > 0) {
        const auto part = slice_of(batch, dimension, 0, few);
        const auto ask = [&] { return said(as_prediction(forward(part)), few); };
        if (const auto first = ask(); !first.empty()) return steady_.check(first, few, ask);
      }
    }
    const std::int64_t samples = valid.size(dimension);
    steady_.check(said(answer, samples), samples,
                  [&] { return said(as_prediction(forward(batch)), samples); });
  }

  template <class Distribution>
  static at::Tensor ones_per_row(const Distribution& d) {
    const at::NoGradGuard no_grad;
    return at::ones_like(d.log_prob(d.mode()));
  }

  std::int64_t sample_dimension(const at::Tensor& rows) const {
    if (rows.dim() < 1 || rows.dim() > 2)
      throw shape_error(
          concat("estimate_fisher: log-probabilities need the shape [N] or [T, N], got ",
                 shape_text(rows.sizes())));
    const std::int64_t given = settings_.sample_dimension;
    if (given >= rows.dim())
      throw config_error(concat("estimate_fisher: sample_dimension ", given, " for rows of shape ",
                                shape_text(rows.sizes())));
    return given >= 0 ? given : rows.dim() - 1;
  }

  static std::vector<at::Tensor> gradients(const at::Tensor& root,
                                           const std::vector<at::Tensor>& wanted) {
    return explained([&] {
      return torch::autograd::grad({root}, wanted, {}, /*retain_graph=*/true,
                                   /*create_graph=*/false, /*allow_unused=*/true);
    });
  }

  /// A backward pass, with the way out of what cuDNN refuses.
  template <class Backward>
  static std::invoke_result_t<Backward> explained(Backward backward) {
    try {
      return backward();
    } catch (const c10::Error& e) {
      if (std::string(e.what_without_backtrace()).find("cudnn RNN backward") == std::string::npos)
        throw;
      throw config_error(
          "estimate_fisher: cuDNN differentiates a recurrent layer in training mode only: call "
          "at::globalContext().setUserEnabledCuDNN(false) "
          "before the estimate and turn it on again behind it; the policy stays in eval mode");
    }
  }

  static at::Tensor widened(const at::Tensor& gradient) {
    return gradient.to_dense().to(gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }
  static void add_to(at::Tensor& total, const at::Tensor& value) {
    total = total.defined() ? total.add_(value) : value;
  }

  std::int64_t elements() const { return std::max<std::int64_t>(1, settings_.memory / 8); }

  /// The orders in which all rows of each parameter's uses belong to the samples, where its rows
  /// can be divided among them: a random factor for each sample has to come back in the gradient of
  /// each of its rows, and in no other's.
  std::map<slot*, std::vector<row_order>> orders_of_rows(graph_walk& walk,
                                                         const score_passes& passes,
                                                         const std::vector<covered_slot>& covered,
                                                         std::int64_t dimension) {
    const at::Tensor mixture = passes.mixture(random_);
    const std::int64_t samples = mixture.size(dimension);
    const at::Tensor weights = random_factors(random_, samples);
    explained([&] { walk.capture(mixture.sum()); });
    std::map<slot*, std::vector<at::Tensor>> plain;
    for (const auto& [s, uses] : covered)
      if (per_sample_squares::supported(uses, s->parameter, samples))
        for (const auto& use : uses) plain[s].push_back(*use.gradient);
    auto along_samples = std::vector<std::int64_t>(static_cast<std::size_t>(mixture.dim()), 1);
    along_samples[static_cast<std::size_t>(dimension)] = samples;
    explained([&] {
      walk.capture(
          (mixture * weights.view(along_samples).to(mixture.options().requires_grad(false))).sum());
    });

    const at::NoGradGuard no_grad;
    std::map<slot*, std::vector<row_order>> orders;
    for (const auto& [s, uses] : covered) {
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

  /// A few samples with large gradients: those whose actions were least likely. Masked ones come
  /// last.
  std::vector<std::int64_t> probe_samples(const at::Tensor& scores, const at::Tensor& weight,
                                          std::int64_t dimension) const {
    const auto by_sample = [&](const at::Tensor& rows) {
      return rows.dim() == 2 ? rows.sum(1 - dimension) : rows;
    };
    const at::Tensor score =
        by_sample(scores.detach())
            .masked_fill(by_sample(weight != 0) == 0, std::numeric_limits<double>::infinity());
    constexpr int spare = 3;  // for parameters of which the first say nothing
    const std::int64_t count =
        std::min<std::int64_t>(score.size(0), std::max<std::int64_t>(settings_.verify, 1) + spare);
    const at::Tensor least = std::get<1>(score.topk(count, 0, /*largest=*/false)).to(at::kCPU);
    const auto* index = static_cast<const std::int64_t*>(least.data_ptr());
    return {index, index + count};
  }

  /// The orders of rows under which a parameter's walk has agreed so far with plain gradients.
  struct trial {
    covered_slot* entry;
    bool ambiguous;
    std::vector<row_order> candidates;
    int agreed = 0;  // probes with a gradient: one of 0 says nothing

    trial(covered_slot& of, std::int64_t samples)
        : entry(&of),
          ambiguous(per_sample_squares::ambiguous(of.uses, samples)),
          candidates(ambiguous ? std::vector{row_order::sample_major, row_order::time_major}
                               : std::vector{row_order::sample_major}) {}
    bool open(int wanted) const {
      return !candidates.empty() && (candidates.size() > 1 || agreed < wanted);
    }
  };

  /// Strikes the orders under which the walk's squares are not those of the plain gradient of one
  /// sample.
  void compare(trial& t, std::int64_t samples, std::int64_t probe,
               const at::Tensor& gradient) const {
    const at::Tensor& parameter = t.entry->owner->parameter;
    const double tolerance = parameter.scalar_type() == at::kDouble  ? 1e-8
                             : parameter.scalar_type() == at::kFloat ? 1e-3
                                                                     : 5e-2;
    bool decides = false;
    std::erase_if(t.candidates, [&](row_order order) {
      at::Tensor squares = per_sample_squares(t.entry->uses, parameter, samples, order, elements())
                               .sum(probe, probe + 1);
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

  fisher_settings settings_;
  steady_forward steady_{"estimate_fisher"};
  splitmix64 random_{0};
  std::vector<slot> slots_;
  at::Tensor states_;
  std::int64_t unsliced_ = 0;
};

}  // namespace detail
}  // namespace retain
