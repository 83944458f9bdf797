// Runs for the tests of the page, as lines of a journal.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "report/run_data.h"

namespace blockptq::test {

inline Json unit_line(int64_t block, const std::string& unit, int64_t tokens, double before,
                      double after) {
  return {{"block", block},        {"unit", unit},        {"tokens", tokens},
          {"loss_before", before}, {"loss_after", after}, {"seconds", 0.5}};
}

inline Json block_line(int64_t block, double error) {
  return {{"block", block}, {"unit", "block"}, {"relative_error", error}, {"seconds", 2.0}};
}

inline Json held_out_line(double kl) {
  return {{"block", -1}, {"unit", "held_out"}, {"float_ppl", 8.0},
          {"ppl", 10.0}, {"kl", kl},           {"top1_agreement", 0.75}};
}

/// A finished run of two blocks without anything suspicious.
inline std::vector<Json> good_lines() {
  return {unit_line(0, "attention", 64, 0.02, 0.01),
          unit_line(0, "mlp", 64, 0.04, 0.03),
          block_line(0, 0.002),
          unit_line(1, "attention", 64, 0.02, 0.01),
          unit_line(1, "expert 0", 40, 0.1, 0.05),
          unit_line(1, "expert 1", 24, 0.1, 0.025),
          block_line(1, 0.004),
          held_out_line(0.01)};
}

inline RunData finished_run(const std::vector<Json>& lines) {
  return parse_run(Json::object(), lines, {{"model", "models/a"}, {"seconds", 9.0}});
}

}  // namespace blockptq::test
