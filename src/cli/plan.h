// What --dry_run says: memory, disk, bytes to read and units of work.
#pragma once

#include "base/json.h"
#include "calibrate/calibration_plan.h"
#include "deploy/plan.h"
#include "eval/evaluate.h"

namespace blockptq::cli {

void print_plan(const EvalPlan& plan);
Json plan_json(const EvalPlan& plan);

/// Of a calibration on so many ranks; `output`: null, or what it writes.
void print_plan(const CalibrationPlan& plan, const OutputPlan* output, int ranks);
Json plan_json(const CalibrationPlan& plan, const OutputPlan* output);

}  // namespace blockptq::cli
