// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/apportion.hpp>
#include <retain/replay/row_storage.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/transitions.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace retain {

struct episodic_memory_options {
  std::int64_t capacity = 100'000;  ///< rows in all, the protected ones among them
  /// of a batch that is protected; without it, rows are drawn uniformly from all
  std::optional<double> share = {};
  std::uint64_t seed = 0;
  at::Device device = at::kCPU;  ///< where the rows are kept
};

/// The replay buffer of an off-policy learner in which transitions from before fine-tuning are kept
/// for good (episodic memory; Wołczyk et al. 2024, arXiv 2402.02868, section 2): the first M rows
/// are never overwritten, the other capacity - M are a ring that holds the newest of what was
/// pushed.
///
///     episodic_memory buffer{{{"observation", o}, {"action", a}, {"reward", r}, {"next", n}, {"ended", e}}, {.capacity = 100'000}};
///     buffer.push({{"observation", ...}, ...});      // what the learner lives through
///     const transitions batch = buffer.sample(256);
///
/// Drawn uniformly with replacement from all rows there are, as in the paper, a batch is expected
/// to hold protected_share() = M / size of protected ones: all of it at first, M / capacity once
/// the ring is full. With `share`, every batch of n holds n * share of them, rounded so that the
/// remainder is carried to the next batch; while the ring is empty, all of it.
///
/// Rows are like those of the protected ones: a push throws config_error for a missing or extra
/// column, shape_error and state_error for another shape or type, config_error for rows or a batch
/// that do not fit into memory; a push that throws has pushed nothing. Copies share the rows until
/// one is written to.
class episodic_memory {
 public:
  /// Protects all rows of `pretraining`, which may be an empty `{}`: then it is a plain replay
  /// buffer. Throws config_error when they leave no room in the capacity, for a capacity that does
  /// not fit into memory, for a share outside [0, 1] or for one without protected rows.
  explicit episodic_memory(const transitions& pretraining, episodic_memory_options options = {})
      : protected_(pretraining.size()),
        share_(options.share),
        random_(options.seed),
        rows_("episodic_memory", options.capacity, options.device) {
    detail::check_items("episodic_memory", std::max<std::int64_t>(0, options.capacity));
    if (options.capacity < 1 || protected_ >= options.capacity)
      throw config_error(detail::concat("episodic_memory: ", protected_,
                                        " protected rows leave no room in a capacity of ",
                                        options.capacity));
    if (share_ && !(*share_ >= 0 && *share_ <= 1))
      throw config_error(detail::concat(
          "episodic_memory: the protected share of a batch must be in [0, 1], got ", *share_));
    if (share_ && *share_ > 0 && protected_ == 0)
      throw config_error(detail::concat("episodic_memory: a share of ", *share_,
                                        " of nothing: there are no protected rows"));
    if (protected_ == 0) return;
    rows_.put({{.slot = 0, .row = 0, .length = protected_}}, pretraining);
  }

  /// Adds rows [b, ...] to the ring; of more than it holds, the last.
  void push(const transitions& batch) {
    rows_.check(batch);
    if (batch.size() == 0) return;
    detail::check_items("episodic_memory", pushed_, batch.size());
    const std::int64_t ring = capacity() - protected_,
                       skipped = std::max<std::int64_t>(0, batch.size() - ring),
                       kept = batch.size() - skipped;
    const std::int64_t slot = (pushed_ + skipped) % ring, head = std::min(ring - slot, kept);
    rows_.put({{.slot = protected_ + slot, .row = skipped, .length = head},
               {.slot = protected_, .row = skipped + head, .length = kept - head}},
              batch);
    pushed_ += batch.size();  // they count once they are stored
  }

  /// n rows, protected ones first when the share is fixed. Throws config_error when there are none.
  transitions sample(std::int64_t n) {
    const auto credit = credit_;
    const auto random = random_;
    try {
      return rows_.draw(sample_indices(n), size());
    } catch (...) {
      credit_ = credit;
      random_ = random;
      throw;
    }
  }
  /// Only where they are, int64 [n]: an index below protected_size() is a protected row.
  at::Tensor sample_indices(std::int64_t n) {
    detail::check_draw("episodic_memory", n, size());
    const detail::index_buffer indices("episodic_memory", n);
    std::int64_t kept = 0;
    if (share_) {
      const bool empty = size() == protected_;
      kept = empty ? n : detail::apportion(n, std::array{*share_, 1 - *share_}, credit_)[0];
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (!share_)
        indices.data[i] = random_.index(size());
      else
        indices.data[i] =
            i < kept ? random_.index(protected_) : protected_ + random_.index(size() - protected_);
    }
    return indices.tensor;
  }

  /// Throws config_error when there are no rows, LibTorch's error for an index that is not below
  /// size().
  transitions gather(const at::Tensor& indices) const { return rows_.gather(indices, size()); }

  /// The expected share of protected rows in a batch that is drawn now.
  double protected_share() const {
    if (size() == 0) return 0;
    return share_ && size() > protected_
               ? *share_
               : static_cast<double>(protected_) / static_cast<double>(size());
  }
  std::int64_t size() const { return protected_ + std::min(pushed_, capacity() - protected_); }
  std::int64_t protected_size() const { return protected_; }
  std::int64_t capacity() const { return rows_.capacity(); }

  /// Rows, the ring's place, what rounding owes and the generator; capacity and share are the
  /// caller's to choose.
  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "capacity", capacity());
    out.set(prefix + "protected", protected_);
    out.set(prefix + "pushed", pushed_);
    out.set(prefix + "credit", credit_[0]);
    out.set(prefix + "other_credit", credit_[1]);  // rounded by itself
    out.set(prefix + "random", random_.state());
    rows_.save_state(out, prefix + "rows.", size());
  }
  /// Throws state_error, and changes nothing, when the saved one has another capacity or another
  /// number of protected rows, or numbers that no memory comes to.
  void load_state(const state& in, const std::string& prefix) {
    const auto capacity = in.integer(prefix + "capacity"), kept = in.integer(prefix + "protected"),
               pushed = in.integer(prefix + "pushed");
    detail::check_saved(prefix + "pushed", [&] { detail::check_items("episodic_memory", pushed); });
    if (capacity != this->capacity() || kept != protected_)
      throw state_error(detail::concat("episodic_memory: the state protects ", kept, " of ",
                                       capacity, " rows, this one ", protected_, " of ",
                                       this->capacity(),
                                       ": build it with the same data and capacity, then load"));
    // the other one is not in the first files of version 0.1
    const double first = in.number(prefix + "credit");
    const std::array<double, 2> credit{
        first, in.contains(prefix + "other_credit") ? in.number(prefix + "other_credit") : -first};
    detail::check_saved(prefix + "credit",
                        [&] { detail::check_credit("episodic_memory", credit[0], credit.size()); });
    detail::check_saved(prefix + "other_credit",
                        [&] { detail::check_credit("episodic_memory", credit[1], credit.size()); });
    const auto random = in.integer<std::uint64_t>(prefix + "random");
    rows_.assign(
        rows_.saved(in, prefix + "rows.", protected_ + std::min(pushed, capacity - protected_)));
    pushed_ = pushed;
    credit_ = credit;
    random_.set_state(random);
  }

 private:
  std::int64_t protected_, pushed_ = 0;
  std::optional<double> share_;
  std::array<double, 2> credit_{};
  detail::splitmix64 random_;
  detail::row_storage rows_;
};

}  // namespace retain
