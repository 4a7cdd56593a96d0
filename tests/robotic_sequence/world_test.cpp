// SPDX-License-Identifier: MIT
// The arm's world: its rules and rewards by numbers computed here, that it can be solved and not by
// chance, and that it goes on bit for bit.
#include "../support.hpp"

#include <retain/state.hpp>

#include "command_play.hpp"
#include "controller.hpp"
#include "drawing.hpp"
#include "sequence.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace robotic_sequence_world_test {

namespace {

using namespace robotic_sequence;
using action = std::array<float, 2>;
using observation = std::array<float, sequence::observation_size>;

static_assert(retain::stateful<sequence>);

observation seen_in(const sequence& world) {
  observation seen;
  seen.fill(99);  // whatever was there before is overwritten
  world.observe(seen.data());
  return seen;
}

class torques {
 public:
  explicit torques(unsigned seed) : dice_(seed) {}
  action operator()() {
    const float first = uniform_(dice_);
    return {first, uniform_(dice_)};
  }

 private:
  std::mt19937 dice_;
  std::uniform_real_distribution<float> uniform_{-1, 1};
};

action scripted(const sequence& world) {
  action chosen;
  control(world.kind(), seen_in(world).data(), chosen.data());
  return chosen;
}

/// To the end of the stage; returns the last outcome.
sequence::outcome play_stage(sequence& world) {
  sequence::outcome last{};
  while (!world.over()) last = world.step(scripted(world).data());
  return last;
}

/// A stage's start that the scripted controller solves, one after the other, up to `stage`.
void solve_up_to(sequence& world, int stage) {
  for (world.start(0); world.stage() < stage;) {
    if (!play_stage(world).success)
      FAIL("the scripted controller did not solve " << name_of(world.kind()));
    REQUIRE(world.advance());
  }
}

struct box {
  double left, right, near, far;
};

/// The dense reward as a page of formulas has it, one stage at a time.
double reward_by_hand(const sequence& world, double way_at_start) {
  const auto [px, py] = world.where().place;
  const auto [gx, gy] = world.where().goal;
  const auto [ox, oy] = world.object();
  const auto [tx, ty] = world.tip();
  double x = 0, y = 0, left = std::hypot(gx - ox, gy - oy);
  switch (world.kind()) {
    case stage_kind::window: x = ox + 0.055, y = oy; break;
    case stage_kind::faucet: {
      const double angle = std::atan2(ox - px, py - oy);  // from where it points to the arm
      left = 0.11 * std::abs(1.35 - angle);
      x = px + 0.11 * std::sin(angle) - 0.037 * std::cos(angle),
      y = py - 0.11 * std::cos(angle) - 0.037 * std::sin(angle);
      break;
    }
    case stage_kind::press: x = ox, y = oy - 0.045; break;
    case stage_kind::push:
      x = ox - 0.06 * (gx - ox) / left, y = oy - 0.06 * (gy - oy) / left;
      break;
    case stage_kind::unplug: x = ox - 0.035, y = oy - 0.035; break;
    case stage_kind::push_wall: {
      double ax = gx, ay = gy;
      if (oy < 0.2 && std::abs(ox + (0.2 - oy) / (gy - oy) * (gx - ox)) < 0.095) {
        const auto by = [&](double corner) {
          return std::hypot(ox - corner, oy - 0.2) + std::hypot(gx - corner, gy - 0.2);
        };
        ax = by(-0.11) < by(0.11) ? -0.11 : 0.11, ay = 0.2, left = by(ax);
      }
      const double way = std::hypot(ax - ox, ay - oy);
      x = ox - 0.06 * (ax - ox) / way, y = oy - 0.06 * (ay - oy) / way;
      break;
    }
  }
  double done = 1 - left / way_at_start;
  if (done < 0) done = std::max(-1.0, done) * 0.3;
  return 0.3 * std::exp(-8 * std::hypot(tx - x, ty - y)) + 0.7 * done;
}

std::string thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("a sequence is the tail of six stages", "[robotic_sequence]") {
  CHECK(all_stages.size() == 6);
  CHECK((tail(4) == std::vector{stage_kind::press, stage_kind::push, stage_kind::unplug,
                                stage_kind::push_wall}));
  CHECK((tail(6) == all_stages));
  CHECK(std::string(name_of(stage_kind::push_wall)) == "push-wall");
  CHECK_THAT(thrown_by([] { tail(0); }), ContainsSubstring("1 to 6") && ContainsSubstring("not 0"));
  CHECK_THAT(thrown_by([] { tail(7); }), ContainsSubstring("not 7"));
}

TEST_CASE("equal seeds and decisions give equal worlds, other seeds give others",
          "[robotic_sequence]") {
  sequence one(all_stages, 7), two(all_stages, 7), other(all_stages, 8);
  torques draw(1);
  CHECK(seen_in(one) != seen_in(other));
  for (int i = 0; i < 600; ++i) {
    if (one.over()) {
      one.start(i % 6);
      two.start(i % 6);
    }
    const auto chosen = draw();
    const auto a = one.step(chosen.data()), b = two.step(chosen.data());
    REQUIRE(a.reward == b.reward);
    REQUIRE(seen_in(one) == seen_in(two));
  }
}

TEST_CASE("what is drawn lies where it should, and is drawn anew", "[robotic_sequence]") {
  sequence world(all_stages, 3);
  // Places of all stages; goals of the two whose goal is drawn.
  const std::array<box, 6> places{{{0, 0.15, 0.12, 0.25},
                                   {0.04, 0.16, 0.2, 0.28},
                                   {-0.2, 0.2, 0.25, 0.3},
                                   {0.02, 0.15, 0.1, 0.2},
                                   {-0.16, -0.08, 0.12, 0.25},
                                   {-0.1, 0.1, 0.09, 0.12}}};
  const auto inside = [](const box& b, point p) {
    return p.x >= b.left && p.x <= b.right && p.y >= b.near && p.y <= b.far;
  };
  for (int stage = 0; stage < 6; ++stage) {
    point least{9, 9}, most{-9, -9};
    for (int i = 0; i < 200; ++i) {
      world.start(stage);
      const auto place = world.where().place;
      REQUIRE(inside(places[static_cast<std::size_t>(stage)], place));
      least = {std::min(least.x, place.x), std::min(least.y, place.y)};
      most = {std::max(most.x, place.x), std::max(most.y, place.y)};
      if (stage == 3) REQUIRE(inside({-0.22, -0.15, 0.1, 0.2}, world.where().goal));
      if (stage == 5) REQUIRE(inside({-0.12, 0.12, 0.29, 0.32}, world.where().goal));
      // The tip is where two links of 0.4 m put it.
      const double shoulder = world.where().shoulder, elbow = world.where().elbow;
      REQUIRE(std::abs(shoulder - 0.45) <= 0.1);
      REQUIRE(std::abs(elbow - 2.24) <= 0.1);
      REQUIRE(world.tip().x ==
              Approx(0.4 * std::cos(shoulder) + 0.4 * std::cos(shoulder + elbow)).margin(1e-9));
      REQUIRE(
          world.tip().y ==
          Approx(-0.35 + 0.4 * std::sin(shoulder) + 0.4 * std::sin(shoulder + elbow)).margin(1e-9));
      REQUIRE(distance(world.object(), stage == 1 ? place - point{0, 0.11} : place) < 1e-9);
      REQUIRE_FALSE(solved(world.kind(), world.where(), world.object()));
    }
    const auto& b = places[static_cast<std::size_t>(stage)];
    CHECK(most.x - least.x > 0.9 * (b.right - b.left));
    CHECK(most.y - least.y > 0.9 * (b.far - b.near));
  }
}

TEST_CASE("an observation has angles, velocities, positions and the time", "[robotic_sequence]") {
  sequence world(tail(4), 5);
  world.start(1);
  torques draw(2);
  for (int i = 0; i < 20; ++i) world.step(draw().data());
  const auto seen = seen_in(world);
  const auto& data = world.data();
  const auto tip = world.tip(), object = world.object(), goal = world.where().goal;
  const std::array<double, 13> expected{data.qpos[0] - 1,
                                        data.qpos[1] - 1.5,
                                        data.qvel[0] / 2,
                                        data.qvel[1] / 2,
                                        4 * tip.x,
                                        4 * tip.y - 0.6,
                                        4 * object.x,
                                        4 * object.y - 0.6,
                                        6 * (object.x - tip.x),
                                        6 * (object.y - tip.y),
                                        4 * goal.x,
                                        4 * goal.y - 0.8,
                                        -0.2};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(static_cast<double>(seen[i]) == Approx(expected[i]).margin(1e-6));
  }
  world.start(1);
  CHECK(seen_in(world)[12] == -1.0f);
}

TEST_CASE("the scripted controller solves all stages that are not pre-trained",
          "[robotic_sequence]") {
  sequence world(all_stages, 100);
  for (int stage = 0; stage < 4; ++stage) {
    int successes = 0;
    for (int i = 0; i < 50; ++i) {
      world.start(stage);
      successes += play_stage(world).success;
    }
    CAPTURE(name_of(world.kind()));
    CHECK(successes >= 48);
  }
  world.start(4);
  CHECK_THAT(thrown_by([&] { scripted(world); }),
             ContainsSubstring("cannot play the stage unplug"));
}

TEST_CASE("random torques solve nothing, but a faucet now and then", "[robotic_sequence]") {
  sequence world(all_stages, 200);
  torques draw(3);
  for (int stage = 0; stage < 6; ++stage) {
    int successes = 0;
    for (int i = 0; i < 200; ++i) {
      world.start(stage);
      while (!world.over()) successes += world.step(draw().data()).success;
    }
    CAPTURE(name_of(world.kind()));
    CHECK(successes <= (world.kind() == stage_kind::faucet ? 6 : 0));  // of 2000 attempts 0.4 %
  }
}

TEST_CASE("no contact and no constraint is dropped for want of room", "[robotic_sequence]") {
  static int warnings;
  warnings = 0;
  mju_user_warning = [](const char*) { ++warnings; };
  sequence world(all_stages, 400);
  torques draw(5);
  for (int stage = 0; stage < 6; ++stage)
    for (int i = 0; i < 100; ++i) {
      world.start(stage);
      // The controller brings the arm to where it touches most; random torques shake it there.
      for (int t = 0; !world.over(); ++t)
        world.step((stage < 4 && t % 3 != 0 ? scripted(world) : draw()).data());
    }
  mju_user_warning = nullptr;
  CHECK(warnings == 0);
}

TEST_CASE("a decision pays a tenth of the dense reward", "[robotic_sequence]") {
  sequence world(all_stages, 11);
  torques draw(4);
  for (int stage = 0; stage < 6; ++stage)
    for (int attempt = 0; attempt < 10; ++attempt) {
      world.start(stage);
      const double start = world.way_at_start();
      // A straight way, a lever's arc, and around the wall at least as far as straight.
      const double straight = distance(world.object(), world.where().goal);
      if (stage == 1)
        CHECK(start == Approx(0.11 * 1.35));
      else if (stage == 5)
        CHECK(start >= straight);
      else
        CHECK(start == Approx(straight));
      for (int i = 0; i < 50 && !world.over(); ++i) {
        // Where the script is at home it moves things; elsewhere chance does.
        const auto chosen = stage < 4 && attempt % 2 == 0 ? scripted(world) : draw();
        const auto result = world.step(chosen.data());
        if (!result.success)
          REQUIRE(static_cast<double>(result.reward) ==
                  Approx(0.1 * reward_by_hand(world, start)).margin(1e-7));
      }
    }
}

TEST_CASE("the wall is walked around by its nearer corner", "[robotic_sequence]") {
  const auto wall = stage_kind::push_wall;
  const layout behind{.place = {0, 0.1}, .goal = {0.02, 0.3}},
      beside{.place = {0, 0.1}, .goal = {0.12, 0.3}};
  CHECK((next_target(wall, behind, {0, 0.1}) == point{0.11, 0.2}));
  CHECK(way_left(wall, behind, {0, 0.1}) == Approx(std::hypot(0.11, 0.1) + std::hypot(0.09, 0.1)));
  CHECK(next_target(wall, behind, {-0.05, 0.1}) == point{-0.11, 0.2});
  // Past the corner, or with a clear view, straight.
  CHECK(next_target(wall, behind, {0.1, 0.25}) == behind.goal);
  CHECK(next_target(wall, beside, {0.1, 0.1}) == beside.goal);
  CHECK(way_left(wall, beside, {0.1, 0.1}) == Approx(std::hypot(0.02, 0.2)));
  // Near, but on the wrong side: not solved.
  const layout close{.place = {0, 0.1}, .goal = {0, 0.22}};
  CHECK_FALSE(solved(wall, close, {0, 0.19}));
  CHECK(solved(wall, close, {0, 0.25}));
}

TEST_CASE("stages are solved at a little before their goal, and beyond it", "[robotic_sequence]") {
  const layout window{.place = {0.1, 0.2}, .goal = {-0.05, 0.2}},
      press{.place = {0, 0.3}, .goal = {0, 0.345}},
      unplug{.place = {-0.1, 0.2}, .goal = {0.02, 0.2}},
      push{.place = {0.1, 0.1}, .goal = {-0.2, 0.1}};
  CHECK_FALSE(solved(stage_kind::window, window, {-0.029, 0.2}));
  CHECK(solved(stage_kind::window, window, {-0.031, 0.2}));
  CHECK(solved(stage_kind::window, window, {-0.06, 0.2}));
  CHECK_FALSE(solved(stage_kind::press, press, {0, 0.339}));
  CHECK(solved(stage_kind::press, press, {0, 0.341}));
  CHECK(solved(stage_kind::press, press, {0, 0.4}));
  CHECK_FALSE(solved(stage_kind::unplug, unplug, {-0.001, 0.2}));
  CHECK(solved(stage_kind::unplug, unplug, {0.001, 0.2}));
  CHECK_FALSE(solved(stage_kind::push, push, {-0.149, 0.1}));
  CHECK(solved(stage_kind::push, push, {-0.17, 0.139}));
  const auto lever = [](double angle) {
    return point{0.11 * std::sin(angle), 0.2 - 0.11 * std::cos(angle)};
  };
  const layout faucet{.place = {0, 0.2}, .goal = lever(1.35)};
  CHECK_FALSE(solved(stage_kind::faucet, faucet, lever(1.19)));
  CHECK(solved(stage_kind::faucet, faucet, lever(1.21)));
  CHECK(solved(stage_kind::faucet, faucet, lever(1.45)));
}

TEST_CASE("nothing is pushed through the wall, and a button springs back", "[robotic_sequence]") {
  const auto& wall = *model_of(stage_kind::push_wall).model;
  const data_pointer puck(mj_makeData(&wall));
  puck->mocap_pos[0] = 0;
  puck->mocap_pos[1] = 0.1;
  puck->qpos[1] = 2.24;
  puck->qvel[3] = 3;  // towards the wall, whose near side is at 0.188
  double farthest = 0;
  for (int i = 0; i < 100; ++i) {
    mj_step(&wall, puck.get());
    farthest = std::max(farthest, 0.1 + puck->qpos[3] + 0.035);
  }
  CHECK(farthest > 0.17);
  CHECK(farthest < 0.2);  // contacts are soft
  const auto& press = *model_of(stage_kind::press).model;
  const data_pointer button(mj_makeData(&press));
  button->qpos[1] = 2.24;
  button->qpos[2] = 0.04;
  for (int i = 0; i < 300; ++i) mj_step(&press, button.get());
  CHECK(std::abs(button->qpos[2]) < 0.005);
}

TEST_CASE("a success pays the bonus, the more the earlier, and ends the stage",
          "[robotic_sequence]") {
  for (const int horizon : {50, 80}) {
    const world_options options{.horizon = horizon, .success_bonus = 2, .reward_scale = 0.25};
    sequence world(all_stages, 21, options);
    for (int stage = 0; stage < 4; ++stage) {
      world.start(stage);
      const double start = world.way_at_start();
      const auto last = play_stage(world);
      REQUIRE(last.success);
      CHECK_FALSE(last.timed_out);
      CHECK(world.over());
      // The first decision has t = 0; time() counts those that were made.
      const double t = world.time() - 1;
      CHECK(static_cast<double>(last.reward) ==
            Approx(0.25 * 2 * reward_by_hand(world, start) * (horizon - t)));
      CHECK_THAT(thrown_by([&] { world.step(action{}.data()); }),
                 ContainsSubstring("the stage is over"));
    }
  }
}

TEST_CASE("time runs out exactly at the horizon", "[robotic_sequence]") {
  sequence world(tail(4), 31);
  for (int i = 1; i <= 50; ++i) {
    const auto result = world.step(action{}.data());
    CHECK(result.timed_out == (i == 50));
    CHECK_FALSE(result.success);
    CHECK(world.time() == i);
    CHECK(world.over() == (i == 50));
  }
  CHECK(seen_in(world)[12] == 1.0f);
  CHECK_THAT(thrown_by([&] { world.step(action{}.data()); }),
             ContainsSubstring("the stage is over"));
  CHECK_THAT(thrown_by([&] { world.advance(); }), ContainsSubstring("stage 0 is not solved"));
  world.start(0);
  CHECK_FALSE(world.over());
  CHECK(world.time() == 0);

  // With the horizon at the decision that solves it, it is a success with the factor 1; one
  // earlier, it is out of time.
  sequence as_long(tail(4), 33);
  REQUIRE(play_stage(as_long).success);
  const int needed = as_long.time();
  sequence exact(tail(4), 33, {.horizon = needed}), shorter(tail(4), 33, {.horizon = needed - 1});
  const double start = exact.way_at_start();
  const auto last = play_stage(exact);
  CHECK(last.success);
  CHECK_FALSE(last.timed_out);
  CHECK(static_cast<double>(last.reward) == Approx(0.1 * 1.5 * reward_by_hand(exact, start)));
  CHECK(play_stage(shorter).timed_out);
  CHECK(shorter.time() == needed - 1);
}

TEST_CASE("a solved stage leads to the next, and the last one to none", "[robotic_sequence]") {
  sequence world({stage_kind::press, stage_kind::push, stage_kind::window}, 41);
  solve_up_to(world, 1);
  CHECK(world.kind() == stage_kind::push);
  CHECK(world.time() == 0);
  CHECK_FALSE(world.over());
  solve_up_to(world, 2);
  REQUIRE(play_stage(world).success);
  const auto seen = seen_in(world);
  CHECK_FALSE(world.advance());
  CHECK(world.stage() == 2);
  CHECK(world.over());
  CHECK(seen_in(world) == seen);
  CHECK_FALSE(sequence(tail(1), 1).over());
}

TEST_CASE("torques beyond the motors' are clamped", "[robotic_sequence]") {
  sequence one(tail(4), 51), two(tail(4), 51);
  for (int i = 0; i < 10; ++i) {
    one.step(action{7, -3}.data());
    two.step(action{1, -1}.data());
  }
  CHECK(seen_in(one) == seen_in(two));
}

TEST_CASE("a world that was saved goes on bit for bit", "[robotic_sequence]") {
  const support::temporary_folder folder;
  for (int stage = 0; stage < 6; ++stage) {
    CAPTURE(name_of(all_stages[static_cast<std::size_t>(stage)]));
    sequence world(all_stages, 61), resumed(all_stages, 99);
    world.start(stage);
    resumed.start((stage + 1) % 6);
    // Into the middle, where the script has come to what it pushes.
    torques draw(5);
    for (int i = 0; i < 9; ++i) world.step((stage < 4 ? scripted(world) : draw()).data());
    REQUIRE_FALSE(world.over());
    retain::save(folder.file("world"), world);
    retain::load(folder.file("world"), resumed);
    CHECK(resumed.stage() == stage);
    CHECK(resumed.time() == world.time());
    CHECK(seen_in(resumed) == seen_in(world));
    for (int i = 0; i < 300; ++i) {
      if (world.over()) {
        world.start(i % 6);
        resumed.start(i % 6);
      }
      const auto chosen = controller_knows(world.kind()) && i % 3 != 0 ? scripted(world) : draw();
      const auto a = world.step(chosen.data()), b = resumed.step(chosen.data());
      REQUIRE(a.reward == b.reward);
      REQUIRE(a.success == b.success);
      REQUIRE(seen_in(world) == seen_in(resumed));
      for (int q = 0; q < world.model().nv; ++q)
        REQUIRE(world.data().qacc_warmstart[q] == resumed.data().qacc_warmstart[q]);
    }
  }
}

TEST_CASE("the ends of a stage are saved too", "[robotic_sequence]") {
  sequence world(tail(4), 62), resumed(tail(4), 1);
  REQUIRE(play_stage(world).success);
  retain::state saved;
  world.save_state(saved, "world.");
  resumed.load_state(saved, "world.");
  CHECK(resumed.over());
  CHECK(resumed.advance());
  CHECK(world.advance());
  CHECK(seen_in(resumed) == seen_in(world));
}

TEST_CASE("a state of another sequence changes nothing", "[robotic_sequence]") {
  sequence world(tail(4), 71), other(tail(3), 72), longer(tail(4), 73, {.horizon = 90});
  const auto before = seen_in(other);
  retain::state saved, late, broken;
  world.save_state(saved, "");
  CHECK_THAT(thrown_by([&] { other.load_state(saved, ""); }),
             ContainsSubstring("press push unplug push-wall") &&
                 ContainsSubstring("has push unplug push-wall"));
  CHECK(seen_in(other) == before);
  CHECK_THAT(thrown_by([&] { other.load_state(saved, "elsewhere."); }),
             ContainsSubstring("elsewhere.stages"));

  for (int i = 0; i < 60; ++i) longer.step(action{}.data());
  longer.save_state(late, "");
  CHECK_THAT(thrown_by([&] { world.load_state(late, ""); }),
             ContainsSubstring("time 60") && ContainsSubstring("horizon"));
  const auto unchanged = seen_in(world);
  for (const auto& [key, text] : {std::pair{"physics", "1 2 3 "}, std::pair{"physics", "one "},
                                  std::pair{"layout", "1"}, std::pair{"layout", ""}}) {
    world.save_state(broken, "");
    broken.set(key, text);
    CHECK_THAT(thrown_by([&] { world.load_state(broken, ""); }), ContainsSubstring(key));
  }
  CHECK(seen_in(world) == unchanged);
}

TEST_CASE("mistakes are told", "[robotic_sequence]") {
  CHECK_THAT(thrown_by([] { sequence({}, 1); }), ContainsSubstring("at least one stage"));
  CHECK_THAT(thrown_by([] { sequence(tail(4), 1, {.horizon = 0}); }),
             ContainsSubstring("horizon") && ContainsSubstring("got 0"));
  CHECK_THAT(thrown_by([] { sequence(tail(4), 1, {.frames = -2}); }),
             ContainsSubstring("frames") && ContainsSubstring("got -2"));
  sequence world(tail(4), 1);
  CHECK_THAT(thrown_by([&] { world.start(4); }),
             ContainsSubstring("no stage 4") && ContainsSubstring("0 to 3"));
  CHECK_THAT(thrown_by([&] { world.start(-1); }), ContainsSubstring("no stage -1"));
  CHECK_THAT(
      thrown_by([&] { world.step(action{0, std::numeric_limits<float>::quiet_NaN()}.data()); }),
      ContainsSubstring("action 1"));
  CHECK_THAT(thrown_by([] {
               read_model("<mujoco><worldbody><geom type=\"banana\"/></worldbody></mujoco>");
             }),
             ContainsSubstring("banana"));
}

TEST_CASE("a drawing shows the tip, the arm, the object, its goal and the wall where they are",
          "[robotic_sequence]") {
  sequence world(tail(1), 81);
  const auto text = draw(world, false);
  REQUIRE(std::count(text.begin(), text.end(), '\n') == 32);
  std::vector<std::string> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) rows.push_back(line);
  // 1.5 cm a column from -0.48 on, 3 cm a row from -0.4 on, the highest row first.
  const auto at = [&](point p) {
    const auto& row = rows[31 - static_cast<std::size_t>((p.y + 0.4) / 0.03)];
    const auto column = static_cast<std::size_t>((p.x + 0.48) / 0.015);
    return column < row.size() ? row[column] : ' ';
  };
  CHECK(at(world.tip()) == '@');
  CHECK(at(world.object()) == 'O');
  CHECK(at(world.where().goal) == 'X');
  CHECK(at({0.05, 0.2}) == '#');
  CHECK(at({-0.2, 0.2}) == ' ');
  const double shoulder = world.where().shoulder;
  CHECK(at({0.2 * std::cos(shoulder), -0.35 + 0.2 * std::sin(shoulder)}) == '+');
  CHECK(draw(world, true).find("\033[93m@\033[0m") != std::string::npos);

  const std::string header = "P6\n96 96\n255\n", image = ppm(world, 96);
  REQUIRE(image.size() == header.size() + 96 * 96 * 3);
  CHECK(image.substr(0, header.size()) == header);
  const auto pixel = [&](point p) {
    const auto row = 95 - static_cast<std::size_t>((p.y + 0.4) / 0.01),
               column = static_cast<std::size_t>((p.x + 0.48) / 0.01);
    std::array<int, 3> color{};
    for (std::size_t c = 0; c < 3; ++c)
      color[c] = static_cast<unsigned char>(image[header.size() + 3 * (96 * row + column) + c]);
    return color;
  };
  CHECK(pixel({-0.475, 0.555}) == std::array{247, 245, 237});
  CHECK(pixel(world.tip()) == std::array{214, 94, 0});
  CHECK(pixel(world.object()) == std::array{87, 181, 232});
  CHECK(pixel({0.05, 0.2}) == std::array{89, 77, 71});
}

TEST_CASE("play shows every decision, asks for one player, and hands the stage to a policy",
          "[robotic_sequence]") {
  const support::temporary_folder folder;
  const policy_reader none = [](const std::string&, const std::vector<stage_kind>&) -> player {
    throw std::runtime_error("no policies here");
  };
  const auto shown = [&](const play_command& command, const policy_reader& reader) {
    std::ostringstream text;
    auto* const console = std::cout.rdbuf(text.rdbuf());
    try {
      play(command, reader);
    } catch (...) {
      std::cout.rdbuf(console);
      throw;
    }
    std::cout.rdbuf(console);
    return text.str();
  };
  const play_command script{
      .frames = folder.file("frames"), .scripted = true, .stages = 6, .delay = 0};
  const auto text = shown(script, none);
  CHECK_THAT(text, ContainsSubstring(
                       "4 of 6 stages solved; end: the scripted controller cannot play unplug"));
  CHECK_THAT(text, ContainsSubstring("faucet  stage 2 of 6  decision 0 of 50"));
  // A picture before the first decision, one after each, one at the start of each new stage.
  const auto images = std::distance(std::filesystem::directory_iterator(folder.file("frames")), {});
  CHECK_THAT(text, ContainsSubstring(" in " + std::to_string(images - 5) + " decisions"));
  std::ifstream first(std::filesystem::path(folder.file("frames")) / "00000.ppm", std::ios::binary);
  std::string magic(2, ' ');
  first.read(magic.data(), 2);
  CHECK(magic == "P6");

  CHECK_THAT(shown({.from = "push-wall", .random = true, .delay = 0}, none),
             ContainsSubstring("0 of 1 stages solved; end: out of time in push-wall"));
  CHECK_THAT(thrown_by([&] { shown({.from = "window", .random = true}, none); }),
             ContainsSubstring("begin with press and do not include 'window'"));
  CHECK_THAT(thrown_by([&] { shown({}, none); }), ContainsSubstring("name the player"));
  CHECK_THAT(thrown_by([&] { shown({.random = true, .scripted = true}, none); }),
             ContainsSubstring("name the player"));
  CHECK_THAT(thrown_by([&] { shown({.policy = "some file"}, none); }),
             ContainsSubstring("no policies here"));

  std::vector<int> asked;
  const policy_reader still = [&](const std::string& file,
                                  const std::vector<stage_kind>& stages) -> player {
    CHECK(file == "a policy");
    CHECK((stages == tail(3)));
    return [&](const float* seen, int stage, float* chosen) {
      CHECK(seen[12] <= 1.0f);
      asked.push_back(stage);
      chosen[0] = chosen[1] = 0;
    };
  };
  CHECK_THAT(shown({.policy = "a policy", .from = "unplug", .stages = 3, .delay = 0}, still),
             ContainsSubstring("out of time in unplug"));
  CHECK(asked == std::vector<int>(50, 1));
}

}  // namespace robotic_sequence_world_test
