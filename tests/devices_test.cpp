// SPDX-License-Identifier: MIT
// Masks, weights, gates and targets on another device than the student's. The meta device, which
// holds shapes and no numbers, stands for any other: an operation on tensors of two devices throws
// there as everywhere.
#include <retain/behavioral_cloning.hpp>
#include <retain/dark_experience_replay.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/entropy_gate.hpp>
#include <retain/kickstarting.hpp>
#include <retain/loss/negative_log_likelihood.hpp>
#include <retain/masked_categorical.hpp>
#include <retain/multi_discrete.hpp>
#include <retain/policy/recurrent_core.hpp>
#include <retain/policy/select_head.hpp>
#include <retain/reference_kl.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/tanh_gaussian.hpp>

#include "support.hpp"

namespace devices_test {

using retain::categorical;

namespace {

const at::Device elsewhere = at::kMeta;

at::Tensor moved(const at::Tensor& x) { return x.to(elsewhere); }
const auto student = [](const at::Tensor& x) { return categorical{moved(x)}; };
const auto masking_student = [](const at::Tensor& x) {
  return retain::masked{categorical{moved(x)},
                        torch::ones(x.sizes().slice(0, static_cast<std::size_t>(x.dim() - 1)))};
};
const auto teacher = [](const at::Tensor& x) { return categorical{x * 2}; };
const auto masking_teacher = [](const at::Tensor& x) {
  return retain::masked{categorical{x * 2}, torch::ones({x.size(0)}, at::kBool)};
};

struct rollout {
  at::Tensor observations = torch::randn({5, 3}), actions = torch::randint(0, 3, {5}, at::kLong),
             mask = torch::ones({5}), weights = torch::rand({5});
};
struct stored_rollout : rollout {
  at::Tensor reference_log_probs = torch::randn({5});
};

bool there(const at::Tensor& loss) { return loss.device() == elsewhere && loss.dim() == 0; }

}  // namespace

TEST_CASE(
    "devices: kickstarting takes masks, weights, gates and the teacher's answers to the student",
    "[devices]") {
  CHECK(there(retain::kickstarting{teacher}.loss(student, rollout{})));
  CHECK(there(retain::kickstarting{masking_teacher}.loss(masking_student, rollout{})));
  CHECK(there(retain::kickstarting{
      teacher, {.direction = retain::divergence::student_teacher}, retain::entropy_gate{0.5}}
                  .loss(masking_student, rollout{})));
}

TEST_CASE("devices: behavioral_cloning takes stored logits, a teacher's answers and labels to the "
          "student",
          "[devices]") {
  const auto states = torch::randn({6, 3});
  using retain::behavioral_cloning;
  CHECK(there(behavioral_cloning{states, torch::randn({6, 3}), {.batch_size = 4}}.loss(student)));
  CHECK(there(behavioral_cloning{states, teacher, {.batch_size = 4}}.loss(masking_student)));
  CHECK(there(behavioral_cloning{
      states, masking_teacher, {.batch_size = 4, .direction = retain::divergence::student_teacher}}
                  .loss(masking_student)));
  const auto actions = torch::randint(0, 3, {6}, at::kLong);
  CHECK(there(behavioral_cloning{states, retain::expert_actions{actions}, {.batch_size = 4}}.loss(
      masking_student)));
}

TEST_CASE("devices: dark_experience_replay takes stored logits and labels to the student",
          "[devices]") {
  retain::dark_experience_replay keep{{.label_strength = 0.5, .batch_size = 4}};
  keep.push(torch::randn({6, 3}), torch::randn({6, 3}), torch::randint(0, 3, {6}, at::kLong));
  CHECK(there(keep.loss(student)));
  CHECK(there(keep.loss(masking_student)));
}

TEST_CASE("devices: reference_kl takes the reference's log-probabilities and masks to the student",
          "[devices]") {
  CHECK(there(retain::reference_kl{teacher}.loss(student, rollout{})));
  CHECK(there(retain::reference_kl{masking_teacher, {.estimator = retain::kl_estimator::k3}}.loss(
      masking_student, rollout{})));
  CHECK(there(
      retain::reference_kl{retain::stored_reference{}}.loss(masking_student, stored_rollout{})));
}

TEST_CASE("devices: negative_log_likelihood takes mask and actions to the policy", "[devices]") {
  const auto x = torch::randn({5, 3});
  const auto mask = torch::ones({5});
  CHECK(
      there(retain::negative_log_likelihood(retain::masked{categorical{moved(x)}, mask},
                                            torch::zeros({5}, at::kLong), {.label_smoothing = 0.1})
                .loss));
  CHECK(there(retain::negative_log_likelihood(
                  retain::masked{retain::diagonal_gaussian{moved(x), moved(x)}, mask}, x)
                  .loss));
}

TEST_CASE("devices: each distribution takes masks and actions to its own, and can be moved",
          "[devices]") {
  const auto x = torch::randn({5, 4}), mask = torch::ones({5});
  const auto check = [&](const auto& d, const at::Tensor& actions) {
    CHECK(d.where(mask).device() == elsewhere);
    CHECK(d.where(moved(mask)).device() == elsewhere);
    CHECK(d.log_prob(actions).device() == elsewhere);
  };
  const auto y = moved(x);
  check(categorical{y}, torch::zeros({5}, at::kLong));
  check(retain::masked_categorical(y, torch::ones({5, 4})), torch::zeros({5}, at::kLong));
  check(retain::multi_discrete{y, {2, 2}}, torch::zeros({5, 2}, at::kLong));
  check(retain::diagonal_gaussian{y, y}, x);
  // LibTorch 1.13 has no log-sigmoid there
  CHECK(retain::tanh_gaussian{y, y}.where(mask).unsquashed().mean().device() == elsewhere);
  CHECK(kl(categorical{x}.to(elsewhere), categorical{y}).device() == elsewhere);
  CHECK(kl(retain::multi_discrete{x, {2, 2}}.to(elsewhere), retain::multi_discrete{y, {2, 2}})
            .device() == elsewhere);
  CHECK(kl(retain::tanh_gaussian{x, x}.to(elsewhere), retain::tanh_gaussian{y, y}).device() ==
        elsewhere);
  const categorical stays{x};
  CHECK(stays.to(at::kCPU).logits.is_same(x));
  CHECK(retain::select_head(y, 2, torch::zeros({5}, at::kLong)).device() == elsewhere);
}

}  // namespace devices_test
