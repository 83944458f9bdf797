// blockptq inspect: what is in a checkpoint folder.
#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>
#include <numeric>

#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/options.h"
#include "models/families.h"

namespace blockptq::cli {
namespace {

struct Share {
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;

  void add(const StoredTensor& tensor) {
    ++tensors;
    parameters +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
    bytes += tensor.nbytes();
  }
};

using Shares = std::map<std::string, Share>;

void print_shares(const char* title, const Shares& shares) {
  fmt::print("\n{:<32} {:>9} {:>18} {:>12} {:>6}\n", title, "tensors", "parameters", "bytes",
             "bits");
  for (const auto& [name, share] : shares) {
    fmt::print("{:<32} {:>9} {:>18} {:>12} {:>6.2f}\n", name, share.tensors,
               format_count(share.parameters), format_bytes(share.bytes),
               8.0 * static_cast<double>(share.bytes) / static_cast<double>(share.parameters));
  }
}

std::string storage_name(const StoredTensor& tensor) {
  return fmt::format("{} {}", tensor.format->name(), dtype_name(tensor.stored_dtype()));
}

Json shares_json(const Shares& shares) {
  Json json = Json::object();
  for (const auto& [name, share] : shares) {
    json[name] = {
        {"tensors", share.tensors}, {"parameters", share.parameters}, {"bytes", share.bytes}};
  }
  return json;
}

void run_inspect(const std::filesystem::path& folder, const std::filesystem::path& json_path) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const auto model = open_model(checkpoint);
  Shares by_role;
  Shares by_format;
  Shares total;
  for (const ModelTensor& tensor : model->tensors()) {
    const StoredTensor& stored = checkpoint.at(tensor.name);
    by_role[tensor.role].add(stored);
    by_format[storage_name(stored)].add(stored);
    total["all"].add(stored);
  }
  const ModelSpec& spec = model->spec();
  fmt::print("{}: {}, {} blocks, {} MTP layers, hidden size {}, vocabulary {}\n", folder.string(),
             spec.model_type, spec.blocks, spec.mtp_layers, spec.hidden_size, spec.vocab_size);
  print_shares("role", by_role);
  print_shares("stored as", by_format);
  print_shares("total", total);
  write_json(json_path, {{"model", folder.string()},
                         {"model_type", spec.model_type},
                         {"fingerprint", checkpoint.fingerprint()},
                         {"blocks", spec.blocks},
                         {"mtp_layers", spec.mtp_layers},
                         {"shards", checkpoint.shards().size()},
                         {"checkpoint_bytes", checkpoint.total_bytes()},
                         {"roles", shares_json(by_role)},
                         {"storage", shares_json(by_format)}});
}

}  // namespace

std::function<void()> add_inspect(CLI::App& app) {
  struct Arguments {
    std::filesystem::path folder;
    std::filesystem::path json;
  };
  auto args = std::make_shared<Arguments>();
  app.description("What is in a checkpoint folder: tensors, types, sizes, parameters per role.");
  app.add_option("DIR", args->folder, "checkpoint folder")->required();
  add_json_option(app, args->json);
  return [args] { run_inspect(args->folder, args->json); };
}

}  // namespace blockptq::cli
