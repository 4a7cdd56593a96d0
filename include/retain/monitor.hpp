// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/probe_report.hpp>
#include <retain/core/state.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/steps.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/rollout.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

struct monitor_options {
  std::int64_t batch_size = 1024;  ///< number of states (or sequences) per forward call
};

/// Measures forgetting on named sets of states (probes) that the policy is not trained on. It
/// measures how far the policy has moved from its teacher there, and optionally how successful the
/// policy is. Such a measurement can show forgetting before the return decreases.
///
///     monitor watch{teacher};
///     watch.add("CLOSE", first_rooms);
///     watch.add("FAR", later_rooms);                   // evaluates the teacher once, at this call
///     watch.add("DEEP", steps{.observations = sequences, .episode_start = episode_start});
///     watch.report_success("FAR", share_of_wins);      // optional, whenever it was measured
///     for (const auto& row : watch.measure(policy, env_steps))
///       log(row.probe, row.kl, row.agreement, row.forgetting);
///     cloning.observe(watch.kl("FAR"));                // for an adaptive strength (dual_ascent)
///
/// Teacher and policy are callables that map observations to a prediction, or recurrent policies.
/// Put a policy with dropout or BatchNorm into eval mode first. No graph is built. Memory: the
/// states, the teacher's predictions for them, and the policy's predictions for one batch.
///
/// A probe is a tensor of observations [n, ...], or retain::steps: sequences [T, N, ...] with
/// episode_start, and with a mask if they are padded. Recurrent teachers and policies get
/// new_episodes{}, or the state of the steps, if it is defined. With the second template argument,
/// a probe may be any type with size() and gather(indices), also basic_steps with another type of
/// state. For such a type other than basic_steps, teacher and policy get what gather returns; if
/// this is a sequence, they start from their initial state and mark padding with retain::masked.
template <class Teacher, detail::gatherable Observations = at::Tensor>
class monitor {
  static constexpr bool plain = std::convertible_to<Observations, at::Tensor>;
  using states_type = std::conditional_t<plain, steps, Observations>;
  using batch_type = std::remove_cvref_t<decltype(detail::gather(
      std::declval<const states_type&>(), std::declval<const at::Tensor&>()))>;
  using answer_type =
      decltype(detail::ask_batch(std::declval<Teacher&>(), std::declval<const batch_type&>()));

 public:
  /// Throws config_error for a batch size below 1.
  explicit monitor(Teacher teacher, monitor_options options = {})
      : teacher_(std::move(teacher)), options_(options) {
    if (options_.batch_size < 1)
      throw config_error(
          detail::concat("monitor: batch_size must be at least 1, got ", options_.batch_size));
  }

  /// Adds a probe and evaluates the teacher on its states. Throws config_error for an empty set of
  /// states, for steps with weights, and if a recurrent teacher needs an episode_start that is
  /// undefined. Throws config_error for a name that exists already, that is empty, or that contains
  /// a comma, a quote or a line break.
  void add(const std::string& name, Observations observations)
    requires plain
  {
    add(name, states_type{.observations = std::move(observations)});
  }
  void add(const std::string& name, states_type observations) {
    if (name.empty() || name.find_first_of(",\"\r\n") != std::string::npos)
      throw config_error(detail::concat(
          "monitor: '", name,
          "' cannot name a probe: it must not be empty or hold a comma, quote or line break"));
    for (const auto& p : probes_)
      if (p.name == name)
        throw config_error(detail::concat("monitor: a probe '", name, "' exists already"));
    if (observations.size() < 1)
      throw config_error(detail::concat("monitor: the probe '", name, "' has no states"));
    if (detail::rollout_weights(observations).defined())
      throw config_error(detail::concat("monitor: the steps of '", name,
                                        "' have weights, but a measurement is a mean without "
                                        "weights: leave them out, or drop steps with the mask"));
    probe added{name, std::move(observations), {}};
    const at::NoGradGuard no_grad;
    each_batch(added, [&](const batch_type& batch) {
      added.asked.push_back(detail::ask_batch(teacher_, batch));
      if (added.asked.size() == 1)
        detail::refuse_probabilities("monitor: the teacher", added.asked.front());
    });
    probes_.push_back(std::move(added));
  }

  /// Measures the policy on every probe and adds the results to the history. Throws shape_error if
  /// a mask has a wrong shape. Throws config_error if `progress` is not finite or not larger than
  /// at the previous measurement; `last` returns the previous results.
  template <class Policy>
  std::vector<probe_report> measure(Policy&& policy, double progress) {
    if (!std::isfinite(progress) || (!history_.empty() && progress <= history_.back().progress))
      throw config_error(detail::concat(
          "monitor: measured at ", progress,
          history_.empty() ? std::string() : detail::concat(" after ", history_.back().progress),
          ": progress must be finite and larger than at the previous measurement. last(probe) "
          "returns the previous results; measure(policy) without progress counts the "
          "measurements"));
    std::vector<probe_report> rows;
    for (const auto& p : probes_) rows.push_back(measure(p, policy, progress));
    for (auto& p : probes_) p.reported = nothing;
    history_.insert(history_.end(), rows.begin(), rows.end());
    return rows;
  }
  /// Like measure(policy, progress), but `progress` is the number of the measurement: 0, 1, 2, ...
  template <class Policy>
  std::vector<probe_report> measure(Policy&& policy) {
    return measure(policy, history_.empty() ? 0 : history_.back().progress + 1);
  }

  /// Reports the success of the policy on the states of a probe; larger is better. The next
  /// measurement includes the value. Throws config_error for a value that is not finite and for a
  /// probe that does not exist.
  void report_success(std::string_view name, double success) {
    auto& p = probes_[index_of(name)];
    if (!std::isfinite(success))
      throw config_error(
          detail::concat("monitor: the success reported for '", name, "' is ", success));
    p.reported = p.last = success;
    p.best = std::isnan(p.best) ? success : std::max(p.best, success);
  }

  /// Returns the last measured KL of a probe, for example for an adaptive strength. Throws
  /// config_error before the first measurement.
  double kl(std::string_view name) const { return last(name).kl; }
  /// Returns the last result of a probe.
  const probe_report& last(std::string_view name) const {
    const auto& wanted = probes_[index_of(name)].name;
    for (auto row = history_.rbegin(); row != history_.rend(); ++row)
      if (row->probe == wanted) return *row;
    throw config_error(detail::concat("monitor: '", name, "' has not been measured yet"));
  }

  /// Returns the rows of the last measurement, one per probe; empty before the first.
  std::vector<probe_report> last_rows() const {
    std::vector<probe_report> rows;
    for (const auto& row : history_)
      if (row.progress == history_.back().progress) rows.push_back(row);
    return rows;
  }
  /// Replaces the rows of the last measurement, for example by means over several processes. Throws
  /// config_error if the probes or the progress are others.
  void replace_last(std::vector<probe_report> rows) {
    const auto old = last_rows();
    bool fits = rows.size() == old.size();
    for (std::size_t i = 0; fits && i < rows.size(); ++i)
      fits = rows[i].probe == old[i].probe && rows[i].progress == old[i].progress;
    if (!fits)
      throw config_error(
          "monitor: replace_last needs the probes and the progress of the last measurement, in its "
          "order: change the rows that last_rows() returns");
    std::move(rows.begin(), rows.end(), history_.end() - static_cast<std::ptrdiff_t>(rows.size()));
  }

  /// Returns all results in the order of measurement.
  const std::vector<probe_report>& history() const { return history_; }

  /// Writes the history as CSV with a header line. Values that were not measured are empty.
  void write_csv(std::ostream& out) const {
    const auto cell = [](double value) {
      return std::isnan(value) ? std::string() : detail::exact_text(value);
    };
    out << "progress,probe,kl,agreement,success,forgetting\n";
    for (const auto& row : history_)
      out << detail::exact_text(row.progress) << ',' << row.probe << ',' << cell(row.kl) << ','
          << cell(row.agreement) << ',' << cell(row.success) << ',' << cell(row.forgetting) << '\n';
  }

  /// Saves the history and the best success of each probe. The states and the teacher are not
  /// saved.
  void save_state(state& out, const std::string& prefix) const {
    for (const auto& p : probes_) {
      const auto rows = rows_of(p.name);
      auto table = at::empty({static_cast<std::int64_t>(rows.size()), 5},
                             at::TensorOptions().dtype(at::kDouble));
      auto* cell = static_cast<double*>(table.data_ptr());
      for (const auto* row : rows)
        for (const double value :
             {row->progress, row->kl, row->agreement, row->success, row->forgetting})
          *cell++ = value;
      out.set(prefix + p.name + ".history", table);
      out.set(prefix + p.name + ".success", at::tensor({p.best, p.last, p.reported}, at::kDouble));
    }
  }
  /// Throws state_error or shape_error and changes nothing if the saved probes do not match this
  /// object's probes or if a saved value is invalid.
  void load_state(const state& in, const std::string& prefix) {
    auto probes = probes_;
    std::vector<probe_report> rows;
    for (auto& p : probes) {
      const auto table = checked(in.tensor(prefix + p.name + ".history"), p.name, 2);
      const auto success = checked(in.tensor(prefix + p.name + ".success"), p.name, 1);
      const auto* cell = static_cast<const double*>(table.data_ptr());
      for (std::int64_t i = 0; i < table.size(0); ++i, cell += 5) {
        if (!std::isfinite(cell[0]) || (i > 0 && !(cell[0] > cell[-5])) || std::isinf(cell[3]) ||
            std::isinf(cell[4]) || cell[2] < 0 || cell[2] > 1)
          throw state_error(detail::concat("monitor: row ", i, " of the saved history of '", p.name,
                                           "' has an invalid value: progress ", cell[0],
                                           ", agreement ", cell[2], ", success ", cell[3],
                                           ", forgetting ", cell[4]));
        rows.push_back({p.name, cell[0], cell[1], cell[2], cell[3], cell[4]});
      }
      const auto* value = static_cast<const double*>(success.data_ptr());
      p.best = value[0], p.last = value[1], p.reported = value[2];
      if (std::isinf(p.best) || std::isinf(p.last) || std::isinf(p.reported) || p.last > p.best ||
          std::isnan(p.last) != std::isnan(p.best))
        throw state_error(detail::concat("monitor: the saved successes of '", p.name,
                                         "' are invalid: best ", p.best, ", last ", p.last));
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.progress < b.progress; });
    probes_ = std::move(probes);
    history_ = std::move(rows);
  }

 private:
  static constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

  struct probe {
    std::string name;
    states_type observations;
    std::vector<answer_type> asked;  // the teacher's predictions, one per batch
    double best = nothing, last = nothing, reported = nothing;
  };

  template <class Visit>
  void each_batch(const probe& p, Visit visit) const {
    const auto size = static_cast<std::int64_t>(p.observations.size());
    for (std::int64_t from = 0; from < size; from += options_.batch_size) {
      const auto count = std::min(options_.batch_size, size - from);
      if constexpr (detail::is_steps<states_type>::value)
        visit(p.observations.narrow(from, count));
      else
        visit(detail::gather(p.observations, at::arange(from, from + count)));
    }
  }

  template <class Policy>
  probe_report measure(const probe& p, Policy& policy, double progress) const {
    const at::NoGradGuard no_grad;
    at::Tensor divergence, agreed, counted;
    bool discrete = true;
    auto said = p.asked.begin();
    each_batch(p, [&](const batch_type& batch) {
      const auto answer = detail::ask_batch(policy, batch);
      if (history_.empty()) detail::refuse_probabilities("monitor: the policy", answer);
      const std::string where = detail::concat("monitor: policy and teacher on '", p.name, "'");
      at::Tensor kept = detail::common_mask(
          where.c_str(),
          detail::common_mask(where.c_str(), detail::mask_of(answer), detail::mask_of(*said)),
          detail::rollout_mask(batch));
      const auto target = detail::where(
          detail::beside(detail::distribution_of(*said), detail::distribution_of(answer)), kept);
      const auto student = detail::where(detail::distribution_of(answer), kept);
      const auto rows = detail::divergence_rows(target, student).to(at::kDouble);
      if (!kept.defined()) kept = at::ones(rows.sizes(), rows.options().dtype(at::kBool));
      if (kept.sizes() != rows.sizes())
        throw shape_error(detail::concat(
            "monitor: on '", p.name, "' a mask of shape ", detail::shape_text(kept.sizes()),
            " does not fit rows of shape ", detail::shape_text(rows.sizes())));
      kept = kept.to(rows.device());
      const auto likeliest = target.mode(), chosen = student.mode();
      discrete = discrete && !at::isFloatingType(likeliest.scalar_type());
      auto equal = likeliest.eq(chosen);
      // actions of several components are equal if all components are equal
      while (equal.dim() > rows.dim()) equal = equal.all(-1);
      add_to(divergence, rows.masked_fill(kept.bitwise_not(), 0).sum());
      add_to(agreed, equal.bitwise_and(kept).sum());
      add_to(counted, kept.sum());
      ++said;
    });
    const double number = counted.item<double>();
    return {p.name,
            progress,
            number > 0 ? divergence.item<double>() / number : nothing,
            discrete && number > 0 ? agreed.item<double>() / number : nothing,
            p.reported,
            p.best - p.last,
            number};
  }

  static void add_to(at::Tensor& sum, const at::Tensor& value) {
    sum = sum.defined() ? sum + value : value;
  }

  std::size_t index_of(std::string_view name) const {
    std::string known;
    for (std::size_t i = 0; i < probes_.size(); ++i) {
      if (probes_[i].name == name) return i;
      known += (i ? ", '" : "'") + probes_[i].name + "'";
    }
    throw config_error(detail::concat("monitor: there is no probe '", name, "'; there is ",
                                      known.empty() ? "none" : known));
  }
  std::vector<const probe_report*> rows_of(const std::string& name) const {
    std::vector<const probe_report*> rows;
    for (const auto& row : history_)
      if (row.probe == name) rows.push_back(&row);
    return rows;
  }
  static at::Tensor checked(const at::Tensor& saved, const std::string& name,
                            std::int64_t dimensions) {
    if (saved.scalar_type() != at::kDouble || saved.dim() != dimensions ||
        saved.size(-1) != (dimensions == 2 ? 5 : 3))
      throw shape_error(detail::concat(
          "monitor: the saved values of '", name, "' are ", saved.dtype(), " of shape ",
          detail::shape_text(saved.sizes()), ", which is not a history"));
    return saved.contiguous();
  }

  Teacher teacher_;
  monitor_options options_;
  std::vector<probe> probes_;
  std::vector<probe_report> history_;
};

template <class Teacher>
monitor(Teacher) -> monitor<Teacher>;
template <class Teacher>
monitor(Teacher, monitor_options) -> monitor<Teacher>;

}  // namespace retain
