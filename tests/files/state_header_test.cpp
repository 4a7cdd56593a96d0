// SPDX-License-Identifier: MIT
// Headers whose checksum is right, and that say what a file does not hold: for both readers.
#include <retain/replay/file_memory.hpp>
#include <retain/state.hpp>

#include <retain/files/checksum.hpp>

#include <c10/core/ScalarType.h>

#include <cstring>
#include <fstream>

#include "support.hpp"

namespace state_header_test {

namespace {

const std::string head =
    R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"1"})";

/// A file of this header and so many bytes of data, its length and checksum made right.
void write_file(const std::string& path, std::string header, std::size_t data) {
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes += header + std::string(data, '\1');
  retain::detail::crc64 crc;
  crc.update(bytes.data(), bytes.size());
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(crc.value()));
  bytes.replace(bytes.find("0000000000000000"), 16, digits);
  std::ofstream(path, std::ios::binary) << bytes;
}

/// What each reader says of it: of retain::state, of a file_memory that verifies, and of one that
/// trusts.
std::vector<std::string> errors_of(const std::string& header, std::size_t data) {
  const support::temporary_folder folder;
  write_file(folder.file("bad"), header, data);
  std::vector<std::string> errors;
  const auto attempt = [&](auto read) {
    try {
      read();
      errors.emplace_back("none");
    } catch (const retain::io_error& error) {
      errors.emplace_back(error.what());
    }  // anything else ends the test
  };
  attempt([&] { retain::state::read(folder.file("bad")); });
  attempt([&] { retain::file_memory{folder.file("bad")}; });
  attempt([&] { retain::file_memory(folder.file("bad"), {.verify = false}); });
  return errors;
}

std::string tensor(const std::string& name, const std::string& shape, const std::string& offsets,
                   const std::string& dtype = "F32") {
  return ",\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + offsets + "]}";
}

}  // namespace

TEST_CASE("state header: what is right is read by both readers", "[state]") {
  CHECK(errors_of(head + tensor("x", "2", "0,8") + tensor("y", "2,0,3", "8,8") + "}", 8) ==
        std::vector<std::string>(3, "none"));
  CHECK(errors_of(head + tensor("x", "2", "0,8") + "}  ", 8) ==
        std::vector<std::string>(3, "none"));
  // in another order
  CHECK(errors_of(head + tensor("x", "2", "8,16") + tensor("y", "2", "0,8") + "}", 16) ==
        std::vector<std::string>(3, "none"));
  const std::string spaced =
      R"({"__metadata__":{"retain.checksum":"0000000000000000" , "retain.format" : "1"} , "x" : {"shape" : [2] , "dtype":"F32","data_offsets":[0 , 8]}})";
  CHECK(errors_of(spaced, 8) == std::vector<std::string>(3, "none"));
}

TEST_CASE(
    "state header: a claim that the file does not bear out is an error before memory is asked for",
    "[state]") {
  // 10^18, and four times that as float32 still fits into 63 bits
  const std::string many = "1000000000000000000";
  struct bad {
    std::string what, header;
    std::size_t data;
  };
  const std::vector<bad> all{
      {"more bytes than there are", tensor("x", many, "0,4000000000000000000"), 8},
      {"a product of sides beyond 63 bits", tensor("x", "4294967296,4294967296", "0,0"), 0},
      {"an empty tensor with sides beyond 63 bits", tensor("x", "0,4294967296,4294967296", "0,0"),
       0},
      {"the last size that a number can be",
       tensor("x", "9223372036854775807", "0,9223372036854775807", "U8"), 8},
      {"a number that is too long", tensor("x", "99999999999999999999", "0,8"), 8},
      {"an end beyond 63 bits", tensor("x", "2", "9223372036854775800,9223372036854775808"), 8},
      {"a shape of other bytes", tensor("x", "3", "0,8"), 8},
      {"an end before the beginning", tensor("x", "2", "8,0"), 8},
      {"one byte too few", tensor("x", "2", "0,8"), 7},
      {"one byte too many", tensor("x", "2", "0,8"), 9},
      {"bytes of no tensor", "", 1},
      {"two tensors in one place", tensor("x", "2", "0,8") + tensor("y", "2", "0,8"), 8},
      {"tensors that overlap", tensor("x", "2", "0,8") + tensor("y", "2", "4,12"), 12},
      {"a hole", tensor("x", "2", "0,8") + tensor("y", "2", "12,20"), 20},
      {"a hole in front", tensor("x", "2", "4,12"), 12},
      {"an unknown type", tensor("x", "2", "0,8", "F31"), 8},
      {"no type", R"(,"x":{"shape":[2],"data_offsets":[0,8]})", 8},
      {"no shape", R"(,"x":{"dtype":"F32","data_offsets":[0,4]})", 4},
      {"one offset", tensor("x", "2", "8"), 8},
      {"a negative side", tensor("x", "-2", "0,8"), 8},
  };
  for (const auto& [what, header, data] : all)
    for (const auto& error : errors_of(head + header + "}", data)) {
      INFO(what << ": " << error);
      CHECK_THAT(error, ContainsSubstring("bad'"));
    }
  CHECK_THAT(errors_of(head + tensor("x", "2", "0,8") + "}", 7)[0],
             ContainsSubstring("truncated") && ContainsSubstring("'x' ends 1 bytes after its end"));
  CHECK_THAT(errors_of(head + tensor("x", "2", "0,8") + "}", 9)[0],
             ContainsSubstring("1 bytes after its last tensor"));
}

TEST_CASE("state header: names stand once, and nothing stands behind", "[state]") {
  const std::string x = tensor("x", "2", "0,8");
  const auto text = [](const std::string& pairs) {
    return head.substr(0, head.size() - 1) + pairs + "}";
  };
  struct bad {
    std::string header, says;
  };
  const std::vector<bad> all{
      {head + x + x + "}", "a duplicate name"},
      {head + tensor("x", "1", "0,4") + tensor("x", "1", "4,8") + "}", "a duplicate name"},
      {text(R"(,"a":"1","a":"2")") + x + "}", "a duplicate name"},
      {text(R"(,"a":"1","\u0061":"1")") + x + "}", "a duplicate name"},
      {text(R"(,"retain.format":"1")") + x + "}", "a duplicate name"},
      {text(R"(,"retain.checksum":"0")") + x + "}", "a duplicate name"},
      {head + R"(,"__metadata__":{})" + x + "}", "a duplicate name"},
      {head + R"(,"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "a duplicate name"},
      {head + x + "}}", "extra text after its end"},
      {head + x + "} {}", "extra text after its end"},
      {head + x + "}\n", "extra text after its end"},
      {head + x + "}" + std::string(1, '\0'), "extra text after its end"},
      {head + x, "cannot be read"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000"})" + x + "}",
       "without the number of its format"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"0"})" + x + "}",
       "without the number of its format"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"1x"})" + x + "}",
       "without the number of its format"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"2"})" + x + "}",
       "install a newer version"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"99999999999999999999"})" +
           x + "}",
       "install a newer version"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000","retain.format":"2","new":{}})" +
           x + "}",
       "install a newer version"},
      {R"({"__metadata__":{"retain.checksum":"0000000000000000x","retain.format":"1"})" + x + "}",
       "without a checksum"},
  };
  for (const auto& [header, says] : all)
    for (const auto& error : errors_of(header, 8)) {
      INFO(header);
      CHECK_THAT(error, ContainsSubstring("bad'") && ContainsSubstring(says));
    }
}

TEST_CASE("state header: a name of the format itself is refused when it is set", "[state]") {
  retain::state out;
  CHECK_THROWS_AS(out.set("retain.format", 99), retain::config_error);
  CHECK_THROWS_WITH(out.set("retain.format", "99"),
                    ContainsSubstring("'retain.format'") && ContainsSubstring("choose another"));
  CHECK_THROWS_AS(out.set("retain.checksum", 0.5), retain::config_error);
  CHECK_THROWS_AS(out.set("__metadata__", at::ones({1})), retain::config_error);
  // Elsewhere they are names like others.
  const support::temporary_folder folder;
  out.set("__metadata__", "a text");
  out.set("retain.format", at::ones({2}));
  out.set("retain.formats", 99);
  out.write(folder.file("s"));
  const auto in = retain::state::read(folder.file("s"));
  CHECK(in.text("__metadata__") == "a text");
  CHECK(in.tensor("retain.format").equal(at::ones({2})));
  CHECK(in.integer("retain.formats") == 99);
  CHECK(in.unread().empty());
}

TEST_CASE("state header: the types are those of LibTorch", "[state]") {
  for (std::size_t i = 0; i < retain::detail::scalar_types.size(); ++i) {
    INFO(retain::detail::element_types[i].name);
    CHECK(c10::elementSize(retain::detail::scalar_types[i]) ==
          retain::detail::element_types[i].size);
  }
}

TEST_CASE("file_memory: an index is looked at before memory for its row is asked for", "[replay]") {
  const support::temporary_folder folder;
  write_file(folder.file("empty"), head + tensor("x", "0,1000000000000000000", "0,0") + "}", 0);
  const retain::file_memory memory{folder.file("empty")};
  CHECK_THROWS_AS(memory.gather(at::zeros({1}, at::kLong)), retain::config_error);
}

TEST_CASE("state: tensors that are views of negated ones are written as what they are worth; "
          "sparse ones are refused",
          "[state]") {
  const support::temporary_folder folder;
  retain::state out;
  const auto negated = at::imag(at::complex(at::ones({3}), at::arange(3, at::kFloat)).conj());
  REQUIRE(negated.is_neg());
  out.set("w", negated);
  out.write(folder.file("s"));
  CHECK(retain::state::read(folder.file("s")).tensor("w").equal(-at::arange(3, at::kFloat)));
  retain::state sparse;
  sparse.set("w", at::eye(3).to_sparse());
  CHECK_THROWS_WITH(sparse.write(folder.file("s")),
                    ContainsSubstring("'w'") && ContainsSubstring("to_dense"));
}

}  // namespace state_header_test
