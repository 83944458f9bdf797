#include "calibrate/amct_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/size.h"
#include "base/system.h"
#include "calibrate/shared_work.h"
#include "eval/evaluate.h"
#include "eval/memory.h"
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
          const AmctRunOptions& options, Progress& progress, Ranks& ranks)
      : checkpoint_(checkpoint),
        model_(model),
        dump_(dump),
        options_(options),
        progress_(progress),
        ranks_(ranks),
        range_(block_range(model, dump, options)),
        folder_((check_same_job(ranks, job_description()), options.folder), description(),
                options.restart, ranks) {
    const AbandonOnError abandon_on_error(ranks_);
    if (ranks_.rank() == 0) {
      journal_.emplace(options.folder / "journal.jsonl");
    }
  }

  CalibrationResult run();

 private:
  Json description() const;
  Json job_description() const;
  std::vector<int64_t> blocks_to_do() const;
  Piece next(PieceStream& stream);
  void run_block(PieceStream& stream, int64_t block);
  void run_attention(PieceStream& stream, int64_t block, const at::Tensor& states_CLD);
  void run_feed_forward(PieceStream& stream, int64_t block, const at::Tensor& states_CLD);
  void run_unit(int64_t index, int64_t block, const std::string& unit,
                const std::function<AmctResult()>& learn);
  void pass_finished(int64_t block);
  void finish_block(int64_t block);

  const Checkpoint& checkpoint_;
  const Model& model_;
  const StatesDump& dump_;
  const AmctRunOptions& options_;
  Progress& progress_;
  Ranks& ranks_;
  std::pair<int64_t, int64_t> range_;  ///< blocks
  RunFolder folder_;
  std::optional<Journal> journal_;  ///< on rank 0
  std::vector<std::string> units_;  ///< of the block in work, as far as this rank has come
  size_t passed_ = 0;               ///< of them are in the journal
  int64_t steps_ = 0;               ///< pieces that this rank has taken
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

/// What all ranks must have in common.
Json AmctRun::job_description() const {
  return {{"run", description()}, {"blocks", {range_.first, range_.second}}};
}

Piece AmctRun::next(PieceStream& stream) {
  ++steps_;
  return stream.next();
}

/// The `index`-th unit of its kind, whose piece its rank has.
void AmctRun::run_unit(int64_t index, int64_t block, const std::string& unit,
                       const std::function<AmctResult()>& learn) {
  units_.push_back(unit);
  if (!ranks_.does(index)) {
    return;
  }
  if (!std::filesystem::exists(folder_.unit_path(block, unit))) {
    const auto start = Clock::now();
    const AmctResult result = learn();
    folder_.keep_unit({{"block", block},
                       {"unit", unit},
                       {"tokens", result.report.tokens},
                       {"loss_before", result.report.loss_before},
                       {"loss_after", result.report.loss_after},
                       {"epoch_sums", result.report.epoch_sums},
                       {"seconds", seconds_since(start)}},
                      result.parameters);
  }
  pass_finished(block);
  progress_.update({block, blocks_, dump_.sequences() * dump_.seq_len(),
                    static_cast<double>(steps_) / static_cast<double>(all_steps_), unit});
}

/// Into the journal, in order, as far as units are finished.
void AmctRun::pass_finished(int64_t block) {
  while (journal_ && passed_ < units_.size() &&
         std::filesystem::exists(folder_.unit_path(block, units_[passed_]))) {
    if (journal_->find(block, units_[passed_]) == nullptr) {
      journal_->append(folder_.unit_entry(block, units_[passed_]));
    }
    ++passed_;
  }
}

void AmctRun::run_feed_forward(PieceStream& stream, int64_t block, const at::Tensor& states_CLD) {
  const int64_t experts = model_.experts(block);
  at::Tensor inputs_CLD;
  {
    const Piece piece = next(stream);
    const FeedForward feed_forward = model_.feed_forward(piece, block);
    inputs_CLD = normalized(states_CLD, feed_forward.norm_D, model_.spec().rms_norm_eps);
    if (feed_forward.mlp) {
      run_unit(experts, block, feed_forward.router ? "shared_experts" : "mlp",
               [&] { return learn_mlp_amct(*feed_forward.mlp, inputs_CLD, options_.learn); });
    }
  }
  for (int64_t e = 0; e < experts; ++e) {
    const Piece piece = ranks_.does(e) ? next(stream) : Piece();
    run_unit(e, block, fmt::format("expert {}", e), [&] {
      return learn_mlp_amct(model_.expert(piece, block, e), inputs_CLD, options_.learn);
    });
  }
}

/// Passes the states through the attention, each rank some of the sequences, and learns it.
void AmctRun::run_attention(PieceStream& stream, int64_t block, const at::Tensor& states_CLD) {
  const Piece piece = next(stream);
  const at::Tensor norm_D = model_.attention_norm(piece, block);
  const at::Tensor inputs_CLD = normalized(states_CLD, norm_D, model_.spec().rms_norm_eps);
  if (options_.mode != TrainMode::mla) {
    const c10::NoGradGuard no_grad;
    Piece typed = piece;
    for (const Weight& weight : piece.weights()) {
      typed.replace({weight.name, weight.role, weight.value.to(options_.learn.type)});
    }
    const auto attention = model_.attention(typed, block);
    for (int64_t c = 0; c < states_CLD.size(0); ++c) {
      check_stop();
      if (ranks_.does(c)) {
        states_CLD[c].add_(
            attention->forward(FloatExec(), inputs_CLD[c], options_.learn.attention));
      }
    }
    for (int64_t c = 0; c < states_CLD.size(0); ++c) {
      broadcast_tensor(ranks_, states_CLD[c], static_cast<int>(c % ranks_.size()));
    }
  }
  if (options_.mode != TrainMode::moe) {
    run_unit(block, block, "attention", [&] {
      return learn_attention_amct(model_, piece, block, inputs_CLD, options_.learn);
    });
  }
}

void AmctRun::run_block(PieceStream& stream, int64_t block) {
  units_.clear();
  passed_ = 0;
  const at::Tensor states_CLD = dump_.inputs(block, model_.spec().hidden_size).to(options_.device);
  run_attention(stream, block, states_CLD);
  if (options_.mode != TrainMode::mla) {
    run_feed_forward(stream, block, states_CLD);
  }
  meet(ranks_);  // all units have their files
  if (ranks_.rank() == 0) {
    finish_block(block);
  }
}

void AmctRun::finish_block(int64_t block) {
  pass_finished(block);
  std::vector<std::filesystem::path> files;
  for (const std::string& unit : units_) {
    files.push_back(folder_.unit_path(block, unit));
  }
  join_parameters(files, parameters_path(options_.folder, block));
  folder_.remove_units(block);
}

/// Those without parameters.
std::vector<int64_t> AmctRun::blocks_to_do() const {
  std::vector<int64_t> blocks;
  for (int64_t block = range_.first; block < range_.second; ++block) {
    if (!std::filesystem::exists(parameters_path(options_.folder, block))) {
      blocks.push_back(block);
    } else if (ranks_.rank() == 0) {
      folder_.remove_units(block);  // a run that was killed between the two leaves them
    }
  }
  return blocks;
}

CalibrationResult AmctRun::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  const std::vector<int64_t> to_do = blocks_to_do();
  std::vector<PieceSpec> pieces;
  for (const int64_t block : to_do) {
    std::vector<PieceSpec> of_block = pieces_of(model_, block, options_.mode);
    std::move(of_block.begin(), of_block.end(), std::back_inserter(pieces));
  }
  pieces = shared_pieces(pieces, ranks_);
  blocks_ = static_cast<int64_t>(to_do.size());
  all_steps_ = static_cast<int64_t>(pieces.size());
  PieceLoader loader(checkpoint_, at::kFloat, options_.device, std::nullopt, {}, ranks_);
  PieceStream stream(loader, std::move(pieces));
  const AbandonOnError abandon_on_error(ranks_);
  for (const int64_t block : to_do) {
    run_block(stream, block);
  }
  CalibrationResult result;
  if (journal_) {
    result.units = journal_->entries();
  }
  result.end = range_.second;
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
  plan.temporary_bytes = options.learn.attention.workspace_bytes;
  plan.program_bytes = program_bytes();
  check_memory(plan, options.max_memory);
  return plan;
}

CalibrationResult train_amct(const Checkpoint& checkpoint, const Model& model,
                             const StatesDump& dump, const AmctRunOptions& options,
                             Progress& progress, Ranks& ranks) {
  plan_amct(checkpoint, model, dump, options);
  return AmctRun(checkpoint, model, dump, options, progress, ranks).run();
}

}  // namespace blockptq
