// blockptq eval: perplexity of a checkpoint.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/size.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/job.h"
#include "cli/options.h"
#include "cli/pass_options.h"
#include "cli/plan.h"
#include "cli/quant_options.h"
#include "eval/deployed.h"
#include "eval/evaluate.h"
#include "text/tokenizer.h"
#include "text/windows.h"

namespace blockptq::cli {
namespace {

struct EvalArguments {
  std::filesystem::path model;
  ComputeOptions compute;
  TextOptions text;
  EvalOptions eval;
  std::string mode = "origin";
  QuantOptions quant;
  std::filesystem::path mla_parameters;
  std::filesystem::path moe_parameters;
  bool lwc = false;
  bool lac = false;
  bool fake_quant = false;
  std::filesystem::path reference;
  bool reference_fake_quant = false;
  std::optional<int64_t> max_chunks;
  bool dry_run = false;
  std::filesystem::path json;
};

void print_result(const EvalResult& result, const Json& json) {
  if (result.ppl) {
    fmt::print("perplexity      {:.4f}  ({:.4f} nats per token)\n", *result.ppl,
               json["nll_per_token"].get<double>());
  } else {
    fmt::print("blocks done     up to {}; go on with --begin {}\n", result.end, result.end);
  }
  if (result.kl) {
    fmt::print("KL divergence   {:.6f}  (nats per token; same first choice {:.2f} %)\n",
               std::max(*result.kl, 0.0),  // rounding may leave less than nothing
               100 * *result.top1_agreement);
  }
  if (result.mtp_ppl) {
    fmt::print("MTP perplexity  {:.4f}  (token after the next)\n", *result.mtp_ppl);
  }
  fmt::print("text            {} sequences of {} tokens\n", json["chunks"].get<int64_t>(),
             json["seq_len"].get<int64_t>());
  fmt::print("time            {}  ({:.0f} tokens/s)\n", format_seconds(result.seconds),
             json["tokens_per_second"].get<double>());
  fmt::print("memory, read    {} peak, {} of {} read\n",
             format_bytes(json["peak_rss_bytes"].get<int64_t>()), format_bytes(result.bytes_read),
             format_bytes(json["checkpoint_bytes"].get<int64_t>()));
}

LearnedParameters learned_parameters(const EvalArguments& args) {
  LearnedParameters learned;
  for (const auto& folder : {args.mla_parameters, args.moe_parameters}) {
    if (!folder.empty()) {
      learned.folders.push_back(folder);
    }
  }
  if (args.lwc || args.lac) {
    learned.weights = args.lwc;
    learned.activations = args.lac;
  }
  return learned;
}

/// How the run's model computes, and what the report calls it.
struct Chosen {
  Arithmetic arithmetic;
  std::string mode;
  std::string quant_type;
};

Chosen choose_deployed(const EvalArguments& args, const Opened& opened, bool fake_quant) {
  DeployedOptions options{.fake_quant = fake_quant, .type = args.eval.type};
  if (args.quant.cls) {
    options.int8_cache = args.quant.cls == "c8";
  }
  return {deployed_arithmetic(opened.checkpoint, *opened.model, options),
          fake_quant ? "fake_quant" : "integer",
          quant_type(deployed_recipe(opened.checkpoint, *opened.model, options), *opened.model)};
}

Chosen choose_arithmetic(const EvalArguments& args, const Opened& opened) {
  const LearnedParameters learned = learned_parameters(args);
  if (args.mode == "origin") {
    const bool deployed = is_deployed(opened.checkpoint);
    QuantOptions options = args.quant;
    if (deployed) {
      options.cls.reset();
    }
    check(learned.folders.empty() && !options.given() && !args.lwc && !args.lac,
          "--train_mode origin evaluates the model as it is: give mla, moe or block, or leave the "
          "options of quantization out");
    check(deployed || !args.fake_quant,
          "--fake_quant: {} wants no integer activations; give --train_mode to quantize it",
          args.model.string());
    return deployed ? choose_deployed(args, opened, args.fake_quant)
                    : Chosen{float_arithmetic(), args.mode, "float"};
  }
  check(!args.fake_quant, "--fake_quant: --train_mode {} is fake quantization already", args.mode);
  const std::map<std::string, TrainMode> modes{
      {"mla", TrainMode::mla}, {"moe", TrainMode::moe}, {"block", TrainMode::block}};
  const Recipe recipe = restrict_recipe(args.quant.resolve(*opened.model), modes.at(args.mode));
  return {fake_quant_arithmetic(opened.checkpoint, recipe, learned), args.mode,
          quant_type(recipe, *opened.model)};
}

/// What --reference names: a float model, or a deployed folder as it computes.
Arithmetic reference_arithmetic(const EvalArguments& args, const Opened& opened) {
  const bool deployed = is_deployed(opened.checkpoint);
  check(deployed || !args.reference_fake_quant,
        "--reference_fake_quant: {} wants no integer activations", args.reference.string());
  return deployed ? choose_deployed(args, opened, args.reference_fake_quant).arithmetic
                  : float_arithmetic();
}

Json result_json(const EvalArguments& args, const Chosen& chosen, const Checkpoint& checkpoint,
                 const TokenWindows& windows, const EvalResult& result, int64_t rss) {
  const int64_t tokens = windows.count() * windows.seq_len;
  Json json{{"model", args.model.string()},
            {"mode", chosen.mode},
            {"quant_type", chosen.quant_type},
            {"data", args.text.name()},
            {"seq_len", windows.seq_len},
            {"chunks", windows.count()},
            {"tokens", tokens},
            {"seconds", result.seconds},
            {"tokens_per_second", static_cast<double>(tokens) / result.seconds},
            {"peak_rss_bytes", rss},
            {"bytes_read", result.bytes_read},
            {"checkpoint_bytes", checkpoint.total_bytes()}};
  if (result.ppl) {
    json["ppl"] = *result.ppl;
    json["nll_per_token"] = result.losses_CL.mean().item<double>();
  }
  if (result.mtp_ppl) {
    json["mtp_ppl"] = *result.mtp_ppl;
  }
  if (result.kl) {
    json["kl"] = *result.kl;
    json["top1_agreement"] = *result.top1_agreement;
    json["reference"] = args.reference.string();
    for (size_t block = 0; block < result.block_errors.size(); ++block) {
      json["blocks"].push_back({{"block", block}, {"relative_error", result.block_errors[block]}});
    }
  }
  return json;
}

void run_eval(EvalArguments& args) {
  args.compute.apply_threads();
  Job job(args.compute);
  args.eval.ranks = job.size();
  args.eval.type = args.compute.resolve_dtype();
  args.eval.max_memory = args.compute.resolve_max_memory();
  const Opened opened(args.model);
  const Chosen chosen = choose_arithmetic(args, opened);
  const Subject subject{opened.checkpoint, *opened.model, chosen.arithmetic};
  const auto other = args.reference.empty() ? nullptr : std::make_unique<Opened>(args.reference);
  const auto reference =
      other == nullptr ? nullptr
                       : std::make_unique<Subject>(Subject{other->checkpoint, *other->model,
                                                           reference_arithmetic(args, *other)});
  const Tokenizer tokenizer = Tokenizer::load(args.model);
  const Corpus corpus = args.text.read();
  args.eval.text_fingerprint = corpus.fingerprint;
  const TokenWindows windows = evaluation_windows(
      corpus, tokenizer, opened.model->spec().vocab_size, args.text.seq_len, args.max_chunks);
  if (args.dry_run) {
    const EvalPlan plan =
        plan_evaluation(subject, reference.get(), windows.count(), windows.seq_len, args.eval);
    print_plan(plan);
    write_json(args.json, plan_json(plan));
    return;
  }
  EvalResult result;
  job.run([&](Ranks& ranks, at::Device device) {
    const auto progress = progress_of(ranks);
    EvalOptions options = args.eval;
    options.device = device;
    EvalResult own = evaluate(subject, reference.get(), windows, options, *progress, ranks);
    if (ranks.rank() == 0 || job.processes().shared()) {
      result = std::move(own);
    }
  });
  result.bytes_read = sum(job.processes(), result.bytes_read);
  const int64_t rss = maximum(job.processes(), peak_rss_bytes());
  if (job.speaks()) {
    const Json json = result_json(args, chosen, opened.checkpoint, windows, result, rss);
    print_result(result, json);
    write_result(args.eval.run_folder, args.json, json);
  }
}

}  // namespace

std::function<void()> add_eval(CLI::App& app) {
  auto args = std::make_shared<EvalArguments>();
  app.description("Perplexity of a checkpoint, one block at a time.");
  app.add_option("--model", args->model, "checkpoint folder")->type_name("DIR")->required();
  args->text.add_to(app, "wikitext2_test.txt.gz", 4096);
  app.add_option("--max_chunks", args->max_chunks,
                 "evaluate at most so many sequences (default: all)")
      ->check(CLI::PositiveNumber);
  args->compute.add_to(app);
  app.add_option(
         "--train_mode", args->mode,
         "origin: the unquantized model; with fake quantization: mla (attention), moe (MLPs "
         "and experts) or block (both)")
      ->check(CLI::IsMember({"origin", "mla", "moe", "block"}))
      ->capture_default_str();
  args->quant.add_to(app);
  app.add_option("--mla_param_dir,--mla_param_path", args->mla_parameters,
                 "learned parameters of attention")
      ->type_name("DIR");
  app.add_option("--moe_param_dir,--moe_param_path", args->moe_parameters,
                 "learned parameters of MLPs and experts")
      ->type_name("DIR");
  app.add_flag("--lwc", args->lwc, "of the learned parameters use those of weights (default: all)");
  app.add_flag("--lac", args->lac,
               "of the learned parameters use those of activations (default: all)");
  app.add_flag("--fake_quant", args->fake_quant,
               "of a deployed folder: not in integers, but with fake quantization");
  app.add_option("--reference", args->reference,
                 "model to compare with: KL divergence, first choices, error of every block")
      ->type_name("DIR");
  app.add_flag("--reference_fake_quant", args->reference_fake_quant,
               "the same for a deployed --reference");
  add_pass_options(app, args->eval);
  app.add_option("--output_dir", args->eval.run_folder,
                 "keep intermediate states here, to continue from")
      ->type_name("DIR");
  app.add_option("--wikitext_final_out", args->eval.final_states,
                 "write the final hidden states [sequence, token, hidden] here (safetensors)")
      ->type_name("FILE")
      ->check(in_a_folder());
  app.add_flag("--dry_run", args->dry_run, "print memory, disk and bytes to read, then stop");
  add_json_option(app, args->json);
  return [args] { run_eval(*args); };
}

}  // namespace blockptq::cli
