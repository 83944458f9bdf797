#include "eval/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "base/system.h"
#include "checkpoint/safetensors_writer.h"
#include "eval/block_runner.h"
#include "eval/head.h"
#include "models/ends.h"
#include "models/piece.h"
#include "nn/norm.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kHeadTileBytes = int64_t{64} << 20;
constexpr int64_t kRuntimeBytes = int64_t{384} << 20;  // libraries, tokenizer, text
constexpr int64_t kMinWorkspace = int64_t{32} << 20;
constexpr int64_t kMaxWorkspace = int64_t{256} << 20;
constexpr std::chrono::seconds kSaveInterval{60};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Blocks and pieces of one evaluation.
struct Route {
  int64_t begin = 0;
  int64_t end = 0;
  bool head = false;  ///< the run reaches the end of the model
  bool mtp = false;
};

int64_t head_tile_rows(const ModelTensor& head, at::ScalarType type) {
  const int64_t row_bytes = head.shape[1] * static_cast<int64_t>(at::elementSize(type));
  return std::clamp<int64_t>(kHeadTileBytes / row_bytes, 1, 16384);
}

PieceSpec one_tensor(const ModelTensor& tensor) {
  return {{{tensor}}};
}

void append(std::vector<PieceSpec>& pieces, std::vector<PieceSpec> more) {
  std::move(more.begin(), more.end(), std::back_inserter(pieces));
}

/// The pieces of an output head: its norm, then the tiles of its matrix.
std::vector<PieceSpec> head_pieces(const std::vector<ModelTensor>& table, Unit unit,
                                   at::ScalarType type) {
  const ModelTensor& head = head_weight(table, unit);
  std::vector<PieceSpec> pieces{one_tensor(tensor_of(table, unit, "norm"))};
  append(pieces, row_pieces(head, head_tile_rows(head, type)));
  return pieces;
}

/// What feeds the MTP layer, without its embedding, whose rows are looked up.
PieceSpec mtp_input_piece(const std::vector<ModelTensor>& table) {
  PieceSpec piece;
  for (const ModelTensor& tensor : table) {
    if (tensor.unit == Unit::mtp_input && tensor.role != "embedding") {
      piece.tensors.push_back({tensor});
    }
  }
  return piece;
}

std::vector<PieceSpec> all_pieces(const Model& model, const std::vector<ModelTensor>& table,
                                  const Route& route, at::ScalarType type) {
  const int64_t blocks = model.spec().blocks;
  std::vector<PieceSpec> pieces = block_pieces(table, route.begin, std::min(route.end, blocks));
  if (route.head) {
    append(pieces, head_pieces(table, Unit::head, type));
  }
  if (route.mtp) {
    pieces.push_back(mtp_input_piece(table));
    append(pieces, block_pieces(table, blocks, blocks + 1));
    append(pieces, head_pieces(table, Unit::mtp_head, type));
  }
  return pieces;
}

Route make_route(const Model& model, const EvalOptions& options) {
  const ModelSpec& spec = model.spec();
  check(!options.mtp || spec.mtp_layers > 0, "--mtp: the checkpoint has no MTP layer");
  const int64_t last = spec.blocks + (options.mtp ? 1 : 0);
  Route route;
  route.end = options.end < 0 ? last : options.end;
  route.begin = options.begin;
  check(route.begin >= 0 && route.begin <= route.end && route.end <= last,
        "--begin {} --end {}: expected 0 <= begin <= end <= {}{}", options.begin, route.end, last,
        options.mtp || spec.mtp_layers == 0 ? "" : " (one more with --mtp)");
  route.head = route.end >= spec.blocks;
  route.mtp = route.end > spec.blocks;
  return route;
}

/// exp of the mean over sequences of the mean loss of each.
double perplexity(const at::Tensor& losses_CL) {
  return std::exp(losses_CL.mean(1).mean().item<double>());
}

int64_t stored_bytes(const Checkpoint& checkpoint, const std::vector<PieceSpec>& pieces) {
  double bytes = 0;
  for (const PieceSpec& piece : pieces) {
    for (const TensorSlice& slice : piece.tensors) {
      const auto rows = static_cast<double>(slice.spec.shape.front());
      const auto taken = slice.row_end < 0 ? rows : double(slice.row_end - slice.row_begin);
      bytes += static_cast<double>(checkpoint.at(slice.spec.name).nbytes()) * taken / rows;
    }
  }
  return static_cast<int64_t>(bytes);
}

int64_t expert_slice_tokens(const ModelSpec& spec, int64_t workspace_bytes) {
  return std::clamp<int64_t>(workspace_bytes / (24 * spec.hidden_size), 64, 4096);
}

/// One evaluation in progress.
class Evaluation {
 public:
  Evaluation(const Checkpoint& checkpoint, const Model& model, const TokenWindows& windows,
             const EvalOptions& options, Progress& progress)
      : checkpoint_(checkpoint),
        model_(model),
        windows_(windows),
        options_(options),
        progress_(progress),
        table_(model.tensors()),
        route_(make_route(model, options)),
        plan_(plan_evaluation(checkpoint, model, windows.count(), windows.seq_len, options)) {}

  EvalResult run();

 private:
  at::Tensor tokens() const;
  void open_states();
  void run_block(PieceStream& stream, int64_t block);
  void save_if_due(int64_t next_block);
  at::Tensor losses(PieceStream& stream, Unit unit, int64_t shift);
  void enter_mtp(PieceStream& stream);
  void write_final_states() const;

  const Checkpoint& checkpoint_;
  const Model& model_;
  const TokenWindows& windows_;
  const EvalOptions& options_;
  Progress& progress_;
  std::vector<ModelTensor> table_;
  Route route_;
  EvalPlan plan_;
  FloatExec exec_;
  std::unique_ptr<RunFolder> folder_;
  at::Tensor states_CLD_;
  Clock::time_point last_save_ = Clock::now();
};

at::Tensor Evaluation::tokens() const {
  return at::from_blob(const_cast<int32_t*>(windows_.ids.data()),
                       {windows_.count(), windows_.seq_len}, at::TensorOptions(at::kInt));
}

/// The states that enter route_.begin: the embeddings, or what an earlier run left.
void Evaluation::open_states() {
  if (!options_.run_folder.empty()) {
    const Json description{{"command", "eval"},
                           {"model", checkpoint_.fingerprint()},
                           {"text", options_.text_fingerprint},
                           {"windows", windows_.count()},
                           {"seq_len", windows_.seq_len},
                           {"dtype", options_.type == at::kFloat ? "fp32" : "bf16"},
                           {"attention", options_.dense_attention ? "dense" : "as the model says"}};
    folder_ = std::make_unique<RunFolder>(options_.run_folder, description, options_.restart);
    const auto saved = folder_->newest_states(std::min(route_.end, model_.spec().blocks));
    if (saved && *saved >= route_.begin) {
      route_.begin = *saved;
      states_CLD_ = folder_->load_states(*saved)->to(options_.device);
      log(LogLevel::info, "{}: continuing at block {}", options_.run_folder.string(), *saved);
      return;
    }
  }
  check(route_.begin == 0, "--begin {}: the states that enter this block are not in {}",
        route_.begin,
        options_.run_folder.empty() ? "any folder (give --output_dir)"
                                    : options_.run_folder.string());
  const ModelTensor& embedding = tensor_of(table_, Unit::embedding, "embedding");
  states_CLD_ = embed(checkpoint_, embedding, windows_.ids, options_.type)
                    .view({windows_.count(), windows_.seq_len, -1})
                    .to(options_.device);
}

void Evaluation::run_block(PieceStream& stream, int64_t block) {
  const int64_t steps = windows_.count() + 1 + model_.experts(block);
  const int64_t blocks = route_.end - route_.begin;
  int64_t step = 0;
  const auto on_step = [&](const std::string& detail) {
    const double within = static_cast<double>(++step) / static_cast<double>(steps);
    progress_.update(
        {block, blocks, windows_.count() * windows_.seq_len,
         (static_cast<double>(block - route_.begin) + within) / static_cast<double>(blocks),
         detail});
  };
  const nn::AttentionOptions attention{options_.dense_attention, plan_.workspace_bytes};
  BlockRunner(model_, exec_, attention, expert_slice_tokens(model_.spec(), plan_.workspace_bytes),
              on_step)
      .run(stream, block, states_CLD_);
  if (options_.on_block) {
    options_.on_block(block, states_CLD_);
  }
}

void Evaluation::save_if_due(int64_t next_block) {
  const int64_t last = std::min(route_.end, model_.spec().blocks);
  if (folder_ && (next_block == last || Clock::now() - last_save_ > kSaveInterval)) {
    folder_->save_states(next_block, states_CLD_);
    last_save_ = Clock::now();
  }
}

/// Normalises the states in place and returns the losses [C, L - shift] of the tokens `shift`
/// ahead.
at::Tensor Evaluation::losses(PieceStream& stream, Unit unit, int64_t shift) {
  const at::Tensor norm_D = stream.next().only().clone();
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(nn::rms_norm(states_CLD_[c], norm_D, model_.spec().rms_norm_eps));
  }
  const int64_t length = windows_.seq_len - shift;
  at::Tensor targets_CL = at::full({windows_.count(), windows_.seq_len}, -1, at::kInt);
  targets_CL.slice(1, 0, length).copy_(tokens().slice(1, shift));
  const ModelTensor& head = head_weight(table_, unit);
  const int64_t pieces = ceil_div(head.shape[0], head_tile_rows(head, options_.type));
  return target_losses(stream, pieces, states_CLD_.flatten(0, 1), targets_CL.flatten())
      .view({windows_.count(), windows_.seq_len})
      .slice(1, 0, length);
}

/// Replaces the final states by what enters the MTP layer. The last position has no next token; it
/// is filled with the first, and being last, no other position sees it.
void Evaluation::enter_mtp(PieceStream& stream) {
  const Piece piece = stream.next();
  const int64_t block = model_.spec().blocks;
  const ModelTensor& embedding = tensor_of(table_, Unit::mtp_input, "embedding");
  std::vector<int32_t> next_ids;
  for (int64_t c = 0; c < windows_.count(); ++c) {
    const auto window = windows_.window(c);
    next_ids.insert(next_ids.end(), window.begin() + 1, window.end());
    next_ids.push_back(window.front());
  }
  const at::Tensor embedded_CLD = embed(checkpoint_, embedding, next_ids, options_.type)
                                      .view({windows_.count(), windows_.seq_len, -1});
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(
        model_.mtp_input(piece, block, embedded_CLD[c].to(options_.device), states_CLD_[c]));
  }
}

void Evaluation::write_final_states() const {
  if (options_.final_states.empty()) {
    return;
  }
  const at::Tensor states = states_CLD_.to(at::kCPU, at::kFloat).contiguous();
  const TensorToWrite tensor{{"final_states", Dtype::f32, states.sizes().vec()},
                             states.const_data_ptr()};
  write_safetensors(options_.final_states, std::span(&tensor, 1));
}

EvalResult Evaluation::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  open_states();
  PieceLoader loader(checkpoint_, options_.type, options_.device);
  PieceStream stream(loader, all_pieces(model_, table_, route_, options_.type));
  const int64_t blocks = model_.spec().blocks;
  for (int64_t block = route_.begin; block < std::min(route_.end, blocks); ++block) {
    run_block(stream, block);
    save_if_due(block + 1);
  }
  EvalResult result;
  if (route_.head) {
    result.losses_CL = losses(stream, Unit::head, 1);
    result.ppl = perplexity(result.losses_CL);
    write_final_states();
  }
  if (route_.mtp) {
    enter_mtp(stream);
    run_block(stream, blocks);
    result.mtp_losses_CL = losses(stream, Unit::mtp_head, 2);
    result.mtp_ppl = perplexity(result.mtp_losses_CL);
  }
  result.end = route_.end;
  result.bytes_read = checkpoint_.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace

EvalPlan plan_evaluation(const Checkpoint& checkpoint, const Model& model, int64_t windows,
                         int64_t seq_len, const EvalOptions& options) {
  const Route route = make_route(model, options);
  const auto pieces = all_pieces(model, model.tensors(), route, options.type);
  const PieceLoader loader(checkpoint, options.type, options.device);
  EvalPlan plan;
  const int64_t states = windows * seq_len * model.spec().hidden_size *
                         static_cast<int64_t>(at::elementSize(options.type));
  plan.states_bytes = 2 * states;
  plan.disk_bytes = options.run_folder.empty() ? 0 : 2 * states;
  plan.runtime_bytes = kRuntimeBytes;
  plan.blocks = route.end - route.begin;
  plan.bytes_to_read = stored_bytes(checkpoint, pieces);
  for (const PieceSpec& piece : pieces) {
    plan.weights_bytes = std::max(plan.weights_bytes, 2 * loader.loaded_bytes(piece));
  }
  const int64_t fixed = plan.states_bytes + plan.weights_bytes + kRuntimeBytes;
  const int64_t room = options.max_memory > 0 ? options.max_memory - fixed : kMaxWorkspace;
  check(room >= kMinWorkspace,
        "--max_memory {}: expected at least {} ({} hidden states, {} weights, {} for the program)",
        format_bytes(options.max_memory), format_bytes(fixed + kMinWorkspace),
        format_bytes(plan.states_bytes), format_bytes(plan.weights_bytes),
        format_bytes(kRuntimeBytes));
  plan.workspace_bytes = std::min(room, kMaxWorkspace);
  return plan;
}

EvalResult evaluate(const Checkpoint& checkpoint, const Model& model, const TokenWindows& windows,
                    const EvalOptions& options, Progress& progress) {
  return Evaluation(checkpoint, model, windows, options, progress).run();
}

}  // namespace blockptq
