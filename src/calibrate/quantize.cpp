#include "calibrate/quantize.h"

#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "base/error.h"
#include "calibrate/calibration_plan.h"
#include "deploy/checkpoint_writer.h"
#include "deploy/kept_tensors.h"
#include "deploy/unit_source.h"
#include "models/stream_rotation.h"

namespace blockptq {
namespace {

constexpr int64_t kKeepBytes = int64_t{256} << 20;

/// Parts of the output that no calibration has a say in, in the order of the shards.
std::vector<std::string> parts_of(const OutputPlan& plan) {
  std::vector<std::string> parts;
  for (const PlannedShard& shard : plan.shards) {
    if (parts.empty() || parts.back() != shard.part) {
      parts.push_back(shard.part);
    }
  }
  return parts;
}

std::string block_part(int64_t block) {
  return fmt::format("block {}", block);
}

/// ||W - W^|| / ||W|| of every weight, which the units report squared.
RelativeErrors relative_errors(const std::vector<Json>& units) {
  RelativeErrors errors;
  for (const Json& unit : units) {
    for (const Json& weight : unit.at("weights")) {
      errors[weight.at("name").get<std::string>()] =
          std::sqrt(weight.at("relative_error").get<double>());
    }
  }
  return errors;
}

}  // namespace

QuantizeResult quantize(const Checkpoint& source, const Model& model, const OutputPlan& plan,
                        const std::vector<CalibrationText>& texts, const QuantizeOptions& options,
                        Progress& progress, Ranks& ranks) {
  CalibrationOptions calibration = options.calibration;
  calibration.keep_parameters = false;
  calibration.keep_codes = true;
  QuantizeResult result;
  if (ranks.rank() != 0) {
    result.calibration = calibrate(source, model, texts, calibration, progress, ranks);
    return result;
  }
  const AbandonOnError abandon_on_error(ranks);
  plan_calibration(source, model, texts, calibration);  // what does not fit leaves nothing behind
  WriterOptions writer_options;
  writer_options.verify = false;  // would read the source a second time
  writer_options.restart = options.calibration.restart;
  writer_options.version = options.version;
  writer_options.run = {{"algorithm", options.calibration.default_algorithm},
                        {"refine", options.calibration.default_refinement},
                        {"text", texts.front().fingerprint}};
  CheckpointWriter writer(source, plan, options.calibration.recipe, options.output, writer_options);
  const auto rotation = make_rotation(source, model, calibration.recipe);
  const KeptTensors kept(source, plan, kKeepBytes);
  calibration.on_block = [&](int64_t block, const std::vector<std::filesystem::path>& unit_files) {
    writer.write(block_part(block),
                 std::make_shared<UnitSource>(source, unit_files, rotation.get()));
    writer.flush();  // the unit files go next
    kept.drop(block_part(block));
  };
  result.already_complete = writer.complete();
  result.calibration = calibrate(source, model, texts, calibration, progress, ranks);
  const int64_t mtp = calibration.mtp && model.spec().mtp_layers > 0 ? 1 : 0;
  result.complete = result.calibration.end == model.spec().blocks + mtp;
  if (result.complete && !result.already_complete) {
    const auto copies = std::make_shared<NearestSource>(source, rotation.get());
    for (const std::string& part : parts_of(plan)) {
      if (writer.has(part)) {
        continue;
      }
      check(!part.starts_with("block "),
            "{}: {} is missing, though the run in {} has finished it; use --restart",
            options.output.string(), part, options.calibration.folder.string());
      writer.write(part, copies);
    }
    writer.finish(Json::object(), relative_errors(result.calibration.units));
  }
  result.bytes_written = writer.bytes_written();
  return result;
}

}  // namespace blockptq
