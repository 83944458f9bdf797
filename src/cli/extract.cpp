// blockptq extract: calibration text -> inputs and outputs of every block.
#include "calibrate/extract.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/size.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/pass_options.h"
#include "report/progress_bar.h"
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
                 const ExtractPlan& plan, const ExtractResult& result) {
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
          {"peak_rss_bytes", peak_rss_bytes()},
          {"bytes_read", result.bytes_read},
          {"checkpoint_bytes", checkpoint.total_bytes()}};
}

void print_result(const ExtractArguments& args, const ExtractResult& result) {
  fmt::print(
      "blocks done     {}\n"
      "text            {} sequences of {} tokens\n"
      "time            {}\n"
      "memory, read    {} peak, {} read\n",
      result.begin < result.end ? fmt::format("{} to {}", result.begin, result.end - 1)
                                : "all of them, by an earlier run",
      args.nsamples, args.text.seq_len, format_seconds(result.seconds),
      format_bytes(peak_rss_bytes()), format_bytes(result.bytes_read));
}

void run_extract(ExtractArguments& args) {
  args.compute.apply_threads();
  args.settings.device = args.compute.resolve_device();
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
  const ExtractResult result = [&] {
    ProgressBar progress(stderr);
    return extract(
        subject, windows, args.settings,
        [&](const ExtractPlan& found) {
          plan = found;
          fmt::print("disk            {} needed, {} free\n", format_bytes(plan.pass.disk_bytes),
                     format_bytes(plan.free_bytes));
          std::fflush(stdout);
        },
        progress);
  }();
  print_result(args, result);
  write_result(args.settings.run_folder, args.json,
               result_json(args, opened.checkpoint, plan, result));
}

}  // namespace

std::function<void()> add_extract(CLI::App& app) {
  auto args = std::make_shared<ExtractArguments>();
  app.description("Inputs and outputs of every block on calibration text, as files.");
  app.add_option("--model", args->model, "checkpoint folder")->required();
  args->text.add_to(app, "calib.jsonl.gz", 512);
  add_nsamples_option(app, args->nsamples);
  args->compute.add_to(app);
  add_pass_options(app, args->settings);
  app.add_option("--output_dir", args->settings.run_folder,
                 "write block_NNN.inputs.safetensors and block_NNN.outputs.safetensors here")
      ->required();
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_extract(*args); };
}

}  // namespace blockptq::cli
