// blockptq train: learn quantization parameters from calibration text.
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/size.h"
#include "base/system.h"
#include "calibrate/amct_run.h"
#include "calibrate/calibration_plan.h"
#include "calibrate/calibration_run.h"
#include "calibrate/refinement.h"
#include "checkpoint/checkpoint.h"
#include "cli/command.h"
#include "cli/job.h"
#include "cli/options.h"
#include "cli/pass_options.h"
#include "cli/plan.h"
#include "cli/quant_options.h"
#include "cli/version.h"
#include "eval/arithmetic.h"
#include "eval/deployed.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace blockptq::cli {
namespace {

constexpr const char* kLearnedClip = "learned_clip";
constexpr const char* kLearnedRound = "learned_round";
constexpr int64_t kSamples = 45;  // sequences, unless the options say

struct TrainArguments {
  std::filesystem::path model;
  std::filesystem::path data_dir;
  ComputeOptions compute;
  TextOptions text;
  QuantOptions quant;
  std::filesystem::path output;
  std::string mode = "block";
  std::string compat;
  std::optional<std::string> algorithm;
  std::optional<int64_t> epochs, batch, nsamples;
  std::optional<double> lr;
  bool lwc = false;
  bool lac = false;
  bool dense_attention = false;
  int64_t begin = 0;
  int64_t end = -1;
  bool restart = false;
  bool dry_run = false;
  std::filesystem::path json;

  TrainMode train_mode() const {
    return mode == "mla" ? TrainMode::mla : mode == "moe" ? TrainMode::moe : TrainMode::block;
  }
  /// Parameters hold what is folded in as factors, which a rotation has not.
  Recipe recipe(const Model& of) const {
    return restrict_recipe(quant.resolve(of), train_mode()).without_rotation();
  }
  StatesDump dump(const Checkpoint& checkpoint) const {
    return {data_dir, checkpoint, compute.resolve_dtype(), dense_attention, nsamples};
  }
};

Json result_json(const TrainArguments& args, const Opened& opened, const Recipe& recipe,
                 const CalibrationResult& result, int64_t rss) {
  return {{"model", args.model.string()},
          {"mode", args.mode},
          {"quant_type", quant_type(recipe, *opened.model)},
          {"data", args.data_dir.empty() ? args.text.name() : args.data_dir.string()},
          {"version", BLOCKPTQ_VERSION},
          {"units", result.units},
          {"blocks", result.blocks},
          {"seconds", result.seconds},
          {"peak_rss_bytes", rss},
          {"bytes_read", result.bytes_read},
          {"checkpoint_bytes", opened.checkpoint.total_bytes()},
          {"environment", environment_json(args.compute)}};
}

void print_result(const CalibrationResult& result, int64_t rss) {
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
  fmt::print("memory, read    {} peak, {} read\n", format_bytes(rss),
             format_bytes(result.bytes_read));
}

/// The text of the options: of the dump, or read and cut.
CalibrationText read_text(const TrainArguments& args, const Opened& opened) {
  if (!args.data_dir.empty()) {
    StatesDump dump = args.dump(opened.checkpoint);
    return {{}, dump.fingerprint(), true, std::move(dump)};
  }
  const Tokenizer tokenizer = Tokenizer::load(args.model);
  const Corpus corpus = args.text.read();
  return {calibration_windows(corpus, tokenizer, opened.model->spec().vocab_size, args.text.seq_len,
                              args.nsamples.value_or(kSamples)),
          corpus.fingerprint};
}

CalibrationOptions calibration_options(const TrainArguments& args, const Recipe& recipe) {
  check(!args.batch && !args.lr, "--cali_bsz, --base_lr: only with --compat amct");
  CalibrationOptions options;
  options.recipe = recipe;
  options.type = args.compute.resolve_dtype();
  options.dense_attention = args.dense_attention;
  options.begin = args.begin;
  options.end = args.end;
  options.max_memory = args.compute.resolve_max_memory();
  options.folder = args.output;
  options.restart = args.restart;
  options.command = "train";
  const std::string algorithm = args.algorithm.value_or(kLearnedClip);
  if (algorithm != kLearnedClip) {
    check(!args.epochs && !args.lwc && !args.lac,
          "--algorithm {}: learns no clips; leave --epoch, --lwc and --lac out", algorithm);
    const bool rounding = algorithm == kLearnedRound;
    options.default_algorithm = {{"name", rounding ? "gptq" : algorithm}};
    options.default_refinement = {{"name", rounding ? kLearnedRound : "none"}};
    return options;
  }
  options.default_algorithm = {{"name", "scale_search"}};
  options.default_refinement = {{"name", kLearnedClip},
                                {"passes", args.epochs.value_or(ClipLearnerOptions().passes)},
                                {"weights", args.lwc || !args.lac},
                                {"activations", args.lac}};
  return options;
}

AmctRunOptions amct_options(const TrainArguments& args, const Recipe& recipe) {
  check(!args.data_dir.empty(),
        "--compat amct: expected --data_dir, the inputs of blocks that `extract` writes");
  check(!args.algorithm, "--compat amct: is an algorithm of its own; leave --algorithm out");
  AmctRunOptions options;
  AmctOptions& learn = options.learn;
  learn.recipe = recipe;
  learn.epochs = args.epochs.value_or(learn.epochs);
  learn.base_lr = args.lr.value_or(learn.base_lr);
  learn.bsz = args.batch.value_or(learn.bsz);
  learn.lwc = args.lwc || !args.lac;
  learn.lac = args.lac || !args.lwc;
  learn.type = args.compute.resolve_dtype();
  learn.attention.dense = args.dense_attention;
  options.mode = args.train_mode();
  options.begin = args.begin;
  options.end = args.end;
  options.max_memory = args.compute.resolve_max_memory();
  options.folder = args.output;
  options.restart = args.restart;
  return options;
}

/// What either procedure will take, or do on one of the ranks of a job.
struct Work {
  std::function<CalibrationPlan()> plan;
  std::function<CalibrationResult(Ranks&, at::Device, Progress&)> run;
};

Work amct_work(const TrainArguments& args, const Opened& opened, const Recipe& recipe) {
  const auto options = std::make_shared<AmctRunOptions>(amct_options(args, recipe));
  const auto dump = std::make_shared<StatesDump>(args.dump(opened.checkpoint));
  return {[=, &opened] { return plan_amct(opened.checkpoint, *opened.model, *dump, *options); },
          [=, &opened](Ranks& ranks, at::Device device, Progress& progress) {
            AmctRunOptions own = *options;
            own.device = device;
            return train_amct(opened.checkpoint, *opened.model, *dump, own, progress, ranks);
          }};
}

Work calibration_work(const TrainArguments& args, const Opened& opened, const Recipe& recipe,
                      int job_size) {
  const auto texts = std::make_shared<std::vector<CalibrationText>>(1, read_text(args, opened));
  const auto options = std::make_shared<CalibrationOptions>(calibration_options(args, recipe));
  options->ranks = job_size;
  return {
      [=, &opened] { return plan_calibration(opened.checkpoint, *opened.model, *texts, *options); },
      [=, &opened](Ranks& ranks, at::Device device, Progress& progress) {
        CalibrationOptions own = *options;
        own.device = device;
        return calibrate(opened.checkpoint, *opened.model, *texts, own, progress, ranks);
      }};
}

void run_train(TrainArguments& args) {
  args.compute.apply_threads();
  Job job(args.compute);
  const Opened opened(args.model);
  const Recipe recipe = args.recipe(*opened.model);
  const Work work = args.compat.empty() ? calibration_work(args, opened, recipe, job.size())
                                        : amct_work(args, opened, recipe);
  if (args.dry_run) {
    const CalibrationPlan plan = work.plan();
    print_plan(plan, nullptr, job.size());
    write_json(args.json, plan_json(plan, nullptr));
    return;
  }
  CalibrationResult result;
  job.run([&](Ranks& ranks, at::Device device) {
    const auto progress = progress_of(ranks);
    CalibrationResult own = work.run(ranks, device, *progress);
    if (ranks.rank() == 0) {
      result = std::move(own);
    }
  });
  result.bytes_read = sum(job.processes(), opened.checkpoint.bytes_read());
  const int64_t rss = maximum(job.processes(), peak_rss_bytes());
  if (job.speaks()) {
    print_result(result, rss);
    write_result(args.output, args.json, result_json(args, opened, recipe, result, rss));
  }
}

void add_learning_options(CLI::App& app, TrainArguments& args) {
  app.add_option("--compat", args.compat,
                 "amct: the procedure of the public DeepSeek-V3.2 sample, on --data_dir "
                 "(docs/training.md)")
      ->check(CLI::IsMember({"amct"}));
  app.add_option(
         "--algorithm", args.algorithm,
         "how codes are chosen where the recipe does not say: learned_clip (searched scales, then "
         "in MLPs clips learned by their output), learned_round (gptq, then in MLPs codes learned "
         "by their output), gptq, scale_search or nearest (default learned_clip)")
      ->check(CLI::IsMember({kLearnedClip, kLearnedRound, "gptq", "scale_search", "nearest"}));
  app.add_flag("--lwc", args.lwc, "learn clips of weights (default: unless --lac is given alone)");
  app.add_flag("--lac", args.lac,
               "learn clips of activations (default: no; with --compat amct, unless --lwc is given "
               "alone)");
  const ClipLearnerOptions clips;
  const AmctOptions amct;
  app.add_option("--epoch", args.epochs,
                 fmt::format("passes over the clips (default {}); with --compat amct over the text "
                             "(default {})",
                             clips.passes, amct.epochs))
      ->check(CLI::PositiveNumber);
  app.add_option("--base_lr", args.lr,
                 fmt::format("with --compat amct: a tenth of the first learning rate of the logits "
                             "(default {})",
                             amct.base_lr))
      ->check(CLI::PositiveNumber);
  app.add_option("--cali_bsz", args.batch,
                 fmt::format("with --compat amct: sequences of a step (default {})", amct.bsz))
      ->check(CLI::PositiveNumber);
}

}  // namespace

std::function<void()> add_train(CLI::App& app) {
  auto args = std::make_shared<TrainArguments>();
  app.description("Learn quantization parameters from calibration text, block by block.");
  app.add_option("--model", args->model, "checkpoint folder")->type_name("DIR")->required();
  app.add_option("--output_dir", args->output,
                 "run folder: quant_parameters_N.safetensors, journal, states to continue from")
      ->type_name("DIR")
      ->required();
  app.add_option("--train_mode", args->mode, "mla: attention, moe: MLPs and experts, block: both")
      ->check(CLI::IsMember({"mla", "moe", "block"}))
      ->capture_default_str();
  args->quant.add_to(app);
  add_learning_options(app, *args);
  args->text.add_to(app, "calib.jsonl.gz", 512);
  auto* data_dir = app.add_option("--data_dir", args->data_dir,
                                  "folder that `extract` filled, in the place of --data")
                       ->type_name("DIR");
  for (const char* option : {"--data", "--data_format", "--seq_len"}) {
    data_dir->excludes(app.get_option(option));
  }
  app.add_option("--nsamples", args->nsamples,
                 fmt::format("sequences to calibrate on (default {}; of --data_dir all)", kSamples))
      ->check(CLI::PositiveNumber);
  args->compute.add_to(app);
  app.add_flag("--dense_attention", args->dense_attention,
               "ignore the indexer: every query sees all earlier keys");
  app.add_option("--begin,--start_block_idx", args->begin, "first block; not 0: with --data_dir")
      ->check(within(0, kMaxBlocks))
      ->capture_default_str();
  app.add_option("--end,--end_block_idx", args->end,
                 "one past the last block; MTP layers count after it (default: all)")
      ->check(within(1, kMaxBlocks));
  app.add_flag("--restart", args->restart,
               "throw earlier work in --output_dir away instead of continuing");
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_train(*args); };
}

}  // namespace blockptq::cli
