// blockptq extract: calibration text -> inputs and outputs of every block.
#include "calibrate/extract.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/size.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/job.h"
#include "cli/options.h"
#include "cli/pass_options.h"
#include "cli/plan.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace blockptq::cli {
namespace {

struct ExtractArguments {
  std::filesystem::path model;
  ComputeOptions compute;
  TextOptions text;
  int64_t nsamples = 45;
  PassSettings settings;
  bool dry_run = false;
  std::filesystem::path json;
};

Json result_json(const ExtractArguments& args, const Checkpoint& checkpoint,
                 const ExtractPlan& plan, const ExtractResult& result, int64_t rss) {
  const int64_t tokens = args.nsamples * args.text.seq_len;
  return {{"model", args.model.string()},
          {"data", args.text.name()},
          {"seq_len", args.text.seq_len},
          {"nsamples", args.nsamples},
          {"tokens", tokens},
          {"begin", result.begin},
          {"end", result.end},
          {"disk_bytes", plan.pass.disk_bytes},
          {"seconds", result.seconds},
          {"peak_rss_bytes", rss},
          {"bytes_read", result.bytes_read},
          {"checkpoint_bytes", checkpoint.total_bytes()}};
}

void print_result(const ExtractArguments& args, const ExtractResult& result, int64_t rss) {
  fmt::print(
      "blocks done     {}\n"
      "text            {} sequences of {} tokens\n"
      "time            {}\n"
      "memory, read    {} peak, {} read\n",
      result.begin < result.end ? fmt::format("{} to {}", result.begin, result.end - 1)
                                : "all of them, by an earlier run",
      args.nsamples, args.text.seq_len, format_seconds(result.seconds), format_bytes(rss),
      format_bytes(result.bytes_read));
}

void run_extract(ExtractArguments& args) {
  args.compute.apply_threads();
  Job job(args.compute);
  args.settings.ranks = job.size();
  args.settings.type = args.compute.resolve_dtype();
  args.settings.max_memory = args.compute.resolve_max_memory();
  const Opened opened(args.model);
  const Subject subject{opened.checkpoint, *opened.model, float_arithmetic()};
  const Tokenizer tokenizer = Tokenizer::load(args.model);
  const Corpus corpus = args.text.read();
  args.settings.text_fingerprint = corpus.fingerprint;
  const TokenWindows windows = calibration_windows(
      corpus, tokenizer, opened.model->spec().vocab_size, args.text.seq_len, args.nsamples);
  if (args.dry_run) {
    const ExtractPlan plan = plan_extract(subject, windows, args.settings);
    print_plan(plan.pass);
    fmt::print("free disk       {}\n", format_bytes(plan.free_bytes));
    write_json(args.json, plan_json(plan.pass));
    return;
  }
  ExtractPlan plan;
  ExtractResult result;
  job.run([&](Ranks& ranks, at::Device device) {
    const auto progress = progress_of(ranks);
    PassSettings settings = args.settings;
    settings.device = device;
    const ExtractResult own = extract(
        subject, windows, settings,
        [&](const ExtractPlan& found) {
          plan = found;
          fmt::print("disk            {} needed, {} free\n", format_bytes(plan.pass.disk_bytes),
                     format_bytes(plan.free_bytes));
          std::fflush(stdout);
        },
        *progress, ranks);
    if (ranks.rank() == 0) {
      result = own;
    }
  });
  result.bytes_read = sum(job.processes(), opened.checkpoint.bytes_read());
  const int64_t rss = maximum(job.processes(), peak_rss_bytes());
  if (job.speaks()) {
    print_result(args, result, rss);
    write_result(args.settings.run_folder, args.json,
                 result_json(args, opened.checkpoint, plan, result, rss));
  }
}

}  // namespace

std::function<void()> add_extract(CLI::App& app) {
  auto args = std::make_shared<ExtractArguments>();
  app.description("Inputs and outputs of every block on calibration text, as files.");
  app.add_option("--model", args->model, "checkpoint folder")->type_name("DIR")->required();
  args->text.add_to(app, "calib.jsonl.gz", 512);
  add_nsamples_option(app, args->nsamples);
  args->compute.add_to(app);
  add_pass_options(app, args->settings);
  app.add_option("--output_dir", args->settings.run_folder,
                 "write block_NNN.inputs.safetensors and block_NNN.outputs.safetensors here")
      ->type_name("DIR")
      ->required();
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_extract(*args); };
}

}  // namespace blockptq::cli
