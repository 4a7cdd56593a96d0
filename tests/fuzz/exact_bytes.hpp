// SPDX-License-Identifier: MIT
#pragma once

#include "fuzz.hpp"

#include <cstdint>

namespace fuzz {

/// Of exactly so many bytes, so that the address sanitizer sees one too many.
class exact_bytes {
 public:
  explicit exact_bytes(std::string_view bytes) : bytes_(bytes.begin(), bytes.end()) {}
  std::uint64_t size() const { return bytes_.size(); }
  std::string_view view(std::uint64_t offset, std::size_t count) const {
    require(offset <= bytes_.size() && count <= bytes_.size() - offset,
            "only what is there is asked for");
    return {bytes_.data() + offset, count};
  }

 private:
  std::vector<char> bytes_;
};

}  // namespace fuzz
