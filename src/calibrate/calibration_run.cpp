#include "calibrate/calibration_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "calibrate/block_calibrator.h"
#include "calibrate/calibration_plan.h"
#include "calibrate/held_out.h"
#include "calibrate/model_ends.h"
#include "calibrate/text_states.h"
#include "calibrate/time_estimate.h"
#include "calibrate/unit_files.h"
#include "eval/evaluate.h"
#include "eval/model_pass.h"
#include "models/ends.h"
#include "models/piece.h"
#include "models/stream_rotation.h"
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

int64_t token_count(const std::vector<CalibrationText>& texts) {
  int64_t tokens = 0;
  for (const CalibrationText& text : texts) {
    tokens += text.sequences() * text.seq_len();
  }
  return tokens;
}

/// What a unit's time is counted as; nothing for the small ones between.
std::optional<Unit> unit_kind(const std::string& unit) {
  if (unit == "attention") {
    return Unit::attention;
  }
  if (unit == "mlp" || unit == "shared_experts") {
    return Unit::feed_forward;
  }
  return unit.starts_with("expert ") ? std::optional(Unit::expert) : std::nullopt;
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
  Json job_description() const;
  void open_states();
  void read_dump(int64_t block);
  void save_states(int64_t next_block);
  void run_block(PieceStream& stream, int64_t block);
  UnitHooks unit_hooks(int64_t block);
  void pass_unit(int64_t block, const std::string& unit);
  void finish_block(int64_t block, double seconds);
  std::vector<PieceSpec> own_pieces(const std::vector<PieceSpec>& pieces) const;
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
  std::unique_ptr<const StreamRotation> rotation_;
  CalibrationContext context_;
  FakeQuantExec quant_exec_;
  std::vector<TextStates> states_;
  std::vector<std::filesystem::path> passed_;  ///< unit files of the block in work, in order
  std::optional<TimeEstimate> estimate_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_step_ = start_;
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
      route_(calibration_route(model, options, texts)),
      folder_((check_same_job(ranks, job_description()), options.folder), description(),
              options.restart, ranks),
      unit_files_(folder_, options.recipe, options.keep_codes),
      rotation_(make_rotation(checkpoint, model, options.recipe)),
      context_{options.recipe,
               options.default_algorithm,
               options.type,
               {},
               options.default_refinement,
               rotation_.get(),
               &checkpoint},
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
                     {"sequences", text.sequences()},
                     {"seq_len", text.seq_len()},
                     {"calibrate", text.calibrate}});
  }
  return {{"command", options_.command},
          {"begin", route_.begin},
          {"model", checkpoint_.fingerprint()},
          {"texts", texts},
          {"recipe", options_.recipe.json()},
          {"algorithm", options_.default_algorithm},
          {"refine", options_.default_refinement},
          {"dtype", dtype_name(options_.type)},
          {"attention", attention_name(options_.dense_attention)}};
}

/// What all ranks must have in common.
Json CalibrationRun::job_description() const {
  Json job = description();
  job["device"] = c10::DeviceTypeName(options_.device.type(), /*lower_case=*/true);
  return job;
}

/// The states at the last finished block; else what the dump has, or the embeddings.
void CalibrationRun::open_states() {
  const auto saved = folder_.newest_states(route_.end);
  if (saved && *saved >= route_.begin) {
    const NamedTensors tensors = *folder_.load_states(*saved);
    for (size_t i = 0; i < texts_.size(); ++i) {
      states_.push_back({tensors.at(state_name(i, "float")).to(options_.device),
                         tensors.at(state_name(i, "quant")).to(options_.device),
                         texts_[i].calibrate});
    }
    for (int64_t block = route_.begin; ranks_.rank() == 0 && block < *saved; ++block) {
      folder_.remove_units(block);  // a run that was killed right after it saved states leaves them
    }
    route_.begin = *saved;
    route_.head = route_.head && *saved <= model_.spec().blocks;
    route_.mtp = route_.mtp && *saved < route_.end;
    log(LogLevel::info, "{}: continuing at block {}", options_.folder.string(), *saved);
    return;
  }
  if (texts_.front().dump) {
    read_dump(route_.begin);
    return;
  }
  for (const CalibrationText& text : texts_) {
    states_.push_back(embed_text(context_, model_, text, options_.device));
  }
}

/// Both models from what enters `block` of the float model.
void CalibrationRun::read_dump(int64_t block) {
  BPTQ_ASSERT(!rotation_);  // the dump is in the basis of the source
  states_.clear();
  for (const CalibrationText& text : texts_) {
    const at::Tensor states =
        text.dump->inputs(block, model_.spec().hidden_size).to(options_.device);
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
      journal_->append(folder_.unit_entry(block, unit));
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
  if (const auto unit = unit_kind(detail)) {
    estimate_->finished(*unit, block, seconds_since(last_step_));
    last_step_ = Clock::now();
  }
  const double elapsed = seconds_since(start_);
  progress_.update({block, route_.end - route_.begin, token_count(texts_),
                    elapsed / (elapsed + estimate_->remaining()), detail});
}

void CalibrationRun::run_block(PieceStream& stream, int64_t block) {
  const auto start = Clock::now();
  const nn::AttentionOptions attention{options_.dense_attention, kCalibrationWorkspace};
  BlockCalibrator(context_, quant_exec_, model_, attention,
                  expert_slice_tokens(model_.spec(), kCalibrationWorkspace), unit_hooks(block),
                  ranks_)
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
    join_parameters(passed_, parameters_path(options_.folder, block));
  }
  if (journal_->find(block, "block") == nullptr) {
    journal_->append(report_block(block, seconds).json());
  }
  save_states(block + 1);
  folder_.remove_units(block);
  passed_.clear();
}

/// What of `pieces` this rank reads. It is rank 0 that measures, so that the matrix of the head is
/// for it alone.
std::vector<PieceSpec> CalibrationRun::own_pieces(const std::vector<PieceSpec>& pieces) const {
  std::vector<PieceSpec> result;
  for (PieceSpec& piece : shared_pieces(pieces, ranks_)) {
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
  return {block, block >= model_.spec().blocks, calibration.value(),
          any ? std::optional(held_out.value()) : std::nullopt, seconds};
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
  const auto next_tile = [&, left = head_tiles(model_, Unit::head, options_.type)]() mutable {
    return left-- > 0 ? head_tile(context_, model_, stream.next()) : HeadTile();
  };
  const Json measured =
      blockptq::measure_held_out(states_[text - texts_.begin()], text->windows, next_tile);
  if (journal_->find(-1, "held_out") == nullptr) {
    journal_->append(measured);
  }
}

void CalibrationRun::enter_mtp(PieceStream& stream) {
  const auto unit = blockptq::enter_mtp(context_, model_, stream.next(), texts_, states_);
  if (unit) {
    if (ranks_.rank() == 0) {
      unit_files_.keep(*unit);
    }
    pass_unit(unit->report.block, unit->report.unit);
  }
}

CalibrationResult CalibrationRun::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  const int64_t blocks = model_.spec().blocks;
  CalibrationResult result;
  PieceLoader loader(checkpoint_, options_.type, options_.device,
                     rotation_ ? std::optional(rotation_->transform()) : std::nullopt, {}, ranks_);
  const bool from_dump = texts_.front().dump.has_value();
  const std::vector<PieceSpec> pieces =
      calibration_pieces(model_, route_, options_.type, from_dump);
  estimate_.emplace(pieces, options_.recipe, token_count(texts_), model_.spec().expert_share);
  PieceStream stream(loader, own_pieces(pieces), kNoneAhead);
  const AbandonOnError abandon_on_error(ranks_);
  for (int64_t block = route_.begin; block < std::min(route_.end, blocks); ++block) {
    run_block(stream, block);
  }
  if (route_.head) {
    measure_held_out(stream);
  }
  if (route_.mtp) {
    if (from_dump) {
      read_dump(blocks);
    } else {
      enter_mtp(stream);
    }
    run_block(stream, blocks);
  }
  if (journal_) {
    collect_reports(result);
  }
  result.end = route_.end;
  result.bytes_read = checkpoint_.bytes_read() - read_before;
  result.seconds += seconds_since(start);
  return result;
}

/// The reports of all units and blocks, also of earlier processes, and the time of these.
void CalibrationRun::collect_reports(CalibrationResult& result) const {
  for (const Json& entry : journal_->entries()) {
    const auto unit = entry.at("unit").get<std::string>();
    (unit == "block" ? result.blocks : result.units).push_back(entry);
    if (unit == "block" && entry.at("block").get<int64_t>() < route_.begin) {
      result.seconds += entry.at("seconds").get<double>();
    }
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
  if (mtp) {
    json["mtp"] = true;
  }
  if (held_out_error) {
    json["held_out_relative_error"] = *held_out_error;
  }
  return json;
}

CalibrationResult calibrate(const Checkpoint& checkpoint, const Model& model,
                            const std::vector<CalibrationText>& texts,
                            const CalibrationOptions& options, Progress& progress, Ranks& ranks) {
  check_space(plan_calibration(checkpoint, model, texts, options), options.folder, ranks);
  return CalibrationRun(checkpoint, model, texts, options, progress, ranks).run();
}

}  // namespace blockptq
