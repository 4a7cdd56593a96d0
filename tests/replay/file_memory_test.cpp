// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>
#include <retain/replay/file_memory.hpp>
#include <retain/replay/file_writer.hpp>

#include <filesystem>
#include <fstream>

#include "support.hpp"

namespace replay_file_memory_test {

using retain::file_memory;
using retain::file_writer;
using retain::transitions;

static_assert(retain::detail::gatherable<file_memory> &&
              retain::detail::gatherable<retain::file_column>);
static_assert(retain::stateful<file_memory> && retain::stateful<retain::file_column>);

namespace {

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// Odd numbers of bytes in front, so that nothing behind them is aligned.
transitions odd_columns(std::int64_t n) {
  return transitions{{"a flag", torch::rand({n}).gt(0.5)},
                     {"b byte", torch::randint(0, 255, {n, 3}, at::kByte)},
                     {"double", torch::randn({n, 2, 2}, at::kDouble)},
                     {"half", torch::randn({n}).to(at::kHalf)},
                     {"long", torch::randint(-9, 9, {n}, at::kLong)}};
}

}  // namespace

TEST_CASE("file_memory: what was written chunk by chunk is gathered row by row", "[replay]") {
  const support::temporary_folder folder;
  torch::manual_seed(1);
  const auto all = odd_columns(101);
  file_writer out{folder.file("rows")};
  for (std::int64_t from = 0; from < 101; from += 17)
    out.push(all.narrow(from, std::min<std::int64_t>(17, 101 - from)));
  out.push(all.narrow(0, 0));
  CHECK(out.size() == 101);
  CHECK(!std::filesystem::exists(folder.file("rows")));
  out.close();
  const file_memory memory{folder.file("rows")};
  CHECK(memory.size() == 101);
  for (const auto& indices :
       {torch::tensor({100, 3, 3, 0}, at::kLong), torch::randint(0, 101, {5, 7}, at::kLong),
        torch::empty({0}, at::kLong)}) {
    const auto got = memory.gather(indices), expected = all.gather(indices);
    for (const auto& [name, tensor] : expected) {
      CHECK(got[name].equal(tensor));
      CHECK(got[name].scalar_type() == tensor.scalar_type());
      CHECK(memory.column(name).gather(indices).equal(tensor));
    }
  }
  CHECK_THROWS_WITH(memory.gather(torch::tensor({101}, at::kLong)),
                    ContainsSubstring("index 101") && ContainsSubstring("101 rows"));
  CHECK_THROWS_WITH(memory.column("reward"),
                    ContainsSubstring("no 'reward'") && ContainsSubstring("'double'"));
}

TEST_CASE("file_memory: the files of retain::state and of file_writer are one format", "[replay]") {
  const support::temporary_folder folder;
  torch::manual_seed(2);
  const auto all = odd_columns(20);
  retain::state written;
  for (const auto& [name, tensor] : all) written.set(name, tensor);
  written.set("a text", "of the state");
  written.write(folder.file("state"));
  const file_memory memory{folder.file("state")};
  for (const auto& [name, tensor] : all)
    CHECK(memory.column(name).gather(torch::arange(20)).equal(tensor));

  file_writer out{folder.file("writer")};
  out.push(all);
  out.close();
  const auto read = retain::state::read(folder.file("writer"));
  for (const auto& [name, tensor] : all) CHECK(read.tensor(name).equal(tensor));
}

TEST_CASE("file_memory: a damaged or truncated file is refused", "[replay]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  file_writer out{folder.file("good")};
  out.push(odd_columns(4));
  out.close();
  const std::string good = bytes_of(folder.file("good"));
  const auto refused = [&](const std::string& bytes, bool verify) {
    write_bytes(folder.file("bad"), bytes);
    try {
      file_memory{folder.file("bad"), {.verify = verify}};
    } catch (const retain::io_error&) {
      return true;
    }
    return false;
  };
  REQUIRE(!refused(good, true));
  for (std::size_t i = 0; i < good.size(); i += 3) {
    auto bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    CHECK(refused(bad, true));
  }
  // Truncation is seen without reading the rows; a changed row is not.
  for (std::size_t size = 0; size < good.size(); size += 5) {
    CHECK(refused(good.substr(0, size), true));
    CHECK(refused(good.substr(0, size), false));
  }
  auto changed = good;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  CHECK(!refused(changed, false));
  CHECK_THROWS_WITH(file_memory{folder.file("missing")},
                    ContainsSubstring("cannot open") && ContainsSubstring("missing"));
}

TEST_CASE("file_memory: a newer format, a folder and what is no state are refused as what they are",
          "[replay]") {
  const support::temporary_folder folder;
  file_writer out{folder.file("rows")};
  out.push(odd_columns(4));
  out.close();
  const std::string now = R"("retain.format":"1")";
  auto bytes = bytes_of(folder.file("rows"));
  bytes.replace(bytes.find(now), now.size(), R"("retain.format":"9")");
  write_bytes(folder.file("newer"), bytes);
  CHECK_THROWS_WITH((file_memory{folder.file("newer"), {.verify = false}}),
                    ContainsSubstring("format 9") && ContainsSubstring("newer"));
  CHECK_THROWS_AS((file_memory{folder.file("newer"), {.verify = false}}), retain::io_error);
  CHECK_THROWS_WITH(file_memory{folder.file("")}, ContainsSubstring("is a folder"));
  write_bytes(folder.file("json"), R"({"episodes": 12, "returns": [1.5, 2.5]})");
  CHECK_THROWS_WITH(file_memory{folder.file("json")},
                    ContainsSubstring("is no state of retain") && !ContainsSubstring("truncated"));
  write_bytes(folder.file("empty"), "");
  CHECK_THROWS_WITH(file_memory{folder.file("empty")}, ContainsSubstring("too few"));
}

TEST_CASE("file_memory: a file much larger than the memory is opened and read where it is asked",
          "[replay]") {
  const support::temporary_folder folder;
  // 64 GiB of zeros, which the disk does not store
  constexpr std::int64_t rows = std::int64_t{1} << 26, width = 256;
  std::string header = "{\"__metadata__\":{\"retain.checksum\":\"0000000000000000\",\"retain."
                       "format\":\"1\"},\"x\":{\"dtype\":\"F32\",\"shape\":[" +
                       std::to_string(rows) + "," + std::to_string(width) +
                       "],\"data_offsets\":[0," + std::to_string(rows * width * 4) + "]}}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = header.size();
  write_bytes(folder.file("huge"), std::string(reinterpret_cast<const char*>(&length), 8) + header);
  std::error_code error;
  std::filesystem::resize_file(folder.file("huge"),
                               8 + length + static_cast<std::uint64_t>(rows * width * 4), error);
  if (error) {
    skip_test("no sparse file of 64 GiB here: " + error.message());
    return;
  }
  {
    std::fstream file(folder.file("huge"), std::ios::binary | std::ios::in | std::ios::out);
    const float value = 2.5f;
    file.seekp(static_cast<std::streamoff>(8 + length +
                                           static_cast<std::uint64_t>((rows - 2) * width * 4)));
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  const auto x = file_memory{folder.file("huge"), {.verify = false}}.column("x");
  CHECK(x.size() == rows);
  const auto got = x.gather(torch::tensor({rows - 2, std::int64_t{5}}, at::kLong));
  CHECK(got[0][0].item<float>() == 2.5f);
  CHECK(got.sum().item<float>() == 2.5f);
}

TEST_CASE("file_memory: cloned from a file as from tensors; the state holds the checksum and not "
          "the rows",
          "[replay]") {
  const support::temporary_folder folder;
  torch::manual_seed(4);
  const auto states = torch::randn({60, 3}, at::kDouble),
             logits = torch::randn({60, 3}, at::kDouble);
  const auto write = [&](const char* name, const at::Tensor& s) {
    file_writer out{folder.file(name)};
    out.push({{"observation", s}, {"logits", logits}});
    out.close();
  };
  write("data", states);
  write("other", states + 1);
  const auto student = [](const at::Tensor& x) { return retain::categorical{x * 0.3}; };
  const auto make = [&](const char* name) {
    const file_memory memory{folder.file(name)};  // the columns keep the mapping
    return retain::behavioral_cloning{
        memory.column("observation"), memory.column("logits"), {.batch_size = 16, .seed = 1}};
  };
  auto keep = make("data");
  retain::behavioral_cloning in_memory{states, logits, {.batch_size = 16, .seed = 1}};
  for (int i = 0; i < 3; ++i) CHECK(keep.loss(student).equal(in_memory.loss(student)));

  retain::save(folder.file("term"), keep);
  CHECK(std::filesystem::file_size(folder.file("term")) < 1000);
  auto resumed = make("data");
  retain::load(folder.file("term"), resumed);
  CHECK(resumed.loss(student).equal(keep.loss(student)));
  auto elsewhere = make("other"), twin = make("other");
  CHECK_THROWS_AS(retain::load(folder.file("term"), elsewhere), retain::state_error);
  CHECK(elsewhere.loss(student).equal(twin.loss(student)));
  // Whole rows, for a student that looks at several columns.
  retain::behavioral_cloning both{
      file_memory{folder.file("data")}, logits, {.batch_size = 16, .seed = 1}};
  retain::behavioral_cloning plain{states, logits, {.batch_size = 16, .seed = 1}};
  CHECK(both.loss([&](const transitions& rows) { return student(rows["observation"]); })
            .equal(plain.loss(student)));
}

TEST_CASE("file_memory: tensors that are not rows of one number of items are named", "[replay]") {
  const support::temporary_folder folder;
  retain::state ragged;
  ragged.set("a", torch::zeros({3}));
  ragged.set("b", torch::zeros({2}));
  ragged.write(folder.file("ragged"));
  CHECK_THROWS_WITH(file_memory{folder.file("ragged")},
                    ContainsSubstring("'b' has shape [2]") && ContainsSubstring("'a' [3]"));
  retain::state{}.write(folder.file("empty"));
  CHECK_THROWS_AS(file_memory{folder.file("empty")}, retain::config_error);
}

TEST_CASE("file_writer: rows that come after a close that failed are not written over others",
          "[replay]") {
  const support::temporary_folder folder;
  const auto path = folder.file("rows");
  file_writer out{path};
  const auto rows = [](std::int64_t from, std::int64_t to) {
    return retain::transitions{{"x", torch::arange(from, to)}, {"y", torch::arange(from, to) * 2}};
  };
  out.push(rows(0, 5));
  std::filesystem::create_directories(path);  // in the way of the finished file
  CHECK_THROWS_AS(out.close(), retain::io_error);
  out.push(rows(5, 7));
  std::filesystem::remove(path);
  out.close();
  const retain::file_memory memory{path};
  REQUIRE(memory.size() == 7);
  const auto all = memory.gather(torch::arange(7));
  CHECK(all["x"].equal(torch::arange(7)));
  CHECK(all["y"].equal(torch::arange(7) * 2));
}

TEST_CASE("file_memory: a mask or a float is no index", "[replay]") {
  const support::temporary_folder folder;
  file_writer out{folder.file("rows")};
  out.push({{"x", torch::arange(4)}});
  out.close();
  const file_memory memory{folder.file("rows")};
  CHECK_THROWS_AS(memory.gather(torch::tensor({true, false, true, true})), retain::config_error);
  CHECK_THROWS_AS(memory.gather(torch::tensor({1.7})), retain::config_error);
  CHECK(memory.gather(torch::tensor({1, 3}))["x"].equal(torch::tensor({1, 3})));
}

}  // namespace replay_file_memory_test
