#include "cli/plan.h"

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/size.h"

namespace blockptq::cli {
namespace {

using Part = std::pair<std::string_view, int64_t>;

/// `where`: what takes the peak, if it is known; parts of 0 bytes are left out.
void print_memory(int64_t peak, bool shared, std::string_view where,
                  std::initializer_list<Part> parts) {
  std::string text;
  for (const auto& [name, bytes] : parts) {
    if (bytes > 0) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, format_bytes(bytes));
    }
  }
  fmt::print("peak memory     {}{}{} ({})\n", format_bytes(peak), shared ? " for each device" : "",
             where.empty() ? "" : fmt::format(" in {}", where), text);
}

}  // namespace

void print_plan(const EvalPlan& plan) {
  print_memory(plan.peak_bytes(), plan.exchange_bytes > 0, "",
               {{"hidden states", plan.states_bytes},
                {"weights", plan.weights_bytes},
                {"exchange", plan.exchange_bytes},
                {"temporaries", plan.temporary_bytes},
                {"program", plan.program_bytes}});
  fmt::print(
      "bytes to read   {}\n"
      "disk            {}\n"
      "units of work   {} blocks\n",
      format_bytes(plan.bytes_to_read), format_bytes(plan.disk_bytes), plan.blocks);
}

Json plan_json(const EvalPlan& plan) {
  return {{"peak_memory_bytes", plan.peak_bytes()},
          {"states_bytes", plan.states_bytes},
          {"weights_bytes", plan.weights_bytes},
          {"exchange_bytes", plan.exchange_bytes},
          {"temporary_bytes", plan.temporary_bytes},
          {"program_bytes", plan.program_bytes},
          {"bytes_to_read", plan.bytes_to_read},
          {"disk_bytes", plan.disk_bytes},
          {"blocks", plan.blocks}};
}

void print_plan(const CalibrationPlan& plan, const OutputPlan* output, int ranks) {
  print_memory(plan.peak_bytes(), ranks > 1, plan.unit,
               {{"hidden states", plan.states_bytes},
                {"weights", plan.weights_bytes},
                {"exchange", plan.exchange_bytes},
                {"Hessians", plan.statistics_bytes},
                {"temporaries", plan.temporary_bytes},
                {"program", plan.program_bytes}});
  fmt::print("bytes to read   {}\n", format_bytes(plan.bytes_to_read));
  if (output != nullptr) {
    fmt::print("disk            {} in {} shards, and {} in the run folder while it runs\n",
               format_bytes(output->file_bytes), output->shards.size(),
               format_bytes(plan.disk_bytes));
  } else {
    fmt::print("disk            {} while it runs, and the parameters\n",
               format_bytes(plan.disk_bytes));
  }
  fmt::print("units of work   {}\n", plan.units);
}

Json plan_json(const CalibrationPlan& plan, const OutputPlan* output) {
  return {{"peak_memory_bytes", plan.peak_bytes()},
          {"peak_unit", plan.unit},
          {"states_bytes", plan.states_bytes},
          {"weights_bytes", plan.weights_bytes},
          {"statistics_bytes", plan.statistics_bytes},
          {"exchange_bytes", plan.exchange_bytes},
          {"temporary_bytes", plan.temporary_bytes},
          {"program_bytes", plan.program_bytes},
          {"bytes_to_read", plan.bytes_to_read},
          {"disk_bytes", plan.disk_bytes + (output == nullptr ? 0 : output->file_bytes)},
          {"units", plan.units}};
}

}  // namespace blockptq::cli
