// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/state.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/distillation.hpp>

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
  std::int64_t batch_size = 1024;  ///< states (or sequences) asked about at a time
};

/// One measurement on one set of probe states. NaN stands for what was not measured.
struct probe_report {
  std::string probe;
  double progress = 0;
  double kl = 0;  ///< KL(teacher || policy), mean over the states, in nats
  /// share of states with the same likeliest action; NaN where actions are not discrete
  double agreement = 0;
  double success = 0;     ///< what report_success was last told since the measurement before
  double forgetting = 0;  ///< the best success so far less the last one
};

namespace detail {
/// kl by argument-dependent lookup alone: monitor::kl would hide it.
template <action_distribution D>
at::Tensor divergence_rows(const D& p, const D& q) {
  return kl(p, q);
}
}  // namespace detail

/// Sees forgetting before the return falls: how far a policy has moved from its teacher on named
/// sets of states that it is not trained on, and how well it still does there.
///
///     monitor watch{teacher};
///     watch.add("CLOSE", first_rooms);
///     watch.add("FAR", later_rooms);                   // the teacher is asked now, once
///     watch.report_success("FAR", share_of_wins);      // optional, whenever it was measured
///     for (const auto& row : watch.measure(policy, env_steps)) log(row.probe, row.kl, row.agreement, row.forgetting);
///     cloning.observe(watch.kl("FAR"));                // a term whose strength adapts, see dual_ascent
///
/// Teacher and policy are callables from observations to a prediction; put a policy with dropout or
/// BatchNorm into eval mode first. Observations are a tensor [n, ...], or, with the second template
/// argument, a type with size() and gather(indices). Where a row is a sequence, both answer for
/// sequences that begin with no memory, and mark padding by retain::masked. Nothing has a graph.
/// Memory: the states and the teacher's answers to them, and one batch's answers of the policy.
template <class Teacher, detail::gatherable Observations = at::Tensor>
class monitor {
  using batch_type =
      std::conditional_t<std::convertible_to<Observations, at::Tensor>, at::Tensor,
                         decltype(detail::gather(std::declval<const Observations&>(),
                                                 std::declval<const at::Tensor&>()))>;
  static_assert(
      std::invocable<Teacher&, const batch_type&>,
      "the teacher of a monitor is asked about states that stand alone; wrap a recurrent one: "
      "[&](const at::Tensor& sequences) { return a prediction for sequences that begin with no "
      "memory; }");
  using answer_type = std::remove_cvref_t<decltype(detail::as_prediction(
      std::declval<Teacher&>()(std::declval<const batch_type&>())))>;

 public:
  /// Throws config_error for a batch size below 1.
  explicit monitor(Teacher teacher, monitor_options options = {})
      : teacher_(std::move(teacher)), options_(options) {
    if (options_.batch_size < 1)
      throw config_error(
          detail::concat("monitor: batch_size must be at least 1, got ", options_.batch_size));
  }

  /// Adds a set of states and asks the teacher about them. Throws config_error for an empty set,
  /// and for a name that is taken, empty, or would break a table (a comma, quote or line break).
  void add(const std::string& name, Observations observations) {
    if (name.empty() || name.find_first_of(",\"\r\n") != std::string::npos)
      throw config_error(detail::concat(
          "monitor: '", name,
          "' cannot name a probe: it must not be empty or hold a comma, quote or line break"));
    for (const auto& p : probes_)
      if (p.name == name)
        throw config_error(detail::concat("monitor: there is a probe '", name, "' already"));
    if (detail::size_of(observations) < 1)
      throw config_error(detail::concat("monitor: the probe '", name, "' has no states"));
    probe added{name, std::move(observations), {}};
    const at::NoGradGuard no_grad;
    each_batch(added, [&](const batch_type& batch) {
      added.asked.push_back(detail::as_prediction(teacher_(batch)));
    });
    probes_.push_back(std::move(added));
  }

  /// Measures every probe and remembers the rows. Throws shape_error when a mask does not fit,
  /// config_error unless progress is finite and grows: what was measured at a progress is read by
  /// `last`.
  template <class Policy>
  std::vector<probe_report> measure(Policy&& policy, double progress) {
    if (!std::isfinite(progress) || (!history_.empty() && progress <= history_.back().progress))
      throw config_error(detail::concat(
          "monitor: measured at ", progress,
          history_.empty() ? std::string() : detail::concat(" after ", history_.back().progress),
          ": progress must be finite and grow from one measurement to the next; for the rows of "
          "the last one ask "
          "last(probe), and to count measurements leave progress out"));
    std::vector<probe_report> rows;
    for (const auto& p : probes_) rows.push_back(measure(p, policy, progress));
    for (auto& p : probes_) p.reported = nothing;
    history_.insert(history_.end(), rows.begin(), rows.end());
    return rows;
  }
  /// The same, where progress counts the measurements: 0, 1, 2, ...
  template <class Policy>
  std::vector<probe_report> measure(Policy&& policy) {
    return measure(policy, history_.empty() ? 0 : history_.back().progress + 1);
  }

  /// How well the policy does from the states of a probe, larger is better; goes into the next
  /// measurement. Throws config_error for a number that is not finite or a probe that does not
  /// exist.
  void report_success(std::string_view name, double success) {
    auto& p = probes_[index_of(name)];
    if (!std::isfinite(success))
      throw config_error(
          detail::concat("monitor: the success reported for '", name, "' is ", success));
    p.reported = p.last = success;
    p.best = std::isnan(p.best) ? success : std::max(p.best, success);
  }

  /// The last KL measured on a probe, for a strength that adapts. Throws config_error before the
  /// first measurement.
  double kl(std::string_view name) const { return last(name).kl; }
  /// The last row of a probe.
  const probe_report& last(std::string_view name) const {
    const auto& wanted = probes_[index_of(name)].name;
    for (auto row = history_.rbegin(); row != history_.rend(); ++row)
      if (row->probe == wanted) return *row;
    throw config_error(detail::concat("monitor: '", name, "' has not been measured yet"));
  }

  /// Every row so far, in the order of measurement.
  const std::vector<probe_report>& history() const { return history_; }

  /// The history as a table with a heading; what was not measured is empty.
  void write_csv(std::ostream& out) const {
    const auto cell = [](double value) {
      return std::isnan(value) ? std::string() : detail::exact_text(value);
    };
    out << "progress,probe,kl,agreement,success,forgetting\n";
    for (const auto& row : history_)
      out << detail::exact_text(row.progress) << ',' << row.probe << ',' << cell(row.kl) << ','
          << cell(row.agreement) << ',' << cell(row.success) << ',' << cell(row.forgetting) << '\n';
  }

  /// The history and what was best. States and teacher are the caller's to give again.
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
  /// Throws state_error or shape_error, and changes nothing, when the saved probes are not these.
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
          throw state_error(detail::concat("monitor: row ", i, " of what the state holds of '",
                                           p.name, "' is none that was measured: progress ",
                                           cell[0], ", agreement ", cell[2], ", success ", cell[3],
                                           ", forgetting ", cell[4]));
        rows.push_back({p.name, cell[0], cell[1], cell[2], cell[3], cell[4]});
      }
      const auto* value = static_cast<const double*>(success.data_ptr());
      p.best = value[0], p.last = value[1], p.reported = value[2];
      if (std::isinf(p.best) || std::isinf(p.last) || std::isinf(p.reported) || p.last > p.best ||
          std::isnan(p.last) != std::isnan(p.best))
        throw state_error(detail::concat("monitor: the state's successes of '", p.name,
                                         "' cannot be: best ", p.best, ", last ", p.last));
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
    Observations observations;
    std::vector<answer_type> asked;  // the teacher's, a batch each
    double best = nothing, last = nothing, reported = nothing;
  };

  template <class Visit>
  void each_batch(const probe& p, Visit visit) const {
    const auto size = detail::size_of(p.observations);
    for (std::int64_t from = 0; from < size; from += options_.batch_size) {
      const auto count = std::min(options_.batch_size, size - from);
      if constexpr (std::convertible_to<Observations, at::Tensor>)
        visit(at::Tensor(p.observations).narrow(0, from, count));
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
      const auto answer = detail::as_prediction(policy(batch));
      const std::string where = detail::concat("monitor: policy and teacher on '", p.name, "'");
      at::Tensor kept =
          detail::common_mask(where.c_str(), detail::mask_of(answer), detail::mask_of(*said));
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
      // an action of several parts is the same when all of them are
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
            p.best - p.last};
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
      throw shape_error(detail::concat("monitor: what the state holds of '", name, "' is ",
                                       saved.dtype(), " of shape ",
                                       detail::shape_text(saved.sizes()), ", which is no history"));
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
