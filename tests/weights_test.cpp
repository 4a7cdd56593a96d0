// SPDX-License-Identifier: MIT
#include <retain/weights.hpp>

#include <retain/state.hpp>

#include <torch/script.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>

#include "support.hpp"

namespace weights_test {

namespace {

/// A network with a buffer, a frozen parameter and a head.
struct net : torch::nn::Module {
  explicit net(int actions = 2) {
    body = register_module("body", torch::nn::Linear(3, 4));
    head = register_module("head", torch::nn::Linear(4, actions));
    scale = register_parameter("scale", torch::rand({4}), /*requires_grad=*/false);
    count = register_buffer("count", torch::zeros({}, at::kLong));
    mean = register_buffer("mean", torch::rand({3}));
  }
  torch::nn::Linear body{nullptr}, head{nullptr};
  at::Tensor scale, count, mean;
};

/// A table with one weight for both directions.
struct tied : torch::nn::Module {
  tied() {
    in = register_parameter("in", torch::rand({3, 2}));
    out = register_parameter("out", in);
  }
  at::Tensor in, out;
};

/// An entry of a header. `bytes` are the tensor's numbers.
struct entry {
  std::string name, dtype, shape;
  std::string bytes;
};

template <class T>
std::string bytes_of(const std::vector<T>& numbers) {
  std::string bytes(numbers.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

void write_bytes(const std::string& path, const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string before(sizeof length, '\0');
  std::memcpy(before.data(), &length, sizeof length);
  std::ofstream(path, std::ios::binary) << before << header << data;
}

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A file by hand. The header lists the tensors from the last one to the first one.
void write_file(const std::string& path, const std::vector<entry>& entries,
                const std::string& before = "{", const std::string& after = "}") {
  std::string header = after, data;
  bool last = true;
  for (const auto& [name, dtype, shape, bytes] : entries) {
    header.insert(0, "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
                         "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
                         std::to_string(data.size() + bytes.size()) + "]}" + (last ? "" : ","));
    last = false;
    data += bytes;
  }
  write_bytes(path, before + header, data);
}

const std::string two = bytes_of<float>({1, 2});

/// What a failing load says. Also checks that nothing was changed.
template <class Error, class Model>
std::string refusal(const Model& model, const std::string& path,
                    const retain::load_weights_options& options = {}) {
  std::vector<at::Tensor> before;
  std::vector<std::uint32_t> versions;
  const auto tensors = retain::detail::tensors_of(model);
  for (const auto& [name, tensor] : tensors) {
    before.push_back(tensor.detach().clone());
    versions.push_back(static_cast<std::uint32_t>(tensor._version()));
  }
  std::string text = "nothing was thrown";
  try {
    retain::load_weights(model, path, options);
  } catch (const Error& error) {
    text = error.what();
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    INFO(tensors[i].name);
    CHECK(tensors[i].tensor.equal(before[i]));
    CHECK(tensors[i].tensor._version() == versions[i]);
  }
  return text;
}

std::string temporary_python(const support::temporary_folder& folder, const std::string& script) {
  const std::string path = folder.file("script.py");
  std::ofstream(path) << script;
  return "python3 '" + path + "' '" + folder.file("") + "'";
}

}  // namespace

TEST_CASE("weights: what is saved comes back in place, with buffers and frozen parameters",
          "[weights]") {
  const support::temporary_folder folder;
  torch::manual_seed(1);
  net source, target;
  source.count.fill_(7);
  retain::save_weights(source, folder.file("w"));

  const at::Tensor weight = target.body->weight;
  const auto version = weight._version();
  const auto* const data = weight.data_ptr();
  const auto report = retain::load_weights(target, folder.file("w"));
  const std::vector<std::string> all{"scale",     "body.weight", "body.bias", "head.weight",
                                     "head.bias", "count",       "mean"};
  CHECK(report.loaded == all);
  CHECK(report.converted.empty());
  CHECK(report.missing.empty());
  CHECK(report.extra.empty());
  CHECK(report.metadata == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(weight.is_same(target.body->weight));
  CHECK(weight.data_ptr() == data);
  CHECK(weight._version() > version);
  CHECK(weight.requires_grad());
  CHECK(weight.is_leaf());
  CHECK(!target.scale.requires_grad());
  CHECK(target.count.item<std::int64_t>() == 7);
  const auto from = retain::detail::tensors_of(source), to = retain::detail::tensors_of(target);
  for (std::size_t i = 0; i < from.size(); ++i) {
    INFO(from[i].name);
    CHECK(to[i].tensor.equal(from[i].tensor));
  }
}

TEST_CASE("weights: the writer's file is plain safetensors, aligned and without a checksum",
          "[weights]") {
  const support::temporary_folder folder;
  const std::vector<std::pair<std::string, at::Tensor>> model{
      {"b", torch::arange(4, at::kFloat).view({2, 2}).t()}, {"a", torch::tensor(2.5)}};
  retain::save_weights(model, folder.file("w"));
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[16,20]}})";
  write_bytes(folder.file("expected"), header + std::string((8 - header.size() % 8) % 8, ' '),
              bytes_of<float>({0, 2, 1, 3}) + bytes_of<float>({2.5}));
  CHECK(read_bytes(folder.file("w")) == read_bytes(folder.file("expected")));
}

TEST_CASE("weights: every kind of model: holder, pointer, lists, TorchScript", "[weights]") {
  const support::temporary_folder folder;
  write_file(folder.file("w"),
             {{"weight", "F32", "1,2", two}, {"bias", "F32", "1", two.substr(4)}});
  torch::nn::Linear linear(2, 1);
  const auto right = [&] {
    const bool equal = linear->weight.equal(torch::tensor({{1.f, 2.f}})) &&
                       linear->bias.equal(torch::tensor({2.f}));
    torch::NoGradGuard no_grad;
    linear->weight.zero_();
    linear->bias.zero_();
    return equal;
  };
  retain::load_weights(linear, folder.file("w"));
  CHECK(right());
  retain::load_weights(*linear, folder.file("w"));
  CHECK(right());
  retain::load_weights(linear.ptr(), folder.file("w"));
  CHECK(right());
  retain::load_weights(retain::parameters(linear), folder.file("w"));
  CHECK(right());
  // a list of tensors is named by its numbers
  retain::load_weights(linear->parameters(), folder.file("w"),
                       {.renames = {{"weight", "0"}, {"bias", "1"}}});
  CHECK(right());

  auto policy = torch::jit::load(RETAIN_TEST_DATA "/policy.pt");
  auto other = policy.deepcopy();
  {
    torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : retain::parameters(other)) tensor.mul(1).zero_();
    for (const auto& [name, tensor] : retain::parameters(other)) at::Tensor(tensor).zero_();
  }
  retain::save_weights(policy, folder.file("jit"));
  retain::load_weights(other, folder.file("jit"));
  for (const auto& [name, tensor] : retain::parameters(policy)) {
    INFO(name);
    CHECK(other.attr(name.substr(0, name.find('.'))).isModule());
    for (const auto& loaded : retain::parameters(other))
      if (loaded.name == name) CHECK(loaded.tensor.equal(tensor));
  }
}

TEST_CASE("weights: F16, BF16 and F64 become the model's type, and the report says so",
          "[weights]") {
  const support::temporary_folder folder;
  // 1, -2 and 65504 in half; 1, -2 and 2^-126 in bfloat16
  write_file(folder.file("w"),
             {{"h", "F16", "3", bytes_of<std::uint16_t>({0x3c00, 0xc000, 0x7bff})},
              {"odd", "U8", "1", "\x05"},
              {"b", "BF16", "3", bytes_of<std::uint16_t>({0x3f80, 0xc000, 0x0080})},
              {"d", "F64", "2", bytes_of<double>({0.1, -INFINITY})},
              {"f", "F32", "2", two}},
             "{ \t\"__metadata__\" : {\"by\":\"\\u00e9\\ud83d\\ude00\\n\"},\n  ", " }\r\n\t  ");
  const std::vector<std::pair<std::string, at::Tensor>> model{
      {"f", torch::zeros({2}, at::kDouble)},
      {"h", torch::zeros({3})},
      {"b", torch::zeros({3})},
      {"d", torch::zeros({2})},
      {"odd", torch::zeros({1}, at::kByte)}};
  const auto report = retain::load_weights(model, folder.file("w"));
  CHECK(report.loaded == std::vector<std::string>{"f", "h", "b", "d", "odd"});
  CHECK(report.converted == std::map<std::string, std::string>{
                                {"f", "F32"}, {"h", "F16"}, {"b", "BF16"}, {"d", "F64"}});
  CHECK(report.metadata ==
        std::map<std::string, std::string>{{"by", "\xc3\xa9\xf0\x9f\x98\x80\n"}});
  CHECK(model[0].second.equal(torch::tensor({1., 2.}, at::kDouble)));
  CHECK(model[1].second.equal(torch::tensor({1.f, -2.f, 65504.f})));
  CHECK(model[2].second.equal(torch::tensor({1.f, -2.f, std::ldexp(1.f, -126)})));
  CHECK(model[3].second.equal(torch::tensor({0.1f, -INFINITY})));
  CHECK(model[4].second.item<int>() == 5);

  // a finite number that the model's type cannot hold is no infinity
  write_file(folder.file("large"), {{"x", "F64", "2", bytes_of<double>({1, 1e300})}});
  CHECK_THAT((refusal<retain::state_error>(
                 std::vector<std::pair<std::string, at::Tensor>>{{"x", torch::zeros({2})}},
                 folder.file("large"))),
             ContainsSubstring("'x' has values that are too large for float"));
}

TEST_CASE("weights: whole numbers and booleans are never converted", "[weights]") {
  const support::temporary_folder folder;
  const auto says = [&](const std::string& dtype, const std::string& bytes, at::ScalarType type) {
    write_file(folder.file("w"), {{"x", dtype, "1", bytes}});
    return refusal<retain::state_error>(
        std::vector<std::pair<std::string, at::Tensor>>{{"x", torch::zeros({1}, type)}},
        folder.file("w"));
  };
  const std::string eight(8, '\1');
  CHECK_THAT(says("I64", eight, at::kFloat),
             ContainsSubstring("'x' is I64 in the file and float in the model"));
  CHECK_THAT(says("F32", eight.substr(4), at::kLong), ContainsSubstring("is F32 in the file"));
  CHECK_THAT(says("I32", eight.substr(4), at::kLong), ContainsSubstring("is I32 in the file"));
  CHECK_THAT(says("BOOL", "\1", at::kByte), ContainsSubstring("is BOOL in the file"));
  CHECK_THAT(says("U64", eight, at::kLong), ContainsSubstring("is U64 in the file"));
  CHECK_THAT(says("F8_E4M3", "\1", at::kFloat), ContainsSubstring("is F8_E4M3 in the file"));
  struct whole {
    std::string dtype;
    at::ScalarType type;
    std::size_t size;
  };
  for (const auto& [dtype, type, size] :
       {whole{"I64", at::kLong, 8}, whole{"I32", at::kInt, 4}, whole{"I16", at::kShort, 2},
        whole{"I8", at::kChar, 1}, whole{"U8", at::kByte, 1}, whole{"BOOL", at::kBool, 1}}) {
    INFO(dtype);
    write_file(folder.file("w"), {{"x", dtype, "1", '\1' + std::string(size - 1, '\0')}});
    const std::vector<std::pair<std::string, at::Tensor>> model{{"x", torch::zeros({1}, type)}};
    CHECK(retain::load_weights(model, folder.file("w")).converted.empty());
    CHECK(model[0].second.item<int>() == 1);
  }
}

TEST_CASE("weights: prefix rules are applied in turn, each once", "[weights]") {
  const support::temporary_folder folder;
  write_file(folder.file("w"), {{"module._orig_mod.actor.module.w", "F32", "2", two}});
  const auto loads = [&](const std::string& name,
                         const std::vector<retain::rename_prefix>& renames) {
    const std::vector<std::pair<std::string, at::Tensor>> model{{name, torch::zeros({2})}};
    return retain::load_weights(model, folder.file("w"), {.renames = renames}).loaded ==
           std::vector<std::string>{name};
  };
  CHECK(loads("actor.module.w", {{"module.", ""}, {"_orig_mod.", ""}}));
  CHECK(loads("policy_head.module.w",
              {{"none.", "x."}, {"module._orig_mod.", ""}, {"actor.", "policy_head."}}));
  CHECK(loads("net.module._orig_mod.actor.module.w", {{"", "net."}}));
  // back, by the same kind of rules
  const std::vector<std::pair<std::string, at::Tensor>> model{{"net.w", torch::ones({2})}};
  retain::save_weights(model, folder.file("back"), {{"net.", "module."}});
  CHECK_THAT(read_bytes(folder.file("back")), ContainsSubstring("\"module.w\""));

  write_file(folder.file("w"), {{"a.x", "F32", "2", two}, {"x", "F32", "2", two}});
  CHECK_THAT((refusal<retain::state_error>(model, folder.file("w"), {.renames = {{"a.", ""}}})),
             ContainsSubstring("both 'x' and 'a.x'") || ContainsSubstring("both 'a.x' and 'x'"));
  const std::vector<std::pair<std::string, at::Tensor>> both{{"a.x", torch::ones({2})},
                                                             {"x", torch::ones({2})}};
  CHECK_THROWS_AS(retain::save_weights(both, folder.file("back"), {{"a.", ""}}),
                  retain::config_error);
}

TEST_CASE("weights: everything that does not fit is in one error, with names to try", "[weights]") {
  const support::temporary_folder folder;
  torch::manual_seed(2);
  const net model;
  const std::string four = bytes_of<float>({1, 2, 3, 4}), twelve = four + four + four;
  write_file(folder.file("w"), {{"module.body.weight", "F32", "4,3", twelve},
                                {"body.bais", "F32", "4", four},
                                {"actor.weight", "F32", "2,4", four + four},
                                {"actor.bias", "F32", "2", two},
                                {"scale", "F32", "2,2", four},
                                {"count", "I32", "", four.substr(0, 4)},
                                {"zzz.qqq", "F32", "", four.substr(0, 4)}});
  const auto text = refusal<retain::state_error>(model, folder.file("w"));
  for (const char* part :
       {"w' does not fit the model, and nothing was loaded",
        "not in the file: 'body.weight' [4, 3] (the file has 'module.body.weight' of this shape; "
        "try the rename {\"module.\", \"\"})",
        "not in the file: 'body.bias' [4] (the file has 'body.bais' of this shape",
        "not in the file: 'head.weight' [2, 4] (the file has 'actor.weight' of this shape; try the "
        "rename {\"actor.\", \"head.\"})",
        "not in the file: 'head.bias' [2]", "not in the file: 'mean' [3]",
        "not in the model: 'zzz.qqq' []", "not in the model: 'module.body.weight' [4, 3]",
        "other shape: 'scale' is [2, 2] in the file and [4] in the model",
        "other type: 'count' is I32 in the file and", "allow_missing"}) {
    INFO(text);
    CHECK_THAT(text, ContainsSubstring(part));
  }
  // only shapes
  write_file(folder.file("s"), {{"x", "F32", "2", two}});
  const std::vector<std::pair<std::string, at::Tensor>> scalar{{"x", torch::ones({1})}};
  CHECK_THAT((refusal<retain::shape_error>(scalar, folder.file("s"))),
             ContainsSubstring("other shape: 'x' is [2] in the file and [1] in the model"));
  // nothing at all in common
  CHECK_THAT((refusal<retain::state_error>(scalar, folder.file("w"),
                                           {.allow_missing = {"*"}, .allow_extra = {"*"}})),
             ContainsSubstring("no name in common"));
}

TEST_CASE("weights: parts may be missing or left out by pattern", "[weights]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  const net source;
  net target;
  retain::save_weights(source, folder.file("w"), {{"head.", "critic."}});
  const auto before = target.head->weight.detach().clone();
  const auto report = retain::load_weights(
      target, folder.file("w"), {.allow_missing = {"head", "mean"}, .allow_extra = {"critic.*"}});
  CHECK(report.missing == std::vector<std::string>{"head.weight", "head.bias"});
  CHECK(report.extra == std::vector<std::string>{"critic.weight", "critic.bias"});
  CHECK(target.head->weight.equal(before));
  CHECK(target.body->weight.equal(source.body->weight));
  // what may be missing and is not is loaded
  CHECK(target.mean.equal(source.mean));
  CHECK_THAT((refusal<retain::config_error>(target, folder.file("w"),
                                            {.allow_missing = {"haed"}, .allow_extra = {"*"}})),
             ContainsSubstring("'haed' matches no name"));
  CHECK_THAT((refusal<retain::state_error>(target, folder.file("w"), {.allow_missing = {"head"}})),
             ContainsSubstring("not in the model: 'critic.bias'"));
}

TEST_CASE("weights: a tied weight needs one of its names, and one value", "[weights]") {
  const support::temporary_folder folder;
  torch::manual_seed(4);
  const tied source;
  tied target;
  retain::save_weights(source, folder.file("both"));
  CHECK(retain::load_weights(target, folder.file("both")).loaded ==
        std::vector<std::string>{"in", "out"});
  CHECK(target.out.equal(source.in));
  const std::string six = bytes_of<float>({1, 2, 3, 4, 5, NAN}), other(24, '\1');
  write_file(folder.file("one"), {{"out", "F32", "3,2", six}});
  retain::load_weights(target, folder.file("one"));
  CHECK(target.in[2][0].item<float>() == 5);
  write_file(folder.file("same"), {{"out", "F32", "3,2", six}, {"in", "F32", "3,2", six}});
  CHECK_NOTHROW(retain::load_weights(target, folder.file("same")));
  retain::load_weights(target, folder.file("both"));  // no NaN, which differs from itself
  write_file(folder.file("differ"), {{"out", "F32", "3,2", six}, {"in", "F32", "3,2", other}});
  CHECK_THAT((refusal<retain::state_error>(target, folder.file("differ"))),
             ContainsSubstring("'in' and 'out' are one tensor in the model, but differ"));
  write_file(folder.file("none"), {{"outer", "F32", "3,2", six}});
  CHECK_THAT((refusal<retain::state_error>(target, folder.file("none"))),
             ContainsSubstring("not in the file: 'in'"));
}

TEST_CASE("weights: a tensor that cannot be written is refused before the others are written",
          "[weights]") {
  const support::temporary_folder folder;
  write_file(folder.file("w"), {{"a", "F32", "2", two}, {"b", "F32", "2", two}});
  const auto says = [&](const at::Tensor& tensor) {
    const std::vector<std::pair<std::string, at::Tensor>> model{{"a", torch::zeros({2})},
                                                                {"b", tensor}};
    std::string text;
    try {
      retain::load_weights(model, folder.file("w"));
    } catch (const retain::state_error& error) {
      text = error.what();
    }
    CHECK(model[0].second.equal(torch::zeros({2})));
    return text;
  };
  CHECK_THAT(says(torch::zeros({1}).expand({2})), ContainsSubstring("'b' is an expanded view"));
  CHECK_THAT(says(torch::zeros({2}).to_sparse()), ContainsSubstring("'b' is not dense"));
  CHECK_THAT(says(torch::empty({2}, at::TensorOptions().device(at::kMeta))),
             ContainsSubstring("'b' is on the meta device"));
  const auto born = [] {
    const c10::InferenceMode guard;
    return torch::zeros({2});
  }();
  CHECK_THAT(says(born), ContainsSubstring("'b' was created in inference mode"));
  // a view is written through
  const auto base = torch::zeros({2, 2});
  const std::vector<std::pair<std::string, at::Tensor>> model{{"a", base.select(1, 1)},
                                                              {"b", base.select(1, 0)}};
  retain::load_weights(model, folder.file("w"));
  CHECK(base.equal(torch::tensor({{1.f, 1.f}, {2.f, 2.f}})));
}

TEST_CASE("weights: damaged files and other files are clear errors", "[weights]") {
  const support::temporary_folder folder;
  const std::vector<std::pair<std::string, at::Tensor>> model{{"x", torch::zeros({2})},
                                                              {"y", torch::zeros({2})}};
  const auto says = [&](const std::string& header, std::size_t data) {
    write_bytes(folder.file("bad"), header, std::string(data, '\1'));
    return refusal<retain::io_error>(model, folder.file("bad"));
  };
  const auto tensor = [](const std::string& name, const std::string& shape,
                         const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape + "],\"data_offsets\":[" +
           offsets + "]}";
  };
  const std::string x = tensor("x", "2", "0,8"), y = tensor("y", "2", "8,16");
  write_bytes(folder.file("right"), "{" + y + "," + x + "}", std::string(16, '\1'));
  CHECK(retain::load_weights(model, folder.file("right")).loaded.size() == 2);
  CHECK_THAT(says("{" + x + "," + y + "}", 15),
             ContainsSubstring("'y' ends 1 bytes after its end"));
  CHECK_THAT(says("{" + x + "," + y + "}", 17), ContainsSubstring("1 bytes after its last tensor"));
  CHECK_THAT(says("{" + x + "," + tensor("y", "2", "4,12") + "}", 12),
             ContainsSubstring("overlaps"));
  CHECK_THAT(says("{" + x + "," + tensor("y", "2", "12,20") + "}", 20), ContainsSubstring("gaps"));
  CHECK_THAT(says("{" + x + "," + tensor("y", "3", "8,16") + "}", 16), ContainsSubstring("shape"));
  CHECK_THAT(says("{" + x + "," + x + "}", 16), ContainsSubstring("a duplicate name"));
  CHECK_THAT(says("{" + x + "," + tensor("y", "1000000000000,1000000000000", "8,16") + "}", 16),
             ContainsSubstring("shape"));
  CHECK_THAT(says("{" + x + "," + tensor("y", "-2", "8,16") + "}", 16),
             ContainsSubstring("cannot be read"));
  CHECK_THAT(says("{" + x + "," + y + "} x", 16), ContainsSubstring("extra text"));
  CHECK_THAT(says("{\"__metadata__\":{\"a\":1}," + x + "," + y + "}", 16),
             ContainsSubstring("cannot be read"));
  CHECK_THAT(says("{\"\\ud800\":" + x.substr(4) + "}", 8), ContainsSubstring("cannot be read"));
  CHECK_THAT(says("{" + x, 0), ContainsSubstring("bad'"));

  write_file(folder.file("good"), {{"x", "F32", "2", two}, {"y", "F32", "2", two}});
  const auto good = read_bytes(folder.file("good"));
  for (std::size_t n = 0; n < good.size(); ++n) {
    std::ofstream(folder.file("bad"), std::ios::binary) << good.substr(0, n);
    CHECK_THAT((refusal<retain::io_error>(model, folder.file("bad"))), ContainsSubstring("bad'"));
  }
  const auto other = [&](const std::string& bytes) {
    std::ofstream(folder.file("bad"), std::ios::binary) << bytes;
    return refusal<retain::io_error>(model, folder.file("bad"));
  };
  CHECK_THAT(other("PK\x03\x04 and more of an archive"),
             ContainsSubstring("torch.save") && ContainsSubstring("save_file"));
  CHECK_THAT(other("version https://git-lfs.example/spec/v1"), ContainsSubstring("git lfs pull"));
  CHECK_THAT(other("a text of some other kind"), ContainsSubstring("no safetensors file"));
  CHECK_THAT((refusal<retain::io_error>(model, folder.file("none"))),
             ContainsSubstring("No such file"));
  CHECK_THAT((refusal<retain::io_error>(model, folder.file(""))), ContainsSubstring("a folder"));
  CHECK_THROWS_AS(retain::save_weights(model, folder.file("no/such/folder")), retain::io_error);
}

TEST_CASE("weights: a state of retain is such a file, and only state::read asks for its checksum",
          "[weights]") {
  const support::temporary_folder folder;
  retain::state out;
  out.set("net.x", torch::tensor({1.f, 2.f}));
  out.set("steps", 3);
  out.write(folder.file("s"));
  const std::vector<std::pair<std::string, at::Tensor>> model{{"x", torch::zeros({2})}};
  const auto report = retain::load_weights(model, folder.file("s"), {.renames = {{"net.", ""}}});
  CHECK(model[0].second.equal(torch::tensor({1.f, 2.f})));
  CHECK(report.metadata.at("steps") == "3");
  retain::save_weights(model, folder.file("w"));
  CHECK_THROWS_AS(retain::state::read(folder.file("w")), retain::io_error);
}

TEST_CASE("weights: an optimizer goes on with the tensors that it has", "[weights]") {
  const support::temporary_folder folder;
  write_file(folder.file("w"),
             {{"weight", "F32", "1,2", two}, {"bias", "F32", "1", two.substr(4)}});
  torch::nn::Linear linear(2, 1);
  torch::optim::SGD optimizer(linear->parameters(), torch::optim::SGDOptions(0.5));
  retain::load_weights(linear, folder.file("w"));
  linear->forward(torch::ones({1, 2})).sum().backward();
  optimizer.step();
  CHECK(linear->weight.equal(torch::tensor({{0.5f, 1.5f}})));
  CHECK(linear->bias.equal(torch::tensor({1.5f})));
}

TEST_CASE("weights: Python's safetensors reads what is written, and writes what is read",
          "[weights]") {
  if (std::system("python3 -c 'import safetensors.numpy' >/dev/null 2>&1") != 0) {
    skip_test("Python's safetensors is not here: pip install safetensors numpy");
    return;
  }
  const support::temporary_folder folder;
  torch::manual_seed(5);
  net source;
  source.count.fill_(11);
  retain::save_weights(source, folder.file("from_cpp"));
  // Python adds 1 to each tensor and writes half of them in other types.
  const auto command = temporary_python(folder, R"(
import sys, numpy as np, safetensors.numpy as st
folder = sys.argv[1] + "/"
w = st.load_file(folder + "from_cpp")
assert sorted(w) == ["body.bias", "body.weight", "count", "head.bias", "head.weight", "mean", "scale"], sorted(w)
assert w["count"] == 11 and w["count"].dtype == np.int64 and w["body.weight"].shape == (4, 3)
types = {"body.weight": np.float64, "mean": np.float16}
w = {"module." + k: np.asarray(v + 1, dtype=types.get(k, v.dtype)) for k, v in w.items()}
st.save_file(w, folder + "from_python", metadata={"by": "Python \u00e9\n"})
)");
  REQUIRE(std::system(command.c_str()) == 0);
  net target;
  const auto report =
      retain::load_weights(target, folder.file("from_python"), {.renames = {{"module.", ""}}});
  CHECK(report.converted ==
        std::map<std::string, std::string>{{"body.weight", "F64"}, {"mean", "F16"}});
  CHECK(report.metadata == std::map<std::string, std::string>{{"by", "Python \xc3\xa9\n"}});
  CHECK(target.count.item<std::int64_t>() == 12);
  CHECK(target.body->weight.equal(source.body->weight + 1));
  CHECK(target.scale.equal(source.scale + 1));
  CHECK(target.mean.equal((source.mean + 1).to(at::kHalf).to(at::kFloat)));
}

}  // namespace weights_test
