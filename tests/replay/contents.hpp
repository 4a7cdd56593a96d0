// SPDX-License-Identifier: MIT
// All that a memory saves, to be compared and changed number by number.
#pragma once

#include <retain/state.hpp>

#include <map>
#include <string>

#include "support.hpp"

struct contents {
  std::map<std::string, std::string> texts;
  std::map<std::string, at::Tensor> tensors;

  template <class Memory>
  static contents of(const Memory& memory) {
    retain::state saved;
    memory.save_state(saved, "m.");
    contents all;
    for (const auto& key : saved.tensor_keys()) all.tensors[key] = saved.tensor(key).clone();
    for (const auto& key : saved.unread()) all.texts[key] = saved.text(key);
    return all;
  }

  retain::state as_state() const {
    retain::state result;
    for (const auto& [key, text] : texts) result.set(key, text);
    for (const auto& [key, tensor] : tensors) result.set(key, tensor);
    return result;
  }

  bool operator==(const contents& other) const {
    if (texts != other.texts || tensors.size() != other.tensors.size()) return false;
    for (const auto& [key, tensor] : tensors) {
      const auto found = other.tensors.find(key);
      if (found == other.tensors.end() || found->second.scalar_type() != tensor.scalar_type() ||
          !found->second.equal(tensor))
        return false;
    }
    return true;
  }
};
