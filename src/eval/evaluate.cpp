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
#include "eval/deployed.h"
#include "eval/expert_exchange.h"
#include "eval/gather_states.h"
#include "eval/head.h"
#include "eval/memory.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMinWorkspace = int64_t{32} << 20;
constexpr int64_t kMaxWorkspace = int64_t{256} << 20;
constexpr std::chrono::seconds kSaveInterval{60};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// States of a model and the basis that they are in.
struct BasedStates {
  const at::Tensor& states_CLD;
  const std::optional<Rotation>& rotation;

  /// In the basis of the model that it was made from, fp32.
  at::Tensor sequence(int64_t c) const {
    return rotation ? rotation->apply_inverse(states_CLD[c]) : states_CLD[c].to(at::kFloat);
  }
};

/// ||x - reference||^2 / ||reference||^2, sequence by sequence.
double relative_error(const BasedStates& x, const BasedStates& reference, Ranks& ranks) {
  at::Tensor sums_C2 = at::empty({x.states_CLD.size(0), 2}, at::kDouble);
  for (int64_t c = 0; c < x.states_CLD.size(0); ++c) {
    const at::Tensor expected_LD = reference.sequence(c);
    sums_C2[c][0] = (x.sequence(c) - expected_LD).square().sum(at::kDouble);
    sums_C2[c][1] = expected_LD.square().sum(at::kDouble);
  }
  double error = 0;
  double norm = 0;
  const at::Tensor all_C2 = gather_rows(ranks, sums_C2);
  for (int64_t c = 0; c < all_C2.size(0); ++c) {
    error += all_C2[c][0].item<double>();
    norm += all_C2[c][1].item<double>();
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

/// Adds the weights of one of the models.
void plan_weights(const Subject& subject, const Route& route, const PassSettings& settings,
                  EvalPlan& plan) {
  const auto pieces = route_pieces(subject.model, route, settings.type);
  const PieceLoader loader(subject.checkpoint, settings.type, settings.device,
                           subject.arithmetic.transform, subject.arithmetic.integers);
  plan.bytes_to_read += stored_bytes(subject.checkpoint, pieces);
  plan.weights_bytes += held_bytes(loader, pieces);
  int64_t largest = 0;
  for (const PieceSpec& piece : pieces) {
    largest = std::max(largest, largest_matrix(piece));
  }
  if (subject.arithmetic.transform) {  // a weight in fp32 on its way to what takes its place
    plan.weights_bytes += 3 * largest * int64_t{sizeof(float)};
  }
}

/// One evaluation in progress.
class Evaluation {
 public:
  /// windows: of all ranks.
  Evaluation(const Subject& subject, const Subject* reference, const TokenWindows& windows,
             const EvalOptions& options, Progress& progress, Ranks& ranks);

  EvalResult run();

 private:
  at::Tensor open_states(const Json& description);
  at::Tensor take_states(int64_t saved);
  void run_block(int64_t block, EvalResult& result);
  void save_if_due(int64_t next_block);
  void measure_head(EvalResult& result);
  void measure_mtp(EvalResult& result);
  void write_final_states() const;

  const Subject& subject_;
  Ranks& ranks_;
  const TokenWindows& all_windows_;
  const TokenWindows windows_;  ///< of this rank
  const EvalOptions& options_;
  Progress& progress_;
  Route route_;
  EvalPlan plan_;
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<ModelPass> pass_;
  std::unique_ptr<ModelPass> reference_pass_;  ///< null without a reference
  std::optional<Rotation> rotation_;
  std::optional<Rotation> reference_rotation_;
  Clock::time_point last_save_ = Clock::now();
};

Evaluation::Evaluation(const Subject& subject, const Subject* reference,
                       const TokenWindows& windows, const EvalOptions& options, Progress& progress,
                       Ranks& ranks)
    : subject_(subject),
      ranks_(ranks),
      all_windows_(windows),
      windows_(part_of(windows, ranks.rank(), ranks.size())),
      options_(options),
      progress_(progress),
      route_(make_route(subject.model, options)),
      plan_(plan_evaluation(subject, reference, windows.count(), windows.seq_len, options)) {
  const nn::AttentionOptions attention{options.dense_attention, plan_.workspace_bytes};
  PassOptions pass{options.type, options.device, attention};
  const Json description = run_description("eval", subject, windows, options);
  check_same_job(ranks,
                 {{"run", description},
                  {"blocks", {route_.begin, route_.end}},
                  {"reference", reference == nullptr ? "" : reference->checkpoint.fingerprint()}});
  const AbandonOnError abandon_on_error(ranks);
  at::Tensor states = open_states(description);
  pass_ = std::make_unique<ModelPass>(subject, windows_, route_, pass, std::move(states), ranks);
  if (reference != nullptr) {
    Route route = route_;
    route.mtp = false;
    pass.weights = Channel::reference_weights;
    rotation_ = folder_rotation(subject.checkpoint, subject.model);
    reference_rotation_ = folder_rotation(reference->checkpoint, reference->model);
    reference_pass_ =
        std::make_unique<ModelPass>(*reference, windows_, route, pass, at::Tensor(), ranks);
  }
}

/// The states that enter route_.begin as an earlier run left them; undefined: the embeddings do.
/// Rank 0 has the folder.
at::Tensor Evaluation::open_states(const Json& description) {
  int64_t saved = -1;
  if (!options_.run_folder.empty() && ranks_.rank() == 0) {
    folder_ = std::make_unique<RunFolder>(options_.run_folder, description, options_.restart);
    saved = folder_->newest_states(std::min(route_.end, subject_.model.spec().blocks)).value_or(-1);
  }
  broadcast(ranks_, Channel::states, &saved, sizeof(saved), 0);
  if (saved >= route_.begin && saved >= 0) {
    route_.begin = saved;
    log(LogLevel::info, "{}: continuing at block {}", options_.run_folder.string(), saved);
    return take_states(saved);
  }
  check(route_.begin == 0, "--begin {}: the states that enter this block are not in {}",
        route_.begin,
        options_.run_folder.empty() ? "any folder (give --output_dir)"
                                    : options_.run_folder.string());
  return {};
}

/// This rank's part of the states that enter block `saved`.
at::Tensor Evaluation::take_states(int64_t saved) {
  const at::Tensor whole = folder_ ? folder_->load_states(saved)->at("states") : at::Tensor();
  return own_rows(ranks_, whole,
                  {windows_.count(), windows_.seq_len, subject_.model.spec().hidden_size},
                  options_.type, 0);
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
    result.block_errors.push_back(relative_error(
        {pass_->states(), rotation_}, {reference_pass_->states(), reference_rotation_}, ranks_));
  }
  if (options_.on_block) {
    options_.on_block(block, pass_->states());
  }
}

void Evaluation::save_if_due(int64_t next_block) {
  const int64_t last = std::min(route_.end, subject_.model.spec().blocks);
  bool due = folder_ && (next_block == last || Clock::now() - last_save_ > kSaveInterval);
  broadcast(ranks_, Channel::states, &due, sizeof(due), 0);
  if (due) {
    const at::Tensor whole = gather_rows(ranks_, pass_->states(), 0);
    if (folder_) {
      folder_->save_states(next_block, {{"states", whole}});
    }
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
  const at::Tensor losses_N = gather_rows(ranks_, measure.losses());
  result.losses_CL =
      losses_N.view({all_windows_.count(), windows_.seq_len}).slice(1, 0, windows_.seq_len - 1);
  result.ppl = perplexity(losses_N, all_windows_, 1);
  if (reference_pass_) {
    result.kl = gather_rows(ranks_, measure.divergence()).mean().item<double>();
    result.top1_agreement =
        gather_rows(ranks_, measure.agreement()).to(at::kDouble).mean().item<double>();
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
  const at::Tensor losses_N = gather_rows(ranks_, measure.losses());
  result.mtp_losses_CL =
      losses_N.view({all_windows_.count(), windows_.seq_len}).slice(1, 0, windows_.seq_len - 2);
  result.mtp_ppl = perplexity(losses_N, all_windows_, 2);
}

void Evaluation::write_final_states() const {
  if (options_.final_states.empty()) {
    return;
  }
  const at::Tensor states = gather_rows(ranks_, pass_->states().to(at::kFloat), 0);
  if (ranks_.rank() != 0) {
    return;
  }
  const TensorToWrite tensor{{"final_states", Dtype::f32, states.sizes().vec()},
                             states.const_data_ptr()};
  write_safetensors(options_.final_states, std::span(&tensor, 1));
}

EvalResult Evaluation::run() {
  const AbandonOnError abandon_on_error(ranks_);
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
  if (reference != nullptr) {
    check_comparable(subject, *reference);
    check(settings.run_folder.empty() && settings.begin == 0,
          "--reference: a comparison runs in one piece; leave --output_dir and --begin out");
  }
  EvalPlan plan;
  check(windows >= settings.ranks, "{} ranks for {} sequences: expected one for each at least",
        settings.ranks, windows);
  const int64_t sequence_bytes =
      seq_len * model.spec().hidden_size * static_cast<int64_t>(at::elementSize(settings.type));
  const int64_t sequences = ceil_div(windows, int64_t{settings.ranks});  // of a rank
  // A block with experts adds to one model's states at a time.
  plan.states_bytes = (reference == nullptr ? 2 : 3) * sequences * sequence_bytes;
  plan.disk_bytes = settings.run_folder.empty() ? 0 : 2 * windows * sequence_bytes;
  if (settings.ranks > 1) {  // rank 0 gathers the states that it writes
    const int64_t gathered = settings.run_folder.empty() ? 0 : windows * sequence_bytes;
    plan.exchange_bytes = std::max(3 * exchanged_rows(sequences) * sequence_bytes, gathered);
  }
  plan.program_bytes = program_bytes();
  plan.blocks = route.end - route.begin;
  plan_weights(subject, route, settings, plan);
  if (reference != nullptr) {
    plan_weights(*reference, route, settings, plan);
  }
  const int64_t fixed =
      plan.states_bytes + plan.weights_bytes + plan.exchange_bytes + plan.program_bytes;
  const int64_t room = settings.max_memory > 0 ? settings.max_memory - fixed : kMaxWorkspace;
  check(room >= kMinWorkspace,
        "--max_memory {}: expected at least {} ({} hidden states, {} weights, {} for the program)",
        format_bytes(settings.max_memory), format_bytes(fixed + kMinWorkspace),
        format_bytes(plan.states_bytes + plan.exchange_bytes), format_bytes(plan.weights_bytes),
        format_bytes(plan.program_bytes));
  plan.workspace_bytes = std::min(room, kMaxWorkspace);
  const PassShape shape{seq_len,
                        sequences * seq_len,
                        expert_slice_tokens(model.spec(), plan.workspace_bytes),
                        static_cast<int64_t>(at::elementSize(settings.type)),
                        plan.workspace_bytes,
                        reference != nullptr};
  for (const PieceSpec& piece : route_pieces(model, route, settings.type)) {
    plan.temporary_bytes = std::max(plan.temporary_bytes, temporary_bytes(piece, shape));
  }
  return plan;
}

EvalResult evaluate(const Subject& subject, const Subject* reference, const TokenWindows& windows,
                    const EvalOptions& options, Progress& progress, Ranks& ranks) {
  const auto start = Clock::now();
  const int64_t read_before = subject.checkpoint.bytes_read();
  EvalResult result = Evaluation(subject, reference, windows, options, progress, ranks).run();
  result.bytes_read = subject.checkpoint.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace blockptq
