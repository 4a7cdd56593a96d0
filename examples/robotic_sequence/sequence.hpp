// SPDX-License-Identifier: MIT
// Several stages one after the other. A solved stage leads to the next stage. A stage that is not
// solved in time ends the episode.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "physics.hpp"
#include "rules.hpp"

namespace robotic_sequence {

struct world_options {
  int horizon = 50;  ///< decisions of a stage
  double success_bonus = 1.5;
  double reward_scale = 0.1;
  int frames = 5;  ///< simulation steps per decision, each of 10 ms
};

/// The world. A decision is a torque for each motor, in [-1, 1] times 4 Nm. It pays scale · r,
/// where r is the dense reward after the decision (see rules.hpp). A decision that solves the stage
/// pays scale · bonus · r · (T - t), where T is the horizon and t is the number of the decision in
/// its stage, from 0. So the first decision can earn the factor T, and the last one the factor 1.
/// Both ends of a stage, solved and out of time, are terminal. Equal seeds, stages and decisions
/// give equal worlds.
class sequence {
 public:
  static constexpr int observation_size = 13, action_size = 2;

  struct outcome {
    float reward;
    bool success;    ///< solved, with this decision
    bool timed_out;  ///< the last decision did not solve the stage
  };

  /// Starts at stage 0. Throws std::invalid_argument if the stages or options are invalid.
  explicit sequence(std::vector<stage_kind> stages, std::uint64_t seed, world_options options = {})
      : stages_(std::move(stages)), options_(options), random_(seed) {
    if (stages_.empty()) throw std::invalid_argument("sequence: give at least one stage");
    if (options_.horizon < 1)
      throw std::invalid_argument("sequence: the horizon must be 1 or more, got " +
                                  std::to_string(options_.horizon));
    if (options_.frames < 1)
      throw std::invalid_argument("sequence: the frames of a decision must be 1 or more, got " +
                                  std::to_string(options_.frames));
    for (const auto kind : stages_)
      simulations_.emplace_back(mj_makeData(model_of(kind).model.get()));
    start(0);
  }

  int stages() const { return static_cast<int>(stages_.size()); }
  int stage() const { return stage_; }
  stage_kind kind() const { return stages_[static_cast<std::size_t>(stage_)]; }
  stage_kind kind(int stage) const { return stages_.at(static_cast<std::size_t>(stage)); }
  /// Number of decisions made in this stage.
  int time() const { return time_; }
  /// Whether the stage has ended. If so, only start() and advance() continue.
  bool over() const { return end_ != ending::none; }

  /// Starts a stage with random positions. Throws std::out_of_range if there is no such stage.
  void start(int stage) {
    if (stage < 0 || stage >= stages())
      throw std::out_of_range("sequence: there is no stage " + std::to_string(stage) + ": 0 to " +
                              std::to_string(stages() - 1));
    stage_ = stage;
    time_ = 0;
    end_ = ending::none;
    where_ = draw_layout(
        kind(), [this](double low, double high) { return low + (high - low) * uniform(); });
    mj_resetData(&model(), &simulation());
    set_place();
    simulation().qpos[0] = where_.shoulder;
    simulation().qpos[1] = where_.elbow;
    mj_forward(&model(), &simulation());
    way_at_start_ = way_left(kind(), where_, object());
  }

  /// Joint angles and velocities, tip, object, the vector from tip to object, goal (two numbers
  /// each, shifted and scaled to about [-1, 1]) and 2t / T - 1.
  void observe(float* out) const {
    const auto* angle = data().qpos;
    const auto* velocity = data().qvel;
    const point hand = tip(), thing = object();
    for (const double value : {angle[0] - 1, angle[1] - 1.5, 0.5 * velocity[0], 0.5 * velocity[1],
                               4 * hand.x, 4 * (hand.y - 0.15), 4 * thing.x, 4 * (thing.y - 0.15),
                               6 * (thing.x - hand.x), 6 * (thing.y - hand.y), 4 * where_.goal.x,
                               4 * (where_.goal.y - 0.2), 2.0 * time_ / options_.horizon - 1})
      *out++ = static_cast<float>(value);
  }

  /// Makes one decision: two numbers, clamped to [-1, 1]. Does not start the next stage. Throws
  /// std::logic_error if the stage is over, std::invalid_argument if a number is not finite.
  outcome step(const float* action) {
    if (over())
      throw std::logic_error(
          "sequence: the stage is over; call start() or advance() before the next decision");
    for (int i = 0; i < action_size; ++i) {
      if (!std::isfinite(action[i]))
        throw std::invalid_argument("sequence: action " + std::to_string(i) +
                                    " is not a finite number");
      simulation().ctrl[i] = std::clamp(static_cast<double>(action[i]), -1.0, 1.0);
    }
    for (int i = 0; i < options_.frames; ++i) mj_step(&model(), &simulation());
    mj_kinematics(&model(), &simulation());
    const int before = time_++;
    const bool success = solved(kind(), where_, object());
    end_ = success ? ending::solved : time_ >= options_.horizon ? ending::timed_out : ending::none;
    const double bonus = success ? options_.success_bonus * (options_.horizon - before) : 1;
    const double reward = bonus * dense_reward(kind(), where_, way_at_start_, tip(), object());
    return {static_cast<float>(options_.reward_scale * reward), success, end_ == ending::timed_out};
  }

  /// After a success: starts the next stage and returns true. Returns false if the stage was the
  /// last one. Throws std::logic_error if the stage is not solved.
  bool advance() {
    if (end_ != ending::solved)
      throw std::logic_error("sequence: stage " + std::to_string(stage_) +
                             " is not solved, so the next stage cannot start");
    if (stage_ + 1 == stages()) return false;
    start(stage_ + 1);
    return true;
  }

  /// Saves everything that is needed to continue bit for bit. `out` and `in` are retain::state, or
  /// any type with its set(), text() and integer().
  template <class State>
  void save_state(State& out, const std::string& prefix) const {
    out.set(prefix + "stages", names());
    out.set(prefix + "stage", stage_);
    out.set(prefix + "time", time_);
    out.set(prefix + "end", static_cast<int>(end_));
    out.set(prefix + "random", random_);
    const auto& [place, goal, shoulder, elbow] = where_;
    out.set(prefix + "layout",
            text_of({place.x, place.y, goal.x, goal.y, shoulder, elbow, way_at_start_}));
    std::vector<double> numbers;
    for_each_physics(model(), data(), [&](std::span<const mjtNum> part) {
      numbers.insert(numbers.end(), part.begin(), part.end());
    });
    out.set(prefix + "physics", text_of(numbers));
  }

  /// Loads into a sequence with the same stages and options. Throws and changes nothing if the
  /// state is from another sequence.
  template <class State>
  void load_state(const State& in, const std::string& prefix) {
    if (in.text(prefix + "stages") != names())
      throw std::runtime_error("the state is from the stages " + in.text(prefix + "stages") +
                               ", this sequence has " + names());
    const int stage = in.template integer<int>(prefix + "stage"),
              time = in.template integer<int>(prefix + "time");
    const int end = in.template integer<int>(prefix + "end");
    if (stage < 0 || stage >= stages() || time < 0 || time > options_.horizon || end < 0 || end > 2)
      throw std::runtime_error("the state '" + prefix + "' has stage " + std::to_string(stage) +
                               ", time " + std::to_string(time) + ", end " + std::to_string(end) +
                               ": of a sequence with another horizon?");
    const auto random = in.template integer<std::uint64_t>(prefix + "random");
    const auto& new_model = *model_of(kind(stage)).model;
    auto& new_data = *simulations_[static_cast<std::size_t>(stage)];
    std::size_t size = 0;
    for_each_physics(new_model, new_data,
                     [&](std::span<const mjtNum> part) { size += part.size(); });
    const auto numbers = numbers_of(in.text(prefix + "physics"), size, prefix + "physics");
    const auto drawn = numbers_of(in.text(prefix + "layout"), 7, prefix + "layout");

    stage_ = stage;
    time_ = time;
    end_ = static_cast<ending>(end);
    random_ = random;
    where_ = {{drawn[0], drawn[1]}, {drawn[2], drawn[3]}, drawn[4], drawn[5]};
    way_at_start_ = drawn[6];
    mj_resetData(&model(), &simulation());
    set_place();
    auto next = numbers.begin();
    for_each_physics(model(), simulation(), [&](std::span<mjtNum> part) {
      std::copy_n(next, part.size(), part.begin());
      next += static_cast<std::ptrdiff_t>(part.size());
    });
    mj_kinematics(&model(), &simulation());
  }

  const world_options& options() const { return options_; }
  const layout& where() const { return where_; }
  double way_at_start() const { return way_at_start_; }
  point tip() const { return site(model_of(kind()).tip); }
  point object() const { return site(model_of(kind()).object); }
  /// The MuJoCo simulation of the stage.
  const mjModel& model() const { return *model_of(kind()).model; }
  const mjData& data() const { return *simulations_[static_cast<std::size_t>(stage_)]; }

 private:
  enum class ending { none, solved, timed_out };

  mjData& simulation() { return *simulations_[static_cast<std::size_t>(stage_)]; }
  point site(int id) const { return {data().site_xpos[3 * id], data().site_xpos[3 * id + 1]}; }
  void set_place() {
    simulation().mocap_pos[0] = where_.place.x;
    simulation().mocap_pos[1] = where_.place.y;
  }

  /// splitmix64; a multiple of 2^-53 in [0, 1).
  double uniform() {
    std::uint64_t z = random_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }

  std::string names() const {
    std::string all;
    for (const auto each : stages_) {
      if (!all.empty()) all += ' ';
      all += name_of(each);
    }
    return all;
  }

  /// The parts of a simulation that its next step does not recompute.
  template <class Data, class Visit>
  static void for_each_physics(const mjModel& m, Data& d, Visit&& visit) {
    const auto size = [](auto n) { return static_cast<std::size_t>(n); };
    visit(std::span(d.qpos, size(m.nq)));
    visit(std::span(d.qvel, size(m.nv)));
    visit(std::span(d.act, size(m.na)));
    visit(std::span(d.qacc_warmstart, size(m.nv)));
    visit(std::span(d.ctrl, size(m.nu)));
    visit(std::span(&d.time, 1));
  }

  /// The shortest texts that read back exactly.
  static std::string text_of(const std::vector<double>& numbers) {
    std::string all;
    for (const double number : numbers) {
      char digits[32];
      all.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr).push_back(' ');
    }
    return all;
  }

  static std::vector<double> numbers_of(std::string_view text, std::size_t count,
                                        const std::string& key) {
    std::vector<double> numbers;
    for (const char *at = text.data(), *end = at + text.size(); at != end; ++at) {
      double number = 0;
      const auto [behind, error] = std::from_chars(at, end, number);
      if (error != std::errc{} || behind == end || *behind != ' ')
        throw std::runtime_error("the state's '" + key + "' is not a list of numbers");
      numbers.push_back(number);
      at = behind;
    }
    if (numbers.size() != count)
      throw std::runtime_error("the state's '" + key + "' has " + std::to_string(numbers.size()) +
                               " numbers, not " + std::to_string(count));
    return numbers;
  }

  std::vector<stage_kind> stages_;
  world_options options_;
  std::vector<data_pointer> simulations_;  ///< one per stage
  std::uint64_t random_;
  int stage_ = 0, time_ = 0;
  ending end_ = ending::none;
  layout where_;
  double way_at_start_ = 1;
};

}  // namespace robotic_sequence
