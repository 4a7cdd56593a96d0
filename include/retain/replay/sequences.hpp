// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/base/self_movable.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/sampler.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct sequences_options {
  std::int64_t length = 16;  ///< L, the number of steps of a sequence
  /// true: a sequence may begin at any step and is padded after the end of its episode
  bool pad = false;
  std::uint64_t seed = 0;
};

/// Returns the lengths [E] of consecutive episodes. `episode_start` [n] is 1 at the first
/// step of each episode, as for recurrent policies. Throws shape_error if it has another shape, and
/// config_error if step 0 is not the first step of an episode.
inline at::Tensor episode_lengths(const at::Tensor& episode_start) {
  if (episode_start.dim() != 1)
    throw shape_error(detail::concat("episode_lengths: episode_start needs the shape [n], got ",
                                     detail::shape_text(episode_start.sizes())));
  const at::Tensor first = episode_start.to(at::kCPU, at::kBool).contiguous();
  const auto* begins = static_cast<const bool*>(first.data_ptr());
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < first.numel(); ++i) {
    if (begins[i])
      lengths.push_back(0);
    else if (i == 0)
      throw config_error(
          "episode_lengths: step 0 must be marked as the first step of an episode; if "
          "the flags mark last steps, shift them by one");
    ++lengths.back();
  }
  return at::tensor(lengths, at::TensorOptions().dtype(at::kLong));
}

/// Draws sequences of L steps from consecutive episodes, for recurrent policies. A sequence never
/// crosses the end of an episode, and every possible start is equally likely.
///
///     sequences{episode_lengths(episode_start), {.length = 32}}
///
/// Without `pad`, a start needs L - 1 more steps in its episode, so episodes shorter than L are
/// never drawn. With `pad`, a sequence may start at every step. After the end of the episode the
/// mask is 0 and the index stays at the last step. Padding makes the ends of episodes as likely as
/// the other steps. Without padding, a step is in up to L sequences, but the first and last L - 1
/// steps of an episode are in fewer.
///
/// A draw has indices [L, n], episode_start [L, n], and with `pad` a mask [L, n]. It costs O(log E)
/// per sequence for E episodes.
class sequences {
 public:
  /// `lengths` [E], int64, holds the number of steps of each episode in stored order. Throws
  /// config_error if the length of an episode or of a sequence is below 1.
  explicit sequences(const at::Tensor& lengths, sequences_options options = {})
      : length_(options.length), pad_(options.pad), random_(options.seed) {
    if (length_ < 1)
      throw config_error(detail::concat("sequences: length must be at least 1, got ", length_));
    push(lengths);
  }

  /// Adds episodes at the end. On any exception nothing changes.
  void push(const at::Tensor& lengths) {
    if (lengths.dim() != 1 || lengths.scalar_type() != at::kLong)
      throw shape_error(detail::concat("sequences: the episodes' lengths must be int64 [E], got ",
                                       lengths.dtype(), ' ', detail::shape_text(lengths.sizes())));
    const at::Tensor flat = lengths.to(at::kCPU).contiguous();
    const auto* length = static_cast<const std::int64_t*>(flat.data_ptr());
    std::int64_t total = size();
    for (std::int64_t e = 0; e < flat.numel(); ++e) {
      check_episode(e, total, length[e]);
      total += length[e];
    }
    detail::make_room(starts_, static_cast<std::size_t>(flat.numel()));
    detail::make_room(steps_, static_cast<std::size_t>(flat.numel()));
    for (std::int64_t e = 0; e < flat.numel(); ++e) {
      starts_.push_back(starts_.back() +
                        (pad_ ? length[e] : std::max<std::int64_t>(0, length[e] - length_ + 1)));
      steps_.push_back(steps_.back() + length[e]);
    }
  }

  /// Draws n sequences. Throws config_error if no episode is long enough or if the sequences do not
  /// fit into memory.
  drawn sample(std::int64_t n) {
    if (starts() == 0 && size() > 0)
      throw config_error(detail::concat("sequences: no episode has ", length_,
                                        " steps: draw shorter sequences, or set pad"));
    detail::check_draw("sequences", n, starts());
    if (n > detail::most_items / length_)
      throw config_error(detail::concat("sequences: cannot draw ", n, " sequences of ", length_,
                                        " steps at once"));
    const detail::index_buffer indices("sequences", length_ * n);
    const auto [starts_here, mask] = detail::allocated(
        [&] {
          auto zeros = at::zeros({length_, n}, at::TensorOptions().dtype(at::kBool));
          auto ones = at::ones_like(zeros);
          return std::pair(std::move(zeros), std::move(ones));
        },
        "sequences: there is no room for ", n, " sequences of ", length_, " steps");
    auto *begins = static_cast<bool*>(starts_here.data_ptr()),
         *counts = static_cast<bool*>(mask.data_ptr());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t start = random_.index(starts());
      const auto episode = static_cast<std::size_t>(
          std::upper_bound(starts_.begin(), starts_.end(), start) - starts_.begin() - 1);
      const std::int64_t offset = start - starts_[episode],
                         left = steps_[episode + 1] - steps_[episode] - offset;
      begins[i] = offset == 0;
      for (std::int64_t t = 0; t < length_; ++t) {
        indices.data[t * n + i] = steps_[episode] + offset + std::min(t, left - 1);
        counts[t * n + i] = t < left;
      }
    }
    return {indices.tensor.view({length_, n}), {}, pad_ ? mask : at::Tensor(), starts_here};
  }

  std::int64_t size() const { return steps_.back(); }  ///< number of steps in all episodes
  /// number of steps where a sequence may begin
  std::int64_t starts() const { return starts_.back(); }
  std::int64_t length() const { return length_; }  ///< L

  /// Saves the episodes and the generator. The state does not hold length and padding; the caller
  /// sets them in the constructor.
  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "steps", at::tensor(steps_, at::TensorOptions().dtype(at::kLong)));
    out.set(prefix + "random", random_.state());
  }
  /// Throws state_error, and changes nothing, if the saved numbers of steps do not describe valid
  /// episodes.
  void load_state(const state& in, const std::string& prefix) {
    const std::string key = prefix + "steps";
    const at::Tensor ends = detail::saved_list(in, key, at::kLong);
    const auto* end = static_cast<const std::int64_t*>(ends.data_ptr());
    if (ends.numel() < 1 || end[0] != 0)
      throw state_error(detail::concat(
          "the state's '", key, "' must begin with 0: the state was saved from another object"));
    detail::check_saved(key, [&] {
      // A negative end is an error too. max() keeps the difference from overflowing.
      for (std::int64_t e = 0; e + 1 < ends.numel(); ++e)
        check_episode(e, end[e], std::max<std::int64_t>(0, end[e + 1]) - end[e]);
    });
    sequences loaded(at::diff(ends), {.length = length_, .pad = pad_});
    loaded.random_.set_state(in.integer<std::uint64_t>(prefix + "random"));
    *this = std::move(loaded);
  }

 private:
  static void check_episode(std::int64_t e, std::int64_t before, std::int64_t length) {
    if (length < 1)
      throw config_error(detail::concat("sequences: episode ", e, " has ", length,
                                        " steps; leave empty episodes out"));
    detail::check_items("sequences", before, length);
  }

  std::int64_t length_;
  bool pad_;
  detail::splitmix64 random_;
  // Sums over all episodes before the e-th episode.
  detail::self_movable<std::vector<std::int64_t>> starts_{0}, steps_{0};
};

}  // namespace retain
