// blockptq deploy: a source checkpoint becomes a quantized one, tensor by tensor.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "base/system.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/options.h"
#include "deploy/checkpoint_writer.h"
#include "models/families.h"
#include "report/progress_bar.h"

namespace blockptq::cli {
namespace {

constexpr std::string_view kFloatType = "bfloat16";

struct DeployArguments {
  std::filesystem::path input;
  std::filesystem::path output;
  std::string quant_type;
  std::string recipe;
  bool clip = false;
  std::filesystem::path mla_parameters;
  std::filesystem::path moe_parameters;
  std::string format = output_format_names().front();
  std::string max_shard_size = "5GB";
  bool no_verify = false;
  bool restart = false;
  bool dry_run = false;
  int threads = 0;
  std::filesystem::path json;
};

Recipe resolve_recipe(const DeployArguments& args) {
  check(args.quant_type.empty() != args.recipe.empty(),
        "expected either --quant_type or --recipe, found {}",
        args.recipe.empty() ? "none" : "both");
  if (!args.recipe.empty()) {
    return Recipe::load(args.recipe);
  }
  return args.quant_type == kFloatType ? Recipe() : Recipe::preset(args.quant_type);
}

std::optional<Parameters> read_parameters(const DeployArguments& args, const Checkpoint& source) {
  std::vector<std::filesystem::path> folders;
  for (const auto& folder : {args.mla_parameters, args.moe_parameters}) {
    if (!folder.empty() && std::ranges::find(folders, folder) == folders.end()) {
      folders.push_back(folder);
    }
  }
  check(!args.clip || !folders.empty(),
        "--clip: expected learned parameters in --mla_param_path or --moe_param_path");
  return folders.empty() ? std::nullopt
                         : std::make_optional<Parameters>(folders, source.fingerprint());
}

Json plan_json(const OutputPlan& plan, const Checkpoint& source) {
  return {{"bytes_to_read", source.total_bytes()},
          {"disk_bytes", plan.file_bytes},
          {"shards", plan.shards.size()},
          {"tensors", plan.tensors.size()}};
}

/// Peak memory: one weight in fp32 with its integers where parameters were learned, portions
/// otherwise, buffers on the way to the disk.
int64_t planned_memory(const OutputPlan& plan, bool learned) {
  constexpr int64_t kProgram = 400 << 20;
  int64_t largest = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (learned && tensor.tensor.quantized()) {
      largest = std::max(largest, tensor.tensor.shape[0] * tensor.tensor.shape[1]);
    }
  }
  constexpr int64_t kBytesPerElement = 9;  // the weight, its clamped copy, the codes
  return kProgram + kBytesPerElement * largest;
}

void print_plan(const OutputPlan& plan, const Checkpoint& source, int64_t memory) {
  fmt::print(
      "peak memory     {}\n"
      "bytes to read   {}\n"
      "disk            {} in {} shards\n"
      "units of work   {} tensors\n",
      format_bytes(memory), format_bytes(source.total_bytes()), format_bytes(plan.file_bytes),
      plan.shards.size(), plan.tensors.size());
}

/// Drives the writer from the first part to the last.
void write_parts(CheckpointWriter& writer, const OutputPlan& plan,
                 const std::shared_ptr<WeightSource>& weights) {
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    if (i == 0 || plan.shards[i].part != plan.shards[i - 1].part) {
      writer.write(plan.shards[i].part, weights);
    }
  }
  writer.finish();
}

void print_result(const Json& result) {
  if (result["already_complete"].get<bool>()) {
    fmt::print("{}: complete already\n", result["output"].get<std::string>());
    return;
  }
  fmt::print("written         {} in {} shards\n", format_bytes(result["disk_bytes"].get<int64_t>()),
             result["shards"].get<int64_t>());
  if (result.contains("worst_relative_error")) {
    fmt::print("relative error  {:.4g} at most ({})\n",
               result["worst_relative_error"].get<double>(),
               result["worst_tensor"].get<std::string>());
  }
  fmt::print("time            {}\n", format_seconds(result["seconds"].get<double>()));
  fmt::print("memory, read    {} peak, {} read\n",
             format_bytes(result["peak_rss_bytes"].get<int64_t>()),
             format_bytes(result["bytes_read"].get<int64_t>()));
}

Json result_json(const DeployArguments& args, const OutputPlan& plan, const Checkpoint& source,
                 const CheckpointWriter& writer, bool already_complete, double seconds) {
  Json result = plan_json(plan, source);
  result["output"] = args.output.string();
  result["format"] = args.format;
  result["already_complete"] = already_complete;
  result["seconds"] = seconds;
  result["peak_rss_bytes"] = peak_rss_bytes();
  result["bytes_read"] = source.bytes_read();
  result["bytes_written"] = writer.bytes_written();
  const auto& errors = writer.errors();
  const auto worst = std::ranges::max_element(
      errors, [](const auto& a, const auto& b) { return a.second < b.second; });
  if (worst != errors.end()) {
    result["worst_tensor"] = worst->first;
    result["worst_relative_error"] = worst->second;
  }
  return result;
}

void warn_of_clips(const OutputPlan& plan) {
  if (!plan.clips_left_out.empty()) {
    log(LogLevel::warning,
        "--format {}: {} learned activation clips have no place there and are left out, e.g. in "
        "front of {}",
        plan.format->name(), plan.clips_left_out.size(), plan.clips_left_out.front());
  }
}

void run_deploy(const DeployArguments& args) {
  apply_threads(args.threads);
  const auto start = std::chrono::steady_clock::now();
  const Recipe recipe = resolve_recipe(args);
  const int64_t max_shard_bytes = parse_size(args.max_shard_size, "--max_shard_size");
  const Checkpoint source = Checkpoint::open(args.input);
  const auto model = open_model(source);
  const std::optional<Parameters> parameters = read_parameters(args, source);
  const OutputPlan plan =
      plan_output(source, *model, recipe, output_format(args.format),
                  parameters ? parameters->site_factors() : SiteFactors(), max_shard_bytes);
  warn_of_clips(plan);
  if (args.dry_run) {
    print_plan(plan, source, planned_memory(plan, parameters.has_value()));
    write_json(args.json, plan_json(plan, source));
    return;
  }
  WriterOptions options;
  options.verify = !args.no_verify;
  options.restart = args.restart;
  options.version = BLOCKPTQ_VERSION;
  options.run = {{"parameters", parameters ? parameters->fingerprint() : ""}};
  ProgressBar progress(stderr);
  options.progress = [&](const PlannedShard& shard, double done) {
    progress.update({.done = done, .detail = shard.part});
  };
  CheckpointWriter writer(source, plan, recipe, args.output, options);
  const bool already_complete = writer.complete();
  if (!already_complete) {
    std::shared_ptr<WeightSource> weights;
    if (parameters) {
      weights = std::make_shared<LearnedSource>(source, *parameters);
    } else {
      weights = std::make_shared<NearestSource>(source);
    }
    write_parts(writer, plan, weights);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const Json result = result_json(args, plan, source, writer, already_complete, seconds.count());
  print_result(result);
  write_json(args.json, result);
}

}  // namespace

std::function<void()> add_deploy(CLI::App& app) {
  auto args = std::make_shared<DeployArguments>();
  app.description("Write a quantized checkpoint that serving systems load.");
  app.add_option("--input_weight_path", args->input, "source checkpoint folder")->required();
  app.add_option("--output_weight_path", args->output, "new, empty or unfinished folder")
      ->required();
  app.add_option("--quant_type", args->quant_type, "what becomes integers, and to how many bits")
      ->check(CLI::IsMember({std::string(kFloatType), std::string("w8a8c16"), std::string("w8a8c8"),
                             std::string("w4a8c16"), std::string("w4a8c8")}));
  app.add_option("--recipe", args->recipe, "recipe file, in the place of --quant_type");
  app.add_flag("--clip", args->clip, "use learned parameters; implied by the options below");
  app.add_option("--mla_param_path,--mla_param_dir", args->mla_parameters,
                 "folder of learned parameters of attention");
  app.add_option("--moe_param_path,--moe_param_dir", args->moe_parameters,
                 "folder of learned parameters of experts and MLPs");
  app.add_option("--format", args->format, "layout of the output")
      ->check(CLI::IsMember(output_format_names()))
      ->capture_default_str();
  app.add_option("--max_shard_size", args->max_shard_size, "e.g. 5GB; a larger tensor is a shard")
      ->capture_default_str();
  app.add_flag("--no_verify", args->no_verify, "do not read the output back and compare it");
  app.add_flag("--restart", args->restart,
               "throw earlier work in the output folder away instead of continuing");
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_threads_option(app, args->threads);
  add_json_option(app, args->json);
  return [args] { run_deploy(*args); };
}

}  // namespace blockptq::cli
