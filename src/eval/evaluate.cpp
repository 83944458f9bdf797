#include "eval/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "checkpoint/safetensors_writer.h"
#include "eval/head.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRuntimeBytes = int64_t{384} << 20;  // libraries, tokenizer, text
constexpr int64_t kMinWorkspace = int64_t{32} << 20;
constexpr int64_t kMaxWorkspace = int64_t{256} << 20;
constexpr std::chrono::seconds kSaveInterval{60};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// ||x - reference||^2 / ||reference||^2, sequence by sequence.
double relative_error(const at::Tensor& x_CLD, const at::Tensor& reference_CLD) {
  double error = 0;
  double norm = 0;
  for (int64_t c = 0; c < x_CLD.size(0); ++c) {
    const at::Tensor reference = reference_CLD[c].to(at::kFloat);
    error += (x_CLD[c].to(at::kFloat) - reference).square().sum(at::kDouble).item<double>();
    norm += reference.square().sum(at::kDouble).item<double>();
  }
  return error / norm;
}

void check_comparable(const Subject& subject, const Subject& reference) {
  const ModelSpec& a = subject.model.spec();
  const ModelSpec& b = reference.model.spec();
  const auto check_equal = [&](const char* what, int64_t expected, int64_t found) {
    check(expected == found, "{}: {}: expected {} as in the evaluated model, found {}",
          reference.checkpoint.config_path().string(), what, expected, found);
  };
  check_equal("blocks", a.blocks, b.blocks);
  check_equal("hidden size", a.hidden_size, b.hidden_size);
  check_equal("vocabulary", a.vocab_size, b.vocab_size);
}

/// One evaluation in progress.
class Evaluation {
 public:
  Evaluation(const Subject& subject, const Subject* reference, const TokenWindows& windows,
             const EvalOptions& options, Progress& progress);

  EvalResult run();

 private:
  at::Tensor open_states();
  void run_block(int64_t block, EvalResult& result);
  void save_if_due(int64_t next_block);
  void measure_head(EvalResult& result);
  void measure_mtp(EvalResult& result);
  void write_final_states() const;

  const Subject& subject_;
  const Subject* reference_;
  const TokenWindows& windows_;
  const EvalOptions& options_;
  Progress& progress_;
  Route route_;
  EvalPlan plan_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<ModelPass> pass_;
  std::unique_ptr<ModelPass> reference_pass_;  ///< null without a reference
  Clock::time_point last_save_ = Clock::now();
};

Evaluation::Evaluation(const Subject& subject, const Subject* reference,
                       const TokenWindows& windows, const EvalOptions& options, Progress& progress)
    : subject_(subject),
      reference_(reference),
      windows_(windows),
      options_(options),
      progress_(progress),
      route_(make_route(subject.model, options)),
      plan_(plan_evaluation(subject, reference, windows.count(), windows.seq_len, options)) {
  const nn::AttentionOptions attention{options.dense_attention, plan_.workspace_bytes};
  const PassOptions pass{options.type, options.device, attention};
  at::Tensor states = open_states();
  pass_ = std::make_unique<ModelPass>(subject, windows, route_, pass, std::move(states));
  if (reference != nullptr) {
    Route route = route_;
    route.mtp = false;
    reference_pass_ = std::make_unique<ModelPass>(*reference, windows, route, pass, at::Tensor());
  }
}

/// The states that enter route_.begin as an earlier run left them; undefined: the embeddings do.
at::Tensor Evaluation::open_states() {
  if (!options_.run_folder.empty()) {
    folder_ = std::make_unique<RunFolder>(options_.run_folder,
                                          run_description("eval", subject_, windows_, options_),
                                          options_.restart);
    const auto saved = folder_->newest_states(std::min(route_.end, subject_.model.spec().blocks));
    if (saved && *saved >= route_.begin) {
      route_.begin = *saved;
      log(LogLevel::info, "{}: continuing at block {}", options_.run_folder.string(), *saved);
      return folder_->load_states(*saved)->at("states");
    }
  }
  check(route_.begin == 0, "--begin {}: the states that enter this block are not in {}",
        route_.begin,
        options_.run_folder.empty() ? "any folder (give --output_dir)"
                                    : options_.run_folder.string());
  return {};
}

void Evaluation::run_block(int64_t block, EvalResult& result) {
  const bool compared = reference_pass_ != nullptr && block < subject_.model.spec().blocks;
  const int64_t passes = compared ? 2 : 1;
  const int64_t steps = passes * (windows_.count() + 1 + subject_.model.experts(block));
  const int64_t blocks = route_.end - route_.begin;
  int64_t step = 0;
  const auto on_step = [&](const std::string& detail) {
    const double within = static_cast<double>(++step) / static_cast<double>(steps);
    progress_.update(
        {block, blocks, windows_.count() * windows_.seq_len,
         (static_cast<double>(block - route_.begin) + within) / static_cast<double>(blocks),
         detail});
  };
  pass_->run_block(block, on_step);
  if (compared) {
    reference_pass_->run_block(block, on_step);
    result.block_errors.push_back(relative_error(pass_->states(), reference_pass_->states()));
  }
  if (options_.on_block) {
    options_.on_block(block, pass_->states());
  }
}

void Evaluation::save_if_due(int64_t next_block) {
  const int64_t last = std::min(route_.end, subject_.model.spec().blocks);
  if (folder_ && (next_block == last || Clock::now() - last_save_ > kSaveInterval)) {
    folder_->save_states(next_block, {{"states", pass_->states()}});
    last_save_ = Clock::now();
  }
}

void Evaluation::measure_head(EvalResult& result) {
  HeadMeasure measure(target_tokens(windows_, 1));
  pass_->normalize();
  if (reference_pass_) {
    reference_pass_->normalize();
  }
  for (int64_t tile = 0; tile < head_tiles(subject_.model, Unit::head, options_.type); ++tile) {
    const Piece piece = pass_->next_head_tile();
    const at::Tensor states_ND = pass_->states().flatten(0, 1);
    if (reference_pass_) {
      const Piece other = reference_pass_->next_head_tile();
      measure.add(states_ND, piece.only(), reference_pass_->states().flatten(0, 1), other.only());
    } else {
      measure.add(states_ND, piece.only());
    }
  }
  result.losses_CL =
      measure.losses().view({windows_.count(), windows_.seq_len}).slice(1, 0, windows_.seq_len - 1);
  result.ppl = perplexity(measure.losses(), windows_, 1);
  if (reference_pass_) {
    result.kl = measure.divergence().mean().item<double>();
    result.top1_agreement = measure.agreement().to(at::kDouble).mean().item<double>();
  }
}

void Evaluation::measure_mtp(EvalResult& result) {
  pass_->enter_mtp();
  run_block(subject_.model.spec().blocks, result);
  HeadMeasure measure(target_tokens(windows_, 2));
  pass_->normalize();
  for (int64_t tile = 0; tile < head_tiles(subject_.model, Unit::mtp_head, options_.type); ++tile) {
    measure.add(pass_->states().flatten(0, 1), pass_->next_head_tile().only());
  }
  result.mtp_losses_CL =
      measure.losses().view({windows_.count(), windows_.seq_len}).slice(1, 0, windows_.seq_len - 2);
  result.mtp_ppl = perplexity(measure.losses(), windows_, 2);
}

void Evaluation::write_final_states() const {
  if (options_.final_states.empty()) {
    return;
  }
  const at::Tensor states = pass_->states().to(at::kCPU, at::kFloat).contiguous();
  const TensorToWrite tensor{{"final_states", Dtype::f32, states.sizes().vec()},
                             states.const_data_ptr()};
  write_safetensors(options_.final_states, std::span(&tensor, 1));
}

EvalResult Evaluation::run() {
  const int64_t blocks = subject_.model.spec().blocks;
  EvalResult result;
  for (int64_t block = route_.begin; block < std::min(route_.end, blocks); ++block) {
    run_block(block, result);
    save_if_due(block + 1);
  }
  if (route_.head) {
    measure_head(result);
    write_final_states();
  }
  if (route_.mtp) {
    measure_mtp(result);
  }
  result.end = route_.end;
  return result;
}

}  // namespace

Route make_route(const Model& model, const PassSettings& settings) {
  const ModelSpec& spec = model.spec();
  check(!settings.mtp || spec.mtp_layers > 0, "--mtp: the checkpoint has no MTP layer");
  const int64_t last = spec.blocks + (settings.mtp ? 1 : 0);
  Route route;
  route.end = settings.end < 0 ? last : settings.end;
  route.begin = settings.begin;
  check(route.begin >= 0 && route.begin <= route.end && route.end <= last,
        "--begin {} --end {}: expected 0 <= begin <= end <= {}{}", settings.begin, route.end, last,
        settings.mtp || spec.mtp_layers == 0 ? "" : " (one more with --mtp)");
  route.head = route.end >= spec.blocks;
  route.mtp = route.end > spec.blocks;
  return route;
}

std::string dtype_name(at::ScalarType type) {
  return type == at::kFloat ? "fp32" : "bf16";
}

std::string attention_name(bool dense) {
  return dense ? "dense" : "as the model says";
}

Json run_description(const std::string& command, const Subject& subject,
                     const TokenWindows& windows, const PassSettings& settings) {
  return {{"command", command},
          {"model", subject.checkpoint.fingerprint()},
          {"arithmetic", subject.arithmetic.description},
          {"text", settings.text_fingerprint},
          {"windows", windows.count()},
          {"seq_len", windows.seq_len},
          {"dtype", dtype_name(settings.type)},
          {"attention", attention_name(settings.dense_attention)}};
}

EvalPlan plan_evaluation(const Subject& subject, const Subject* reference, int64_t windows,
                         int64_t seq_len, const PassSettings& settings) {
  const Model& model = subject.model;
  const Route route = make_route(model, settings);
  const auto pieces = route_pieces(model, route, settings.type);
  const PieceLoader loader(subject.checkpoint, settings.type, settings.device,
                           subject.arithmetic.transform, subject.arithmetic.integers);
  const int64_t passes = reference == nullptr ? 1 : 2;
  if (reference != nullptr) {
    check_comparable(subject, *reference);
    check(settings.run_folder.empty() && settings.begin == 0,
          "--reference: a comparison runs in one piece; leave --output_dir and --begin out");
  }
  EvalPlan plan;
  const int64_t states = windows * seq_len * model.spec().hidden_size *
                         static_cast<int64_t>(at::elementSize(settings.type));
  plan.states_bytes = 2 * states * passes;
  plan.disk_bytes = settings.run_folder.empty() ? 0 : 2 * states;
  plan.runtime_bytes = kRuntimeBytes;
  plan.blocks = route.end - route.begin;
  plan.bytes_to_read = stored_bytes(subject.checkpoint, pieces);
  if (reference != nullptr) {
    plan.bytes_to_read +=
        stored_bytes(reference->checkpoint, route_pieces(reference->model, route, settings.type));
  }
  for (const PieceSpec& piece : pieces) {
    plan.weights_bytes = std::max(plan.weights_bytes, 2 * passes * loader.loaded_bytes(piece));
  }
  const int64_t fixed = plan.states_bytes + plan.weights_bytes + kRuntimeBytes;
  const int64_t room = settings.max_memory > 0 ? settings.max_memory - fixed : kMaxWorkspace;
  check(room >= kMinWorkspace,
        "--max_memory {}: expected at least {} ({} hidden states, {} weights, {} for the program)",
        format_bytes(settings.max_memory), format_bytes(fixed + kMinWorkspace),
        format_bytes(plan.states_bytes), format_bytes(plan.weights_bytes),
        format_bytes(kRuntimeBytes));
  plan.workspace_bytes = std::min(room, kMaxWorkspace);
  return plan;
}

EvalResult evaluate(const Subject& subject, const Subject* reference, const TokenWindows& windows,
                    const EvalOptions& options, Progress& progress) {
  const auto start = Clock::now();
  const int64_t read_before = subject.checkpoint.bytes_read();
  EvalResult result = Evaluation(subject, reference, windows, options, progress).run();
  result.bytes_read = subject.checkpoint.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace blockptq
