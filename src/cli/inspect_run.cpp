#include "cli/inspect_run.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/size.h"
#include "quant/presets.h"
#include "quant/recipe.h"
#include "report/page_data.h"
#include "report/run_data.h"

namespace blockptq::cli {
namespace {

void print_line(std::string_view name, std::string_view text) {
  fmt::print("{:<15} {}\n", name, text);
}

/// A string as it is, anything else as JSON.
std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_key(const Json& object, const char* key) {
  if (const auto value = object.find(key); value != object.end() && !value->is_null()) {
    print_line(key, text_of(*value));
  }
}

double number_or_nan(const Json& object, const char* key) {
  const auto value = object.find(key);
  return value != object.end() && value->is_number() ? value->get<double>()
                                                     : std::numeric_limits<double>::quiet_NaN();
}

void print_texts(const JsonView& run) {
  const auto texts = run.find("texts");
  for (size_t i = 0; texts && i < texts->size(); ++i) {
    const JsonView text = texts->at(i);
    const int64_t sequences = text.at("sequences").integer(0);
    const int64_t length = text.at("seq_len").integer(0);
    print_line(text.at("calibrate").boolean() ? "text" : "held-out text",
               fmt::format("{} sequences of {} tokens, {} tokens", format_count(sequences), length,
                           format_count(checked_mul(sequences, length, "tokens"))));
  }
}

/// The name of a preset, or what the recipe says, a rule a line.
void print_recipe(const JsonView& recipe) {
  for (const Preset& preset : presets()) {
    if (Recipe::preset(preset.name).json() == recipe.raw()) {
      print_line("recipe", preset.name);
      return;
    }
  }
  const JsonView rules = recipe.at("linears");
  for (size_t i = 0; i < rules.size(); ++i) {
    print_line(i == 0 ? "recipe" : "", rules.at(i).raw().dump());
  }
  print_key(recipe.raw(), "cache");
  print_key(recipe.raw(), "transforms");
}

void print_totals(const Json& totals) {
  if (totals["units"] == 0 && totals["blocks"] == 0) {
    return;
  }
  print_line("done", fmt::format("{} blocks, {} units ({} kept plain rounding), {} weights",
                                 totals["blocks"].get<int64_t>(),
                                 format_count(totals["units"].get<int64_t>()),
                                 totals["fallbacks"].get<int64_t>(),
                                 format_count(totals["weights"].get<int64_t>())));
  if (totals.contains("experts")) {
    print_line("expert tokens", fmt::format("{} to {}, median {}; {} of {} experts saw none",
                                            format_count(totals["tokens_min"].get<int64_t>()),
                                            format_count(totals["tokens_max"].get<int64_t>()),
                                            format_count(totals["tokens_median"].get<int64_t>()),
                                            totals["without_tokens"].get<int64_t>(),
                                            totals["experts"].get<int64_t>()));
  }
  if (totals.contains("loss_ratio")) {
    print_line("loss", fmt::format("{:.3f} of plain rounding's, mean over units",
                                   number_or_nan(totals, "loss_ratio")));
  }
}

void print_held_out(const Json& held_out) {
  print_line(
      "held out",
      fmt::format("perplexity {:.4f} (float {:.4f}), KL {:.3g}, top-1 agreement {:.1f} %",
                  number_or_nan(held_out, "ppl"), number_or_nan(held_out, "float_ppl"),
                  number_or_nan(held_out, "kl"), 100 * number_or_nan(held_out, "top1_agreement")));
}

/// A number of a table, or a dash where there is none.
std::string cell(const Json& row, const char* key) {
  const double value = number_or_nan(row, key);
  return std::isfinite(value) ? fmt::format("{:.3g}", value) : "-";
}

void print_blocks(const Json& blocks) {
  if (blocks.empty()) {
    return;
  }
  fmt::print("\n{:>5} {:>7} {:>10} {:>14} {:>14} {:>12}\n", "block", "units", "loss ratio",
             "relative error", "on held-out", "time");
  for (const Json& row : blocks) {
    const bool done = row.contains("relative_error");
    fmt::print("{:>5} {:>7} {:>10} {:>14} {:>14} {:>12}\n", row["block"].get<int64_t>(),
               row.value("units", int64_t{0}), cell(row, "loss_ratio"), cell(row, "relative_error"),
               cell(row, "held_out_relative_error"),
               done ? format_seconds(row["seconds"].get<double>()) : "in work");
  }
}

}  // namespace

Json inspect_run(const std::filesystem::path& folder) {
  const std::string name = std::filesystem::canonical(folder).filename().string();
  Json data = page_data(read_run(folder), name);
  for (const char* list : {"findings", "units", "worst_units", "worst_weights"}) {
    data.erase(list);
  }
  const Json& run = data["run"];
  const Json& result = data["result"];
  fmt::print("{}: run of {}, {}\n", folder.string(), text_of(run.value("command", Json("?"))),
             data["finished"].get<bool>() ? "finished" : "without a result so far");
  print_key(result.contains("model") ? result : run, "model");
  const JsonView view(run, (folder / "run.json").string());
  print_texts(view);
  if (const auto recipe = view.find("recipe")) {
    print_recipe(*recipe);
  }
  print_key(run, "algorithm");
  print_key(run, "dtype");
  print_totals(data["totals"]);
  if (data.contains("held_out")) {
    print_held_out(data["held_out"]);
  }
  for (const char* key : {"output", "ppl", "mtp_ppl", "kl"}) {
    print_key(result, key);
  }
  print_blocks(data["blocks"]);
  return data;
}

}  // namespace blockptq::cli
