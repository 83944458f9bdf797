// blockptq train: learn quantization parameters from calibration text.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "base/size.h"
#include "base/system.h"
#include "calibrate/calibration_run.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/quant_options.h"
#include "eval/arithmetic.h"
#include "models/families.h"
#include "report/progress_bar.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace blockptq::cli {
namespace {

struct TrainArguments {
  std::filesystem::path model;
  ComputeOptions compute;
  TextOptions text;
  QuantOptions quant;
  CalibrationOptions calibration;
  std::string mode = "block";
  std::string algorithm = "learned_clip";
  ClipLearnerOptions clips;
  int64_t nsamples = 45;
  bool dry_run = false;
  std::filesystem::path json;
};

void print_plan(const CalibrationPlan& plan) {
  fmt::print(
      "peak memory     {} (hidden states {}, weights {}, Hessians {}, workspace {}, program {})\n"
      "bytes to read   {}\n"
      "disk            {} of states, and the parameters\n"
      "units of work   {}\n",
      format_bytes(plan.peak_bytes()), format_bytes(plan.states_bytes),
      format_bytes(plan.weights_bytes), format_bytes(plan.hessian_bytes),
      format_bytes(plan.workspace_bytes), format_bytes(plan.runtime_bytes),
      format_bytes(plan.bytes_to_read), format_bytes(plan.disk_bytes), plan.units);
}

Json plan_json(const CalibrationPlan& plan) {
  return {{"peak_memory_bytes", plan.peak_bytes()},
          {"bytes_to_read", plan.bytes_to_read},
          {"disk_bytes", plan.disk_bytes},
          {"units", plan.units}};
}

Json result_json(const TrainArguments& args, const CalibrationResult& result) {
  return {{"model", args.model.string()},   {"mode", args.mode},
          {"units", result.units},          {"blocks", result.blocks},
          {"seconds", result.seconds},      {"peak_rss_bytes", peak_rss_bytes()},
          {"bytes_read", result.bytes_read}};
}

void print_result(const CalibrationResult& result) {
  double before = 0;
  double after = 0;
  int64_t kept = 0;
  for (const Json& unit : result.units) {
    before += unit["loss_before"].get<double>();
    after += unit["loss_after"].get<double>();
    kept += unit.contains("fallback") ? 1 : 0;
  }
  fmt::print("units           {} ({} kept plain rounding)\n", result.units.size(), kept);
  fmt::print("loss            {:.3f} of plain rounding's, mean over units\n",
             before > 0 ? after / before : 1.0);
  fmt::print("time            {}\n", format_seconds(result.seconds));
  fmt::print("memory, read    {} peak, {} read\n", format_bytes(peak_rss_bytes()),
             format_bytes(result.bytes_read));
}

void run_train(TrainArguments& args) {
  args.compute.apply_threads();
  CalibrationOptions& options = args.calibration;
  options.device = args.compute.resolve_device();
  options.type = args.compute.resolve_dtype();
  options.max_memory = args.compute.resolve_max_memory();
  const std::map<std::string, TrainMode> modes{
      {"mla", TrainMode::mla}, {"moe", TrainMode::moe}, {"block", TrainMode::block}};
  options.recipe = restrict_recipe(args.quant.resolve(), modes.at(args.mode)).without_transforms();
  if (args.algorithm == "learned_clip") {
    options.default_algorithm = {{"name", "scale_search"}};
    options.learn_clips = args.clips;
  } else {
    options.default_algorithm = {{"name", args.algorithm}};
  }
  options.command = "train";
  const Checkpoint checkpoint = Checkpoint::open(args.model);
  const auto model = open_model(checkpoint);
  const Tokenizer tokenizer = Tokenizer::load(args.model);
  const Corpus corpus = args.text.read();
  const std::vector<CalibrationText> texts{
      {calibration_windows(corpus, tokenizer, model->spec().vocab_size, args.text.seq_len,
                           args.nsamples),
       corpus.fingerprint, true}};
  if (args.dry_run) {
    const CalibrationPlan plan = plan_calibration(checkpoint, *model, texts, options);
    print_plan(plan);
    write_json(args.json, plan_json(plan));
    return;
  }
  const CalibrationResult result = [&] {
    ProgressBar progress(stderr);
    return calibrate(checkpoint, *model, texts, options, progress);
  }();
  print_result(result);
  write_json(args.json, result_json(args, result));
}

}  // namespace

std::function<void()> add_train(CLI::App& app) {
  auto args = std::make_shared<TrainArguments>();
  app.description("Learn quantization parameters from calibration text, block by block.");
  app.add_option("--model", args->model, "checkpoint folder")->required();
  app.add_option("--output_dir", args->calibration.folder,
                 "run folder: quant_parameters_N.safetensors, journal, states to continue from")
      ->required();
  app.add_option("--train_mode", args->mode, "mla: attention, moe: MLPs and experts, block: both")
      ->check(CLI::IsMember({"mla", "moe", "block"}))
      ->capture_default_str();
  app.add_option(
         "--algorithm", args->algorithm,
         "how codes are chosen where the recipe does not say: learned_clip (searched scales, then "
         "clips learned through every MLP), gptq, scale_search or nearest")
      ->check(CLI::IsMember({"learned_clip", "gptq", "scale_search", "nearest"}))
      ->capture_default_str();
  app.add_option("--epoch", args->clips.epochs, "epochs of learned_clip")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--base_lr", args->clips.lr, "learning rate of learned_clip")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  args->quant.add_to(app);
  args->text.add_to(app, "calib.jsonl.gz", 512);
  app.add_option("--nsamples", args->nsamples, "sequences to calibrate on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  args->compute.add_to(app);
  app.add_flag("--dense_attention", args->calibration.dense_attention,
               "ignore the indexer: every query sees all earlier keys");
  app.add_option("--end,--end_block_idx", args->calibration.end,
                 "one past the last block (default: the last; the MTP layer counts after it)")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}));
  app.add_flag("--restart", args->calibration.restart,
               "throw earlier work in --output_dir away instead of continuing");
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_train(*args); };
}

}  // namespace blockptq::cli
