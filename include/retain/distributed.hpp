// SPDX-License-Identifier: MIT
// Estimates and gradients over several processes, on LibTorch's own c10d:
//
//     #include <retain/distributed.hpp>
//     #include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
//     #include <torch/csrc/distributed/c10d/TCPStore.hpp>
//
//     auto store = c10::make_intrusive<c10d::TCPStore>(master_address, store_options);
//     auto options = c10d::ProcessGroupGloo::Options::create();
//     options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
//     c10d::ProcessGroupGloo group(store, rank, world_size, options);
//
//     fisher = retain::all_reduce(fisher, group);      // every rank has estimated it on its states
//     ...
//     loss.backward();
//     retain::average_gradients(*policy, group);
//     keep.add_gradient(*policy);                      // the penalty, once
//
// This header includes nothing of c10d: the group is any type with its calls (process_group). Every
// function is a collective: all processes of the group must call it, in the same order. If they
// bring things that do not fit together, every process throws the same error, which names the rank.
// A process that dies or hangs ends the others with state_error after the group's timeout.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/collectives.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/running_statistics.hpp>
#include <retain/fisher.hpp>
#include <retain/kfac.hpp>
#include <retain/monitor.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain {

/// Returns the Fisher over the states of all processes. With n_r states on rank r
///
///     F = sum_r n_r F_r / sum_r n_r
///
/// which is the estimate of one process with all states, up to the rounding of the sums, if the
/// actions are exact or the data's; sampled actions are others. A rank without states brings
/// fisher{}. Every rank gets the same bits. Sums are in double: one tensor at a time, 8 bytes a
/// weight. `paths` has, for each parameter, the path of the rank with the most states on which the
/// policy depends on it. `device` is that of the group's tensors on a rank without states: for NCCL
/// the rank's GPU.
///
///     fisher = retain::all_reduce(fisher, group);
///
/// Throws config_error, the same on every rank, if models, exclusions or kinds of actions differ,
/// or if no rank has states. Throws state_error if another process dies or hangs.
template <process_group Group>
[[nodiscard]] fisher all_reduce(const fisher& mine, Group& group, at::Device device = at::kCPU) {
  detail::share share{
      mine.values, static_cast<double>(mine.states),
      detail::concat(mine.actions, " actions, excluded: ", detail::joined(mine.exclude)),
      detail::concat(mine.unsliced, '\n')};
  for (const auto& [name, path] : mine.paths)
    share.own += detail::concat(name, '\t', static_cast<int>(path), '\n');
  const auto all = detail::mean_over_ranks("all_reduce of a fisher", share, group, device);

  fisher result;
  result.values = all.values;
  result.states = static_cast<std::int64_t>(all.count);
  const auto cut = all.agreed.find(" actions, excluded: ");
  result.actions = all.agreed.substr(0, cut);
  result.exclude = detail::split(std::string_view(all.agreed).substr(cut + 20), ", ");
  std::map<std::string, double> most;
  for (std::size_t rank = 0; rank < all.own.size(); ++rank) {
    const auto lines = detail::split(all.own[rank], "\n");
    result.unsliced += std::stoll(lines[0]);
    for (std::size_t i = 1; i < lines.size(); ++i) {
      const auto tab = lines[i].rfind('\t');
      const auto name = lines[i].substr(0, tab);
      const auto path = static_cast<fisher_path>(std::stoi(lines[i].substr(tab + 1)));
      const double weight = path == fisher_path::unused ? 0 : all.counts[rank];
      const auto found = most.find(name);
      if (found != most.end() && found->second >= weight) continue;
      most[name] = weight;
      result.paths[name] = path;
    }
  }
  return result;
}

/// Returns the Kronecker factors over the states of all processes: the means of A and of G, each
/// weighted by the number of states. See all_reduce of a fisher.
template <process_group Group>
[[nodiscard]] kronecker_fisher all_reduce(const kronecker_fisher& mine, Group& group,
                                          at::Device device = at::kCPU) {
  detail::share share{
      {},
      static_cast<double>(mine.states),
      detail::concat(mine.actions, " actions, excluded: ", detail::joined(mine.exclude)),
      ""};
  for (const auto& layer : mine.layers) {
    share.values.push_back({layer.weight, layer.inputs});
    share.values.push_back({layer.bias, layer.outputs});
  }
  const auto all =
      detail::mean_over_ranks("all_reduce of a kronecker_fisher", share, group, device);

  kronecker_fisher result;
  result.states = static_cast<std::int64_t>(all.count);
  const auto cut = all.agreed.find(" actions, excluded: ");
  result.actions = all.agreed.substr(0, cut);
  result.exclude = detail::split(std::string_view(all.agreed).substr(cut + 20), ", ");
  for (std::size_t i = 0; i < all.values.size(); i += 2)
    result.layers.push_back({all.values[i].name, all.values[i + 1].name, all.values[i].tensor,
                             all.values[i + 1].tensor});
  return result;
}

/// Returns means over the samples of all processes, for example those of estimate_sensitivity.
/// `count` is the number of samples behind `mine`; a rank with 0 brings {}. See all_reduce of a
/// fisher.
template <process_group Group>
[[nodiscard]] parameter_list all_reduce(const parameter_list& mine, double count, Group& group,
                                        at::Device device = at::kCPU) {
  if (!(count >= 0) || !std::isfinite(count))
    throw config_error(detail::concat(
        "all_reduce: the number of samples must be finite and not negative, got ", count));
  return detail::mean_over_ranks("all_reduce of sensitivities", {mine, count, "", ""}, group,
                                 device)
      .values;
}

/// Replaces the statistics by those of the samples of all processes, by the pairwise update of
/// running_statistics::merge in the order of the ranks, so that every rank gets the same bits.
/// Call it once on statistics that each hold samples of their own rank only: what is in the
/// statistics of every rank already would count once a rank. So keep the new samples of a rollout
/// apart, reduce them, and merge them into the statistics that all ranks have.
template <process_group Group>
void all_reduce(running_statistics& mine, Group& group, at::Device device = at::kCPU) {
  state saved;
  mine.save_state(saved, "");
  const auto mean = saved.tensor("mean"), squares = saved.tensor("squares");
  const auto shapes = detail::texts_of_all_ranks("all_reduce of running_statistics", group,
                                                 detail::shape_text(mine.shape()), device);
  for (std::size_t rank = 1; rank < shapes.size(); ++rank)
    if (shapes[rank] != shapes[0])
      throw config_error(detail::concat("all_reduce of running_statistics: rank ", rank,
                                        " has the shape ", shapes[rank], ", where rank 0 has ",
                                        shapes[0]));
  const auto all = detail::of_all_ranks("all_reduce of running_statistics", group,
                                        at::cat({at::full({1}, mine.count(), at::kDouble),
                                                 mean.reshape(-1).cpu(), squares.reshape(-1).cpu()})
                                            .to(device));
  const auto sizes = mine.shape().vec();
  const std::int64_t n = mean.numel();
  bool begun = false;
  for (const auto& each : all) {
    const auto row = each.to(mean.device());
    state part;
    part.set("count", row[0].template item<double>());
    part.set("mean", row.narrow(0, 1, n).reshape(sizes).clone());
    part.set("squares", row.narrow(0, 1 + n, n).reshape(sizes).clone());
    if (!begun) {
      mine.load_state(part, "");
      begun = true;
      continue;
    }
    running_statistics other(sizes);
    other.load_state(part, "");
    mine.merge(other);
  }
}

/// Replaces the last measurement of a monitor by that of all processes, whose probes hold states
/// of their own: KL and agreement are means over all states that counted, success and forgetting
/// means over the ranks that reported. So schedules that adapt (retention::adapt) get the same
/// number everywhere, and strengths stay equal. Throws config_error, the same on every rank, if the
/// probes or the progress of the last measurements differ, if nothing was measured, or if a last
/// measurement was loaded, since its number of states is not saved.
template <class Monitor, process_group Group>
  requires requires(Monitor& watch, std::vector<probe_report> rows) { watch.replace_last(rows); }
void all_reduce(Monitor& watch, Group& group, at::Device device = at::kCPU) {
  auto rows = watch.last_rows();
  std::string names;
  for (const auto& row : rows)
    names += detail::concat(row.probe, " at ", detail::exact_text(row.progress), '\n');
  const auto all_names =
      detail::texts_of_all_ranks("all_reduce of a monitor", group, names, device);
  for (std::size_t rank = 1; rank < all_names.size(); ++rank)
    if (all_names[rank] != all_names[0])
      throw config_error(detail::concat("all_reduce of a monitor: rank ", rank, " measured '",
                                        all_names[rank], "', where rank 0 measured '", all_names[0],
                                        "'"));
  if (rows.empty()) throw config_error("all_reduce of a monitor: no probe has been measured yet");
  auto mine = at::empty({static_cast<std::int64_t>(rows.size()), 5}, at::kDouble);
  auto* cell = static_cast<double*>(mine.data_ptr());
  for (const auto& row : rows)
    for (const double value : {row.states, row.kl, row.agreement, row.success, row.forgetting})
      *cell++ = value;
  std::vector<at::Tensor> all;
  for (const auto& each : detail::of_all_ranks("all_reduce of a monitor", group, mine.to(device)))
    all.push_back(each.cpu());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      const double* row = static_cast<const double*>(all[rank].data_ptr()) + 5 * i;
      if (row[0] == 0 && !std::isnan(row[1]))
        throw config_error(detail::concat(
            "all_reduce of a monitor: rank ", rank, " has loaded its row of '", rows[i].probe,
            "', and the number of states is not saved: measure first"));
    }
    const auto mean = [&](int column, bool by_states) {
      double sum = 0, count = 0;
      for (const auto& each : all) {
        const double* row = static_cast<const double*>(each.data_ptr()) + 5 * i;
        if (std::isnan(row[column]) || row[0] == 0) continue;
        const double weight = by_states ? row[0] : 1;
        sum += weight * row[column];
        count += weight;
      }
      return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
    };
    rows[i].kl = mean(1, true);
    rows[i].agreement = mean(2, true);
    rows[i].success = mean(3, false);
    rows[i].forgetting = mean(4, false);
    rows[i].states = 0;
    for (const auto& each : all)
      rows[i].states += static_cast<const double*>(each.data_ptr())[5 * i];
  }
  watch.replace_last(std::move(rows));
}

/// Replaces `.grad` of every parameter by the mean over the processes, weighted by the number of
/// samples behind each rank's gradient:
///
///     g = sum_r n_r g_r / sum_r n_r
///
/// That is the gradient of a mean over the samples of all ranks. A rank with 0 samples takes part
/// with zeros. All gradients travel as one tensor of the parameters' type. Call it after
/// backward() and before add_gradient() of the penalties: a penalty depends on the weights only, so
/// each rank adds the same, once, and nothing of it travels.
///
///     loss.backward();
///     retain::average_gradients(*policy, group, batch_size);
///     keep.add_gradient(*policy);
///     clip_grad_norm_(policy->parameters(), 0.5);
///     optimizer.step();
///
/// Throws config_error, the same on every rank, if the trainable parameters differ.
template <parameter_source M, process_group Group>
void average_gradients(const M& model, Group& group, double samples = 1) {
  const at::NoGradGuard no_grad;
  if (!(samples >= 0) || !std::isfinite(samples))
    throw config_error(detail::concat(
        "average_gradients: the number of samples must be finite and not negative, got ", samples));
  const auto trained = parameters(model);
  std::vector<at::Tensor> parts;
  std::string names;
  for (const auto& [name, tensor] : trained) {
    names += detail::concat(name, ' ', detail::shape_text(tensor.sizes()), '\n');
    parts.push_back(tensor.grad().defined() ? tensor.grad().reshape(-1)
                                            : at::zeros({tensor.numel()}, tensor.options()));
  }
  if (parts.empty()) throw config_error("average_gradients: the model has no trainable parameter");
  // A sum of the hash and of its square over the ranks shows whether all are equal.
  const double hash = static_cast<double>(std::hash<std::string>{}(names) % 1000003);
  auto head = at::tensor({samples, hash, hash * hash}, at::kDouble).to(parts.front().device());
  detail::sum_over_ranks("average_gradients", group, head);
  const auto sums = head.cpu();
  const auto* sum = static_cast<const double*>(sums.data_ptr());
  const double size = group.getSize();
  if (sum[2] * size != sum[1] * sum[1]) {
    // Every rank sees this, so every rank takes part in finding out who differs.
    const auto all_names =
        detail::texts_of_all_ranks("average_gradients", group, names, parts.front().device());
    for (std::size_t rank = 1; rank < all_names.size(); ++rank)
      if (all_names[rank] != all_names[0])
        throw config_error(detail::concat(
            "average_gradients: the trainable parameters of rank ", rank,
            " differ from those of rank 0: '", all_names[rank], "' and '", all_names[0],
            "': give every process the same model and freeze the same part"));
  }
  if (!(sum[0] > 0)) throw config_error("average_gradients: no rank has samples");
  auto all = at::cat(parts) * (samples / sum[0]);
  detail::sum_over_ranks("average_gradients", group, all);
  std::int64_t from = 0;
  for (const auto& [name, tensor] : trained) {
    const auto part = all.narrow(0, from, tensor.numel()).reshape(tensor.sizes());
    from += tensor.numel();
    if (tensor.grad().defined())
      tensor.grad().copy_(part);
    else
      const_cast<at::Tensor&>(tensor).mutable_grad() = part.clone();
  }
}

}  // namespace retain
