// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/row_storage.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace retain {

/// Selects the items of a stream that are kept in `capacity` slots. At any time, every subset of
/// this size of all items so far is equally likely to be kept. Algorithm R: item t, counted from 0,
/// goes to slot t while there are free slots. Later, item t replaces the item of a random slot with
/// probability capacity / (t + 1).
///
/// This class stores no items: `offer` returns the slot of each item. As a sampler, it draws the
/// filled slots uniformly. reservoir_memory combines it with storage.
///
/// Paper: Vitter 1985 (doi 10.1145/3147.3165).
class reservoir {
 public:
  /// Throws config_error if the capacity is below 1 or above 2^53.
  explicit reservoir(std::int64_t capacity, std::uint64_t seed = 0)
      : capacity_(capacity), random_(seed) {
    if (capacity < 1)
      throw config_error(detail::concat("reservoir: capacity must be at least 1, got ", capacity));
    detail::check_items("reservoir", capacity);
  }

  /// Returns the slots of the next `n` items of the stream, int64 [n]. The slot is -1 if the item
  /// is not kept, or if a later one of these n items replaces it, so no slot appears twice. The
  /// division of the stream into batches does not change which items are kept in which slots.
  /// Throws config_error, and counts no item as seen, if n is negative or does not fit into memory.
  at::Tensor offer(std::int64_t n) {
    if (n < 0) throw config_error(detail::concat("reservoir: cannot offer ", n, " items"));
    detail::check_items("reservoir", seen_, n);
    const detail::index_buffer slots("reservoir", n);
    auto seen = seen_;
    auto random = random_;
    std::unordered_map<std::int64_t, std::int64_t> taken;
    for (std::int64_t i = 0; i < n; ++i, ++seen) {
      const std::int64_t slot = seen < capacity_ ? seen : random.index(seen + 1);
      slots.data[i] = slot < capacity_ ? slot : -1;
      if (slot >= capacity_) continue;
      if (const auto [earlier, first] = taken.try_emplace(slot, i); !first) {
        slots.data[earlier->second] = -1;
        earlier->second = i;
      }
    }
    seen_ = seen;
    random_ = random;
    return slots.tensor;
  }

  /// Draws n filled slots, [n], uniformly with replacement. Throws config_error if no slot is
  /// filled.
  drawn sample(std::int64_t n) {
    detail::check_draw("reservoir", n, size());
    const detail::index_buffer slots("reservoir", n);
    for (std::int64_t i = 0; i < n; ++i) slots.data[i] = random_.index(size());
    return {slots.tensor, {}, {}, {}};
  }

  std::int64_t size() const { return std::min(seen_, capacity_); }
  std::int64_t seen() const { return seen_; }
  std::int64_t capacity() const { return capacity_; }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "capacity", capacity_);
    out.set(prefix + "seen", seen_);
    out.set(prefix + "random", random_.state());
  }
  /// Throws state_error, and changes nothing, if the saved capacity differs or the saved number of
  /// seen items is not possible.
  void load_state(const state& in, const std::string& prefix) {
    const auto capacity = in.integer(prefix + "capacity"), seen = in.integer(prefix + "seen");
    detail::check_saved(prefix + "seen", [&] { detail::check_items("reservoir", seen); });
    if (capacity != capacity_)
      throw state_error(detail::concat("reservoir: the state at '", prefix, "' has a capacity of ",
                                       capacity, " and has seen ", seen,
                                       " items; the capacity here is ", capacity_));
    random_.set_state(in.integer<std::uint64_t>(prefix + "random"));
    seen_ = seen;
  }

 private:
  std::int64_t capacity_, seen_ = 0;
  detail::splitmix64 random_;
};

struct reservoir_memory_options {
  std::int64_t capacity = 10'000;  ///< number of rows that are kept
  std::uint64_t seed = 0;
  at::Device device = at::kCPU;  ///< device of the rows
};

/// Keeps a uniform random subset of all pushed transitions, with a fixed capacity.
///
///     reservoir_memory memory{{.capacity = 5000}};
///     memory.push({{"observation", o}, {"logits", z}});
///     const transitions batch = memory.sample(64);
///
/// All rows must have the columns, shapes and types of the first push. push() throws config_error
/// if a column is missing or extra, shape_error if a shape differs, state_error if a type differs,
/// and config_error if the rows do not fit into memory. A push() that throws changes nothing.
/// sample() throws config_error if the batch does not fit into memory. Copies share the rows until
/// one of them is written to.
class reservoir_memory {
 public:
  explicit reservoir_memory(reservoir_memory_options options = {})
      : slots_(options.capacity, options.seed),
        rows_("reservoir_memory", options.capacity, options.device) {}

  void push(const transitions& batch) {
    rows_.check(batch);
    auto slots = slots_;  // an item counts as seen only after its row is stored
    const at::Tensor where = slots.offer(batch.size());
    const at::Tensor kept = where.ge(0).nonzero().flatten();
    rows_.put(where.index_select(0, kept), batch, kept);
    slots_ = slots;
  }

  /// Draws n rows. Throws config_error if nothing was pushed yet.
  transitions sample(std::int64_t n) {
    auto slots = slots_;
    auto rows = rows_.draw(slots.sample(n).indices, size());
    slots_ = slots;
    return rows;
  }
  /// Returns the rows at `indices`. Throws config_error if nothing was pushed yet, and LibTorch's
  /// error if an index is not below size().
  transitions gather(const at::Tensor& indices) const { return rows_.gather(indices, size()); }

  std::int64_t size() const { return slots_.size(); }
  std::int64_t seen() const { return slots_.seen(); }
  std::int64_t capacity() const { return slots_.capacity(); }

  void save_state(state& out, const std::string& prefix) const {
    slots_.save_state(out, prefix);
    rows_.save_state(out, prefix + "rows.", size());
  }
  void load_state(const state& in, const std::string& prefix) {
    auto slots = slots_;
    slots.load_state(in, prefix);
    rows_.assign(rows_.saved(in, prefix + "rows.", slots.size()));
    slots_ = slots;
  }

 private:
  reservoir slots_;
  detail::row_storage rows_;
};

}  // namespace retain
