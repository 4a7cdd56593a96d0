// SPDX-License-Identifier: MIT
#include <retain/policy/recurrent_core.hpp>

#include <cmath>
#include <memory>
#include <vector>

#include "support.hpp"

namespace policy_recurrent_core_test {

using retain::core_kind;
using retain::recurrent_core;

namespace {

/// LibTorch's own network with the core's weights.
template <class Net>
Net with_weights_of(const recurrent_core& core, Net net) {
  net->to(at::kDouble);
  const torch::NoGradGuard no_grad;
  // input.weight, input.bias, hidden.weight, hidden.bias
  const auto parameters = core->parameters();
  auto own = net->named_parameters();
  own["weight_ih_l0"].copy_(parameters[0]);
  own["bias_ih_l0"].copy_(parameters[1]);
  own["weight_hh_l0"].copy_(parameters[2]);
  own["bias_hh_l0"].copy_(parameters[3]);
  return net;
}

recurrent_core made(core_kind kind) {
  recurrent_core core(kind, 3, 5);
  core->to(at::kDouble);
  return core;
}

}  // namespace

TEST_CASE("recurrent_core: it is LibTorch's GRU and LSTM, values and gradients",
          "[recurrent_core]") {
  torch::manual_seed(1);
  const auto x = torch::randn({7, 4, 3}, at::kDouble), h = torch::randn({4, 5}, at::kDouble),
             c = torch::randn({4, 5}, at::kDouble);
  const auto weight = torch::randn({7, 4, 5}, at::kDouble);

  auto core = made(core_kind::gru);
  auto gru = with_weights_of(core, torch::nn::GRU(3, 5));
  const auto [ours, state] = core(x, h);
  const auto [theirs, their_h] = gru(x, h.unsqueeze(0));
  CHECK(at::allclose(ours, theirs, 1e-12));
  CHECK(at::allclose(state, their_h.squeeze(0), 1e-12));
  (ours * weight).sum().backward();
  (theirs * weight).sum().backward();
  CHECK(at::allclose(core->parameters()[2].grad(), gru->named_parameters()["weight_hh_l0"].grad(),
                     1e-10));

  auto memory = made(core_kind::lstm);
  auto lstm = with_weights_of(memory, torch::nn::LSTM(3, 5));
  const auto [out, both] = memory(x, at::cat({h, c}, 1));
  const auto [their_out, their_state] = lstm(x, std::make_tuple(h.unsqueeze(0), c.unsqueeze(0)));
  CHECK(at::allclose(out, their_out, 1e-12));
  CHECK(at::allclose(
      both, at::cat({std::get<0>(their_state).squeeze(0), std::get<1>(their_state).squeeze(0)}, 1),
      1e-12));
  (out * weight).sum().backward();
  (their_out * weight).sum().backward();
  CHECK(at::allclose(memory->parameters()[0].grad(),
                     lstm->named_parameters()["weight_ih_l0"].grad(), 1e-10));
}

TEST_CASE("recurrent_core: a sequence is its steps, and episode_start resets the state before the "
          "step it marks",
          "[recurrent_core]") {
  torch::manual_seed(2);
  for (const auto kind : {core_kind::gru, core_kind::lstm}) {
    auto core = made(kind);
    const auto x = torch::randn({6, 3, 3}, at::kDouble);
    auto episode_start = torch::zeros({6, 3});
    episode_start[0][0] = episode_start[3][0] = episode_start[2][1] = 1;
    auto begin = torch::randn({3, core->state_width()}, at::kDouble);
    begin[0].fill_(std::nan(""));  // reset at once
    const auto [whole, last] = core(x, begin, episode_start);
    auto state = begin;
    for (std::int64_t t = 0; t < 6; ++t) {
      const auto [step, next] = core(x[t], state, episode_start[t].to(at::kBool));
      CHECK(at::allclose(step, whole[t], 1e-12));
      state = next;
    }
    CHECK(at::allclose(state, last, 1e-12));

    // The first game's second episode, from step 3 on, is that of a new game; the third game was
    // never reset.
    const auto fresh = std::get<0>(core(x.narrow(0, 3, 3).narrow(1, 0, 1)));
    CHECK(at::allclose(whole.narrow(0, 3, 3).narrow(1, 0, 1), fresh, 1e-12));
    const auto alone = std::get<0>(core(x.narrow(1, 2, 1), begin.narrow(0, 2, 1)));
    CHECK(at::allclose(whole.narrow(1, 2, 1), alone, 1e-12));
  }
}

TEST_CASE("recurrent_core: a forgetting bias of 1, no steps, a copy, and what does not fit",
          "[recurrent_core]") {
  torch::manual_seed(3);
  recurrent_core memory(core_kind::lstm, 3, 50);
  CHECK(memory->parameters()[3].narrow(0, 50, 50).mean().item<double>() == Approx(1).margin(0.1));
  auto core = made(core_kind::gru);
  const auto [none, state] =
      core(torch::zeros({0, 2, 3}, at::kDouble), torch::ones({2, 5}, at::kDouble));
  CHECK(none.sizes() == at::IntArrayRef({0, 2, 5}));
  CHECK(state.equal(torch::ones({2, 5}, at::kDouble)));
  const auto x = torch::randn({4, 2, 3}, at::kDouble);
  CHECK(
      std::get<0>(std::dynamic_pointer_cast<retain::recurrent_core_net>(core->clone())->forward(x))
          .equal(std::get<0>(core(x))));
  CHECK_THROWS_WITH(core(torch::zeros({2, 4}, at::kDouble)), ContainsSubstring("[2, 4]"));
  CHECK_THROWS_WITH(core(x, torch::zeros({3, 5}, at::kDouble)),
                    ContainsSubstring("[2, 5]") && ContainsSubstring("[3, 5]"));
  CHECK_THROWS_WITH(core(x, at::Tensor(), torch::zeros({2})),
                    ContainsSubstring("episode_start of shape [2]"));
  CHECK_THROWS_AS(recurrent_core(core_kind::none, 3, 3), retain::config_error);
}

}  // namespace policy_recurrent_core_test
