// SPDX-License-Identifier: MIT
// Environments of Gymnasium: their numbers against the equations of the two worlds, both kinds of
// ends, seeds, errors of Python, threads and memory.
#include <array>
#include <cmath>
#include <fstream>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../nethack/catch2.hpp"
#include "packages.hpp"

namespace python_gymnasium_test {

namespace {

namespace py = pybind11;

std::vector<float> now(const python::environment& some) {
  return {some.observation().begin(), some.observation().end()};
}

/// Leans against the fall, and back to the middle.
int balance(std::span<const float> seen) {
  return seen[2] + 0.3f * seen[3] + 0.05f * seen[0] + 0.1f * seen[1] > 0 ? 1 : 0;
}

/// An environment of the tests, written in Python.
void add_environments() {
  static const bool once = [] {
    python::call("tests", [] {
      py::exec(R"(
import gymnasium, numpy

class Strange(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict({
        'box': gymnasium.spaces.Box(0, 9, (2, 2), numpy.float64),
        'kind': gymnasium.spaces.Discrete(3)})
    action_space = gymnasium.spaces.Discrete(3, start=5)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {'box': numpy.array([[1., 2.], [3., 4.]]), 'kind': 1}, {}
    def step(self, action):
        if action == 7:
            raise RuntimeError('the sky falls\nand more')
        return {'box': numpy.full((2, 2), action), 'kind': 2}, 2.5, True, True, {}

class Many(Strange):
    action_space = gymnasium.spaces.MultiBinary(3)

gymnasium.register('Strange-v0', Strange, disable_env_checker=True, order_enforce=False)
gymnasium.register('Many-v0', Many, disable_env_checker=True)
)");
    });
    return true;
  }();
  (void)once;
}

}  // namespace

TEST_CASE("a step of the cart is that of its equations", "[python]") {
  if (!has_gymnasium()) return;
  python::environment pole("CartPole-v1");
  CHECK(pole.actions() == 2);
  CHECK(pole.action_size() == 0);
  CHECK(pole.observation_size() == 4);
  pole.reset(3);
  for (int i = 0; i < 8; ++i) {
    const auto before = now(pole);
    const int action = i % 3 == 0 ? 1 : 0;
    const auto step = pole.step(action);
    // Barto, Sutton and Anderson 1983, as Gymnasium integrates it (Euler, 20 ms)
    const double force = action == 1 ? 10 : -10, total = 1.1, moment = 0.05,
                 cosine = std::cos(static_cast<double>(before[2])),
                 sine = std::sin(static_cast<double>(before[2])),
                 turning = static_cast<double>(before[3]),
                 push = (force + moment * turning * turning * sine) / total,
                 bend = (9.8 * sine - cosine * push) /
                        (0.5 * (4.0 / 3.0 - 0.1 * cosine * cosine / total)),
                 gain = push - moment * bend * cosine / total;
    const std::array<double, 4> after{
        static_cast<double>(before[0]) + 0.02 * static_cast<double>(before[1]),
        static_cast<double>(before[1]) + 0.02 * gain,
        static_cast<double>(before[2]) + 0.02 * turning, turning + 0.02 * bend};
    for (std::size_t number = 0; number < 4; ++number)
      CHECK(std::abs(static_cast<double>(pole.observation()[number]) - after[number]) < 1e-6);
    CHECK((step.reward == 1 && !step.ended()));
  }
}

TEST_CASE("a fall is terminated, and the limit of steps truncated", "[python]") {
  if (!has_gymnasium()) return;
  python::environment pole("CartPole-v1");
  pole.reset(1);
  int steps = 1;
  auto step = pole.step(1);
  for (; !step.ended(); ++steps) step = pole.step(1);
  CHECK((step.terminated && !step.truncated));
  CHECK(steps < 20);
  CHECK(std::abs(pole.observation()[2]) > 0.2094f);
  pole.reset(1);
  steps = 1;
  step = pole.step(balance(pole.observation()));
  for (; !step.ended(); ++steps) step = pole.step(balance(pole.observation()));
  CHECK((!step.terminated && step.truncated));
  CHECK(steps == 500);
}

TEST_CASE("a seed is the same episode again, and without one the next is another", "[python]") {
  if (!has_gymnasium()) return;
  python::environment one("CartPole-v1"), two("CartPole-v1");
  one.reset(11);
  two.reset(11);
  CHECK(now(one) == now(two));
  const auto first = now(one);
  one.reset();
  two.reset();
  CHECK(now(one) == now(two));
  CHECK(now(one) != first);
  two.reset(12);
  CHECK(now(two) != first);
}

TEST_CASE("an action of numbers: the pendulum's reward and its next angle", "[python]") {
  if (!has_gymnasium()) return;
  python::environment pendulum("Pendulum-v1");
  CHECK(pendulum.actions() == 0);
  CHECK(pendulum.action_size() == 1);
  CHECK(pendulum.observation_size() == 3);
  pendulum.reset(5);
  const auto before = now(pendulum);
  const double angle = std::atan2(static_cast<double>(before[1]), static_cast<double>(before[0])),
               turning = static_cast<double>(before[2]);
  const std::array<float, 1> push{0.5f};
  const auto step = pendulum.step(push);
  CHECK(std::abs(step.reward + angle * angle + 0.1 * turning * turning + 0.001 * 0.25) < 1e-5);
  const double faster = turning + (15 * std::sin(angle) + 3 * 0.5) * 0.05;
  CHECK(std::abs(static_cast<double>(pendulum.observation()[2]) - faster) < 1e-5);
  CHECK(std::abs(static_cast<double>(pendulum.observation()[0]) - std::cos(angle + faster * 0.05)) <
        1e-5);
  CHECK_THROWS_AS(pendulum.step(0), python::error);
  CHECK_THROWS_AS(pendulum.step(std::span<const float>()), python::error);
}

TEST_CASE("spaces of several parts are flat, discrete ones one-hot, and actions begin at 0",
          "[python]") {
  if (!has_gymnasium()) return;
  add_environments();
  python::environment strange("Strange-v0");
  CHECK(strange.observation_size() == 7);
  CHECK(strange.actions() == 3);
  strange.reset();
  CHECK(now(strange) == std::vector<float>{1, 2, 3, 4, 0, 1, 0});
  const auto step = strange.step(1);  // Python's 6
  CHECK(now(strange) == std::vector<float>{6, 6, 6, 6, 0, 0, 1});
  CHECK((step.reward == 2.5 && step.terminated && step.truncated));
}

TEST_CASE("an error of Python is one line that says where and what", "[python]") {
  if (!has_gymnasium()) return;
  add_environments();
  python::environment strange("Strange-v0"), pole("CartPole-v1");
  strange.reset();
  CHECK_THROWS_WITH(strange.step(2), "Strange-v0.step: RuntimeError: the sky falls");
  CHECK(strange.step(0).reward == 2.5);  // and it goes on
  CHECK_THROWS_WITH(python::environment("Nowhere-v1"),
                    ContainsSubstring("Nowhere-v1") && ContainsSubstring("doesn't exist"));
  CHECK_THROWS_WITH(python::environment("Many-v0"),
                    ContainsSubstring("MultiBinary") && ContainsSubstring("Discrete and Box"));
  CHECK_THROWS_WITH(pole.step(2), ContainsSubstring("no action 2: 0 to 1"));
  CHECK_THROWS_WITH(pole.step(-1), ContainsSubstring("no action -1"));
  CHECK_THROWS_WITH(pole.set("height", 1), ContainsSubstring("no attribute 'height'"));
  CHECK_THROWS_WITH(python::call("here", [] { python::import("no_such_package", "its-name==1"); }),
                    ContainsSubstring("no package no_such_package") &&
                        ContainsSubstring("pip install its-name==1") &&
                        ContainsSubstring("--python"));
  CHECK_THROWS_WITH(python::start("/nonexistent/python3"), ContainsSubstring("one at a time"));
  CHECK_NOTHROW(python::start(python_of_tests()));
}

TEST_CASE("a changed attribute changes the world", "[python]") {
  if (!has_gymnasium()) return;
  python::environment plain("CartPole-v1"), heavy("CartPole-v1");
  heavy.set("gravity", 19.6);
  plain.reset(1);
  heavy.reset(1);
  CHECK(now(plain) == now(heavy));
  plain.step(1);
  heavy.step(1);
  CHECK(now(plain) != now(heavy));
}

TEST_CASE("any thread may call, and none waits for ever", "[python]") {
  if (!has_gymnasium()) return;
  std::array<long, 4> steps{};
  std::vector<std::thread> threads;
  for (auto& own : steps)
    threads.emplace_back([&own] {
      python::environment pole("CartPole-v1");
      for (int episode = 0; episode < 20; ++episode) {
        pole.reset(static_cast<std::uint32_t>(episode));
        do ++own;
        while (!pole.step(1).ended());
      }
    });
  for (auto& each : threads) each.join();
  CHECK(steps[0] > 100);
  CHECK((steps[0] == steps[1] && steps[1] == steps[2] && steps[2] == steps[3]));
}

TEST_CASE("ten thousand episodes take no more memory than the first hundred", "[python]") {
  if (!has_gymnasium()) return;
  const auto pages = [] {
    long all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident;
  };
  python::environment pole("CartPole-v1");
  long before = 0;
  for (int episode = 0; episode < 10'000; ++episode) {
    pole.reset();
    while (!pole.step(1).ended()) {
    }
    if (episode == 99) before = pages();
  }
  REQUIRE(before > 0);
  CHECK(pages() - before < 256);  // a megabyte: a hundred bytes an episode
}

}  // namespace python_gymnasium_test
