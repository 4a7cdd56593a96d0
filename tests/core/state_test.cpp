// SPDX-License-Identifier: MIT
#include <retain/state.hpp>

#include <retain/behavioral_cloning.hpp>
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/files/checksum.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <thread>

#include "support.hpp"

namespace state_test {

namespace {

struct with_state {
  void save_state(retain::state&, const std::string&) const {}
  void load_state(const retain::state&, const std::string&) {}
};
static_assert(retain::stateful<with_state>);
static_assert(!retain::stateful<int>);
static_assert(!retain::stateful<at::Tensor>);

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_all(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A state file's bytes with another format in them and the checksum that belongs to that.
std::string of_format(std::string bytes, char format) {
  const std::string before = R"("retain.checksum":")", now = R"("retain.format":"1")";
  bytes[bytes.find(now) + now.size() - 2] = format;
  const auto digits = bytes.find(before) + before.size();
  bytes.replace(digits, 16, std::string(16, '0'));
  retain::detail::crc64 crc;
  crc.update(bytes.data(), bytes.size());
  return bytes.replace(digits, 16, retain::detail::checksum_text(crc.value()));
}

}  // namespace

TEST_CASE("state: the checksum is CRC-64/XZ, however the bytes are divided", "[state]") {
  retain::detail::crc64 whole, parts;
  whole.update("123456789", 9);
  CHECK(whole.value() == 0x995DC9BBDF1939FAu);
  parts.update("123", 3);
  parts.update("456789", 6);
  CHECK(parts.value() == whole.value());
}

TEST_CASE("state: tensors of every type, numbers and texts come back exactly", "[state]") {
  const support::temporary_folder folder;
  torch::manual_seed(4);
  retain::state out;
  for (const auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                          at::kShort, at::kChar, at::kByte, at::kBool})
    out.set(std::string("t.") + c10::toString(type), (torch::randn({3, 5}) * 10).abs().to(type));
  out.set("strided", torch::arange(12, at::kFloat).view({3, 4}).t());
  out.set("empty", torch::zeros({0, 7}));
  out.set("scalar", torch::tensor(2.5));
  out.set("pi", 0.1 + 0.2);
  out.set("tiny", 5e-324);
  out.set("seed", std::uint64_t{18446744073709551615u});
  out.set("text", "a \"quoted\" \\ line\nand \x01 control, UTF-8 \xc3\xa9");
  out.set("na\"me", 1);
  out.write(folder.file("s"));

  const auto in = retain::state::read(folder.file("s"));
  for (const auto& key : out.tensor_keys()) {
    INFO(key);
    CHECK(in.tensor(key).scalar_type() == out.tensor(key).scalar_type());
    CHECK(in.tensor(key).equal(out.tensor(key)));
  }
  CHECK(in.number("pi") == 0.1 + 0.2);
  CHECK(in.number("tiny") == 5e-324);
  CHECK(in.integer<std::uint64_t>("seed") == 18446744073709551615u);
  CHECK(in.text("text") == out.text("text"));
  CHECK(in.integer("na\"me") == 1);
  CHECK(in.unread().empty());
}

TEST_CASE("state: the file is safetensors", "[state]") {
  const support::temporary_folder folder;
  retain::state out;
  out.set("w", torch::tensor({1.0f, 2.0f}));
  out.write(folder.file("s"));
  const auto bytes = read_all(folder.file("s"));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  const auto header = bytes.substr(8, length);
  CHECK_THAT(header, ContainsSubstring(R"("w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})"));
  float values[2];
  REQUIRE(bytes.size() == 8 + length + sizeof values);
  std::memcpy(values, bytes.data() + 8 + length, sizeof values);
  CHECK(values[0] == 1.0f);
  CHECK(values[1] == 2.0f);
}

TEST_CASE("state: a locale that groups digits does not reach the file", "[state]") {
  struct grouping : std::numpunct<char> {
    char do_thousands_sep() const override { return ','; }
    std::string do_grouping() const override { return "\3"; }
  };
  const support::temporary_folder folder;
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new grouping));
  retain::state out;
  out.set("w", torch::zeros({2000, 3}));
  out.set("n", 1234567);
  out.write(folder.file("s"));
  const auto in = retain::state::read(folder.file("s"));
  std::locale::global(before);
  CHECK(in.tensor("w").sizes() == at::IntArrayRef({2000, 3}));
  CHECK(in.integer("n") == 1234567);
}

TEST_CASE("state: every flipped byte and every truncation is an error", "[state]") {
  const support::temporary_folder folder;
  retain::state out;
  out.set("w", torch::tensor({1.0f, 2.0f, 3.0f}));
  out.set("progress", 3.5);
  out.write(folder.file("s"));
  const auto good = read_all(folder.file("s"));
  int accepted = 0, other = 0;
  const auto attempt = [&](const std::string& bytes) {
    write_all(folder.file("bad"), bytes);
    try {
      retain::state::read(folder.file("bad"));
      ++accepted;
    } catch (const retain::io_error& e) {
      if (std::string(e.what()).find("bad") == std::string::npos) ++other;
    }
  };
  for (std::size_t i = 0; i < good.size(); ++i)
    for (const char mask : {'\x01', '\x80', '\xff'}) {
      auto bad = good;
      bad[i] = static_cast<char>(bad[i] ^ mask);
      attempt(bad);
    }
  for (std::size_t n = 0; n < good.size(); ++n) attempt(good.substr(0, n));
  attempt(good + '\0');
  CHECK(accepted == 0);
  CHECK(other == 0);
  CHECK_NOTHROW(retain::state::read(folder.file("s")));
}

TEST_CASE("state: files that are not there, are not ours, or cannot be written", "[state]") {
  const support::temporary_folder folder;
  CHECK_THROWS_WITH(retain::state::read(folder.file("none")),
                    ContainsSubstring("none") && ContainsSubstring("No such file"));
  CHECK_THROWS_WITH(retain::state::read(folder.file("")), ContainsSubstring("is a folder"));
  const std::string json =
      R"({"episodes": 12, "returns": [1.5, 2.5], "name": "a log of something else, longer than a state's beginning"})";
  for (const auto& other : {std::string(500, 'x'), json, json.substr(0, 30)}) {
    write_all(folder.file("text"), other);
    CHECK_THROWS_WITH(
        retain::state::read(folder.file("text")),
        ContainsSubstring("text' is no state of retain") && !ContainsSubstring("truncated"));
  }
  for (const char* few : {"", "{}\n"}) {
    write_all(folder.file("text"), few);
    CHECK_THROWS_WITH(retain::state::read(folder.file("text")), ContainsSubstring("too few"));
  }
  retain::state out;
  out.set("x", 1);
  CHECK_THROWS_WITH(out.write(folder.file("no/such/folder")), ContainsSubstring("cannot create"));
  out.write(folder.file("kept"));
  for (const std::size_t size : {20, 60}) {
    write_all(folder.file("text"), read_all(folder.file("kept")).substr(0, size));
    CHECK_THROWS_WITH(retain::state::read(folder.file("text")),
                      ContainsSubstring("is truncated") && ContainsSubstring("earlier copy"));
  }
  // no temporary file is left
  CHECK(std::distance(std::filesystem::directory_iterator(folder.file("")), {}) == 2);
}

TEST_CASE("state: a file of a newer format is refused as that, not as damaged", "[state]") {
  const support::temporary_folder folder;
  retain::state out;
  out.set("w", torch::ones({3}));
  out.write(folder.file("s"));
  const auto bytes = read_all(folder.file("s"));
  REQUIRE(of_format(bytes, '1') == bytes);
  write_all(folder.file("s"), of_format(bytes, '9'));
  CHECK_THROWS_WITH(retain::state::read(folder.file("s")),
                    ContainsSubstring("format 9") && ContainsSubstring("newer"));
  CHECK_THROWS_AS(retain::state::read(folder.file("s")), retain::io_error);
}

TEST_CASE("state: several may write one file at a time: it is always one of theirs, and nothing is "
          "left beside it",
          "[state]") {
  const support::temporary_folder folder;
  const std::string path = folder.file("state");
  constexpr int writers = 4, rounds = 25;
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int writer = 0; writer < writers; ++writer)
    threads.emplace_back([&, writer] {
      for (int round = 0; round < rounds; ++round) try {
          retain::state out;
          out.set("writer", writer);
          out.set("rows", at::full({1000 * (writer + 1)}, writer));
          out.write(path);
          const auto in = retain::state::read(path);
          const auto who = in.integer("writer");
          if (in.tensor("rows").numel() != 1000 * (who + 1) ||
              !in.tensor("rows").eq(who).all().item<bool>())
            ++failures;
        } catch (const std::exception&) {
          ++failures;
        }
    });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(std::distance(
            std::filesystem::directory_iterator(std::filesystem::path(path).parent_path()), {}) ==
        1);
}

TEST_CASE("state: what is not there is named", "[state]") {
  retain::state s;
  s.set("x", "words");
  CHECK_THROWS_WITH(s.tensor("y"), ContainsSubstring("no tensor 'y'"));
  CHECK_THROWS_WITH(s.number("x"), ContainsSubstring("'words'"));
  CHECK_THROWS_AS(s.number("x"), retain::state_error);
}

// tests/data/retention_0.1.state was written by version 0.1 with these terms, their schedules
// stepped to 2, the controller told of a KL of 1, and five batches drawn.
TEST_CASE("state: a file of version 0.1 still loads, and goes on where it stopped", "[state]") {
  std::vector<std::pair<std::string, at::Tensor>> model{{"a", torch::zeros({2})},
                                                        {"b.weight", torch::zeros({2, 3})}};
  for (auto& [name, tensor] : model) tensor.requires_grad_();
  const retain::parameter_list importance{{"a", torch::ones({2})},
                                          {"b.weight", torch::ones({2, 3})}};
  torch::nn::Linear net(3, 2);
  auto keep = retain::compose(
      retain::ewc{
          model,
          importance,
          {.strength = retain::exponential_decay{.initial = 4, .factor = 0.5, .floor = 0.5}}},
      retain::l2_init{model, {.strength = retain::linear{.initial = 1, .last = 0, .over = 10}}},
      retain::behavioral_cloning{torch::zeros({4, 3}),
                                 torch::zeros({4, 2}),
                                 {.strength = 2.0, .batch_size = 3, .seed = 7}},
      retain::kickstarting{retain::teacher{net},
                           {.strength = retain::adaptive_kl{.initial = 1, .target = .1}}});
  retain::load(RETAIN_TEST_DATA "/retention_0.1.state", keep);

  // At zero the squared distances are those of the anchors: a = {1, 2} and b = {0, ..., 5}, with
  // importances 1/2 and 1/4.
  CHECK(keep.term<0>().strength() == 1.0);
  CHECK(keep.term<0>().loss(model).item<double>() == 1.0 * (0.5 * 5 + 0.25 * 55));
  CHECK(keep.term<1>().strength() == Approx(0.8));
  CHECK(keep.term<1>().loss(model).item<double>() == Approx(0.8 * (5 + 55)));
  // The three states that come next, of four: an index is the upper two bits of what the generator
  // gives.
  const auto file = retain::state::read(RETAIN_TEST_DATA "/retention_0.1.state");
  retain::detail::splitmix64 random(file.integer<std::uint64_t>("behavioral_cloning.random"));
  double divergence = 0;
  for (int i = 0; i < 3; ++i) {
    const auto drawn = static_cast<std::int64_t>(random() >> 62);
    const auto said =
        file.tensor("behavioral_cloning.target")[drawn].to(at::kDouble).log_softmax(0);
    const auto own = file.tensor("behavioral_cloning.memory")[drawn]
                         .narrow(0, 0, 2)
                         .to(at::kDouble)
                         .log_softmax(0);
    divergence += (said.exp() * (said - own)).sum().item<double>() / 3;
  }
  CHECK(divergence > 0.01);
  CHECK(keep.term<2>()
            .loss([](const at::Tensor& o) { return retain::categorical{o.narrow(1, 0, 2)}; })
            .item<double>() == Approx(2.0 * divergence).epsilon(1e-5));
  CHECK(keep.term<3>().strength() == 2.0);
  const auto answer = keep.term<3>().teacher()(torch::eye(3)).logits;
  CHECK(answer.equal(torch::tensor({{0.f, 4.f}, {1.f, 5.f}, {2.f, 6.f}})));
}

}  // namespace state_test
