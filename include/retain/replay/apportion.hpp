// SPDX-License-Identifier: MIT
// How many of a batch each of several shares gets, so that the shares come out exactly over many
// batches.
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

/// Throws config_error for a credit that no division among `shares` shares leaves. After one, those
/// that took part lie within 1 of one another and have the mean that they had; so none is ever owed
/// as many items as there are shares, whichever take part in which batch.
inline void check_credit(const char* what, double credit, std::size_t shares) {
  if (!(std::abs(credit) <= static_cast<double>(shares) + 1))
    throw config_error(
        concat(what, ": a remainder of ", credit, " items is no remainder of ", shares, " shares"));
}

/// `n` divided by `shares` (not negative, sum 1): whole parts first, the rest to the largest
/// remainders. What each is owed or has had too much is carried in `credit` to the next batch. A
/// share of 0 gets nothing. O(K log K) for K shares, whatever the credit, and n at most.
inline std::vector<std::int64_t> apportion(std::int64_t n, std::span<const double> shares,
                                           std::span<double> credit) {
  std::vector<std::int64_t> counts(shares.size());
  std::vector<std::size_t> order;
  order.reserve(shares.size());  // nothing fails once a credit has changed
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
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return credit[a] > credit[b]; });
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) {
    ++counts[order[i]];
    credit[order[i]] -= 1;
  }
  // Whole rounds are taken back at once: much may be owed where shares have come and gone.
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
