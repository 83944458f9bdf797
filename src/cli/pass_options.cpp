#include "cli/pass_options.h"

#include <fmt/format.h>

#include "base/size.h"

namespace blockptq::cli {

void add_pass_options(CLI::App& app, PassSettings& settings) {
  app.add_flag("--dense_attention", settings.dense_attention,
               "ignore the indexer: every query sees all earlier keys");
  app.add_flag("--mtp", settings.mtp, "the MTP layer too, behind the last block");
  app.add_option("--begin,--start_block_idx", settings.begin, "first block")
      ->check(CLI::Range(int64_t{0}, int64_t{100000}));
  app.add_option("--end,--end_block_idx", settings.end,
                 "one past the last block (default: the last; the MTP layer counts after it)")
      ->check(CLI::Range(int64_t{0}, int64_t{100000}));
  app.add_flag("--restart", settings.restart,
               "throw earlier work in --output_dir away instead of continuing");
}

void print_plan(const EvalPlan& plan) {
  fmt::print(
      "peak memory     {}{} (hidden states {}, weights {}, exchange {}, workspace {}, program {})\n"
      "bytes to read   {}\n"
      "disk            {}\n"
      "units of work   {} blocks\n",
      format_bytes(plan.peak_bytes()), plan.exchange_bytes > 0 ? " for each device" : "",
      format_bytes(plan.states_bytes), format_bytes(plan.weights_bytes),
      format_bytes(plan.exchange_bytes), format_bytes(plan.workspace_bytes),
      format_bytes(plan.runtime_bytes), format_bytes(plan.bytes_to_read),
      format_bytes(plan.disk_bytes), plan.blocks);
}

void print_memory(const CalibrationPlan& plan, int ranks) {
  fmt::print(
      "peak memory     {}{} (hidden states {}, weights {}, Hessians {}, exchange {}, workspace {}, "
      "program {})\n",
      format_bytes(plan.peak_bytes()), ranks > 1 ? " for each device" : "",
      format_bytes(plan.states_bytes), format_bytes(plan.weights_bytes),
      format_bytes(plan.hessian_bytes), format_bytes(plan.exchange_bytes),
      format_bytes(plan.workspace_bytes), format_bytes(plan.runtime_bytes));
}

Json plan_json(const EvalPlan& plan) {
  return {{"peak_memory_bytes", plan.peak_bytes()},  {"states_bytes", plan.states_bytes},
          {"weights_bytes", plan.weights_bytes},     {"exchange_bytes", plan.exchange_bytes},
          {"workspace_bytes", plan.workspace_bytes}, {"bytes_to_read", plan.bytes_to_read},
          {"disk_bytes", plan.disk_bytes},           {"blocks", plan.blocks}};
}

}  // namespace blockptq::cli
