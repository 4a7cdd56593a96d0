// SPDX-License-Identifier: MIT
// Benchmarks of drawing batches from memories of up to ten million items.
#include "subject.hpp"

#include <retain/replay/prioritized.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/transitions.hpp>
#include <retain/replay/uniform.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kernels {
namespace {

constexpr std::int64_t items = 10'000'000, batch = 4096;

/// Copies random rows of 256 floats. The traffic is one read of the rows, one read of the target
/// cache lines, and one write.
subject gather() {
  static constexpr std::int64_t width = 256, stored = 1'000'000;
  return {
      .group = "replay",
      .name = "draw 4096 rows of 1 KiB out of 1M, uniform, and copy them",
      .limited_by = bound::memory,
      .work = 12.0 * batch * width,
      .prepare = [](at::Device) {
        const auto memory = std::make_shared<at::Tensor>(at::empty({stored, width}).uniform_());
        const auto sampler = std::make_shared<retain::uniform>(stored);
        return prepared{
            .run = [=] { retain::detail::gather_rows(*memory, sampler->sample(batch).indices); },
            .usual = way{"LibTorch's randint and indexing",
                         [=] { memory->index({at::randint(stored, {batch}, at::kLong)}); }}};
      }};
}

subject prioritized() {
  return {.group = "replay",
          .name = "prioritized: draw 4096 of 10M",
          .prepare =
              [](at::Device) {
                const auto sampler = std::make_shared<retain::prioritized>(items);
                const auto priorities = std::make_shared<at::Tensor>(at::rand({items}));
                sampler->update(at::arange(items), *priorities);
                return prepared{.run = [=] { sampler->sample(batch); },
                                .usual = way{"prefix sums of all and a search", [=] {
                                               const auto sums = priorities->pow(0.6).cumsum(0);
                                               at::searchsorted(
                                                   sums, at::rand({batch}) * sums[items - 1]);
                                             }}};
              },
          .one_thread_only = true};
}

subject prioritized_update() {
  return {.group = "replay",
          .name = "prioritized: 4096 new priorities among 10M",
          .prepare =
              [](at::Device) {
                const auto sampler = std::make_shared<retain::prioritized>(items);
                const auto indices = at::randint(items, {batch}, at::kLong),
                           values = at::rand({batch});
                return prepared{.run = [=] { sampler->update(indices, values); }};
              },
          .one_thread_only = true};
}

subject stratified() {
  return {.group = "replay",
          .name = "stratified: draw 4096 of 10M in 50 strata",
          .prepare =
              [](at::Device) {
                const auto keys = std::make_shared<at::Tensor>(at::randint(50, {items}, at::kLong));
                const auto sampler = std::make_shared<retain::stratified>(*keys);
                return prepared{
                    .run = [=] { sampler->sample(batch); },
                    .usual = way{"one mask per stratum", [=] {
                                   for (std::int64_t k = 0; k < 50; ++k) {
                                     const auto members = (*keys == k).nonzero().squeeze(1);
                                     members.index_select(
                                         0, at::randint(members.size(0), {batch / 50}, at::kLong));
                                   }
                                 }}};
              },
          .one_thread_only = true};
}

subject growth() {
  return {.group = "replay",
          .name = "prioritized: draw 4096 of 10k, for comparison",
          .prepare =
              [](at::Device) {
                const auto sampler = std::make_shared<retain::prioritized>(10'000);
                sampler->update(at::arange(10'000), at::rand({10'000}));
                return prepared{.run = [=] { sampler->sample(batch); }};
              },
          .one_thread_only = true};
}

}  // namespace

std::vector<subject> replay_memories() {
  return {gather(), prioritized(), growth(), prioritized_update(), stratified()};
}

}  // namespace kernels
