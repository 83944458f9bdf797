#include "report/run_data.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace blockptq {
namespace {

constexpr const char* kDescription = "run.json";
constexpr const char* kJournal = "journal.jsonl";
constexpr const char* kResult = "result.json";
constexpr int64_t kMaxExperts = 1'000'000;
constexpr std::array kLists{"units", "blocks", "held_out"};

double number_or_nan(const JsonView& view, const char* key) {
  const auto value = view.find(key);
  return value ? value->number() : std::numeric_limits<double>::quiet_NaN();
}

std::vector<int64_t> counts(const JsonView& view) {
  std::vector<int64_t> values;
  values.reserve(view.size());
  for (size_t i = 0; i < view.size(); ++i) {
    values.push_back(view.at(i).integer(0));
  }
  return values;
}

std::optional<int64_t> expert_number(const std::string& unit) {
  constexpr std::string_view kPrefix = "expert ";
  int64_t number = 0;
  const char* end = unit.data() + unit.size();
  if (!unit.starts_with(kPrefix)) {
    return std::nullopt;
  }
  const auto [stop, error] = std::from_chars(unit.data() + kPrefix.size(), end, number);
  const bool valid = error == std::errc() && stop == end && number >= 0 && number < kMaxExperts;
  return valid ? std::optional(number) : std::nullopt;
}

WeightEntry parse_weight(const JsonView& view) {
  return {view.at("name").string(), view.at("bits").integer(),
          number_or_nan(view, "relative_error"), counts(view.at("weight_histogram")),
          counts(view.at("code_histogram"))};
}

UnitEntry parse_unit(const JsonView& view) {
  UnitEntry entry;
  entry.block = view.at("block").integer(0);
  entry.unit = view.at("unit").string();
  entry.expert = expert_number(entry.unit);
  entry.tokens = view.integer_or("tokens", 0, 0);
  entry.loss_before = number_or_nan(view, "loss_before");
  entry.loss_after = number_or_nan(view, "loss_after");
  entry.seconds = view.number_or("seconds", 0);
  entry.fallback = view.string_or("fallback", "");
  if (const auto weights = view.find("weights")) {
    for (size_t i = 0; i < weights->size(); ++i) {
      entry.weights.push_back(parse_weight(weights->at(i)));
    }
  }
  return entry;
}

BlockEntry parse_block(const JsonView& view) {
  BlockEntry entry{view.at("block").integer(0),
                   number_or_nan(view, "relative_error"),
                   {},
                   view.number_or("seconds", 0),
                   view.boolean_or("mtp", false)};
  if (view.contains("held_out_relative_error")) {
    entry.held_out_error = number_or_nan(view, "held_out_relative_error");
  }
  return entry;
}

HeldOutEntry parse_held_out(const JsonView& view) {
  return {number_or_nan(view, "float_ppl"), number_or_nan(view, "ppl"), number_or_nan(view, "kl"),
          number_or_nan(view, "top1_agreement")};
}

/// The lists of a result as lines of a journal.
std::vector<Json> entries_of(const Json& result) {
  std::vector<Json> entries;
  const auto add = [&](Json entry, const char* unit) {
    if (unit != nullptr && entry.is_object()) {
      entry["unit"] = unit;
    }
    entries.push_back(std::move(entry));
  };
  for (const Json& unit : result.value("units", Json::array())) {
    add(unit, nullptr);
  }
  for (const Json& block : result.value("blocks", Json::array())) {
    add(block, "block");
  }
  if (const auto held_out = result.find("held_out"); held_out != result.end()) {
    add(*held_out, "held_out");
  }
  return entries;
}

std::vector<Json> read_lines(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<Json> entries;
  for (size_t begin = 0, end = text.find('\n'); end != std::string::npos;
       begin = end + 1, end = text.find('\n', begin)) {
    entries.push_back(parse_json(std::string_view(text).substr(begin, end - begin), path.string()));
  }
  return entries;
}

Json read_object(const std::filesystem::path& path) {
  Json json = parse_json(read_file(path), path.string());
  JsonView(json, path.string()).expect_object();
  return json;
}

template <typename Key, typename Value>
std::vector<Value> values_of(std::map<Key, Value>&& map) {
  std::vector<Value> values;
  values.reserve(map.size());
  for (auto& item : map) {
    values.push_back(std::move(item.second));
  }
  return values;
}

}  // namespace

RunData parse_run(const Json& description, const std::vector<Json>& entries, const Json& result) {
  RunData run;
  run.description = description.is_object() ? description : Json::object();
  run.finished = result.is_object();
  if (run.finished) {
    run.result = result;
    for (const char* list : kLists) {
      run.result.erase(list);
    }
  }
  const bool journal = !entries.empty() || !run.finished;
  std::map<std::tuple<int64_t, int64_t, std::string>, UnitEntry> units;
  std::map<int64_t, BlockEntry> blocks;
  for (const Json& entry : journal ? entries : entries_of(result)) {
    const JsonView view(entry, journal ? kJournal : kResult);
    const std::string& unit = view.at("unit").string();
    if (unit == "held_out") {
      run.held_out = parse_held_out(view);
    } else if (unit == "block") {
      BlockEntry block = parse_block(view);
      blocks.insert_or_assign(block.block, std::move(block));
    } else {
      UnitEntry parsed = parse_unit(view);
      units.insert_or_assign({parsed.block, parsed.expert.value_or(-1), unit}, std::move(parsed));
    }
  }
  run.units = values_of(std::move(units));
  run.blocks = values_of(std::move(blocks));
  return run;
}

bool is_run_folder(const std::filesystem::path& folder) {
  return std::ranges::any_of(std::array{kDescription, kJournal, kResult}, [&](const char* name) {
    return std::filesystem::exists(folder / name);
  });
}

RunData read_run(const std::filesystem::path& folder) {
  const auto present = [&](const char* name) { return std::filesystem::exists(folder / name); };
  check(is_run_folder(folder), "{}: expected a run folder, found none of {}, {} and {}",
        folder.string(), kDescription, kJournal, kResult);
  return parse_run(present(kDescription) ? read_object(folder / kDescription) : Json::object(),
                   present(kJournal) ? read_lines(folder / kJournal) : std::vector<Json>(),
                   present(kResult) ? read_object(folder / kResult) : Json());
}

}  // namespace blockptq
