#include "report/page.h"

#include <fmt/format.h>

#include <initializer_list>
#include <utility>
#include <vector>

#include "report/charts.h"
#include "report/findings.h"
#include "report/html.h"

namespace blockptq {
namespace {

/// A column of a table: what it is called, its key in a row of data, how it is shown.
struct Column {
  const char* title;
  const char* key;
  Show how;
};

std::string section(const char* id, const char* title, const char* lead, const std::string& body) {
  return fmt::format("<section id=\"{}\"><h2>{}</h2><p class=\"lead\">{}</p>{}</section>\n", id,
                     title, lead, body);
}

/// A SHA-256 by its first digits, anything else as it is.
std::string shortened(const std::string& text) {
  constexpr size_t kDigits = 64;
  constexpr size_t kShown = 12;
  const bool hash =
      text.size() == kDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  return hash ? text.substr(0, kShown) + "…" : text;
}

/// A value in words: elements and members one after the other.
std::string words(const Json& json) {
  if (json.is_string()) {
    return shortened(json.get<std::string>());
  }
  if (!json.is_structured()) {
    return json.dump();
  }
  std::string text;
  for (const auto& [key, value] : json.items()) {
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", json.is_object() ? key + " " : "",
                        words(value));
  }
  return text;
}

std::string text_of(const Json& json) {
  return escape_html(words(json));
}

/// One table row per element of the array at `pointer`; `name`: key of the first cell, as text.
std::string table(const Json& data, const std::string& pointer, const char* title, const char* name,
                  const std::vector<Column>& columns) {
  std::string html = fmt::format("<div class=\"scroll\"><table><thead><tr><th>{}</th>", title);
  for (const Column& column : columns) {
    html += fmt::format("<th class=\"n\">{}</th>", column.title);
  }
  html += "</tr></thead><tbody>";
  const Json& rows = data.at(Json::json_pointer(pointer));
  for (size_t i = 0; i < rows.size(); ++i) {
    html += fmt::format("<tr><th>{}</th>", text_of(rows[i].at(name)));
    for (const Column& column : columns) {
      html += fmt::format(
          "<td class=\"n\">{}</td>",
          value_html(data, fmt::format("{}/{}/{}", pointer, i, column.key), column.how));
    }
    html += "</tr>";
  }
  return html + "</tbody></table></div>";
}

// --- verdict ---

std::string tile(const char* label, const std::string& value, const std::string& note) {
  return fmt::format(
      "<div class=\"tile\"><span>{}</span><strong>{}</strong><small>{}</small></div>", label, value,
      note);
}

std::string tiles(const Json& data) {
  const auto value = [&](const char* pointer, Show how) { return value_html(data, pointer, how); };
  std::string html;
  if (data.contains("held_out")) {
    html += tile("KL divergence", value("/held_out/kl", Show::number), "nats per token, held-out");
    html += tile("Perplexity", value("/held_out/ppl", Show::number),
                 "from " + value("/held_out/float_ppl", Show::number) + ", change " +
                     value("/held_out/ppl_change", Show::percent));
    html += tile("Top-1 agreement", value("/held_out/top1_agreement", Show::percent),
                 "same most likely token");
  }
  html += tile("Error left", value("/totals/loss_ratio", Show::ratio),
               "of plain rounding's, mean over units");
  html += tile("Units", value("/totals/units", Show::count),
               value("/totals/fallbacks", Show::count) + " kept plain rounding");
  if (data["totals"].contains("experts")) {
    html += tile("Tokens per expert", value("/totals/tokens_median", Show::count),
                 "median; " + value("/totals/tokens_min", Show::count) + " to " +
                     value("/totals/tokens_max", Show::count) + "; " +
                     value("/totals/without_tokens", Show::count) + " saw none");
  }
  if (data["sizes"].contains("output_share")) {
    html += tile("Size", value("/sizes/output_share", Show::percent),
                 value("/sizes/output_bytes", Show::bytes) + " of " +
                     value("/sizes/checkpoint_bytes", Show::bytes) + "; in BF16 it would be " +
                     value("/sizes/bf16_bytes", Show::bytes));
  }
  const bool ended = data["times"].contains("total");
  return html + tile("Time", value(ended ? "/times/total" : "/times/blocks", Show::seconds),
                     ended ? "whole run" : "finished blocks");
}

std::string findings_list(const Json& findings) {
  std::string html = "<ul class=\"findings\">";
  for (const Json& finding : findings) {
    html += fmt::format("<li class=\"{0}\"><b>{0}</b> {1}</li>", text_of(finding["severity"]),
                        text_of(finding["text"]));
  }
  return findings.empty() ? "" : html + "</ul>";
}

std::string checks_list(const Json& findings) {
  std::string rows;
  for (const Check& check : checks()) {
    size_t found = 0;
    for (const Json& finding : findings) {
      found += finding["check"] == check.name ? 1 : 0;
    }
    rows +=
        fmt::format("<tr><td><b class=\"{}\">{}</b></td><td>{}</td></tr>",
                    found == 0 ? "passed" : severity_name(check.severity),
                    found == 0 ? "passed" : severity_name(check.severity), escape_html(check.rule));
  }
  return "<details id=\"checks\"><summary>What was checked</summary><table>" + rows +
         "</table></details>";
}

std::string head(const Json& data) {
  const Json& verdict = data["verdict"];
  return fmt::format(
      "<header><p class=\"kind\">Quantization report</p><h1>{}</h1></header>\n"
      "<section id=\"verdict\" class=\"{}\"><p>{}</p>{}{}</section>\n<div "
      "class=\"tiles\">{}</div>\n",
      text_of(data["title"]), text_of(verdict["level"]), text_of(verdict["text"]),
      findings_list(data["findings"]), checks_list(data["findings"]), tiles(data));
}

// --- blocks, experts, weights ---

std::string blocks(const Json& data) {
  bool held_out = false;
  for (const Json& block : data["blocks"]) {
    held_out = held_out || block.contains("held_out_relative_error");
  }
  const std::string key =
      held_out ? "<p class=\"key\"><i class=\"calibration\"></i> calibration text "
                 "<i class=\"held_out\"></i> held-out text</p>"
               : "<p class=\"key\"><i class=\"calibration\"></i> calibration text</p>";
  return section("blocks", "Blocks",
                 "Squared error of a block's output, relative to the float model's, with all "
                 "blocks before it quantized too. Logarithmic.",
                 key + error_curve(data) + "<details><summary>Numbers of every block</summary>" +
                     table(data, "/blocks", "block", "block",
                           {{"error", "relative_error", Show::number},
                            {"held-out", "held_out_relative_error", Show::number},
                            {"unit error before", "loss_before", Show::number},
                            {"after", "loss_after", Show::number},
                            {"experts", "experts", Show::count},
                            {"tokens, least", "tokens_min", Show::count},
                            {"median", "tokens_median", Show::count},
                            {"most", "tokens_max", Show::count},
                            {"without", "without_tokens", Show::count},
                            {"fallbacks", "fallbacks", Show::count},
                            {"time", "seconds", Show::seconds}}) +
                     "</details>");
}

std::string experts(const Json& data) {
  const std::string maps = heat_maps(data);
  return maps.empty() ? ""
                      : section("experts", "Experts",
                                "A row per block, a column per routed expert. Colours are "
                                "logarithmic between the two numbers beside them. Point at a "
                                "cell, or tap it, for its numbers.",
                                maps);
}

std::string worst_units(const Json& data) {
  std::string rows;
  for (const Json& index : data["worst_units"]) {
    const std::string i = index.dump();
    const Json& units = data["units"];
    const auto cell = [&](const char* column, Show how) {
      return fmt::format("<td class=\"n\">{}</td>",
                         value_html(data, fmt::format("/units/{}/{}", column, i), how));
    };
    const auto at = index.get<size_t>();
    rows += fmt::format("<tr><th>block {} {}</th>{}{}{}<td>{}</td></tr>",
                        text_of(units["block"][at]), text_of(units["unit"][at]),
                        cell("tokens", Show::count), cell("loss_before", Show::number),
                        cell("loss_after", Show::number), text_of(units["fallback"].value(i, "")));
  }
  return section(
      "units", "Units with the largest error",
      "Squared error of a unit's output on its calibration tokens, relative to the "
      "float output: by plain rounding, and as chosen.",
      "<div class=\"scroll\"><table><thead><tr><th>unit</th><th class=\"n\">tokens</th>"
      "<th class=\"n\">before</th><th class=\"n\">after</th><th></th></tr></thead><tbody>" +
          rows + "</tbody></table></div>");
}

/// A name that lines break after its dots.
std::string breakable(const Json& name) {
  std::string html;
  for (const char c : text_of(name)) {
    html += c;
    html += c == '.' ? "<wbr>" : "";
  }
  return html;
}

std::string weight_card(const Json& data, size_t index) {
  const Json& weight = data["worst_weights"][index];
  const std::string pointer = fmt::format("/worst_weights/{}/", index);
  return fmt::format(
      "<div class=\"card\"><h3>{}</h3><p>{} bits, error {}</p>"
      "<div "
      "class=\"pair\"><div>{}<small><span>−1.25</span><span>weights</span><span>1.25</span></"
      "small></div>"
      "<div>{}<small><span>least</span><span>codes</span><span>most</span></small></div></div></"
      "div>",
      breakable(weight["name"]), value_html(data, pointer + "bits", Show::count),
      value_html(data, pointer + "relative_error", Show::number),
      histogram(weight["weight_histogram"], "histogram of the weights"),
      histogram(weight["code_histogram"], "histogram of the codes"));
}

std::string worst_weights(const Json& data) {
  if (data["worst_weights"].empty()) {
    return "";
  }
  std::string cards;
  for (size_t i = 0; i < data["worst_weights"].size(); ++i) {
    cards += weight_card(data, i);
  }
  return section("weights", "Weights with the largest error",
                 "Error: squared difference to the integers times their scales, relative to the "
                 "weight. Weights are shown in units of the largest code of their channel; "
                 "bars beyond ±1 are clipped weights.",
                 "<div class=\"cards\">" + cards + "</div>");
}

// --- sizes, times, recipe, environment ---

/// Names and values side by side; a name without a value is left out.
std::string pairs(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string html = "<dl>";
  for (const auto& [name, value] : rows) {
    html += value.empty() || value == "–" ? "" : fmt::format("<dt>{}</dt><dd>{}</dd>", name, value);
  }
  return html + "</dl>";
}

std::string sizes(const Json& data) {
  const auto value = [&](const char* key, Show how) {
    return value_html(data, std::string("/sizes/") + key, how);
  };
  const std::string weights =
      table(data, "/bits", "bits", "bits",
            {{"weights", "weights", Show::count}, {"mean error", "relative_error", Show::number}});
  return section("sizes", "Sizes",
                 data["sizes"].empty() ? "Bytes are known when the run has ended."
                                       : "Bytes of the folders and of the process.",
                 pairs({{"source checkpoint", value("checkpoint_bytes", Show::bytes)},
                        {"quantized checkpoint", value("output_bytes", Show::bytes)},
                        {"quantized / source", value("output_share", Show::percent)},
                        {"all weights in BF16", value("bf16_bytes", Show::bytes)},
                        {"quantized / BF16", value("bf16_share", Show::percent)},
                        {"read from the source", value("bytes_read", Show::bytes)},
                        {"read / source", value("read_share", Show::percent)},
                        {"peak memory", value("peak_rss_bytes", Show::bytes)}}) +
                     (data["bits"].empty() ? "" : weights));
}

std::string times(const Json& data) {
  return section(
      "times", "Times", "Seconds of this run by what they went to.",
      pairs({{"whole run", value_html(data, "/times/total", Show::seconds)},
             {"finished blocks", value_html(data, "/times/blocks", Show::seconds)},
             {"units", value_html(data, "/times/units", Show::seconds)}}) +
          table(data, "/times/parts", "what", "what",
                {{"how many", "count", Show::count}, {"time", "seconds", Show::seconds}}));
}

using Rows = std::vector<std::pair<std::string, std::string>>;

/// Adds every member of an object as name and value.
void add_members(const Json& object, std::initializer_list<const char*> hidden, Rows& rows) {
  for (const auto& [key, value] : object.items()) {
    bool shown = !value.is_null();
    for (const char* name : hidden) {
      shown = shown && key != name;
    }
    if (shown) {
      rows.emplace_back(escape_html(key), text_of(value));
    }
  }
}

std::string members(const Json& object) {
  Rows rows;
  add_members(object, {}, rows);
  return pairs(rows);
}

std::string recipe(const Json& data) {
  const Json& run = data["run"];
  const Json recipe = run.value("recipe", data["result"].value("recipe", Json::object()));
  const Json linears = recipe.is_object() ? recipe.value("linears", Json::array()) : Json::array();
  const Json cache = recipe.is_object() ? recipe.value("cache", Json::object()) : Json::object();
  std::string rules;
  for (const Json& rule : linears) {
    rules += "<li>" + members(rule) + "</li>";
  }
  return section("recipe", "Recipe", "Rules for linears, of which later ones win; cache points.",
                 "<ol class=\"rules\">" + rules + "</ol>" +
                     (cache.is_object() ? members(cache) : "") +
                     "<details><summary>As JSON</summary><pre>" +
                     escape_html(recipe.dump(2, ' ', false, Json::error_handler_t::replace)) +
                     "</pre></details>");
}

std::string environment(const Json& data) {
  const Json& result = data["result"];
  Rows rows;
  add_members(result,
              {"recipe", "environment", "seconds", "peak_rss_bytes", "bytes_read", "bytes_written",
               "checkpoint_bytes", "output_bytes", "parameters"},
              rows);
  add_members(data["run"], {"recipe", result.contains("model") ? "model" : ""}, rows);
  add_members(result.value("environment", Json::object()), {"dtype"}, rows);
  return section("environment", "Run and environment", "From result.json and run.json.",
                 pairs(rows));
}

}  // namespace

std::string render_page(const Json& data) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{} – quantization "
      "report</title>\n"
      "<style>\n{}</style>\n</head>\n<body>\n<main>\n{}{}{}{}{}<div "
      "class=\"columns\">{}{}</div>{}{}"
      "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n<script>\n{}</script>\n"
      "</body>\n</html>\n",
      text_of(data["title"]), page_css(), head(data), blocks(data), experts(data),
      worst_units(data), worst_weights(data), sizes(data), times(data), recipe(data),
      environment(data), embed_json(data), page_js());
}

}  // namespace blockptq
