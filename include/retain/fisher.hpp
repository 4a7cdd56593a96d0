// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/fisher_estimator.hpp>
#include <retain/importance/fisher_slot.hpp>
#include <retain/importance/left_out.hpp>
#include <retain/importance/scores.hpp>
#include <retain/teacher.hpp>

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// The diagonal of the Fisher information of a policy. `values` has one tensor, with the
/// parameter's shape, for each trainable parameter.
struct fisher {
  parameter_list values;
  std::map<std::string, fisher_path> paths;  ///< by parameter: how most samples were computed
  std::int64_t states = 0;                   ///< the number of states in the mean
  std::string actions;                       ///< "sampled", "exact" or "dataset"
  /// number of samples that needed a backward pass through the graph of their whole batch
  std::int64_t unsliced = 0;
  /// the patterns of the parameters that were left out; ewc leaves them out too
  std::vector<std::string> exclude = {};

  /// The mean of the values over all weights that the policy depends on, in nats per squared
  /// weight; 0 if there is none. A change of length D of all weights in a random direction changes
  /// the policy by a KL of mean D^2 / 2.
  [[nodiscard]] double mean() const {
    double sum = 0, count = 0;
    for (const auto& [name, value] : values) {
      const auto path = paths.find(name);
      if (path != paths.end() && path->second == fisher_path::unused) continue;
      sum += value.sum(at::kDouble).item<double>();
      count += static_cast<double>(value.numel());
    }
    return count == 0 ? 0.0 : sum / count;
  }

  /// Returns the strength of ewc at which a loss moves the policy by about `kl` nats and then stays
  /// there. Near the anchor the policy's KL is 1/2 sum F d^2, with the diagonal F, and the penalty
  /// is c sum F d^2, where d is the change of the weights. A loss with the gradient g is in balance
  /// with the penalty at
  ///
  ///     2 c F_i d_i = -g_i,   so that   KL = 1/(8 c^2) sum_i g_i^2 / F_i
  ///
  /// With a gradient of norm G in a random direction and the mean F of all weights this becomes
  ///
  ///     KL = G^2 / (8 c^2 F),    c = G / sqrt(8 F KL)
  ///
  /// This is exact if all weights have the same Fisher. Otherwise the KL can be larger, because
  /// weights with a small value move further. `gradient_norm` is the norm of the gradient of the
  /// loss; 0.5 is a usual bound of clipping. Use the result as the middle of a search.
  /// Throws config_error unless both numbers are positive and finite, and state_error if the mean
  /// is 0.
  [[nodiscard]] double strength_for(double kl, double gradient_norm = 0.5) const {
    if (!(kl > 0) || !std::isfinite(kl) || !(gradient_norm > 0) || !std::isfinite(gradient_norm))
      throw config_error(
          detail::concat("fisher: strength_for needs a KL and a norm of the gradient "
                         "that are positive and finite, got ",
                         kl, " and ", gradient_norm));
    const double average = mean();
    if (average == 0)
      throw state_error("fisher: every importance is 0, so no strength holds the policy");
    return gradient_norm / std::sqrt(8 * average * kl);
  }

  /// Returns one line per parameter: name, path, mean and largest value. Then the mean over all
  /// weights and the strength that it suggests, with a warning if no usual strength would hold the
  /// policy.
  [[nodiscard]] std::string report() const {
    std::string text =
        detail::concat("diagonal Fisher over ", states, " states, ", actions, " actions\n");
    for (const auto& [name, value] : values) {
      const bool empty = value.numel() == 0;
      text += detail::concat("  ", name, ' ', detail::shape_text(value.sizes()), ": ",
                             paths.count(name) ? detail::path_name(paths.at(name)) : "given",
                             ", mean ", empty ? 0.0 : value.mean().item<double>(), ", max ",
                             empty ? 0.0 : value.max().item<double>(), '\n');
    }
    text += strength_text();
    if (unsliced > 0)
      text += detail::concat(
          "  ", unsliced,
          " samples needed a backward pass through their whole batch each, so the cost is "
          "quadratic in the batch size: give the batch type a narrow(start, length), and let "
          "forward return only the samples that it gets\n");
    return text;
  }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "states", states);
    out.set(prefix + "actions", actions);
    out.set(prefix + "unsliced", unsliced);
    detail::save_left_out(out, prefix, exclude);
    for (const auto& [name, value] : values) {
      out.set(prefix + "value." + name, value);
      if (const auto path = paths.find(name); path != paths.end())
        out.set(prefix + "path." + name, static_cast<int>(path->second));
    }
  }
  /// Throws state_error and changes nothing if the state does not contain a valid estimate.
  void load_state(const state& in, const std::string& prefix) {
    fisher loaded;
    loaded.states = in.integer(prefix + "states");
    loaded.actions = in.text(prefix + "actions");
    if (in.contains(prefix + "unsliced")) loaded.unsliced = in.integer(prefix + "unsliced");
    loaded.exclude = detail::load_left_out(in, prefix);
    if (loaded.states < 0 || loaded.unsliced < 0)
      throw state_error(detail::concat("fisher: the state at '", prefix, "' has ", loaded.states,
                                       " states and ", loaded.unsliced,
                                       " unsliced samples, but neither may be negative"));
    const std::string head = prefix + "value.";
    for (const auto& key : in.tensor_keys(head)) {
      const std::string name = key.substr(head.size());
      const at::Tensor& value = in.tensor(key);
      if (!at::isFloatingType(value.scalar_type()) || !detail::all_finite(value) ||
          value.lt(0).any().item<bool>())
        throw state_error(detail::concat("fisher: the saved '", key,
                                         "' must have a floating-point type and values that are "
                                         "finite and not negative"));
      loaded.values.push_back({name, value});
      const std::string path = prefix + "path." + name;
      if (!in.contains(path)) continue;
      const int number = in.integer<int>(path);
      if (number < 0 || number > static_cast<int>(fisher_path::unused))
        throw state_error(detail::concat("fisher: the saved '", path, "' is ", number,
                                         ", which is not a valid path"));
      loaded.paths[name] = static_cast<fisher_path>(number);
    }
    *this = std::move(loaded);
  }

 private:
  std::string strength_text() const {
    constexpr double most = 1e4;  // a usual strength is smaller
    const double average = mean(), kl = 0.01, norm = 0.5;
    std::string text = detail::concat("  mean over all weights ", average);
    if (average == 0) return text + ": no strength of a penalty holds the policy\n";
    const double strength = strength_for(kl, norm);
    text += detail::concat(": with strength ", strength, " = ", norm, " / sqrt(8 mean ", kl,
                           "), a loss whose gradient has norm ", norm,
                           " moves the policy by a KL of ", kl, " nats\n");
    if (strength > most)
      text += detail::concat(
          "  the mean is so small that strengths up to ", most,
          " hold almost nothing: the policy is nearly deterministic on these states, or depends "
          "little on most weights. Use the strength above, a floor of ewc, or more varied "
          "states\n");
    return text;
  }
};

/// Uses actions that are sampled from the policy. F_i = E_s E_{a~pi} (d_i log pi(a|s))^2; the
/// estimate is unbiased. If the distribution has at_quantile(uniform), the same seed gives the same
/// actions for every batch size. `uniform` contains one number in [0, 1) for each component of each
/// action. Other distributions are sampled with their sample().
struct sampled_actions {
  int per_state = 1;
  std::uint64_t seed = 0;
};

/// Computes the exact expectation over actions: F_i = E_s E_a (d_i log pi(a|s))^2. It is computed
/// from rows of scores whose squared gradients sum to this value. A discrete distribution has one
/// row sqrt(pi(a)) log pi(a) per action. A Gaussian with D dimensions has 2 D rows, from the closed
/// form
///
///     F_i = E_s sum_d [ (d_i mu_d)^2 / sigma_d^2 + 2 (d_i log sigma_d)^2 ]
///
/// Cost: one backward pass per row (and per time step of a sequence). With 121 actions this is 30
/// to 50 times the cost of a sampled estimate. A user-defined distribution needs num_actions(), or
/// num_scores() and score(k): see diagonal_gaussian.
struct exact_actions {};

/// Uses the actions of the data (the "empirical Fisher"): F_i = E_{s,a~data} (d_i log pi(a|s))^2.
/// This is the Fisher information only if the actions of the data are samples from the policy.
/// `actions(batch)` returns the actions, [N] or [T, N].
template <class Actions = detail::batch_actions>
struct dataset_actions {
  Actions actions = {};
};
template <class Actions>
dataset_actions(Actions) -> dataset_actions<Actions>;

struct fisher_options {
  std::vector<std::string> exclude = {};  ///< name patterns of parameters to leave out
  /// dimension of the samples in the log-probabilities; -1 means 0 for [N] and 1 for [T, N]
  int sample_dimension = -1;
  /// whether all samples of a batch are computed at once where possible; false: one sample at a
  /// time
  bool batched = true;
  /// number of samples whose ordinary gradient must agree with the result of the graph walk, for
  /// each walked parameter and each layout of rows
  int verify = 1;
  /// upper bound in bytes for an intermediate tensor of the graph walk; at least one sample is
  /// computed at a time
  std::int64_t memory = 64 << 20;
  std::function<void(std::int64_t states)> progress = {};  ///< called after every batch
};

/// Estimates the diagonal Fisher information of a policy. The estimate always uses the gradient of
/// each single sample; the square of a mini-batch gradient is not the Fisher information.
///
///     F_i = 1/n sum_s E_a [ (d log pi(a|s) / d theta_i)^2 ]
///
/// The result has one value per weight, in nats per squared weight.
///
/// Arguments. `data` is a batch or a range of batches. `forward(batch)` returns the policy's
/// distributions for the N samples of the batch, with rows [N]. It may also return logits as a
/// tensor, or retain::masked. For sequences the rows are [T, N]: the scores of a sequence are
/// summed before squaring, and n counts the valid steps. For sampled actions this has the same
/// expectation as squaring each step, because scores of different steps are uncorrelated. The
/// result does not depend on how samples are grouped into batches.
///
/// `forward` must depend on the states only: put the policy in eval mode, do not update
/// normalizers, and in each call pass the recurrent state to a recurrent policy. `.grad` and the
/// buffers of the model do not change. Frozen parameters are left out.
///
/// How it works. The autograd graph is walked once per batch, at the cost of about one more
/// backward pass. The walk supports Linear, Conv1d and Conv2d (also grouped), LSTM and GRU if
/// LibTorch builds them from these operations, LayerNorm, Embedding, EmbeddingBag (sum), and a bias
/// or a Gaussian's log_std that is added or expanded to all rows. A layer may be used several
/// times. All other parameters are computed one sample at a time. The same holds for a parameter if
/// the walk disagrees with an ordinary gradient on `verify` samples. `paths` of the result lists
/// how each parameter was computed.
///
/// To compute one sample at a time, the samples are sliced out of the batch. This is possible if
/// the batch is a tensor or has `narrow(start, length)`. Otherwise each sample needs a backward
/// pass through the whole batch; `unsliced` of the result counts these samples.
///
/// Special cases:
/// - TorchScript: its optimizer fuses layers from the second call on, and the walk does not support
///   fused layers. Use torch::jit::GraphOptimizerEnabledGuard(false) during the estimate.
/// - Operations that may reorder rows depending on the data, such as selecting tokens by index:
///   each batch is checked with two more backward passes that compute no weight gradients. Each
///   sample gets a random factor, and this factor must appear in the sample's own rows only. If it
///   does not, the layer is computed one sample at a time. One case is not detected: the rows are
///   split, processed and stacked again in an order that depends on the data, but each single
///   operation looks as if only shapes determine the order. For such a policy set `batched` to
///   false.
/// - GPU: TF32 is disabled for the whole process until the estimate is done. An LSTM in eval mode
///   needs cuDNN to be disabled; the error text says how.
/// - Autocast: gradients can be too inaccurate for the check. Samples are then computed one at a
///   time.
/// - Batch normalization in training mode: throws before the first forward call, if `model` lists
///   its modules.
///
/// Check of `forward`. The function calls `forward` a second time for the first samples: for 16
/// samples, or for the first few batches until 16 samples are reached. Both results must be the
/// same bit for bit. On other devices than a CPU they may differ by 32 units in the last place of
/// the largest number, because sums may be computed in another order. The check costs two forward
/// passes of 16 samples. Instead, it costs one forward pass of the whole batch if the batch does
/// not have many more than 16 samples, if the batch cannot be sliced, or if `verify` is 0. The
/// state of LibTorch's random generators is restored after the check.
///
/// Policies. Logits must be logits: an agent that exposes probabilities needs
/// categorical::from_probs. For a Q-network see categorical, for a deterministic actor
/// diagonal_gaussian::around, which needs exact_actions or sampled_actions.
///
/// Throws config_error if the distributions depend on no trainable parameter, if an exclude pattern
/// matches no parameter, if there is no data, if the policy has a single action, if its logits look
/// like probabilities, if the second call of `forward` gives another result, or if the result
/// depends on batch statistics. Throws state_error if the estimate is not finite or is 0
/// everywhere.
template <parameter_source M, class Data, class Forward, class Actions = sampled_actions>
[[nodiscard]] fisher estimate_fisher(const M& model, Data&& data, Forward&& forward,
                                     Actions actions = {}, const fisher_options& options = {}) {
  const detail::fisher_settings settings{options.sample_dimension, options.batched, options.verify,
                                         options.memory};
  detail::fisher_estimator estimator(
      detail::estimated_parameters("estimate_fisher", model, options.exclude), settings);
  auto draw = detail::make_action_source(actions);
  detail::for_each_batch(
      "estimate_fisher", model, data,
      [&](const auto& batch) { estimator.add(batch, forward, draw); }, options.progress,
      [&] { return estimator.states(); });

  fisher result;
  result.values = estimator.values();
  result.paths = estimator.paths();
  result.states = estimator.states();
  result.actions = draw.name;
  result.unsliced = estimator.unsliced();
  result.exclude = options.exclude;
  return result;
}

}  // namespace retain
