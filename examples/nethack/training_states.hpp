// SPDX-License-Identifier: MIT
// Demonstrations as the input of a network.
#pragma once

#include "memory.hpp"
#include "policy.hpp"

#include <cstdint>
#include <cstring>
#include <vector>

namespace nethack {

/// Encoded states with the action that the player wanted in each state.
struct training_states {
  at::Tensor observations;  ///< uint8 [n, sizeof(features)]
  at::Tensor actions;       ///< int64 [n], indices of small_actions
  std::int64_t games = 0;

  std::int64_t size() const { return observations.defined() ? observations.size(0) : 0; }
  const features& at(std::int64_t i) const { return as_features(observations)[i]; }
};

/// Encodes games key by key, with the memory that an agent would have.
class state_collector {
 public:
  explicit state_collector(feature_options options = {}, std::size_t expected = 0)
      : options_(options) {
    records_.reserve(expected);
    actions_.reserve(expected);
  }

  void begin_game() {
    mind_.reset();
    last_ = memory::no_action;
    beginning_ = true;
    ++games_;
  }
  /// Adds a screen, the key that the player wanted, and the key that was sent. The two keys differ
  /// if the recording replaced the move. A key outside small_actions is remembered as an escape and
  /// not learned.
  void add(const observation& seen, key wanted, key pressed) {
    mind_.observe(seen, last_);
    if (const int action = small_action_of(wanted); action >= 0) {
      records_.push_back(encode(seen, mind_, options_));
      records_.back().first = beginning_;
      beginning_ = false;
      actions_.push_back(action);
    }
    last_ = small_action_of(pressed);
    if (last_ < 0) last_ = small_action_of(keys::escape);
  }

  std::size_t size() const { return records_.size(); }
  training_states take() {
    training_states states{to_tensor(records_), at::tensor(actions_, at::kLong), games_};
    *this = state_collector(options_);
    return states;
  }

 private:
  feature_options options_;
  memory mind_;
  int last_ = memory::no_action;
  bool beginning_ = true;
  std::int64_t games_ = 0;
  std::vector<features> records_;
  std::vector<std::int64_t> actions_;
};

}  // namespace nethack
