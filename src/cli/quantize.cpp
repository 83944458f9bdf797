// blockptq quantize: the main job in one streaming pass.
#include "calibrate/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "base/file.h"
#include "base/log.h"
#include "base/size.h"
#include "base/system.h"
#include "calibrate/calibration_plan.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/formats/output_format.h"
#include "cli/command.h"
#include "cli/job.h"
#include "cli/options.h"
#include "cli/plan.h"
#include "cli/quant_options.h"
#include "cli/version.h"
#include "deploy/deployed_folder.h"
#include "models/families.h"
#include "report/findings.h"
#include "report/page.h"
#include "report/page_data.h"
#include "report/run_data.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace blockptq::cli {
namespace {

struct QuantizeArguments {
  std::filesystem::path model;
  ComputeOptions compute;
  TextOptions text;
  std::string eval_data;
  int64_t nsamples = 45;
  int64_t eval_chunks = 8;
  int64_t eval_seq_len = 1024;
  std::string quant_type = "w4a8c8";
  std::string recipe;
  std::string format = output_format_names().front();
  std::string max_shard_size = "5GB";
  std::filesystem::path work_dir;
  QuantizeOptions quantize;
  bool strict = false;
  bool dry_run = false;
  std::filesystem::path json;
};

constexpr const char* kShippedHeldOut = "wikitext2_test.txt.gz";

/// For results: the file, or the name of the shipped text.
std::string eval_name(const QuantizeArguments& args) {
  const std::string shipped = kShippedHeldOut;
  return args.eval_data.empty() ? shipped.substr(0, shipped.find('.')) : args.eval_data;
}

std::vector<CalibrationText> read_texts(const QuantizeArguments& args, const Model& model) {
  const Tokenizer tokenizer = Tokenizer::load(args.model);
  const int64_t vocab = model.spec().vocab_size;
  const Corpus corpus = args.text.read();
  std::vector<CalibrationText> texts{
      {calibration_windows(corpus, tokenizer, vocab, args.text.seq_len, args.nsamples),
       corpus.fingerprint, true}};
  if (args.eval_chunks > 0) {
    const Corpus held_out =
        read_corpus(args.eval_data.empty() ? shipped_file(kShippedHeldOut)
                                           : std::filesystem::path(args.eval_data),
                    parse_text_format("auto"));
    texts.push_back(
        {evaluation_windows(held_out, tokenizer, vocab, args.eval_seq_len, args.eval_chunks),
         held_out.fingerprint, false});
  }
  return texts;
}

int64_t parameters(const Model& model) {
  int64_t sum = 0;
  for (const ModelTensor& tensor : model.tensors()) {
    sum +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  }
  return sum;
}

Json result_json(const QuantizeArguments& args, const Checkpoint& source, const Model& model,
                 const OutputPlan& plan, const QuantizeResult& result, int64_t bytes_read,
                 int64_t rss) {
  const CalibrationResult& calibration = result.calibration;
  Json json{{"model", args.model.string()},
            {"quant_type", args.recipe.empty() ? args.quant_type : args.recipe},
            {"format", args.format},
            {"data", args.text.name()},
            {"seq_len", args.text.seq_len},
            {"nsamples", args.nsamples},
            {"output", std::filesystem::absolute(args.quantize.output).lexically_normal().string()},
            {"recipe", args.quantize.calibration.recipe.json()},
            {"version", BLOCKPTQ_VERSION},
            {"units", calibration.units},
            {"blocks", calibration.blocks},
            {"seconds", calibration.seconds},
            {"peak_rss_bytes", rss},
            {"bytes_read", bytes_read},
            {"bytes_written", result.bytes_written},
            {"checkpoint_bytes", source.total_bytes()},
            {"parameters", parameters(model)},
            {"output_bytes", plan.file_bytes},
            {"environment", environment_json(args.compute)}};
  if (args.eval_chunks > 0) {
    json["eval_data"] = eval_name(args);
  }
  if (calibration.held_out) {
    json["held_out"] = *calibration.held_out;
  }
  return json;
}

void print_result(const QuantizeArguments& args, const Json& json) {
  fmt::print("calibrated on   {} sequences of {} tokens of {}{}\n", args.nsamples,
             args.text.seq_len, args.text.name(),
             args.text.file.empty() ? ", which ships with the program" : "");
  if (json.contains("held_out")) {
    const Json& held_out = json["held_out"];
    fmt::print("perplexity      {:.4f} (float {:.4f}) on {}\n", held_out["ppl"].get<double>(),
               held_out["float_ppl"].get<double>(), json["eval_data"].get<std::string>());
    fmt::print("KL divergence   {:.6f} (nats per token; same first choice {:.2f} %)\n",
               held_out["kl"].get<double>(), 100 * held_out["top1_agreement"].get<double>());
  }
  const auto fallbacks = std::count_if(json["units"].begin(), json["units"].end(),
                                       [](const Json& unit) { return unit.contains("fallback"); });
  fmt::print("units           {} ({} kept plain rounding)\n", json["units"].size(), fallbacks);
  fmt::print(
      "written         {} (source {}) to {}\n", format_bytes(json["output_bytes"].get<int64_t>()),
      format_bytes(json["checkpoint_bytes"].get<int64_t>()), json["output"].get<std::string>());
  fmt::print("time            {}\n", format_seconds(json["seconds"].get<double>()));
  fmt::print("memory, read    {} peak, {} read\n",
             format_bytes(json["peak_rss_bytes"].get<int64_t>()),
             format_bytes(json["bytes_read"].get<int64_t>()));
}

/// Writes the run's page; prints what is suspicious. Throws under `strict` when anything is.
void report(const std::filesystem::path& folder, bool strict) {
  const RunData run = read_run(folder);
  const std::vector<Finding> findings = find_suspicious(run);
  write_file_atomically(folder / "report.html",
                        render_page(page_data(run, folder.filename().string())));
  fmt::print("page            {}\n{}\n", (folder / "report.html").string(),
             verdict(run, findings).text);
  int64_t serious = 0;
  for (const Finding& finding : findings) {
    fmt::print("{:<15} {}\n", severity_name(finding.severity), finding.text);
    serious += finding.severity == Severity::note ? 0 : 1;
  }
  if (strict && serious > 0) {
    throw std::runtime_error(fmt::format("--strict: {} findings, see above", serious));
  }
}

void warn_of_integers(const Checkpoint& source) {
  if (is_deployed_folder(source)) {
    log(LogLevel::warning,
        "{}: quantized already, what it lost stays lost; expected the original checkpoint",
        source.path().string());
  }
}

void run_quantize(QuantizeArguments& args) {
  args.compute.apply_threads();
  CalibrationOptions& calibration = args.quantize.calibration;
  Job job(args.compute);
  calibration.ranks = job.size();
  calibration.type = args.compute.resolve_dtype();
  calibration.max_memory = args.compute.resolve_max_memory();
  calibration.command = "quantize";
  calibration.default_refinement = {{"name", "learned_round"}};
  calibration.folder = args.work_dir.empty() ? run_folder_of(args.quantize.output) : args.work_dir;
  args.quantize.version = BLOCKPTQ_VERSION;
  const Checkpoint source = Checkpoint::open(args.model);
  const auto model = open_model(source);
  warn_of_integers(source);
  calibration.recipe = load_recipe(args.recipe.empty() ? args.quant_type : args.recipe, *model);
  if (calibration.recipe.transforms().rotate_seed) {
    model->untie_head();
  }
  const OutputPlan plan =
      plan_output(source, *model, calibration.recipe, output_format(args.format), SiteFactors(),
                  parse_size(args.max_shard_size, "--max_shard_size"));
  const std::vector<CalibrationText> texts = read_texts(args, *model);
  if (args.dry_run) {
    const CalibrationPlan needs = plan_calibration(source, *model, texts, calibration);
    print_plan(needs, &plan, job.size());
    write_json(args.json, plan_json(needs, &plan));
    return;
  }
  QuantizeResult result;
  job.run([&](Ranks& ranks, at::Device device) {
    const auto progress = progress_of(ranks);
    QuantizeOptions options = args.quantize;
    options.calibration.device = device;
    QuantizeResult own = quantize(source, *model, plan, texts, options, *progress, ranks);
    if (ranks.rank() == 0) {
      result = std::move(own);
    }
  });
  const int64_t bytes_read = sum(job.processes(), source.bytes_read());
  const int64_t rss = maximum(job.processes(), peak_rss_bytes());
  if (!job.speaks()) {
    return;
  }
  const Json json = result_json(args, source, *model, plan, result, bytes_read, rss);
  if (!result.complete) {
    fmt::print("blocks done     up to {}; the same command without --end goes on\n",
               result.calibration.end);
    write_json(args.json, json);
    return;
  }
  print_result(args, json);
  write_result(calibration.folder, args.json, json);
  report(calibration.folder, args.strict);
}

}  // namespace

std::function<void()> add_quantize(CLI::App& app) {
  auto args = std::make_shared<QuantizeArguments>();
  app.description("Quantize a checkpoint in one pass: calibrate, choose integers, write.");
  app.add_option("--model", args->model, "source checkpoint folder")->type_name("DIR")->required();
  app.add_option("--output", args->quantize.output, "new, empty or unfinished folder")
      ->type_name("DIR")
      ->required();
  app.add_option("--quant_type", args->quant_type, "what becomes integers, and to how many bits")
      ->check(CLI::IsMember({"w8a8c16", "w8a8c8", "w4a8c16", "w4a8c8"}))
      ->capture_default_str();
  app.add_option("--recipe", args->recipe, "recipe file, in the place of --quant_type")
      ->type_name("FILE");
  app.add_option("--format", args->format, "layout of the output")
      ->check(CLI::IsMember(output_format_names()))
      ->capture_default_str();
  app.add_option("--max_shard_size", args->max_shard_size, "e.g. 5GB; a larger tensor is a shard")
      ->type_name("SIZE")
      ->capture_default_str();
  args->text.add_to(app, "calib.jsonl.gz", 512);
  add_nsamples_option(app, args->nsamples);
  app.add_option("--eval_data", args->eval_data,
                 "held-out text to measure on (default: wikitext2_test.txt.gz, shipped)")
      ->type_name("FILE");
  app.add_option("--eval_chunks", args->eval_chunks, "sequences of it at most; 0: do not measure")
      ->check(within(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--eval_seq_len", args->eval_seq_len, "tokens of such a sequence")
      ->check(within(3, int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--work_dir", args->work_dir,
                 "run folder: journal and states to continue from (default: OUTPUT.run)")
      ->type_name("DIR");
  args->compute.add_to(app);
  app.add_option("--end,--end_block_idx", args->quantize.calibration.end,
                 "stop in front of this block, to be continued; MTP layers count after the last "
                 "(default: all)")
      ->check(within(1, kMaxBlocks));
  app.add_flag("--restart", args->quantize.calibration.restart,
               "throw earlier work away instead of continuing");
  app.add_flag("--strict", args->strict,
               "exit with 1 when anything about the finished run is suspicious");
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_quantize(*args); };
}

}  // namespace blockptq::cli
