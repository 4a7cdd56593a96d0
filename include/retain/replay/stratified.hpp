// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/base/self_movable.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/apportion.hpp>
#include <retain/replay/sampler.hpp>

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct stratified_options {
  /// relative frequency of each stratum; empty: all strata equally often
  std::map<std::int64_t, double> shares = {};
  std::uint64_t seed = 0;
};

/// Draws batches with a fixed share of every stratum, independent of the number of its items. A
/// stratum is, for example, a region of an environment, a bin of returns, or a level of a dungeon.
/// Each item has an int64 key, and the items with the same key form a stratum. Within a stratum
/// every item is equally likely (with replacement).
///
///     // each level equally often
///     stratified{levels}
///     // level 2 three times as often as level 1
///     stratified{levels, {.shares = {{1, 1.0}, {2, 3.0}}, .seed = 5}}
///
/// A batch of n has n p_k items of stratum k, rounded by largest remainder. The rounding error is
/// carried to the next batch. Over any number of batches, the count of each stratum is therefore
/// off by at most one or two items. A stratum without items gets nothing; the other strata get its
/// share in proportion.
///
/// A draw has indices [n], ordered by key. A draw costs O(n + K) for K strata, independent of the
/// number of items, and an update O(1). The memory is 16 bytes per item.
class stratified {
 public:
  /// `keys` is int64 [n]. Throws config_error if a share is negative, if all shares are 0, if a
  /// share or their sum is not finite, or if shares are given and a key has no share.
  explicit stratified(const at::Tensor& keys, stratified_options options = {})
      : shares_(std::move(options.shares)), random_(options.seed) {
    double sum = 0;
    for (const auto& [key, share] : shares_) {
      if (!(share >= 0) || !std::isfinite(share))
        throw config_error(detail::concat("stratified: the share of stratum ", key,
                                          " must be finite and not negative, got ", share));
      sum += share;
      stratum_of(key);
    }
    if (!shares_.empty() && !(sum > 0)) throw config_error("stratified: all shares are 0");
    if (!std::isfinite(sum))
      throw config_error("stratified: the sum of the shares overflows a double: scale them down");
    push(keys);
  }

  /// Adds items at the end. On any exception nothing changes.
  void push(const at::Tensor& keys) {
    const at::Tensor flat = checked(keys);
    check_size(size(), flat.numel());
    detail::make_room(places_, static_cast<std::size_t>(flat.numel()));
    for (const auto s : prepared(flat)) {
      places_.push_back({});
      insert(size() - 1, s);
    }
  }

  /// Sets new keys for existing items, for example after a memory has overwritten them. `indices`
  /// and `keys` are int64 [m]. Throws config_error if an index is out of range. On any exception
  /// nothing changes.
  void update(const at::Tensor& indices, const at::Tensor& keys) {
    const at::Tensor items = detail::checked_indices("stratified", indices, size()),
                     flat = checked(keys);
    if (items.numel() != flat.numel())
      throw shape_error(
          detail::concat("stratified: ", flat.numel(), " keys for ", items.numel(), " indices"));
    const auto* item = static_cast<const std::int64_t*>(items.data_ptr());
    for (const auto s : prepared(flat)) {
      remove(*item);
      insert(*item++, s);
    }
  }

  /// Draws n items. Throws config_error if no stratum with a share has items, or if n does not fit
  /// into memory.
  drawn sample(std::int64_t n) {
    std::vector<double> shares(strata_.size()), credit(strata_.size());
    double sum = 0;
    std::size_t k = 0;
    for (const auto& [key, s] : numbers_) {
      const double share = shares_.empty() ? 1.0 : shares_.at(key);
      credit[k] = strata_[s].credit;
      sum += shares[k++] = strata_[s].items.empty() ? 0.0 : share;
    }
    detail::check_draw("stratified", n, sum > 0 ? size() : 0);
    for (auto& share : shares) share /= sum;
    const detail::index_buffer indices("stratified", n);
    const auto counts = detail::apportion(n, shares, credit);
    auto* next = indices.data;
    k = 0;
    for (const auto& [key, s] : numbers_) {
      auto& stratum = strata_[s];
      stratum.credit = credit[k];
      for (std::int64_t i = 0; i < counts[k]; ++i)
        *next++ = stratum.items[static_cast<std::size_t>(random_.index(count(stratum)))];
      ++k;
    }
    return {indices.tensor, {}, {}, {}};
  }

  std::int64_t size() const { return static_cast<std::int64_t>(places_.size()); }
  /// Returns the number of items with this key.
  std::int64_t size(std::int64_t key) const {
    const auto found = numbers_.find(key);
    return found == numbers_.end() ? 0 : count(strata_[found->second]);
  }

  /// Saves the keys, the order within the strata, the carried remainders and the generator, but not
  /// the shares.
  void save_state(state& out, const std::string& prefix) const {
    std::vector<std::int64_t> keys, counts, items;
    std::vector<double> credits;
    for (const auto& [key, s] : numbers_) {
      const auto& stratum = strata_[s];
      keys.push_back(key);
      counts.push_back(count(stratum));
      credits.push_back(stratum.credit);
      items.insert(items.end(), stratum.items.begin(), stratum.items.end());
    }
    const auto integers = at::TensorOptions().dtype(at::kLong);
    out.set(prefix + "keys", at::tensor(keys, integers));
    out.set(prefix + "counts", at::tensor(counts, integers));
    out.set(prefix + "items", at::tensor(items, integers));
    out.set(prefix + "credits", at::tensor(credits, at::TensorOptions().dtype(at::kDouble)));
    out.set(prefix + "random", random_.state());
  }
  /// Throws state_error, and changes nothing, if an item has a key without a share here, or if the
  /// saved lists do not fit together.
  void load_state(const state& in, const std::string& prefix) {
    const auto list = [&](const char* name, at::ScalarType type) {
      return detail::saved_list(in, prefix + name, type);
    };
    const auto wrong = [&](const char* name, std::int64_t where) {
      throw state_error(detail::concat("stratified: the state's '", prefix, name,
                                       "' does not fit the other lists at position ", where,
                                       ": the state was saved from another object"));
    };
    const auto keys = list("keys", at::kLong), counts = list("counts", at::kLong),
               items = list("items", at::kLong);
    const auto credits = list("credits", at::kDouble);
    if (counts.numel() != keys.numel()) wrong("counts", counts.numel());
    if (credits.numel() != keys.numel()) wrong("credits", credits.numel());
    detail::check_saved(prefix + "items", [&] { check_size(items.numel()); });
    const auto *key = static_cast<const std::int64_t*>(keys.data_ptr()),
               *number = static_cast<const std::int64_t*>(counts.data_ptr()),
               *item = static_cast<const std::int64_t*>(items.data_ptr());
    const auto* credit = static_cast<const double*>(credits.data_ptr());

    stratified loaded(at::empty({0}, at::TensorOptions().dtype(at::kLong)), {.shares = shares_});
    loaded.places_.resize(static_cast<std::size_t>(items.numel()), {unplaced, 0});
    std::int64_t read = 0;
    for (std::int64_t k = 0; k < keys.numel(); ++k) {
      if (k > 0 && key[k] <= key[k - 1]) wrong("keys", k);
      if (!shares_.empty() && !shares_.count(key[k]))
        throw state_error(detail::concat("stratified: the state at '", prefix,
                                         "' has items of the key ", key[k],
                                         ", which has no share here"));
      detail::check_saved(prefix + "credits", [&] {
        detail::check_credit("stratified", credit[k], static_cast<std::size_t>(keys.numel()));
      });
      if (number[k] < 0 || number[k] > items.numel() - read) wrong("counts", k);
      const std::uint32_t s = loaded.stratum_of(key[k]);
      loaded.strata_[s].credit = credit[k];
      for (const std::int64_t end = read + number[k]; read < end; ++read) {
        if (item[read] < 0 || item[read] >= items.numel()) wrong("items", read);
        if (loaded.places_[static_cast<std::size_t>(item[read])].stratum != unplaced)
          wrong("items", read);
        loaded.insert(item[read], s);
      }
    }
    if (read != items.numel()) wrong("items", read);
    loaded.random_.set_state(in.integer<std::uint64_t>(prefix + "random"));
    *this = std::move(loaded);
  }

 private:
  static constexpr std::uint32_t unplaced = ~std::uint32_t{0};
  struct stratum_items {
    std::vector<std::int64_t> items;
    double credit = 0;
    std::size_t coming = 0;  // number of items to reserve room for
  };
  struct place {
    std::uint32_t stratum;
    std::uint32_t position;
  };

  static std::int64_t count(const stratum_items& stratum) {
    return static_cast<std::int64_t>(stratum.items.size());
  }
  static void check_size(std::int64_t size, std::int64_t more = 0) {
    if (size > unplaced || more > unplaced - size)
      throw config_error(detail::concat("stratified: at most ", unplaced,
                                        " items are possible, got ", size, " and ", more, " more"));
  }

  /// Returns keys [n] on the CPU, after checking that every key has a share.
  at::Tensor checked(const at::Tensor& keys) const {
    if (keys.dim() != 1 || keys.scalar_type() != at::kLong)
      throw shape_error(detail::concat("stratified: keys must be int64 [n], got ", keys.dtype(),
                                       " ", detail::shape_text(keys.sizes())));
    const at::Tensor flat = keys.to(at::kCPU).contiguous();
    const auto* key = static_cast<const std::int64_t*>(flat.data_ptr());
    if (!shares_.empty())
      for (std::int64_t i = 0; i < flat.numel(); ++i)
        if (!shares_.count(key[i]))
          throw config_error(detail::concat(
              "stratified: an item has the key ", key[i],
              ", which has no share: add a share for this key, or 0 to never draw it"));
    return flat;
  }

  std::uint32_t stratum_of(std::int64_t key) {
    detail::make_room(strata_, 1);
    const auto [found, made] =
        numbers_.try_emplace(key, static_cast<std::uint32_t>(strata_.size()));
    if (made) strata_.emplace_back();
    return found->second;
  }
  /// Returns the strata of these keys and reserves room in each, so that a later insert cannot
  /// fail.
  std::vector<std::uint32_t> prepared(const at::Tensor& keys) {
    const auto* key = static_cast<const std::int64_t*>(keys.data_ptr());
    const std::size_t had = strata_.size();
    std::vector<std::uint32_t> strata(static_cast<std::size_t>(keys.numel()));
    std::size_t counted = 0;
    try {
      for (; counted < strata.size(); ++counted)
        ++strata_[strata[counted] = stratum_of(key[counted])].coming;
      for (const auto s : strata)
        detail::make_room(strata_[s].items, std::exchange(strata_[s].coming, 0));
    } catch (...) {
      for (std::size_t i = 0; i < counted; ++i) strata_[strata[i]].coming = 0;
      std::erase_if(numbers_, [&](const auto& number) { return number.second >= had; });
      strata_.resize(had);
      throw;
    }
    return strata;
  }
  void insert(std::int64_t item, std::uint32_t s) {
    places_[static_cast<std::size_t>(item)] = {s,
                                               static_cast<std::uint32_t>(strata_[s].items.size())};
    strata_[s].items.push_back(item);
  }
  /// Moves the stratum's last item to the place of the removed item.
  void remove(std::int64_t item) {
    const place left = places_[static_cast<std::size_t>(item)];
    auto& items = strata_[left.stratum].items;
    items[left.position] = items.back();
    places_[static_cast<std::size_t>(items.back())].position = left.position;
    items.pop_back();
  }

  detail::self_movable<std::map<std::int64_t, double>> shares_;
  detail::splitmix64 random_;
  detail::self_movable<std::map<std::int64_t, std::uint32_t>> numbers_;  // key -> place in strata_
  detail::self_movable<std::vector<stratum_items>> strata_;
  // for every item: its stratum and its position there
  detail::self_movable<std::vector<place>> places_;
};

}  // namespace retain
