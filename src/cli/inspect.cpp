// blockptq inspect: what is in a checkpoint or run folder.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <memory>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/verify_folder.h"
#include "cli/command.h"
#include "cli/inspect_run.h"
#include "cli/options.h"
#include "models/families.h"
#include "report/run_data.h"

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

/// "int4", "int8", "fp8", "bf16".
std::string precision_name(const StoredTensor& tensor) {
  if (tensor.bits == 0) {
    std::string name(dtype_name(tensor.stored_dtype()));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name;
  }
  const bool fp8 = tensor.stored_dtype() == Dtype::f8_e4m3;
  return fmt::format("{}{}", fp8 ? "fp" : "int", tensor.bits);
}

Json shares_json(const Shares& shares) {
  Json json = Json::object();
  for (const auto& [name, share] : shares) {
    json[name] = {
        {"tensors", share.tensors}, {"parameters", share.parameters}, {"bytes", share.bytes}};
  }
  return json;
}

/// What this program wrote about the folder; null for folders of others.
Json read_description(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kDescriptionName;
  return std::filesystem::exists(path) ? parse_json(read_file(path), path.string()) : Json();
}

/// The weights that lost most, by role and scheme.
Json worst_tensors(const Json& description) {
  constexpr size_t kShown = 10;
  std::vector<Json> tensors;
  for (const auto& [name, entry] : description["tensors"].items()) {
    if (entry.contains("relative_error")) {
      tensors.push_back(entry);
      tensors.back()["name"] = name;
    }
  }
  const auto error = [](const Json& entry) { return entry["relative_error"].get<double>(); };
  std::ranges::sort(tensors, [&](const Json& a, const Json& b) { return error(a) > error(b); });
  tensors.resize(std::min(tensors.size(), kShown));
  return tensors;
}

/// Bytes of the same tensors in BF16 against bytes as they are stored.
double compression_ratio(const Share& share) {
  return 2.0 * static_cast<double>(share.parameters) /
         static_cast<double>(std::max<int64_t>(share.bytes, 1));
}

void print_description(const Json& description) {
  if (description.is_null()) {
    return;
  }
  fmt::print("\ndeployed: format {}, cache {}\n", description["format"].get<std::string>(),
             description["cache"].get<std::string>());
  fmt::print("\n{:<72} {:>8} {:>9}\n", "largest relative errors", "scheme", "error");
  for (const Json& entry : worst_tensors(description)) {
    fmt::print("{:<72} {:>8} {:>9.3g}\n", entry["name"].get<std::string>(),
               entry["scheme"].get<std::string>(), entry["relative_error"].get<double>());
  }
}

Json verification_json(const Checkpoint& checkpoint) {
  const FolderCheck found = verify_folder(checkpoint);
  fmt::print("\nverified        {} tensors read ({}), {}\n", format_count(found.tensors),
             format_bytes(found.bytes),
             found.hashed > 0 ? fmt::format("checksums of {} shards are right", found.hashed)
                              : std::string("the folder has no checksums"));
  return {{"tensors", found.tensors}, {"bytes", found.bytes}, {"checksums", found.hashed}};
}

Json inspect_checkpoint(const std::filesystem::path& folder, bool verify) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const Json description = read_description(folder);
  const auto model = open_model(checkpoint);
  Shares by_role;
  Shares by_format;
  Shares by_role_and_format;
  Shares total;
  for (const ModelTensor& tensor : model->tensors()) {
    const StoredTensor& stored = checkpoint.at(tensor.name);
    by_role[tensor.role].add(stored);
    by_role_and_format[fmt::format("{} {}", tensor.role, precision_name(stored))].add(stored);
    by_format[storage_name(stored)].add(stored);
    total["all"].add(stored);
  }
  const ModelSpec& spec = model->spec();
  fmt::print("{}: {}, {} blocks, {} MTP layers, hidden size {}, vocabulary {}\n", folder.string(),
             spec.model_type, spec.blocks, spec.mtp_layers, spec.hidden_size, spec.vocab_size);
  print_shares("role and precision", by_role_and_format);
  print_shares("stored as", by_format);
  print_shares("total", total);
  fmt::print("\ncompression     {:.2f} times against BF16\n", compression_ratio(total["all"]));
  print_description(description);
  Json json{{"model", folder.string()},
            {"model_type", spec.model_type},
            {"fingerprint", checkpoint.fingerprint()},
            {"blocks", spec.blocks},
            {"mtp_layers", spec.mtp_layers},
            {"shards", checkpoint.shards().size()},
            {"checkpoint_bytes", checkpoint.total_bytes()},
            {"roles", shares_json(by_role)},
            {"storage", shares_json(by_format)},
            {"precisions", shares_json(by_role_and_format)},
            {"compression_ratio", compression_ratio(total["all"])}};
  if (!description.is_null()) {
    json["worst_tensors"] = worst_tensors(description);
  }
  if (verify) {
    json["verified"] = verification_json(checkpoint);
  }
  return json;
}

Json inspect(const std::filesystem::path& folder, bool verify) {
  const bool checkpoint = std::filesystem::exists(folder / "config.json");
  check(checkpoint || is_run_folder(folder),
        "{}: neither a checkpoint (config.json is missing) nor a run folder (run.json is missing)",
        folder.string());
  check(checkpoint || !verify, "{}: a run folder has no checksums, leave --verify out",
        folder.string());
  return checkpoint ? inspect_checkpoint(folder, verify) : inspect_run(folder);
}

}  // namespace

std::function<void()> add_inspect(CLI::App& app) {
  struct Arguments {
    std::filesystem::path folder;
    bool verify = false;
    std::filesystem::path json;
  };
  auto args = std::make_shared<Arguments>();
  app.description(
      "What is in a checkpoint or run folder: tensors, types, sizes, parameters per role; what ran "
      "and how far it came.");
  app.add_option("DIR", args->folder, "checkpoint folder, or run folder")
      ->type_name("")
      ->required();
  app.add_flag("--verify", args->verify, "read every tensor, compare every checksum");
  add_json_option(app, args->json);
  return [args] { write_json(args->json, inspect(args->folder, args->verify)); };
}

}  // namespace blockptq::cli
