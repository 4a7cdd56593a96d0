// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/base/self_movable.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/apportion.hpp>
#include <retain/replay/sampler.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct stratified_options {
  /// how often each stratum is drawn, relative to the others; empty: all equally
  std::map<std::int64_t, double> shares = {};
  std::uint64_t seed = 0;
};

/// Batches that hold a fixed share of every stratum: of regions of an environment, bins of return,
/// levels of a dungeon, however many items each has. Items carry an int64 key; the items of one key
/// are a stratum, and within it every item is equally likely (with replacement). The shares are
/// exact: a batch of n gets n p_k items of stratum k, rounded by largest remainder, and what
/// rounding gave or took is carried over, so that over any number of batches each stratum is off by
/// an item or two and not by more.
///
///     stratified{levels}                                               // each level equally often
///     stratified{levels, {.shares = {{1, 1.0}, {2, 3.0}}, .seed = 5}}  // level 2 three times as often
///
/// A stratum without items gets nothing, and the others share it in proportion. Draws are [n], by
/// ascending key. A draw is O(n + K) for K strata, whatever the number of items, an update O(1);
/// memory is 16 bytes an item.
class stratified {
 public:
  /// `keys` [n], int64. Throws config_error for shares that are negative or all 0, that or whose
  /// sum is not finite, and for a key without a share when shares are given.
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
      throw config_error(
          "stratified: the shares add up to more than a double holds: scale them down");
    push(keys);
  }

  /// New items after the ones there are: all or, on any exception, none.
  void push(const at::Tensor& keys) {
    const at::Tensor flat = checked(keys);
    check_size(size(), flat.numel());
    detail::make_room(places_, static_cast<std::size_t>(flat.numel()));
    for (const auto s : prepared(flat)) {
      places_.push_back({});
      insert(size() - 1, s);
    }
  }

  /// Other keys for items that there are, as when a memory has overwritten them. `indices` [m],
  /// `keys` [m], int64. Throws config_error for an index that is none; on any exception nothing has
  /// changed.
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

  /// Throws config_error when no stratum with a share has items, and for more draws than fit into
  /// memory.
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
  /// How many items have this key.
  std::int64_t size(std::int64_t key) const {
    const auto found = numbers_.find(key);
    return found == numbers_.end() ? 0 : count(strata_[found->second]);
  }

  /// Everything but the shares: keys, the order within strata, what is carried over, the generator.
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
  /// Throws state_error, and changes nothing, for items of a key that has no share here, and for
  /// lists that do not fit together.
  void load_state(const state& in, const std::string& prefix) {
    const auto list = [&](const char* name, at::ScalarType type) {
      return detail::saved_list(in, prefix + name, type);
    };
    const auto wrong = [&](const char* name, std::int64_t where) {
      throw state_error(detail::concat("stratified: the state's '", prefix, name,
                                       "' does not fit to the rest at place ", where,
                                       ": it was saved from something else"));
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
        throw state_error(detail::concat("stratified: the state under '", prefix,
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
    std::size_t coming = 0;  // items that room is made for
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
      throw config_error(detail::concat("stratified: there is place for ", unplaced,
                                        " items, not for ", size, " and ", more, " more"));
  }

  /// Keys [n] on the CPU, every one with a share.
  at::Tensor checked(const at::Tensor& keys) const {
    if (keys.dim() != 1 || keys.scalar_type() != at::kLong)
      throw shape_error(detail::concat("stratified: keys must be int64 [n], got ", keys.dtype(),
                                       " ", detail::shape_text(keys.sizes())));
    const at::Tensor flat = keys.to(at::kCPU).contiguous();
    const auto* key = static_cast<const std::int64_t*>(flat.data_ptr());
    if (!shares_.empty())
      for (std::int64_t i = 0; i < flat.numel(); ++i)
        if (!shares_.count(key[i]))
          throw config_error(
              detail::concat("stratified: an item has the key ", key[i],
                             ", which has no share: give it one, 0 if it is never drawn"));
    return flat;
  }

  std::uint32_t stratum_of(std::int64_t key) {
    detail::make_room(strata_, 1);
    const auto [found, made] =
        numbers_.try_emplace(key, static_cast<std::uint32_t>(strata_.size()));
    if (made) strata_.emplace_back();
    return found->second;
  }
  /// The strata of these keys, each with room for them: what fails, fails here.
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
  /// The stratum's last item takes the place of the one that leaves.
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
  detail::self_movable<std::vector<place>> places_;  // of every item: its stratum, and where in it
};

}  // namespace retain
