// SPDX-License-Identifier: MIT
#include <retain/schedule.hpp>

#include "support.hpp"

namespace schedule_test {

namespace {

struct not_a_number {
  std::string operator()(double) const { return ""; }
};
static_assert(retain::schedule<retain::constant>);
static_assert(retain::schedule<retain::exponential_decay>);
static_assert(retain::schedule<retain::adaptive_kl>);
static_assert(retain::schedule<retain::dual_ascent>);
static_assert(retain::schedule<decltype([](double p) { return 1.0 / (1.0 + p); })>);
static_assert(!retain::schedule<not_a_number>);
static_assert(!retain::schedule<double>);
static_assert(!retain::schedule<decltype([] { return 1.0; })>);

}  // namespace

TEST_CASE("schedule: the kickstarting schedule reaches its floor at update 41 049", "[schedule]") {
  retain::strength_schedule s =
      retain::exponential_decay{.initial = 0.75, .factor = 0.99998, .floor = 0.33};
  CHECK(s.value() == 0.75);
  s.step(1);
  CHECK(s.value() == Approx(0.75 * 0.99998).epsilon(1e-15));
  // Multiplied out one update at a time, as a training loop would have done it.
  double product = 0.75;
  int updates = 0;
  while (product > 0.33) product *= 0.99998, ++updates;
  CHECK(updates == 41049);
  s.step(41048);
  CHECK(s.value() > 0.33);
  s.step(41049);
  CHECK(s.value() == 0.33);
}

TEST_CASE("schedule: progress in another unit", "[schedule]") {
  const retain::exponential_decay per_update{.initial = 1, .factor = 0.5},
      per_steps{.initial = 1, .factor = 0.5, .per = 4096};
  CHECK(per_steps(3 * 4096) == per_update(3));
}

TEST_CASE("schedule: linear and cosine at their ends and middle", "[schedule]") {
  const retain::linear line{.initial = 2, .last = 1, .over = 10};
  CHECK(line(0) == 2);
  CHECK(line(5) == 1.5);
  CHECK(line(10) == 1);
  CHECK(line(1000) == 1);
  const retain::cosine wave{.initial = 2, .last = 1, .over = 10};
  CHECK(wave(0) == 2);
  CHECK(wave(5) == Approx(1.5));
  CHECK(wave(2.5) == Approx(1 + 0.5 * (1 + std::sqrt(0.5))));
  CHECK(wave(99) == 1);
}

TEST_CASE("schedule: adaptive KL doubles, halves and stays within its bounds", "[schedule]") {
  retain::strength_schedule s =
      retain::adaptive_kl{.initial = 1, .target = 0.1, .minimum = 0.25, .maximum = 4};
  s.observe(0.1);
  CHECK(s.value() == 1);
  s.observe(0.16);
  CHECK(s.value() == 2);
  for (int i = 0; i < 10; ++i) s.observe(1.0);
  CHECK(s.value() == 4);
  s.observe(0.01);
  CHECK(s.value() == 2);  // leaves the bound at once: nothing has wound up behind it
  for (int i = 0; i < 10; ++i) s.observe(0.0);
  CHECK(s.value() == 0.25);
}

TEST_CASE("schedule: dual ascent moves by at most e^rate, within its bounds, and nothing winds up "
          "behind them",
          "[schedule]") {
  retain::strength_schedule s =
      retain::dual_ascent{.initial = 1, .target = 0.1, .rate = 0.5, .minimum = 0.25, .maximum = 2};
  s.observe(0.1);
  CHECK(s.value() == 1);
  s.observe(0.12);
  CHECK(s.value() == Approx(std::exp(0.5 * 0.2)));
  s.observe(0.05);
  CHECK(s.value() == Approx(std::exp(0.5 * 0.2 - 0.5 * 0.5)));
  const double before = s.value();
  s.observe(100);
  CHECK(s.value() == Approx(before * std::exp(0.5)));
  for (int i = 0; i < 10; ++i) s.observe(INFINITY);
  CHECK(s.value() == 2);
  s.observe(0);
  CHECK(s.value() == Approx(2 * std::exp(-0.5)));
  for (int i = 0; i < 10; ++i) s.observe(0);
  CHECK(s.value() == 0.25);
}

TEST_CASE("schedule: dual ascent finds the multiplier that holds a KL at its budget",
          "[schedule]") {
  // A loss (x - 1)^2 + c x^2 is least at x = 1 / (1 + c); let the KL be x^2. At the budget 0.04, x
  // is 0.2 and c is 4.
  retain::strength_schedule c = retain::dual_ascent{.initial = 0.01, .target = 0.04};
  for (int i = 0; i < 400; ++i) c.observe(std::pow(1 / (1 + c.value()), 2));
  CHECK(c.value() == Approx(4).epsilon(1e-6));
}

TEST_CASE("schedule: hold_kl finds a strength nine powers of ten away, with delay and noise",
          "[schedule]") {
  // In equilibrium the KL is 2 / (1 + c / c1)^2, which is 0.02 at c = 300. The KL comes to its
  // equilibrium with a delay of `lag` measurements.
  const double c1 = 300 / (std::sqrt(2 / 0.02) - 1);
  std::mt19937 dice(1);
  std::normal_distribution<double> normal;
  for (const double initial : {1e-3, 1.0, 1e3, 1e6})
    for (const double lag : {1.0, 3.0, 10.0})
      for (const double noise : {0.0, 0.2}) {
        INFO("from " << initial << ", lag " << lag << ", noise " << noise);
        retain::strength_schedule c = retain::hold_kl{.initial = initial, .target = 0.02};
        double kl = 0, highest = 0, sum = 0;
        for (int i = 0; i < 200; ++i) {
          kl += (2 / std::pow(1 + c.value() / c1, 2) - kl) / lag;
          c.observe(kl * std::exp(noise * normal(dice)));
          highest = std::max(highest, kl);
          if (i >= 150) sum += kl;
        }
        CHECK(sum / 50 == Approx(0.02).epsilon(noise > 0 ? 0.3 : 0.05));
        if (noise == 0) CHECK(c.value() == Approx(300).epsilon(0.1));
        if (initial >= 1e3) CHECK(highest < 0.06);  // from above there is hardly an overshoot
      }
}

TEST_CASE("schedule: hold_kl waits while the KL is coming back, and stays in its bounds",
          "[schedule]") {
  retain::strength_schedule c = retain::hold_kl{.initial = 4, .target = 0.1, .maximum = 20};
  c.observe(1.0);
  CHECK(c.value() == Approx(4 * std::exp(1.0)));
  c.observe(0.8);  // still high, but a fifth lower
  CHECK(c.value() == Approx(4 * std::exp(1.0)));
  c.observe(0.79);  // no longer coming back
  CHECK(c.value() == 20);
  c.observe(0.05);
  CHECK(c.value() == Approx(20 * std::exp(-0.5)));
  c.observe(0.06);  // coming back from below
  CHECK(c.value() == Approx(20 * std::exp(-0.5)));
  c.observe(0.0);
  c.observe(-1e-9);
  CHECK(c.value() == Approx(20 * std::exp(-1.5)));
  CHECK_THROWS_AS(c.observe(std::nan("")), retain::config_error);
  retain::state st;
  c.save_state(st, "");
  retain::strength_schedule resumed = 1.0;
  resumed.load_state(st, "");
  for (const double kl : {0.3, 0.2, 0.25, 0.01, 0.02}) {
    c.observe(kl);
    resumed.observe(kl);
    CHECK(resumed.value() == c.value());
  }
  CHECK_THROWS_AS(retain::strength_schedule(retain::hold_kl{.target = 0}), retain::config_error);
  CHECK_THROWS_AS(retain::strength_schedule(retain::hold_kl{.rate = 0}), retain::config_error);
}

TEST_CASE("schedule: return ratio", "[schedule]") {
  retain::strength_schedule s = retain::return_ratio{.teacher_return = 200, .maximum = 2};
  CHECK(s.value() == 2);
  s.observe(50);
  CHECK(s.value() == 1.5);
  s.observe(300);
  CHECK(s.value() == 0);
}

TEST_CASE("schedule: copies are independent", "[schedule]") {
  retain::strength_schedule a = retain::adaptive_kl{.initial = 1, .target = 0.1};
  auto b = a;
  a.observe(1);
  a.step(5);
  CHECK(b.value() == 1);
  CHECK(b.progress() == 0);
  b = a;
  CHECK(b.value() == 2);
}

TEST_CASE("schedule: a bad strength is refused where it enters", "[schedule]") {
  CHECK_THROWS_AS(retain::strength_schedule(-1.0), retain::config_error);
  CHECK_THROWS_AS(retain::strength_schedule(std::nan("")), retain::config_error);
  retain::strength_schedule s = [](double p) { return 1 - p; };
  CHECK_THROWS_WITH(s.step(2), ContainsSubstring("got -1"));
  CHECK(s.progress() == 0);
  CHECK_THROWS_WITH(s.observe(1), ContainsSubstring("does not adapt"));
  CHECK_THROWS_AS(s.step(std::nan("")), retain::config_error);
  CHECK_THROWS_AS((retain::strength_schedule{retain::exponential_decay{.per = 0}}),
                  retain::config_error);
  CHECK_THROWS_AS((retain::strength_schedule{retain::return_ratio{.teacher_return = -1}}),
                  retain::config_error);
  retain::strength_schedule adapts = retain::return_ratio{.teacher_return = 10};
  CHECK_THROWS_AS(adapts.observe(std::nan("")), retain::config_error);
  CHECK(adapts.value() == 1.0);  // a refused measurement leaves nothing behind
}

TEST_CASE("schedule: parameters that make no sense are refused when a schedule is taken, by name",
          "[schedule]") {
  const auto taken = [](auto schedule) { return retain::strength_schedule{schedule}; };
  CHECK_THROWS_WITH(
      taken(retain::linear{.over = 0}),
      ContainsSubstring("linear{1 to 0 over 0}") && ContainsSubstring("over must be positive"));
  CHECK_THROWS_AS(taken(retain::linear{.over = std::nan("")}), retain::config_error);
  // though it begins well
  CHECK_THROWS_AS(taken(retain::linear{.last = -0.1}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::cosine{.over = -1}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::cosine{.last = INFINITY}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::exponential_decay{.factor = -0.5}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::exponential_decay{.floor = -0.5}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::exponential_decay{.per = -1}), retain::config_error);
  CHECK_THROWS_WITH(taken(retain::adaptive_kl{.target = 0}),
                    ContainsSubstring("target must be positive"));
  CHECK_THROWS_AS(taken(retain::adaptive_kl{.initial = 0}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::adaptive_kl{.minimum = 2, .maximum = 1}), retain::config_error);
  CHECK_THROWS_WITH(taken(retain::adaptive_kl{.minimum = 0}), ContainsSubstring("multiplied up"));
  CHECK_THROWS_AS(taken(retain::dual_ascent{.rate = 0}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::dual_ascent{.target = -1}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::dual_ascent{.initial = 1, .maximum = 0.5}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::return_ratio{.maximum = -1}), retain::config_error);
  CHECK_THROWS_AS(taken(retain::return_ratio{.teacher_return = 0}), retain::config_error);
  CHECK_NOTHROW(taken(retain::exponential_decay{.factor = 1.5}));
  retain::strength_schedule adapts = retain::adaptive_kl{.initial = 1, .target = 0.1};
  CHECK_THROWS_WITH(adapts.observe(std::nan("")), ContainsSubstring("NaN"));
}

TEST_CASE("schedule: saved and restored, with what it learned", "[schedule]") {
  retain::strength_schedule s = retain::adaptive_kl{.initial = 0.3, .target = 0.1};
  s.observe(1);
  s.step(12345.678);
  retain::state st;
  s.save_state(st, "x.");
  retain::strength_schedule same = retain::adaptive_kl{.initial = 0.3, .target = 0.1};
  same.load_state(st, "x.");
  CHECK(same.value() == s.value());
  CHECK(same.progress() == 12345.678);
  CHECK(st.unread().empty());
  CHECK(st.strength_notes().empty());
  retain::strength_schedule ascent = retain::dual_ascent{.initial = 0.3, .target = 0.1},
                            fresh = retain::dual_ascent{.initial = 0.3, .target = 0.1};
  ascent.observe(0.13);
  ascent.save_state(st, "y.");
  fresh.load_state(st, "y.");
  CHECK(fresh.value() == ascent.value());
  CHECK(fresh.value() != 0.3);
}

TEST_CASE("schedule: the saved schedule replaces another one, to the bit", "[schedule]") {
  const std::vector<retain::strength_schedule> kinds{
      0.1,
      retain::exponential_decay{.initial = 0.75, .factor = 0.9999992, .floor = 0.33, .per = 7},
      retain::linear{.initial = 1.0 / 3, .last = 1e-7, .over = 12345},
      retain::cosine{.initial = 2, .last = 0.1, .over = 1e6},
      retain::adaptive_kl{.initial = 0.3, .target = 0.1, .minimum = 1e-3, .maximum = 7},
      retain::dual_ascent{
          .initial = 0.3, .target = 0.1, .rate = 0.7, .minimum = 0.01, .maximum = 9},
      retain::hold_kl{.initial = 0.3, .target = 0.1, .rate = 0.7, .minimum = 0.01, .maximum = 9},
      retain::return_ratio{.teacher_return = 17, .maximum = 0.7}};
  for (const auto& saved : kinds)
    for (const auto& own : kinds) {
      auto s = saved, loaded = own;
      INFO(s.description() << " into " << loaded.description());
      s.step(321);
      const bool adapts = s.description().find("target") != std::string::npos;
      if (adapts) s.observe(0.4);
      retain::state st;
      s.save_state(st, "x.");
      loaded.load_state(st, "x.");
      CHECK(loaded.description() == s.description());
      CHECK(st.unread().empty());
      CHECK(st.strength_notes().empty() == (saved.description() == own.description()));
      for (const double progress : {0.0, 321.0, 5000.0, 1e7}) {
        s.step(progress);
        loaded.step(progress);
        CHECK(loaded.value() == s.value());
        if (adapts) s.observe(0.12), loaded.observe(0.12);
      }
    }
}

TEST_CASE("schedule: a schedule of one's own is neither replaced nor invented", "[schedule]") {
  const retain::strength_schedule number = 2.0, own = [](double p) { return 1 + p; };
  const auto saved = [](const retain::strength_schedule& s) {
    retain::state out;
    s.save_state(out, "x.");
    return out;
  };
  auto one = number, other = own;
  CHECK_THROWS_WITH(one.load_state(saved(own), "x."),
                    ContainsSubstring("schedule custom") && ContainsSubstring("constant{2}"));
  CHECK(one.value() == 2);
  // A number that was set replaces it, and a state of before brings it back.
  const auto before = saved(other);
  other.set(2.0);
  const auto after = saved(other);
  auto fresh = own;
  fresh.load_state(after, "x.");
  CHECK(fresh.value() == 2);
  fresh.load_state(before, "x.");
  CHECK(fresh.value() == 1);
  fresh.step(3);
  CHECK(fresh.value() == 4);
  for (const char* text : {"constant{2", "constant{2}}", "constant{}", "linear{1 to 2 over}",
                           "constant{nan}", "constant{-1}", "linear{1 to 2 over 0}", ""}) {
    retain::state st;
    number.save_state(st, "x.");
    st.set("x.kind", text);
    INFO(text);
    CHECK_THROWS_AS(one.load_state(st, "x."), retain::state_error);
    CHECK(one.value() == 2);
  }
  auto moved = own;
  moved.step(3);
  auto keeps = saved(moved);
  keeps.keep_strength();
  one.load_state(keeps, "x.");  // only the progress
  CHECK(one.value() == 2);
  CHECK(one.progress() == 3);
  REQUIRE(keeps.strength_notes().size() == 1);
  CHECK(keeps.strength_notes()[0] == "'x.': kept constant{2}; the state has custom");
}

TEST_CASE("schedule: a schedule of one's own loads all that it remembers", "[schedule]") {
  struct averaging {
    std::vector<double> seen;
    double operator()(double) const {
      double sum = 0;
      for (const double each : seen) sum += each;
      return seen.empty() ? 0 : sum / static_cast<double>(seen.size());
    }
    void observe(double value) { seen.push_back(value); }
    std::vector<double> memory() const { return seen; }
    void set_memory(const std::vector<double>& values) { seen = values; }
  };
  retain::strength_schedule s = averaging{}, fresh = averaging{};
  for (int i = 1; i <= 10; ++i) s.observe(i);
  retain::state st;
  s.save_state(st, "x.");
  fresh.load_state(st, "x.");
  CHECK(fresh.value() == 5.5);
  CHECK(st.unread().empty());
}

TEST_CASE("schedule: keeping a strength leaves nothing of an adapting one unread", "[schedule]") {
  retain::strength_schedule adapts = retain::adaptive_kl{.initial = 0.3, .target = 0.1};
  adapts.observe(1);
  adapts.step(5);
  retain::state st;
  adapts.save_state(st, "x.");
  st.keep_strength();
  retain::strength_schedule fresh = retain::adaptive_kl{.initial = 0.3, .target = 0.1};
  fresh.load_state(st, "x.");
  CHECK(fresh.value() == 0.3);
  CHECK(fresh.progress() == 5);
  CHECK(st.unread().empty());
  CHECK(st.strength_notes().size() == 1);  // the schedules are alike, but what they learned is not
}

TEST_CASE("schedule: a set strength keeps the progress", "[schedule]") {
  retain::strength_schedule s = 3.0;
  s.step(10);
  s.set(retain::linear{.initial = 1, .last = 0, .over = 20});
  CHECK(s.value() == 0.5);
  CHECK_THROWS_AS(s.set(retain::strength_schedule{[](double p) { return 1 - p; }}),
                  retain::config_error);  // -9 at progress 10
  CHECK(s.value() == 0.5);
}

TEST_CASE("schedule: a state that no schedule can come to is refused and changes nothing",
          "[schedule]") {
  const auto refused = [](const retain::strength_schedule& schedule, const char* key,
                          double value) {
    auto loaded = schedule;
    retain::state saved;
    loaded.save_state(saved, "x.");
    saved.set("x.progress", 7.0);
    saved.set(key, value);
    INFO(key << " " << value);
    CHECK_THROWS_AS(loaded.load_state(saved, "x."), retain::state_error);
    CHECK_THROWS_WITH(loaded.load_state(saved, "x."), ContainsSubstring("'x.'"));
    CHECK(loaded.value() == schedule.value());
    CHECK(loaded.progress() == 0);
  };
  const double nan = std::nan(""), infinity = INFINITY;
  for (const double bad : {nan, infinity, -infinity}) {
    refused(2.0, "x.progress", bad);
    refused(retain::linear{}, "x.progress", bad);
  }
  for (const double bad : {nan, infinity, 0.0, -1.0}) {
    refused(retain::adaptive_kl{}, "x.memory.0", bad);
    refused(retain::dual_ascent{}, "x.memory.0", bad);
  }
  refused(retain::return_ratio{}, "x.memory.0", nan);
  refused([](double progress) { return 1 - progress; }, "x.progress", 2);  // a strength of -1
  CHECK_THROWS_AS(retain::strength_schedule(retain::adaptive_kl{.scale = nan}),
                  retain::config_error);
  CHECK_THROWS_AS(retain::strength_schedule(retain::dual_ascent{.scale = -1}),
                  retain::config_error);
  CHECK_THROWS_AS(retain::strength_schedule(retain::return_ratio{.student_return = nan}),
                  retain::config_error);
}

}  // namespace schedule_test
