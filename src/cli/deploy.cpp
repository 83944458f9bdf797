// blockptq deploy: a source checkpoint becomes a quantized one, tensor by tensor.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/size.h"
#include "base/system.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/quant_options.h"
#include "deploy/checkpoint_writer.h"
#include "deploy/deployed_folder.h"
#include "models/families.h"
#include "report/progress_bar.h"
#include "run/run_folder.h"

namespace blockptq::cli {
namespace {

constexpr std::string_view kFloatType = "bfloat16";

struct DeployArguments {
  std::filesystem::path input;
  std::filesystem::path run;
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

/// The checkpoint that a run of `quantize` wrote.
std::filesystem::path output_of_run(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kResultName;
  check(std::filesystem::exists(path), "--run {}: expected the folder of a finished quantize run",
        folder.string());
  const Json json = parse_json(read_file(path), path.string());
  std::filesystem::path output = JsonView(json, path.string()).at("output").string();
  check(std::filesystem::exists(output),
        "--run {}: the checkpoint that it wrote, {}, is not there; if it was moved, name it with "
        "--input_weight_path",
        folder.string(), output.string());
  return output;
}

std::filesystem::path resolve_input(const DeployArguments& args) {
  check(args.input.empty() != args.run.empty(),
        "expected either --input_weight_path or --run, found {}",
        args.run.empty() ? "none" : "both");
  return args.run.empty() ? args.input : output_of_run(args.run);
}

/// Whether the integers of a deployed folder are to be written as they are.
bool converts(const DeployArguments& args, const Checkpoint& source) {
  const bool chosen = !args.quant_type.empty() || !args.recipe.empty();
  check(args.run.empty() || !chosen,
        "--run: the run has chosen what becomes integers, expected "
        "neither --quant_type nor --recipe");
  return !chosen && is_deployed_folder(source);
}

Recipe resolve_recipe(const DeployArguments& args, const Model& model) {
  check(args.quant_type.empty() != args.recipe.empty(),
        "expected either --quant_type or --recipe, found {}",
        args.recipe.empty() ? "none" : "both");
  if (!args.recipe.empty()) {
    return load_recipe(args.recipe, model);
  }
  return args.quant_type == kFloatType ? Recipe() : Recipe::preset(args.quant_type);
}

std::shared_ptr<const Parameters> read_parameters(const DeployArguments& args,
                                                  const Checkpoint& source) {
  std::vector<std::filesystem::path> folders;
  for (const auto& folder : {args.mla_parameters, args.moe_parameters}) {
    if (!folder.empty() && std::ranges::find(folders, folder) == folders.end()) {
      folders.push_back(folder);
    }
  }
  check(!args.clip || !folders.empty(),
        "--clip: expected learned parameters in --mla_param_path or --moe_param_path");
  return folders.empty() ? nullptr
                         : std::make_shared<const Parameters>(folders, source.fingerprint());
}

Json plan_json(const OutputPlan& plan, const Checkpoint& source) {
  return {{"bytes_to_read", source.total_bytes()},
          {"disk_bytes", plan.file_bytes},
          {"shards", plan.shards.size()},
          {"tensors", plan.tensors.size()}};
}

/// Peak memory: buffers on the way to the disk, and one weight in fp32 with its integers where
/// parameters were learned.
int64_t planned_memory(const OutputPlan& plan, bool learned) {
  constexpr int64_t kBuffers = 64 << 20;
  constexpr int64_t kBytesPerElement = 9;  // the weight, its clamped copy, the codes
  int64_t largest = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (learned && tensor.tensor.quantized()) {
      largest = std::max(largest, tensor.tensor.shape[0] * tensor.tensor.shape[1]);
    }
  }
  return rss_bytes() + kBuffers + kBytesPerElement * largest;
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

/// What is written, and from what.
struct Work {
  Recipe recipe;
  std::shared_ptr<const Parameters> parameters;  ///< that `weights` refers to
  OutputPlan plan;
  std::shared_ptr<WeightSource> weights;
  Json run;  ///< identifies it
  Json extra = Json::object();
  RelativeErrors known_errors = {};
};

Work quantization(const DeployArguments& args, const Checkpoint& source, const Model& model) {
  Work work;
  work.recipe =
      resolve_recipe(args, model).without_transforms();  // parameters have what was folded in
  work.parameters = read_parameters(args, source);
  work.plan = plan_output(source, model, work.recipe, output_format(args.format),
                          work.parameters ? work.parameters->site_factors() : SiteFactors(),
                          parse_size(args.max_shard_size, "--max_shard_size"));
  if (work.parameters) {
    work.weights = std::make_shared<LearnedSource>(source, *work.parameters);
  } else {
    work.weights = std::make_shared<NearestSource>(source);
  }
  work.run = {{"parameters", work.parameters ? work.parameters->fingerprint() : ""}};
  return work;
}

Work conversion(const DeployArguments& args, const Checkpoint& source, const Model& model) {
  check(!args.clip && args.mla_parameters.empty() && args.moe_parameters.empty(),
        "{}: its integers are chosen already, expected no learned parameters",
        source.path().string());
  const DeployedFolder folder = read_deployed_folder(source, model);
  Work work;
  work.recipe = folder.recipe;
  work.plan = plan_conversion(source, model, folder.recipe, output_format(args.format),
                              folder.clips, parse_size(args.max_shard_size, "--max_shard_size"));
  work.plan.clips_left_out = folder.clips_left_out;
  work.weights = std::make_shared<DeployedSource>(source);
  work.run = folder.run;
  work.extra = folder.extra;
  work.known_errors = folder.errors;
  return work;
}

/// Drives the writer from the first part to the last.
void write_parts(CheckpointWriter& writer, const Work& work) {
  const std::vector<PlannedShard>& shards = work.plan.shards;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (i == 0 || shards[i].part != shards[i - 1].part) {
      writer.write(shards[i].part, work.weights);
    }
  }
  writer.finish(work.extra, work.known_errors);
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
  const Checkpoint source = Checkpoint::open(resolve_input(args));
  const auto model = open_model(source);
  const Work work = converts(args, source) ? conversion(args, source, *model)
                                           : quantization(args, source, *model);
  const OutputPlan& plan = work.plan;
  warn_of_clips(plan);
  if (args.dry_run) {
    const int64_t memory = planned_memory(plan, work.parameters != nullptr);
    print_plan(plan, source, memory);
    Json json = plan_json(plan, source);
    json["peak_memory_bytes"] = memory;
    write_json(args.json, json);
    return;
  }
  WriterOptions options;
  options.verify = !args.no_verify;
  options.restart = args.restart;
  options.version = BLOCKPTQ_VERSION;
  options.run = work.run;
  ProgressBar progress(stderr);
  options.progress = [&](const PlannedShard& shard, double done) {
    progress.update({.done = done, .detail = shard.part});
  };
  CheckpointWriter writer(source, plan, work.recipe, args.output, options);
  const bool already_complete = writer.complete();
  if (!already_complete) {
    write_parts(writer, work);
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
  app.add_option("--input_weight_path", args->input,
                 "source checkpoint folder; a deployed one without --quant_type: its integers are "
                 "written as they are")
      ->type_name("DIR");
  app.add_option("--run", args->run,
                 "in its place: the run folder of quantize, whose output is written again")
      ->type_name("DIR");
  app.add_option("--output_weight_path", args->output, "new, empty or unfinished folder")
      ->type_name("DIR")
      ->required();
  app.add_option("--quant_type", args->quant_type, "what becomes integers, and to how many bits")
      ->check(CLI::IsMember({std::string(kFloatType), std::string("w8a8c16"), std::string("w8a8c8"),
                             std::string("w4a8c16"), std::string("w4a8c8")}));
  app.add_option("--recipe", args->recipe, "recipe file, in the place of --quant_type")
      ->type_name("FILE");
  app.add_flag("--clip", args->clip, "use learned parameters; implied by the options below");
  app.add_option("--mla_param_path,--mla_param_dir", args->mla_parameters,
                 "folder of learned parameters of attention")
      ->type_name("DIR");
  app.add_option("--moe_param_path,--moe_param_dir", args->moe_parameters,
                 "folder of learned parameters of experts and MLPs")
      ->type_name("DIR");
  app.add_option("--format", args->format, "layout of the output")
      ->check(CLI::IsMember(output_format_names()))
      ->capture_default_str();
  app.add_option("--max_shard_size", args->max_shard_size, "e.g. 5GB; a larger tensor is a shard")
      ->type_name("SIZE")
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
