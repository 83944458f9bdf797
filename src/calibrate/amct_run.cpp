#include "calibrate/amct_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/size.h"
#include "base/system.h"
#include "eval/evaluate.h"
#include "models/piece.h"
#include "nn/norm.h"
#include "run/journal.h"
#include "run/parameters.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Blocks [begin, end) of the options.
std::pair<int64_t, int64_t> block_range(const Model& model, const StatesDump& dump,
                                        const AmctRunOptions& options) {
  const ModelSpec& spec = model.spec();
  const int64_t last = spec.blocks + (spec.mtp_layers > 0 && dump.has_inputs(spec.blocks) ? 1 : 0);
  const int64_t end = options.end < 0 ? last : options.end;
  check(options.begin < end && end <= last, "--begin {} --end {}: expected 0 <= begin < end <= {}",
        options.begin, end, last);
  return {options.begin, end};
}

/// The pieces of a block that are needed.
std::vector<PieceSpec> pieces_of(const Model& model, int64_t block, TrainMode mode) {
  std::vector<PieceSpec> pieces = block_pieces(model.tensors(), block, block + 1);
  if (mode == TrainMode::mla) {
    std::erase_if(pieces, [](const PieceSpec& piece) {
      return piece.tensors.front().spec.unit != Unit::attention;
    });
  }
  return pieces;
}

at::Tensor normalized(const at::Tensor& x_CLD, const at::Tensor& norm_D, double eps) {
  at::Tensor result = at::empty_like(x_CLD);
  for (int64_t c = 0; c < x_CLD.size(0); ++c) {
    result[c].copy_(nn::rms_norm(x_CLD[c], norm_D, eps));
  }
  return result;
}

/// One run in progress.
class AmctRun {
 public:
  AmctRun(const Checkpoint& checkpoint, const Model& model, const StatesDump& dump,
          const AmctRunOptions& options, Progress& progress)
      : checkpoint_(checkpoint),
        model_(model),
        dump_(dump),
        options_(options),
        progress_(progress),
        folder_(options.folder, description(), options.restart),
        journal_(options.folder / "journal.jsonl") {}

  CalibrationResult run();

 private:
  Json description() const;
  void run_block(PieceStream& stream, int64_t block);
  void run_feed_forward(PieceStream& stream, int64_t block, const at::Tensor& states_CLD);
  void run_unit(int64_t block, const std::string& unit, const std::function<AmctResult()>& learn);

  const Checkpoint& checkpoint_;
  const Model& model_;
  const StatesDump& dump_;
  const AmctRunOptions& options_;
  Progress& progress_;
  RunFolder folder_;
  Journal journal_;
  std::vector<std::filesystem::path> unit_files_;  ///< of the block in work
  int64_t steps_ = 0;                              ///< units done
  int64_t all_steps_ = 0;
  int64_t blocks_ = 0;  ///< to do
};

Json AmctRun::description() const {
  const AmctOptions& learn = options_.learn;
  return {{"command", "train --compat amct"},
          {"model", checkpoint_.fingerprint()},
          {"text", dump_.fingerprint()},
          {"sequences", dump_.sequences()},
          {"seq_len", dump_.seq_len()},
          {"recipe", learn.recipe.json()},
          {"epochs", learn.epochs},
          {"base_lr", learn.base_lr},
          {"cali_bsz", learn.bsz},
          {"lwc", learn.lwc},
          {"lac", learn.lac},
          {"dtype", dtype_name(learn.type)},
          {"attention", attention_name(learn.attention.dense)}};
}

void AmctRun::run_unit(int64_t block, const std::string& unit,
                       const std::function<AmctResult()>& learn) {
  const std::filesystem::path path = folder_.unit_path(block, unit);
  if (journal_.find(block, unit) == nullptr || !std::filesystem::exists(path)) {
    const auto start = Clock::now();
    const AmctResult result = learn();
    write_tensors(path, result.parameters);
    journal_.append({{"block", block},
                     {"unit", unit},
                     {"tokens", result.report.tokens},
                     {"loss_before", result.report.loss_before},
                     {"loss_after", result.report.loss_after},
                     {"epoch_sums", result.report.epoch_sums},
                     {"seconds", seconds_since(start)}});
  }
  unit_files_.push_back(path);
  progress_.update({block, blocks_, dump_.sequences() * dump_.seq_len(),
                    static_cast<double>(++steps_) / static_cast<double>(all_steps_), unit});
}

void AmctRun::run_feed_forward(PieceStream& stream, int64_t block, const at::Tensor& states_CLD) {
  at::Tensor inputs_CLD;
  {
    const Piece piece = stream.next();
    const FeedForward feed_forward = model_.feed_forward(piece, block);
    inputs_CLD = normalized(states_CLD, feed_forward.norm_D, model_.spec().rms_norm_eps);
    if (feed_forward.mlp) {
      run_unit(block, feed_forward.router ? "shared_experts" : "mlp",
               [&] { return learn_mlp_amct(*feed_forward.mlp, inputs_CLD, options_.learn); });
    }
  }
  for (int64_t e = 0; e < model_.experts(block); ++e) {
    const Piece piece = stream.next();
    run_unit(block, fmt::format("expert {}", e), [&] {
      return learn_mlp_amct(model_.expert(piece, block, e), inputs_CLD, options_.learn);
    });
  }
}

void AmctRun::run_block(PieceStream& stream, int64_t block) {
  unit_files_.clear();
  at::Tensor states_CLD = dump_.inputs(block, model_.spec().hidden_size).to(options_.device);
  {
    Piece piece = stream.next();
    const at::Tensor norm_D = model_.attention_norm(piece, block);
    const at::Tensor inputs_CLD = normalized(states_CLD, norm_D, model_.spec().rms_norm_eps);
    if (options_.mode != TrainMode::moe) {
      run_unit(block, "attention", [&] {
        return learn_attention_amct(model_, piece, block, inputs_CLD, options_.learn);
      });
    }
    if (options_.mode != TrainMode::mla) {
      const c10::NoGradGuard no_grad;
      for (const Weight& weight : piece.weights()) {
        piece.replace(weight.name, weight.value.to(options_.learn.type));
      }
      const auto attention = model_.attention(piece, block);
      for (int64_t c = 0; c < states_CLD.size(0); ++c) {
        check_stop();
        states_CLD[c].add_(
            attention->forward(FloatExec(), inputs_CLD[c], options_.learn.attention));
      }
    }
  }
  if (options_.mode != TrainMode::mla) {
    run_feed_forward(stream, block, states_CLD);
  }
  join_parameters(unit_files_, parameters_path(options_.folder, block));
  folder_.remove_units(block);
}

CalibrationResult AmctRun::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  const auto [begin, end] = block_range(model_, dump_, options_);
  std::vector<int64_t> to_do;
  std::vector<PieceSpec> pieces;
  for (int64_t block = begin; block < end; ++block) {
    if (std::filesystem::exists(parameters_path(options_.folder, block))) {
      folder_.remove_units(block);  // a run that was killed between the two leaves them
      continue;
    }
    to_do.push_back(block);
    std::vector<PieceSpec> of_block = pieces_of(model_, block, options_.mode);
    std::move(of_block.begin(), of_block.end(), std::back_inserter(pieces));
  }
  blocks_ = static_cast<int64_t>(to_do.size());
  all_steps_ = static_cast<int64_t>(pieces.size());
  PieceLoader loader(checkpoint_, at::kFloat, options_.device);
  PieceStream stream(loader, std::move(pieces));
  for (const int64_t block : to_do) {
    run_block(stream, block);
  }
  CalibrationResult result;
  result.units = journal_.entries();
  result.end = end;
  result.bytes_read = checkpoint_.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace

CalibrationPlan plan_amct(const Checkpoint& checkpoint, const Model& model, const StatesDump& dump,
                          const AmctRunOptions& options) {
  const auto [begin, end] = block_range(model, dump, options);
  const PieceLoader loader(checkpoint, at::kFloat, options.device);
  CalibrationPlan plan;
  for (int64_t block = begin; block < end; ++block) {
    const std::vector<PieceSpec> pieces = pieces_of(model, block, options.mode);
    plan.bytes_to_read += stored_bytes(checkpoint, pieces);
    plan.units += static_cast<int64_t>(pieces.size());
    for (const PieceSpec& piece : pieces) {
      plan.weights_bytes = std::max(plan.weights_bytes, 3 * loader.loaded_bytes(piece));
    }
  }
  const auto type_bytes = static_cast<int64_t>(at::elementSize(options.learn.type));
  // States, normalised states, and the targets of a unit, twice while they are put together.
  plan.states_bytes = dump.sequences() * dump.seq_len() * model.spec().hidden_size *
                      (2 * type_bytes + 2 * int64_t{sizeof(float)});
  plan.workspace_bytes = options.learn.attention.workspace_bytes;
  plan.runtime_bytes = kCalibrationRuntime;
  check_memory(plan, options.max_memory);
  return plan;
}

CalibrationResult train_amct(const Checkpoint& checkpoint, const Model& model,
                             const StatesDump& dump, const AmctRunOptions& options,
                             Progress& progress) {
  plan_amct(checkpoint, model, dump, options);
  return AmctRun(checkpoint, model, dump, options, progress).run();
}

}  // namespace blockptq
