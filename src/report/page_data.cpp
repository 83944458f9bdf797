#include "report/page_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "report/findings.h"

namespace blockptq {
namespace {

constexpr size_t kWorst = 12;

/// Keeps the page of a model with 15,000 experts small.
double round_6(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

Json findings_json(const std::vector<Finding>& findings) {
  Json json = Json::array();
  for (const Finding& finding : findings) {
    json.push_back({{"severity", severity_name(finding.severity)},
                    {"check", finding.check},
                    {"text", finding.text}});
  }
  return json;
}

Json held_out_json(const HeldOutEntry& held_out) {
  return {{"float_ppl", held_out.float_ppl},
          {"ppl", held_out.ppl},
          {"ppl_change", held_out.ppl / held_out.float_ppl - 1},
          {"kl", held_out.kl},
          {"top1_agreement", held_out.top1_agreement}};
}

/// Totals over some units.
struct Sums {
  int64_t units = 0;
  int64_t fallbacks = 0;
  double loss_before = 0;
  double loss_after = 0;
  double seconds = 0;
  std::vector<int64_t> expert_tokens;

  void add(const UnitEntry& unit) {
    ++units;
    fallbacks += unit.fallback.empty() ? 0 : 1;
    loss_before += unit.loss_before;
    loss_after += unit.loss_after;
    seconds += unit.seconds;
    if (unit.expert) {
      expert_tokens.push_back(unit.tokens);
    }
  }

  Json json() const {
    Json json{{"units", units}, {"fallbacks", fallbacks}, {"unit_seconds", seconds}};
    if (units > 0) {
      json["loss_before"] = loss_before / static_cast<double>(units);
      json["loss_after"] = loss_after / static_cast<double>(units);
    }
    if (loss_before > 0) {
      json["loss_ratio"] = loss_after / loss_before;
    }
    if (!expert_tokens.empty()) {
      std::vector<int64_t> sorted = expert_tokens;
      std::sort(sorted.begin(), sorted.end());
      json["experts"] = sorted.size();
      json["tokens_min"] = sorted.front();
      json["tokens_median"] = sorted[sorted.size() / 2];
      json["tokens_max"] = sorted.back();
      json["without_tokens"] = std::count(sorted.begin(), sorted.end(), 0);
    }
    return json;
  }
};

Json totals_json(const RunData& run) {
  Sums sums;
  size_t weights = 0;
  for (const UnitEntry& unit : run.units) {
    sums.add(unit);
    weights += unit.weights.size();
  }
  Json json = sums.json();
  json["blocks"] = run.blocks.size();
  json["weights"] = weights;
  return json;
}

/// One row per block that has units or has ended.
Json blocks_json(const RunData& run) {
  std::map<int64_t, Sums> sums;
  for (const UnitEntry& unit : run.units) {
    sums[unit.block].add(unit);
  }
  std::map<int64_t, Json> rows;
  for (const auto& [block, sum] : sums) {
    rows[block] = sum.json();
  }
  for (const BlockEntry& block : run.blocks) {
    Json& row = rows[block.block];
    row["relative_error"] = block.relative_error;
    row["seconds"] = block.seconds;
    if (block.held_out_error) {
      row["held_out_relative_error"] = *block.held_out_error;
    }
  }
  Json json = Json::array();
  for (auto& [block, row] : rows) {
    row["block"] = block;
    json.push_back(std::move(row));
  }
  return json;
}

/// The units as columns.
Json units_json(const RunData& run) {
  Json json{{"block", Json::array()},       {"unit", Json::array()},
            {"expert", Json::array()},      {"tokens", Json::array()},
            {"loss_before", Json::array()}, {"loss_after", Json::array()},
            {"seconds", Json::array()},     {"fallback", Json::object()}};
  for (const UnitEntry& unit : run.units) {
    if (!unit.fallback.empty()) {
      json["fallback"][std::to_string(json["block"].size())] = unit.fallback;
    }
    json["block"].push_back(unit.block);
    json["unit"].push_back(unit.unit);
    json["expert"].push_back(unit.expert ? Json(*unit.expert) : Json());
    json["tokens"].push_back(unit.tokens);
    json["loss_before"].push_back(round_6(unit.loss_before));
    json["loss_after"].push_back(round_6(unit.loss_after));
    json["seconds"].push_back(round_6(unit.seconds));
  }
  return json;
}

/// Indices of the units with the largest error, NaN first.
Json worst_units(const RunData& run) {
  const auto badness = [&](size_t index) {
    const double loss = run.units[index].loss_after;
    return std::isnan(loss) ? std::numeric_limits<double>::infinity() : loss;
  };
  std::vector<size_t> order(run.units.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return badness(a) > badness(b); });
  order.resize(std::min(order.size(), kWorst));
  return order;
}

Json worst_weights(const RunData& run) {
  struct Found {
    double badness;
    const UnitEntry* unit;
    const WeightEntry* weight;
  };
  std::vector<Found> found;
  for (const UnitEntry& unit : run.units) {
    for (const WeightEntry& weight : unit.weights) {
      found.push_back({std::isnan(weight.relative_error) ? std::numeric_limits<double>::infinity()
                                                         : weight.relative_error,
                       &unit, &weight});
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const Found& a, const Found& b) { return a.badness > b.badness; });
  found.resize(std::min(found.size(), kWorst));
  Json json = Json::array();
  for (const auto& [badness, unit, weight] : found) {
    json.push_back({{"block", unit->block},
                    {"unit", unit->unit},
                    {"name", weight->name},
                    {"bits", weight->bits},
                    {"relative_error", weight->relative_error},
                    {"weight_histogram", weight->weight_histogram},
                    {"code_histogram", weight->code_histogram}});
  }
  return json;
}

/// Quantized weights by their bits.
Json bits_json(const RunData& run) {
  std::map<int64_t, std::pair<int64_t, double>> sums;
  for (const UnitEntry& unit : run.units) {
    for (const WeightEntry& weight : unit.weights) {
      ++sums[weight.bits].first;
      sums[weight.bits].second += weight.relative_error;
    }
  }
  Json json = Json::array();
  for (const auto& [bits, sum] : sums) {
    json.push_back({{"bits", bits},
                    {"weights", sum.first},
                    {"relative_error", sum.second / static_cast<double>(sum.first)}});
  }
  return json;
}

Json sizes_json(const Json& result) {
  Json json = Json::object();
  for (const char* key : {"checkpoint_bytes", "output_bytes", "bytes_read", "peak_rss_bytes"}) {
    if (const auto value = result.find(key); value != result.end() && value->is_number_integer()) {
      json[key] = *value;
    }
  }
  const auto ratio = [&](const char* name, const char* numerator, const char* denominator) {
    if (json.contains(numerator) && json.value(denominator, int64_t{0}) > 0) {
      json[name] = json[numerator].get<double>() / json[denominator].get<double>();
    }
  };
  if (const auto count = result.find("parameters");
      count != result.end() && count->is_number_integer()) {
    json["bf16_bytes"] = 2 * count->get<int64_t>();
  }
  ratio("output_share", "output_bytes", "checkpoint_bytes");
  ratio("bf16_share", "output_bytes", "bf16_bytes");
  ratio("read_share", "bytes_read", "checkpoint_bytes");
  return json;
}

/// Seconds by what they went to.
Json times_json(const RunData& run) {
  std::map<std::string, std::pair<int64_t, double>> kinds;
  double units = 0;
  for (const UnitEntry& unit : run.units) {
    auto& [count, seconds] = kinds[unit.kind()];
    ++count;
    seconds += unit.seconds;
    units += unit.seconds;
  }
  double blocks = 0;
  for (const BlockEntry& block : run.blocks) {
    blocks += block.seconds;
  }
  Json parts = Json::array();
  for (const auto& [kind, sum] : kinds) {
    parts.push_back({{"what", kind}, {"count", sum.first}, {"seconds", sum.second}});
  }
  if (blocks > units) {
    parts.push_back({{"what", "reading and forward passes"},
                     {"count", run.blocks.size()},
                     {"seconds", blocks - units}});
  }
  Json json{{"parts", parts}, {"blocks", blocks}, {"units", units}};
  if (run.result.contains("seconds") && run.result["seconds"].is_number()) {
    json["total"] = run.result["seconds"];
  }
  return json;
}

std::string title_of(const RunData& run, const std::string& name) {
  const auto model = run.result.find("model");
  if (model == run.result.end() || !model->is_string()) {
    return name;
  }
  std::filesystem::path path(model->get<std::string>());
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace

Json page_data(const RunData& run, const std::string& name) {
  const std::vector<Finding> findings = find_suspicious(run);
  const Verdict judged = verdict(run, findings);
  Json data{{"title", title_of(run, name)},
            {"finished", run.finished},
            {"verdict", {{"level", judged.level}, {"text", judged.text}}},
            {"findings", findings_json(findings)},
            {"totals", totals_json(run)},
            {"blocks", blocks_json(run)},
            {"units", units_json(run)},
            {"worst_units", worst_units(run)},
            {"worst_weights", worst_weights(run)},
            {"bits", bits_json(run)},
            {"sizes", sizes_json(run.result)},
            {"times", times_json(run)},
            {"run", run.description},
            {"result", run.result}};
  if (run.held_out) {
    data["held_out"] = held_out_json(*run.held_out);
  }
  // Through text, so that a NaN is the null that the page carries.
  return Json::parse(data.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace blockptq
