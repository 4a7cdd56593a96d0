// SPDX-License-Identifier: MIT
// Divides batches among shares so that, over many batches, every share gets its exact part.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace retain::detail {

/// Throws config_error for a credit that cannot occur with `shares` shares. After a batch, the
/// credits of the shares in the batch differ by at most 1, and their mean does not change.
/// Therefore no share is ever owed as many items as there are shares.
inline void check_credit(const char* what, double credit, std::size_t shares) {
  if (!(std::abs(credit) <= static_cast<double>(shares) + 1))
    throw config_error(concat(what, ": a remainder of ", credit, " items is not possible with ",
                              shares, " shares"));
}

/// Divides `n` items among `shares` (not negative, sum 1). Each share first gets the whole part of
/// its items; the largest remainders get the rest. `credit` carries the fraction that a share is
/// owed (or has received in excess) to the next batch. A share of 0 gets nothing. The cost is O(K
/// log K) for K shares plus at most n steps, whatever the credits.
inline std::vector<std::int64_t> apportion(std::int64_t n, std::span<const double> shares,
                                           std::span<double> credit) {
  std::vector<std::int64_t> counts(shares.size());
  std::vector<std::size_t> order;
  order.reserve(shares.size());  // allocate before the first credit changes
  std::int64_t left = n;
  for (std::size_t k = 0; k < shares.size(); ++k) {
    if (!(shares[k] > 0)) continue;
    order.push_back(k);
    credit[k] += static_cast<double>(n) * shares[k];
    counts[k] = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(credit[k])));
    credit[k] -= static_cast<double>(counts[k]);
    left -= counts[k];
  }
  // Because of the carried credits, the whole parts may sum to more than n.
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return credit[a] > credit[b]; });
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) {
    ++counts[order[i]];
    credit[order[i]] -= 1;
  }
  // Take back whole rounds at once: the surplus may be large if shares were added or removed.
  if (left < 0) {
    const auto taken = [&](std::int64_t rounds) {
      std::int64_t sum = 0;
      for (const auto k : order) sum += std::min(counts[k], rounds);
      return sum;
    };
    std::int64_t rounds = 0;
    for (std::int64_t more = -left; rounds < more;) {
      const std::int64_t middle = more - (more - rounds) / 2;
      if (taken(middle) <= -left)
        rounds = middle;
      else
        more = middle - 1;
    }
    for (const auto k : order) {
      const std::int64_t back = std::min(counts[k], rounds);
      counts[k] -= back;
      credit[k] += static_cast<double>(back);
      left += back;
    }
  }
  for (std::size_t i = order.size(); left < 0; i = i > 0 ? i : order.size()) {
    const std::size_t k = order[--i];
    if (counts[k] == 0) continue;
    --counts[k];
    credit[k] += 1;
    ++left;
  }
  return counts;
}

}  // namespace retain::detail
