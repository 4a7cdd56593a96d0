// SPDX-License-Identifier: MIT
// How many of a batch each of several shares gets, so that the shares come out exactly over many batches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace retain::detail {

/// `n` divided by `shares` (not negative, sum 1): whole parts first, the rest to the largest remainders. What each is owed or has had too
/// much is carried in `credit` to the next batch. A share of 0 gets nothing.
inline std::vector<std::int64_t> apportion(std::int64_t n, const std::vector<double>& shares, std::vector<double>& credit) {
  std::vector<std::int64_t> counts(shares.size());
  std::vector<std::size_t> order;
  std::int64_t left = n;
  for (std::size_t k = 0; k < shares.size(); ++k) {
    if (!(shares[k] > 0)) continue;
    order.push_back(k);
    credit[k] += static_cast<double>(n) * shares[k];
    counts[k] = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(credit[k])));
    credit[k] -= static_cast<double>(counts[k]);
    left -= counts[k];
  }
  // The carried credits may have made the whole parts too many by a few.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return credit[a] > credit[b]; });
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) {
    ++counts[order[i]];
    credit[order[i]] -= 1;
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
