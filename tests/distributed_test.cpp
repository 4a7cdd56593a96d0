// SPDX-License-Identifier: MIT
// Estimates and gradients over processes: in threads with a group of the test's own, which shows
// the arithmetic and the errors, and in real processes over Gloo where its headers are installed.
#include <retain/distributed.hpp>
#include <retain/ewc.hpp>
#include <retain/memory_aware_synapses.hpp>

#include "support.hpp"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace distributed_test {

using Catch::Matchers::Contains;

namespace {

/// What the threads of a group share: a place for one tensor of each rank.
struct meeting {
  explicit meeting(int size) : tensors(static_cast<std::size_t>(size)) {}
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<at::Tensor> tensors;
  int arrived = 0, round = 0;
  bool dead = false;

  /// Waits for all ranks and returns what they brought.
  std::vector<at::Tensor> exchange(int rank, const at::Tensor& mine) {
    std::unique_lock lock(mutex);
    tensors[static_cast<std::size_t>(rank)] = mine.clone();
    const int now = round;
    if (++arrived == static_cast<int>(tensors.size())) {
      arrived = 0;
      ++round;
      published = tensors;
      changed.notify_all();
    } else {
      changed.wait(lock, [&] { return round != now || dead; });
      if (round == now) throw std::runtime_error("Connection closed by peer\nmore of it");
    }
    return published;
  }
  std::vector<at::Tensor> published;
};

/// A group of threads with the calls of c10d.
struct thread_group {
  struct work {
    void wait() {}
  };
  meeting* all;
  int rank;
  int getRank() const { return rank; }
  int getSize() const { return static_cast<int>(all->tensors.size()); }
  std::shared_ptr<work> allreduce(std::vector<at::Tensor>& tensors) {
    auto sum = at::zeros_like(tensors[0]);
    for (const auto& each : all->exchange(rank, tensors[0])) sum += each;
    tensors[0].copy_(sum);
    return std::make_shared<work>();
  }
  std::shared_ptr<work> allgather(std::vector<std::vector<at::Tensor>>& gathered,
                                  std::vector<at::Tensor>& tensors) {
    const auto brought = all->exchange(rank, tensors[0]);
    for (std::size_t i = 0; i < brought.size(); ++i) {
      if (brought[i].sizes() != gathered[0][i].sizes()) throw std::runtime_error("other sizes");
      gathered[0][i].copy_(brought[i]);
    }
    return std::make_shared<work>();
  }
};
static_assert(retain::process_group<thread_group>);
static_assert(!retain::process_group<meeting>);

/// Runs body(group) on every rank, each in a thread. Returns the errors by rank, "" for none.
std::vector<std::string> on_ranks(int size, const std::function<void(thread_group&)>& body) {
  meeting all(size);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      thread_group group{&all, rank};
      try {
        body(group);
      } catch (const retain::error& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return errors;
}
const std::vector<std::string> none2{"", ""}, none4{"", "", "", ""};

struct linear_policy {
  at::Tensor weight, bias;
  retain::parameter_list named() const { return {{"weight", weight}, {"bias", bias}}; }
  retain::categorical operator()(const at::Tensor& o) const {
    return retain::categorical{at::linear(o, weight, bias)};
  }
};
linear_policy policy(at::ScalarType type = at::kFloat) {
  torch::manual_seed(5);
  return {torch::randn({3, 4}, type).requires_grad_(), torch::randn({3}, type).requires_grad_()};
}

}  // namespace

TEST_CASE("distributed: the Fisher over ranks is that over the union of their states",
          "[distributed]") {
  const auto net = policy(at::kDouble);
  const auto states = torch::randn({60, 4}, at::kDouble);
  const auto whole = retain::estimate_fisher(net.named(), states, net, retain::exact_actions{});
  // ranks with 7, 0, 23 and 30 states
  const std::vector<std::int64_t> begins{0, 7, 7, 30, 60};
  std::vector<retain::fisher> results(4);
  CHECK(on_ranks(4, [&](thread_group& group) {
          const auto rank = static_cast<std::size_t>(group.rank);
          const auto mine = states.slice(0, begins[rank], begins[rank + 1]);
          retain::fisher part;
          if (mine.size(0) > 0)
            part = retain::estimate_fisher(net.named(), mine, net, retain::exact_actions{});
          results[rank] = retain::all_reduce(part, group);
        }) == none4);
  for (const auto& result : results) {
    CHECK(result.states == 60);
    CHECK(result.actions == "exact");
    CHECK((result.paths == whole.paths));
    REQUIRE(result.values.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(result.values[i].name == whole.values[i].name);
      CHECK(torch::allclose(result.values[i].tensor, whole.values[i].tensor, 1e-12, 0));
      CHECK(torch::equal(result.values[i].tensor, results[0].values[i].tensor));  // same bits
    }
  }
}

TEST_CASE("distributed: a Fisher keeps its type, its exclusions and the path of most states",
          "[distributed]") {
  std::vector<retain::fisher> results(2);
  CHECK(on_ranks(2, [&](thread_group& group) {
          const bool first = group.rank == 0;
          retain::fisher mine;
          mine.values = {{"w", at::full({2}, first ? 1.f : 4.f)}, {"v", at::full({1}, 2.f)}};
          mine.states = first ? 1 : 2;
          mine.actions = "sampled";
          mine.exclude = {"critic", "value_head.*"};
          mine.unsliced = first ? 3 : 4;
          mine.paths = {
              {"w", first ? retain::fisher_path::batched : retain::fisher_path::per_sample},
              {"v", first ? retain::fisher_path::batched : retain::fisher_path::unused}};
          results[static_cast<std::size_t>(group.rank)] = retain::all_reduce(mine, group);
        }) == none2);
  for (const auto& result : results) {
    CHECK(result.values[0].tensor.scalar_type() == at::kFloat);
    CHECK(torch::equal(result.values[0].tensor, at::full({2}, 3.f)));  // (1 * 1 + 2 * 4) / 3
    CHECK(result.exclude == std::vector<std::string>{"critic", "value_head.*"});
    CHECK(result.unsliced == 7);
    CHECK(result.states == 3);
    CHECK((result.paths.at("w") == retain::fisher_path::per_sample));
    CHECK((result.paths.at("v") == retain::fisher_path::batched));
  }
}

TEST_CASE("distributed: what does not fit together is the same error on every rank",
          "[distributed]") {
  const auto fisher_of = [](std::vector<std::int64_t> sizes, std::string actions = "exact") {
    retain::fisher made;
    made.values = {{"body", at::ones({2})}, {"head.weight", at::ones(sizes)}};
    made.states = 5;
    made.actions = std::move(actions);
    return made;
  };
  auto errors = on_ranks(4, [&](thread_group& group) {
    (void)retain::all_reduce(fisher_of({group.rank == 2 ? 6 : 4, 8}), group);
  });
  for (const auto& error : errors)
    CHECK_THAT(error, Contains("rank 2 has 'head.weight' [6, 8] of type Float, where rank 0 has "
                               "'head.weight' [4, 8] of type Float"));
  errors = on_ranks(2, [&](thread_group& group) {
    (void)retain::all_reduce(fisher_of({4}, group.rank == 1 ? "sampled" : "exact"), group);
  });
  for (const auto& error : errors)
    CHECK_THAT(error, Contains("rank 1 has the settings 'sampled actions") &&
                          Contains("where rank 0 has the settings 'exact actions"));
  errors = on_ranks(2, [&](thread_group& group) {
    auto mine = fisher_of({4});
    if (group.rank == 1) mine.values.pop_back();
    (void)retain::all_reduce(mine, group);
  });
  for (const auto& error : errors)
    CHECK_THAT(error, Contains("rank 1 has nothing, where rank 0 has 'head.weight' [4]"));
  errors =
      on_ranks(2, [&](thread_group& group) { (void)retain::all_reduce(retain::fisher{}, group); });
  for (const auto& error : errors) CHECK_THAT(error, Contains("no rank has states"));
}

TEST_CASE("distributed: a rank that dies is an error that names who waited", "[distributed]") {
  meeting all(2);
  all.dead = true;
  thread_group group{&all, 1};
  retain::fisher mine;
  mine.values = {{"w", at::ones({2})}};
  mine.states = 1;
  CHECK_THROWS_MATCHES(retain::all_reduce(mine, group), retain::state_error,
                       Catch::Matchers::Predicate<retain::state_error>([](const auto& error) {
                         const std::string text = error.what();
                         return text.find("all_reduce of a fisher: rank 1 of 2 waited") !=
                                    std::string::npos &&
                                text.find("Connection closed by peer") != std::string::npos &&
                                text.find("more of it") == std::string::npos;
                       }));
}

TEST_CASE("distributed: Kronecker factors and sensitivities over ranks", "[distributed]") {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(4, 5), torch::nn::Tanh(), torch::nn::Linear(5, 3));
  net->to(torch::kDouble);
  const auto states = torch::randn({40, 4}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return retain::categorical{net->forward(o)}; };
  const auto whole = retain::estimate_kfac(net, states, forward, retain::exact_actions{});
  const auto sensitive = retain::estimate_sensitivity(
      net, states, [&](const at::Tensor& o) { return net->forward(o); });
  std::vector<retain::kronecker_fisher> parts;
  std::vector<retain::parameter_list> sensitivities;
  const std::vector<std::int64_t> begins{0, 11, 40};
  for (std::size_t i = 0; i < 2; ++i) {
    const auto mine = states.slice(0, begins[i], begins[i + 1]);
    parts.push_back(retain::estimate_kfac(net, mine, forward, retain::exact_actions{}));
    sensitivities.push_back(retain::estimate_sensitivity(
        net, mine, [&](const at::Tensor& o) { return net->forward(o); }));
  }
  std::vector<retain::kronecker_fisher> reduced(2);
  std::vector<retain::parameter_list> means(2);
  CHECK(on_ranks(2, [&](thread_group& group) {
          const auto rank = static_cast<std::size_t>(group.rank);
          reduced[rank] = retain::all_reduce(parts[rank], group);
          means[rank] = retain::all_reduce(sensitivities[rank], rank == 0 ? 11 : 29, group);
        }) == none2);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    REQUIRE(reduced[rank].layers.size() == 2);
    CHECK(reduced[rank].states == 40);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(reduced[rank].layers[i].weight == whole.layers[i].weight);
      CHECK(reduced[rank].layers[i].bias == whole.layers[i].bias);
      CHECK(torch::allclose(reduced[rank].layers[i].inputs, whole.layers[i].inputs, 1e-12));
      CHECK(torch::allclose(reduced[rank].layers[i].outputs, whole.layers[i].outputs, 1e-12));
    }
    REQUIRE(means[rank].size() == sensitive.size());
    for (std::size_t i = 0; i < sensitive.size(); ++i)
      CHECK(torch::allclose(means[rank][i].tensor, sensitive[i].tensor, 1e-10, 1e-12));
  }
  CHECK_THAT(on_ranks(1,
                      [](thread_group& group) {
                        (void)retain::all_reduce(retain::parameter_list{}, -1, group);
                      })[0],
             Contains("must be finite and not negative, got -1"));
}

TEST_CASE("distributed: running statistics over ranks are those of all samples", "[distributed]") {
  torch::manual_seed(8);
  const auto samples = torch::randn({50, 3}, at::kDouble) * 4 + 100;
  retain::running_statistics whole({3});
  whole.update(samples);
  std::vector<retain::running_statistics> parts(3, retain::running_statistics({3}));
  CHECK(on_ranks(3, [&](thread_group& group) {
          auto& mine = parts[static_cast<std::size_t>(group.rank)];
          if (group.rank == 0) mine.update(samples.slice(0, 0, 13));  // rank 1 has none
          if (group.rank == 2) mine.update(samples.slice(0, 13));
          retain::all_reduce(mine, group);
        }) == std::vector<std::string>(3));
  for (const auto& mine : parts) {
    CHECK(mine.count() == 50);
    CHECK(torch::allclose(mine.mean(), whole.mean(), 1e-13));
    CHECK(torch::allclose(mine.variance(), whole.variance(), 1e-12));
    CHECK(torch::equal(mine.variance(), parts[0].variance()));
  }
}

TEST_CASE("distributed: a monitor's last measurement becomes that of all states, and adapts alike",
          "[distributed]") {
  const auto net = policy(at::kDouble);
  const linear_policy moved{(net.weight.detach() * 1.3).requires_grad_(), net.bias};
  const auto states = torch::randn({30, 4}, at::kDouble);
  using watch_type = retain::monitor<linear_policy>;
  watch_type whole{net};
  whole.add("FAR", states);
  const auto expected = whole.measure(moved, 1)[0];
  std::vector<double> kl(2), agreement(2);
  CHECK(on_ranks(2, [&](thread_group& group) {
          watch_type mine{net};
          mine.add("FAR", group.rank == 0 ? states.slice(0, 0, 4) : states.slice(0, 4));
          if (group.rank == 1) mine.report_success("FAR", 0.5);
          mine.measure(moved, 1);
          retain::all_reduce(mine, group);
          kl[static_cast<std::size_t>(group.rank)] = mine.kl("FAR");
          agreement[static_cast<std::size_t>(group.rank)] = mine.last("FAR").agreement;
          if (mine.last("FAR").success != 0.5 || mine.last("FAR").states != 30)
            throw retain::state_error("success or count is wrong");
        }) == none2);
  CHECK(kl[0] == Approx(expected.kl).epsilon(1e-12));
  CHECK(kl[0] == kl[1]);
  CHECK(agreement[0] == Approx(expected.agreement));
  auto errors = on_ranks(2, [&](thread_group& group) {
    watch_type mine{net};
    mine.add("FAR", states);
    mine.measure(moved, group.rank);
    retain::all_reduce(mine, group);
  });
  for (const auto& error : errors) CHECK_THAT(error, Contains("rank 1 measured 'FAR at 1"));
  errors = on_ranks(2, [&](thread_group& group) {
    watch_type mine{net};
    mine.add("FAR", states);
    retain::all_reduce(mine, group);
  });
  for (const auto& error : errors) CHECK_THAT(error, Contains("no probe has been measured yet"));
  errors = on_ranks(2, [&](thread_group& group) {
    watch_type measured{net}, mine{net};
    measured.add("FAR", states);
    mine.add("FAR", states);
    measured.measure(moved, 1);
    retain::state saved;
    measured.save_state(saved, "");
    mine.load_state(saved, "");
    retain::all_reduce(mine, group);
  });
  for (const auto& error : errors)
    CHECK_THAT(error, Contains("rank 0 has loaded its row of 'FAR'"));
}

TEST_CASE("distributed: averaged gradients and one penalty are the update of one process",
          "[distributed]") {
  const auto make = [] {
    torch::manual_seed(2);
    torch::nn::Linear net(4, 3);
    net->to(torch::kDouble);
    return net;
  };
  const auto states = torch::randn({12, 4}, at::kDouble);
  const auto task = [](torch::nn::Linear& net, const at::Tensor& some) {
    return net->forward(some).square().mean();
  };
  const auto anchored = [](torch::nn::Linear& net) {
    const auto keep = retain::estimate_fisher(
        net, torch::ones({5, 4}, at::kDouble),
        [&](const at::Tensor& o) { return retain::categorical{net->forward(o)}; },
        retain::exact_actions{});
    retain::ewc penalty{net, keep, {.strength = 3.0}};
    const torch::NoGradGuard no_grad;
    net->weight += 0.1;
    return penalty;
  };
  auto one = make();
  const auto penalty = anchored(one);
  task(one, states).backward();
  (void)penalty.add_gradient(one);

  std::vector<at::Tensor> gradients(2);
  CHECK(on_ranks(2, [&](thread_group& group) {
          static std::mutex seeds;  // LibTorch's generator is one for all threads
          std::unique_lock lock(seeds);
          auto net = make();
          const auto mine = anchored(net);
          lock.unlock();
          const bool first = group.rank == 0;
          const auto some = first ? states.slice(0, 0, 5) : states.slice(0, 5);
          task(net, some).backward();
          retain::average_gradients(net, group, static_cast<double>(some.size(0)));
          (void)mine.add_gradient(net);
          gradients[static_cast<std::size_t>(group.rank)] = net->weight.grad();
        }) == none2);
  CHECK(torch::allclose(gradients[0], one->weight.grad(), 1e-12));
  CHECK(torch::equal(gradients[0], gradients[1]));

  const auto errors = on_ranks(2, [&](thread_group& group) {
    std::vector<at::Tensor> model{torch::ones({group.rank == 0 ? 2 : 3}).requires_grad_()};
    retain::average_gradients(model, group);
  });
  for (const auto& error : errors)
    CHECK_THAT(error, Contains("the trainable parameters of rank 1 differ from those of rank 0") &&
                          Contains("[3]") && Contains("[2]"));
}

}  // namespace distributed_test
