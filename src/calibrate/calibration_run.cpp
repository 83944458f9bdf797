#include "calibrate/calibration_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "calibrate/block_calibrator.h"
#include "calibrate/held_out.h"
#include "calibrate/unit_files.h"
#include "eval/model_pass.h"
#include "models/ends.h"
#include "models/piece.h"
#include "nn/norm.h"
#include "run/journal.h"
#include "run/parameters.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRuntimeBytes = int64_t{384} << 20;  // libraries, tokenizer, text
constexpr int64_t kWorkspace = int64_t{256} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Route make_route(const Model& model, const CalibrationOptions& options,
                 const std::vector<CalibrationText>& texts) {
  const ModelSpec& spec = model.spec();
  const bool mtp = options.mtp && spec.mtp_layers > 0;
  const int64_t last = spec.blocks + (mtp ? 1 : 0);
  Route route;
  route.end = options.end < 0 ? last : options.end;
  check(route.end >= 1 && route.end <= last, "--end {}: expected 1 <= end <= {}", route.end, last);
  route.mtp = route.end > spec.blocks;
  const bool held_out = std::any_of(texts.begin(), texts.end(),
                                    [](const CalibrationText& text) { return !text.calibrate; });
  route.head = route.mtp || (held_out && route.end >= spec.blocks);
  route.logits = held_out;
  return route;
}

/// The weights of `piece` in the compute type.
Piece in_type(Piece piece, at::ScalarType type) {
  for (const Weight& weight : piece.weights()) {
    piece.replace(weight.name, weight.value.to(type));
  }
  return piece;
}

std::string state_name(size_t text, const char* model) {
  return fmt::format("text_{}.{}", text, model);
}

/// One run in progress.
class CalibrationRun {
 public:
  CalibrationRun(const Checkpoint& checkpoint, const Model& model,
                 const std::vector<CalibrationText>& texts, const CalibrationOptions& options,
                 Progress& progress, Ranks& ranks);

  CalibrationResult run();

 private:
  Json description() const;
  void open_states();
  void save_states(int64_t next_block);
  void run_block(PieceStream& stream, int64_t block);
  UnitHooks unit_hooks(int64_t block);
  void pass_unit(int64_t block, const std::string& unit);
  void finish_block(int64_t block, double seconds);
  std::vector<PieceSpec> pieces() const;
  BlockReport report_block(int64_t block, double seconds) const;
  void normalize(PieceStream& stream);
  void measure_held_out(PieceStream& stream);
  void enter_mtp(PieceStream& stream);
  void step(int64_t block, const std::string& detail);
  void collect_reports(CalibrationResult& result) const;

  const Checkpoint& checkpoint_;
  const Model& model_;
  const std::vector<CalibrationText>& texts_;
  const CalibrationOptions& options_;
  Progress& progress_;
  Ranks& ranks_;
  Route route_;
  RunFolder folder_;
  std::optional<Journal> journal_;  ///< on rank 0
  UnitFiles unit_files_;
  CalibrationContext context_;
  FakeQuantExec quant_exec_;
  std::vector<TextStates> states_;
  std::vector<std::filesystem::path> passed_;  ///< unit files of the block in work, in order
  int64_t steps_ = 0;                          ///< done in the block in work
};

CalibrationRun::CalibrationRun(const Checkpoint& checkpoint, const Model& model,
                               const std::vector<CalibrationText>& texts,
                               const CalibrationOptions& options, Progress& progress, Ranks& ranks)
    : checkpoint_(checkpoint),
      model_(model),
      texts_(texts),
      options_(options),
      progress_(progress),
      ranks_(ranks),
      route_(make_route(model, options, texts)),
      folder_((check_same_job(ranks, description()), options.folder), description(),
              options.restart, ranks),
      unit_files_(folder_, options.recipe, options.keep_codes),
      context_{options.recipe, options.default_algorithm, options.type, {}, options.learn_clips},
      quant_exec_(options.recipe) {
  const AbandonOnError abandon_on_error(ranks_);
  if (ranks_.rank() == 0) {
    journal_.emplace(options.folder / "journal.jsonl");
  }
  open_states();
}

Json CalibrationRun::description() const {
  Json texts = Json::array();
  for (const CalibrationText& text : texts_) {
    texts.push_back({{"text", text.fingerprint},
                     {"sequences", text.windows.count()},
                     {"seq_len", text.windows.seq_len},
                     {"calibrate", text.calibrate}});
  }
  return {{"command", options_.command},
          {"model", checkpoint_.fingerprint()},
          {"texts", texts},
          {"recipe", options_.recipe.json()},
          {"algorithm", options_.default_algorithm},
          {"learn_clips", options_.learn_clips ? Json(options_.learn_clips->epochs) : Json()},
          {"dtype", options_.type == at::kFloat ? "fp32" : "bf16"},
          {"attention", options_.dense_attention ? "dense" : "as the model says"}};
}

/// The states at the last finished block, or the embeddings.
void CalibrationRun::open_states() {
  if (const auto saved = folder_.newest_states(route_.end)) {
    const NamedTensors tensors = *folder_.load_states(*saved);
    for (size_t i = 0; i < texts_.size(); ++i) {
      states_.push_back({tensors.at(state_name(i, "float")).to(options_.device),
                         tensors.at(state_name(i, "quant")).to(options_.device),
                         texts_[i].calibrate});
    }
    route_.begin = *saved;
    route_.head = route_.head && *saved <= model_.spec().blocks;
    route_.mtp = route_.mtp && *saved < route_.end;
    log(LogLevel::info, "{}: continuing at block {}", options_.folder.string(), *saved);
    return;
  }
  const std::vector<ModelTensor> table = model_.tensors();
  const ModelTensor& embedding = tensor_of(table, Unit::embedding, "embedding");
  for (const CalibrationText& text : texts_) {
    const at::Tensor states = embed(checkpoint_, embedding, text.windows.ids, options_.type)
                                  .view({text.windows.count(), text.windows.seq_len, -1})
                                  .to(options_.device);
    states_.push_back({states, states.clone(), text.calibrate});
  }
}

void CalibrationRun::save_states(int64_t next_block) {
  NamedTensors tensors;
  for (size_t i = 0; i < states_.size(); ++i) {
    tensors[state_name(i, "float")] = states_[i].float_CLD;
    tensors[state_name(i, "quant")] = states_[i].quant_CLD;
  }
  folder_.save_states(next_block, tensors);
}

/// What the rank that made the unit has left in its file goes into the journal.
void CalibrationRun::pass_unit(int64_t block, const std::string& unit) {
  if (ranks_.rank() == 0) {
    if (journal_->find(block, unit) == nullptr) {
      journal_->append(unit_files_.report(block, unit));
    }
    passed_.push_back(folder_.unit_path(block, unit));
  }
  step(block, unit);
}

UnitHooks CalibrationRun::unit_hooks(int64_t block) {
  return {[this, block](const std::string& unit, const std::vector<Weight>& weights) {
            return unit_files_.find(block, unit, weights);
          },
          [this](const UnitResult& result) { unit_files_.keep(result); },
          [this, block](const std::string& unit) { pass_unit(block, unit); }};
}

void CalibrationRun::step(int64_t block, const std::string& detail) {
  const double units = 2.0 + static_cast<double>(model_.experts(block));
  const int64_t blocks = route_.end - route_.begin;
  const double within = std::min(static_cast<double>(++steps_) / units, 1.0);
  int64_t tokens = 0;
  for (const CalibrationText& text : texts_) {
    tokens += text.windows.count() * text.windows.seq_len;
  }
  progress_.update(
      {block, blocks, tokens,
       (static_cast<double>(block - route_.begin) + within) / static_cast<double>(blocks), detail});
}

void CalibrationRun::run_block(PieceStream& stream, int64_t block) {
  const auto start = Clock::now();
  passed_.clear();
  steps_ = 0;
  const nn::AttentionOptions attention{options_.dense_attention, kWorkspace};
  BlockCalibrator(context_, quant_exec_, model_, attention,
                  expert_slice_tokens(model_.spec(), kWorkspace), unit_hooks(block), ranks_)
      .run(stream, block, states_);
  if (ranks_.rank() == 0) {
    finish_block(block, seconds_since(start));
  }
}

void CalibrationRun::finish_block(int64_t block, double seconds) {
  if (options_.on_block) {
    options_.on_block(block, passed_);
  }
  if (options_.keep_parameters) {
    join_unit_files(passed_, parameters_path(options_.folder, block));
  }
  if (journal_->find(block, "block") == nullptr) {
    journal_->append(report_block(block, seconds).json());
  }
  save_states(block + 1);
  folder_.remove_units(block);
}

/// What this rank reads. It is rank 0 that measures, so that the matrix of the head is for it
/// alone.
std::vector<PieceSpec> CalibrationRun::pieces() const {
  std::vector<PieceSpec> result;
  for (PieceSpec& piece : shared_pieces(route_pieces(model_, route_, at::kFloat), ranks_)) {
    if (const bool tile = piece.tensors.front().row_end >= 0; tile) {
      piece.reader = -1;
      if (ranks_.rank() != 0) {
        continue;
      }
    }
    result.push_back(std::move(piece));
  }
  return result;
}

BlockReport CalibrationRun::report_block(int64_t block, double seconds) const {
  RelativeError calibration;
  RelativeError held_out;
  bool any = false;
  for (const TextStates& text : states_) {
    any = any || !text.calibrate;
    for (int64_t c = 0; c < text.float_CLD.size(0); ++c) {
      (text.calibrate ? calibration : held_out).add(text.quant_CLD[c], text.float_CLD[c], {});
    }
  }
  return {block, calibration.value(), any ? std::optional(held_out.value()) : std::nullopt,
          seconds};
}

/// The norm in front of an output head, on all states.
void CalibrationRun::normalize(PieceStream& stream) {
  const at::Tensor norm_D = stream.next().only().clone();
  for (TextStates& text : states_) {
    for (const at::Tensor& states : {text.float_CLD, text.quant_CLD}) {
      for (int64_t c = 0; c < states.size(0); ++c) {
        states[c].copy_(nn::rms_norm(states[c], norm_D, model_.spec().rms_norm_eps));
      }
    }
  }
}

void CalibrationRun::measure_held_out(PieceStream& stream) {
  normalize(stream);
  if (ranks_.rank() != 0) {
    return;
  }
  const auto text = std::ranges::find_if(texts_, [](const auto& t) { return !t.calibrate; });
  if (text == texts_.end()) {
    return;
  }
  const auto next_tile = [&, left = head_tiles(model_, Unit::head, at::kFloat)]() mutable {
    return left-- > 0 ? stream.next().only().to(options_.type) : at::Tensor();
  };
  const Json measured =
      blockptq::measure_held_out(states_[text - texts_.begin()], text->windows, next_tile);
  if (journal_->find(-1, "held_out") == nullptr) {
    journal_->append(measured);
  }
}

void CalibrationRun::enter_mtp(PieceStream& stream) {
  const Piece piece = in_type(stream.next(), options_.type);
  for (size_t i = 0; i < texts_.size(); ++i) {
    blockptq::enter_mtp(checkpoint_, model_, piece, texts_[i].windows, states_[i].float_CLD);
    blockptq::enter_mtp(checkpoint_, model_, piece, texts_[i].windows, states_[i].quant_CLD);
  }
}

CalibrationResult CalibrationRun::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  const int64_t blocks = model_.spec().blocks;
  CalibrationResult result;
  PieceLoader loader(checkpoint_, at::kFloat, options_.device, std::nullopt, {}, ranks_);
  PieceStream stream(loader, pieces());
  const AbandonOnError abandon_on_error(ranks_);
  for (int64_t block = route_.begin; block < std::min(route_.end, blocks); ++block) {
    run_block(stream, block);
  }
  if (route_.head) {
    measure_held_out(stream);
  }
  if (route_.mtp) {
    enter_mtp(stream);
    run_block(stream, blocks);
  }
  if (journal_) {
    collect_reports(result);
  }
  result.end = route_.end;
  result.bytes_read = checkpoint_.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

void CalibrationRun::collect_reports(CalibrationResult& result) const {
  for (const Json& entry : journal_->entries()) {
    const auto unit = entry.at("unit").get<std::string>();
    (unit == "block" ? result.blocks : result.units).push_back(entry);
  }
  if (const Json* held_out = journal_->find(-1, "held_out")) {
    result.units.erase(std::find(result.units.begin(), result.units.end(), *held_out));
    result.held_out = *held_out;
  }
}

}  // namespace

Json BlockReport::json() const {
  Json json{{"block", block},
            {"unit", "block"},
            {"relative_error", calibration_error},
            {"seconds", seconds}};
  if (held_out_error) {
    json["held_out_relative_error"] = *held_out_error;
  }
  return json;
}

CalibrationPlan plan_calibration(const Checkpoint& checkpoint, const Model& model,
                                 const std::vector<CalibrationText>& texts,
                                 const CalibrationOptions& options) {
  const auto pieces = route_pieces(model, make_route(model, options, texts), at::kFloat);
  const PieceLoader loader(checkpoint, at::kFloat, options.device);
  CalibrationPlan plan;
  int64_t states = 0;
  for (const CalibrationText& text : texts) {
    states += 2 * text.windows.count() * text.windows.seq_len * model.spec().hidden_size *
              static_cast<int64_t>(at::elementSize(options.type));
  }
  plan.states_bytes = 2 * states;  // and what a block adds to them
  plan.disk_bytes = 2 * states;
  plan.exchange_bytes = options.ranks == 1 ? 0 : states;
  plan.runtime_bytes = kRuntimeBytes;
  plan.workspace_bytes = kWorkspace;
  plan.bytes_to_read = stored_bytes(checkpoint, pieces);
  plan.units = static_cast<int64_t>(pieces.size());
  for (const PieceSpec& piece : pieces) {
    plan.weights_bytes = std::max(plan.weights_bytes, 3 * loader.loaded_bytes(piece));
  }
  const int64_t hidden = model.spec().hidden_size;
  plan.hessian_bytes = 4 * hidden * hidden * int64_t{4};
  check(options.max_memory == 0 || plan.peak_bytes() <= options.max_memory,
        "--max_memory {}: expected at least {}", format_bytes(options.max_memory),
        format_bytes(plan.peak_bytes()));
  return plan;
}

CalibrationResult calibrate(const Checkpoint& checkpoint, const Model& model,
                            const std::vector<CalibrationText>& texts,
                            const CalibrationOptions& options, Progress& progress, Ranks& ranks) {
  plan_calibration(checkpoint, model, texts, options);
  return CalibrationRun(checkpoint, model, texts, options, progress, ranks).run();
}

}  // namespace blockptq
