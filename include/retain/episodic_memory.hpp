// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/apportion.hpp>
#include <retain/replay/row_storage.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace retain {

struct episodic_memory_options {
  std::int64_t capacity = 100'000;  ///< maximal number of rows, including protected rows
  /// the fraction of each batch that is drawn from the protected rows; if not set, rows are drawn
  /// uniformly from all rows
  std::optional<double> share = {};
  std::uint64_t seed = 0;
  at::Device device = at::kCPU;  ///< the device that stores the rows
};

/// A replay buffer for an off-policy learner that keeps the transitions from before fine-tuning
/// forever (episodic memory). The first M rows are protected and are never overwritten. The other
/// capacity - M rows are a ring buffer for new transitions; the newest ones overwrite the oldest.
///
///     episodic_memory buffer{{{"observation", o}, {"action", a}, {"reward", r}, {"next", n},
///                             {"terminated", e}},
///                            {.capacity = 100'000}};
///     buffer.push({{"observation", ...}, ...});      // new transitions
///     const transitions batch = buffer.sample(256);
///
/// Without `share`, rows are drawn uniformly with replacement from all rows, as in the paper. The
/// expected fraction of protected rows in a batch is then protected_share() = M / size. This
/// fraction is 1 at first and M / capacity when the ring is full. With `share`, every batch of n
/// rows contains n * share protected rows; the rounding error is carried over to the next batch. As
/// long as the ring is empty, all rows of a batch are protected rows.
///
/// New rows must have the columns, shapes and types of the protected rows. A push throws
/// config_error for a missing or extra column. It throws shape_error for another shape and
/// state_error for another type. It throws config_error for rows or a batch that do not fit into
/// memory. If push throws, no rows have been added. Copies of the buffer share their rows until one
/// of them is modified.
///
/// Paper: Wołczyk et al. 2024, arXiv 2402.02868, section 2.
class episodic_memory {
 public:
  /// Protects all rows of `pretraining`. If `pretraining` is empty (`{}`), the object is an
  /// ordinary replay buffer. Throws config_error if the protected rows fill the whole capacity, if
  /// the capacity does not fit into memory, for a share outside [0, 1], and for a share above 0
  /// without protected rows.
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
                                        " needs protected rows, but there are none"));
    if (protected_ == 0) return;
    rows_.put({{.slot = 0, .row = 0, .length = protected_}}, pretraining);
  }

  /// Adds rows [b, ...] to the ring. If there are more rows than the ring can hold, only the last
  /// ones are stored.
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
    pushed_ += batch.size();  // after put(), which may throw
  }

  /// Draws n rows. If `share` is set, the protected rows come first. Throws config_error if the
  /// buffer is empty.
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
  /// Draws n row indices, int64 [n]. An index below protected_size() is a protected row.
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

  /// Returns the rows at `indices`. Throws config_error if the buffer is empty. LibTorch throws
  /// c10::Error for an index that is not below size().
  transitions gather(const at::Tensor& indices) const { return rows_.gather(indices, size()); }

  /// Returns the expected fraction of protected rows in the next batch.
  double protected_share() const {
    if (size() == 0) return 0;
    return share_ && size() > protected_
               ? *share_
               : static_cast<double>(protected_) / static_cast<double>(size());
  }
  std::int64_t size() const { return protected_ + std::min(pushed_, capacity() - protected_); }
  std::int64_t protected_size() const { return protected_; }
  std::int64_t capacity() const { return rows_.capacity(); }

  /// Saves the rows, the position in the ring, the carried rounding errors and the random
  /// generator. load_state does not restore the capacity and the share; they are set by the
  /// constructor.
  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "capacity", capacity());
    out.set(prefix + "protected", protected_);
    out.set(prefix + "pushed", pushed_);
    out.set(prefix + "credit", credit_[0]);
    out.set(prefix + "other_credit", credit_[1]);  // rounded separately
    out.set(prefix + "random", random_.state());
    rows_.save_state(out, prefix + "rows.", size());
  }
  /// Throws state_error and changes nothing if the saved capacity or the saved number of protected
  /// rows differs from this object's, or if a saved number is invalid.
  void load_state(const state& in, const std::string& prefix) {
    const auto capacity = in.integer(prefix + "capacity"), kept = in.integer(prefix + "protected"),
               pushed = in.integer(prefix + "pushed");
    detail::check_saved(prefix + "pushed", [&] { detail::check_items("episodic_memory", pushed); });
    if (capacity != this->capacity() || kept != protected_)
      throw state_error(
          detail::concat("episodic_memory: the state has ", kept, " protected rows of ", capacity,
                         ", this memory has ", protected_, " of ", this->capacity(),
                         ": construct it with the same data and capacity, then load"));
    // the first files of version 0.1 have no 'other_credit'
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
