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
#include <retain/importance/scores.hpp>
#include <retain/teacher.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// The diagonal of a policy's Fisher information, one tensor of the parameter's shape per trainable
/// parameter.
struct fisher {
  parameter_list values;
  std::map<std::string, fisher_path> paths;  ///< how most samples of each were computed
  std::int64_t states = 0;                   ///< how many states it is a mean over
  std::string actions;                       ///< "sampled", "exact" or "dataset"
  /// samples that were differentiated through the graph of their whole batch
  std::int64_t unsliced = 0;

  /// A line per parameter: name, path, mean and largest value.
  std::string report() const {
    std::string text =
        detail::concat("diagonal Fisher over ", states, " states, ", actions, " actions\n");
    for (const auto& [name, value] : values) {
      const bool empty = value.numel() == 0;
      text += detail::concat("  ", name, ' ', detail::shape_text(value.sizes()), ": ",
                             paths.count(name) ? detail::path_name(paths.at(name)) : "given",
                             ", mean ", empty ? 0.0 : value.mean().item<double>(), ", max ",
                             empty ? 0.0 : value.max().item<double>(), '\n');
    }
    if (unsliced > 0)
      text += detail::concat(
          "  ", unsliced,
          " samples went through the graph of their whole batch, which costs its size squared: "
          "give batches a "
          "narrow(start, length), and let forward answer for the samples it is given alone\n");
    return text;
  }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "states", states);
    out.set(prefix + "actions", actions);
    out.set(prefix + "unsliced", unsliced);
    for (const auto& [name, value] : values) {
      out.set(prefix + "value." + name, value);
      if (const auto path = paths.find(name); path != paths.end())
        out.set(prefix + "path." + name, static_cast<int>(path->second));
    }
  }
  /// Throws state_error, and changes nothing, for what no estimate is.
  void load_state(const state& in, const std::string& prefix) {
    fisher loaded;
    loaded.states = in.integer(prefix + "states");
    loaded.actions = in.text(prefix + "actions");
    if (in.contains(prefix + "unsliced")) loaded.unsliced = in.integer(prefix + "unsliced");
    if (loaded.states < 0 || loaded.unsliced < 0)
      throw state_error(detail::concat("fisher: the state at '", prefix, "' is of ", loaded.states,
                                       " states, ", loaded.unsliced, " of them unsliced"));
    const std::string head = prefix + "value.";
    for (const auto& key : in.tensor_keys(head)) {
      const std::string name = key.substr(head.size());
      const at::Tensor& value = in.tensor(key);
      if (!at::isFloatingType(value.scalar_type()) || !detail::all_finite(value) ||
          value.lt(0).any().item<bool>())
        throw state_error(detail::concat("fisher: the saved '", key,
                                         "' holds a value that is negative, not finite or of "
                                         "another type than a mean of squares"));
      loaded.values.push_back({name, value});
      const std::string path = prefix + "path." + name;
      if (!in.contains(path)) continue;
      const int number = in.integer<int>(path);
      if (number < 0 || number > static_cast<int>(fisher_path::unused))
        throw state_error(
            detail::concat("fisher: there is no path ", number, " as in '", path, "'"));
      loaded.paths[name] = static_cast<fisher_path>(number);
    }
    *this = std::move(loaded);
  }
};

/// Actions drawn from the policy itself: F_i = E_s E_{a~pi} (d_i log pi(a|s))^2, an unbiased
/// estimate. Equal seeds draw equal actions whatever the batch size, from any distribution with
/// at_quantile(uniform), where `uniform` holds a number in [0, 1) for each of an action's; from
/// others whatever their sample() draws.
struct sampled_actions {
  int per_state = 1;
  std::uint64_t seed = 0;
};

/// The expectation over actions exactly: F_i = E_s E_a (d_i log pi(a|s))^2, from rows of scores
/// whose squared gradients sum to it: for actions that can be counted sqrt(pi(a)) log pi(a), one an
/// action; for a Gaussian of D dimensions the closed form
///
///     F_i = E_s sum_d [ (d_i mu_d)^2 / sigma_d^2 + 2 (d_i log sigma_d)^2 ]
///
/// in 2 D rows. One backward pass per row (and per time step of a sequence): 121 actions cost 30 to
/// 50 times a sampled estimate. A distribution of your own takes part with num_actions(), or with
/// num_scores() and score(k): see diagonal_gaussian.
struct exact_actions {};

/// The actions of the data, the "empirical Fisher": F_i = E_{s,a~data} (d_i log pi(a|s))^2. It is
/// the Fisher information only where the data's actions are the policy's. `actions(batch)` returns
/// them, [N] or [T, N].
template <class Actions = detail::batch_actions>
struct dataset_actions {
  Actions actions = {};
};
template <class Actions>
dataset_actions(Actions) -> dataset_actions<Actions>;

struct fisher_options {
  std::vector<std::string> exclude = {};  ///< name patterns of parameters to leave out
  int sample_dimension = -1;              ///< of log-probabilities; -1: 0 for [N], 1 for [T, N]
  bool walk = true;                       ///< false: one sample at a time for every parameter
  /// samples whose plain gradients have to agree with each walked parameter's, once for each layout
  /// of rows
  int verify = 1;
  /// bytes an intermediate tensor of the walk may take, at the least one sample's
  std::int64_t memory = 64 << 20;
  std::function<void(std::int64_t states)> progress = {};  ///< called after every batch
};

/// The diagonal Fisher information of a policy, from per-sample gradients, always: a mini-batch
/// gradient squared is not it.
///
///     F_i = 1/n sum_s E_a [ (d log pi(a|s) / d theta_i)^2 ],   one value per weight, in nats per squared weight
///
/// `data` is a range of batches, or one batch; `forward(batch)` returns the policy's distributions
/// for its N samples as rows [N] (or logits as a tensor, or retain::masked). For sequences the rows
/// are [T, N]: the scores of a sequence are summed before squaring, and n counts valid steps; over
/// sampled actions that is the same in expectation, since scores of different steps are
/// uncorrelated. The estimate does not depend on how samples are batched.
///
/// Layers are covered by walking the autograd graph at the cost of about one more backward pass:
/// Linear, Conv1d and Conv2d (grouped too), LSTM and GRU where LibTorch builds them from those,
/// LayerNorm, Embedding, EmbeddingBag (sum), a bias or a Gaussian's log_std that is added or
/// expanded to all rows, used once or many times. A parameter with any other use, and one for which
/// the walk disagrees with a plain gradient on `verify` samples, is computed one sample at a time;
/// the result says which. Those samples are sliced out when the batch is a tensor or has
/// `narrow(start, length)`. A batch that cannot be sliced is differentiated as a whole for every
/// such sample; the result says for how many. TorchScript's optimiser fuses layers from the second
/// call on, which the walk does not know: put a torch::jit::GraphOptimizerEnabledGuard(false)
/// around the estimate. Rows that the data may move, such as tokens picked by index, are followed
/// in every batch at the cost of two more backward passes without weights: a random factor for each
/// sample has to come back in its own rows and in no others, or the layer is computed one sample at
/// a time. What that leaves open: rows cut apart, computed with and stacked again in an order that
/// depends on the data, by operations that each look as if shapes alone decided. For such a policy
/// set `walk` to false. On a GPU, float32 products are made without TF32 until it is done, for the
/// whole process; an LSTM in eval mode needs cuDNN switched off, which the error says. Under
/// autocast gradients can be too coarse for the check; samples are then computed one at a time.
/// `forward` must answer by the states alone: put the policy in eval mode, hold normalizers still,
/// and give a recurrent policy its state in each call. A batch normalization in training mode is
/// refused before anything is asked, where `model` lists its modules. The first samples, 16 or the
/// few batches that make as many, are asked about again, and the numbers must be the same bit for
/// bit; on other devices than a CPU within 32 units in the last place of the largest, for there
/// additions may come in any order. That costs two forward passes of 16 samples, or one of the
/// batch where it has not many more or cannot be sliced, or where `verify` is 0. LibTorch's random
/// generators go on as if it had not been asked. `.grad` and the model's buffers stay as they are.
/// Frozen parameters are left out. Throws config_error when no parameter is reached, when forward
/// answers otherwise the second time or by the statistics of the batch, or when there is no data;
/// state_error for a result that is not finite.
template <parameter_source M, class Data, class Forward, class Actions = sampled_actions>
fisher estimate_fisher(const M& model, Data&& data, Forward&& forward, Actions actions = {},
                       const fisher_options& options = {}) {
  const detail::fisher_settings settings{options.sample_dimension, options.walk, options.verify,
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
  return result;
}

}  // namespace retain
