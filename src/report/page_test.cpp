#include "report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "report/charts.h"
#include "report/html.h"
#include "report/page_data.h"
#include "report/test_support.h"

namespace blockptq {
namespace {

using test::block_line;
using test::finished_run;
using test::good_lines;
using test::unit_line;
using testing::HasSubstr;
using testing::Not;

/// How often `word` is in `text`.
size_t count(const std::string& text, const std::string& word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    ++found;
  }
  return found;
}

Json weight(const std::string& name, double error) {
  return {{"name", name},
          {"bits", 4},
          {"relative_error", error},
          {"weight_histogram", std::vector<int64_t>(32, 2)},
          {"code_histogram", std::vector<int64_t>(16, 4)}};
}

TEST(Html, EscapesText) {
  EXPECT_EQ(escape_html("a<b>&\"c\"'d'"), "a&lt;b&gt;&amp;&quot;c&quot;&#39;d&#39;");
}

TEST(Html, EmbeddedJsonCannotEndItsElement) {
  const Json json{{"</script><script>alert(1)</script>", "<!-- \x80"}};
  const std::string text = embed_json(json);
  EXPECT_THAT(text, Not(HasSubstr("<")));
  EXPECT_EQ(Json::parse(text).begin().key(), "</script><script>alert(1)</script>");
}

TEST(Html, ValuesCarryTheirPlaceAndTheExactNumber) {
  const Json data{{"a", {{"b", 0.12345678}}}, {"nan", nullptr}};
  EXPECT_EQ(value_html(data, "/a/b", Show::number),
            R"(<data data-path="/a/b" value="0.12345678">0.1235</data>)");
  EXPECT_EQ(value_html(data, "/nan", Show::number),
            R"(<data data-path="/nan" value="null">NaN</data>)");
  EXPECT_EQ(value_html(data, "/a/c", Show::number), "–");
}

TEST(PageData, TotalsByHand) {
  const Json data = page_data(finished_run(good_lines()), "run");
  EXPECT_EQ(data["title"], "a");
  EXPECT_EQ(data["totals"]["units"], 5);
  EXPECT_EQ(data["totals"]["experts"], 2);
  EXPECT_EQ(data["totals"]["tokens_min"], 24);
  EXPECT_EQ(data["totals"]["tokens_max"], 40);
  EXPECT_NEAR(data["totals"]["loss_ratio"].get<double>(), 0.125 / 0.28, 1e-12);
  EXPECT_EQ(data["worst_units"], Json({3, 1, 4, 0, 2}));
  EXPECT_EQ(data["blocks"][1]["relative_error"], 0.004);
  EXPECT_NEAR(data["held_out"]["ppl_change"].get<double>(), 0.25, 1e-12);
  EXPECT_EQ(data["times"]["parts"].back()["seconds"], 4.0 - 5 * 0.5);
}

TEST(PageData, WorstWeightsFirst) {
  std::vector<Json> lines = good_lines();
  lines[0]["weights"] = Json::array({weight("small", 0.1), weight("broken", 0.0)});
  lines[0]["weights"][1]["relative_error"] = nullptr;
  lines[3]["weights"] = Json::array({weight("large", 0.2)});
  const Json data = page_data(finished_run(lines), "run");
  ASSERT_EQ(data["worst_weights"].size(), 3);
  EXPECT_EQ(data["worst_weights"][0]["name"], "broken");
  EXPECT_EQ(data["worst_weights"][1]["name"], "large");
  EXPECT_EQ(data["worst_weights"][2]["name"], "small");
}

TEST(Page, WorksWithMissingParts) {
  const Json recipe{{"recipe", {{"linears", {{{"role", "expert.*"}, {"weight_bits", 4}}}}}}};
  const std::vector<RunData> runs{
      parse_run(Json::object(), {}, Json()),
      parse_run(recipe, {unit_line(0, "attention", 0, 0, 0)}, Json()),
      parse_run(recipe, {block_line(0, 0.0)}, Json()),
      parse_run(recipe, {block_line(0, 0.5)}, Json()),
      parse_run(recipe, {unit_line(3, "expert 7", 2, 1, 0.5)}, Json::object()),
      finished_run(good_lines()),
  };
  for (const RunData& run : runs) {
    const std::string page = render_page(page_data(run, "name"));
    EXPECT_THAT(page, HasSubstr("</html>"));
    EXPECT_EQ(count(page, "<section"), count(page, "</section>"));
    EXPECT_EQ(count(page, "<svg"), count(page, "</svg>"));
    EXPECT_THAT(page, Not(HasSubstr("nan")));
    EXPECT_THAT(page, Not(HasSubstr("inf\"")));
  }
}

TEST(Page, NothingOfARunIsMarkup) {
  const std::string evil = "<img src=x onerror=alert(1)>\"'&";
  Json unit = unit_line(0, evil, 4, 1, 0.5);
  unit["fallback"] = evil;
  unit["weights"] = Json::array({weight(evil, 0.5)});
  const Json description{{evil, evil},
                         {"recipe", {{"linears", {{{evil, evil}}}}, {"cache", {{evil, evil}}}}}};
  const Json result{{"model", evil}, {evil, evil}, {"environment", {{evil, evil}}}};
  const std::string page = render_page(page_data(parse_run(description, {unit}, result), evil));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  EXPECT_THAT(page, HasSubstr("&lt;img"));
}

TEST(Page, HeatMapsOfALargeModelStaySmall) {
  std::vector<Json> lines;
  for (int block = 3; block < 61; ++block) {
    for (int expert = 0; expert < 256; ++expert) {
      const double after = 0.01 * (1 + (block * 31 + expert * 17) % 97);
      lines.push_back(unit_line(block, "expert " + std::to_string(expert), 1 + expert, 1, after));
    }
  }
  const Json data = page_data(parse_run({}, lines, Json()), "large");
  EXPECT_LT(heat_maps(data).size(), 500'000);
  EXPECT_LT(count(heat_maps(data), "<path"), 40);
}

TEST(Page, MarksCellsByTheirState) {
  const std::string maps = heat_maps(
      page_data(parse_run({},
                          {unit_line(0, "expert 0", 0, 0, 0), unit_line(0, "expert 1", 8, 0.5, 0.5),
                           unit_line(0, "expert 2", 8, 0.5, 0.25)},
                          Json()),
                "run"));
  EXPECT_THAT(maps, HasSubstr(R"(<path class="mark8" d="M0 0.5h1"/>)"));  // no token
  EXPECT_THAT(maps, HasSubstr(R"(<path class="mark8" d="M1 0.5h1"/>)"));  // not better
}

}  // namespace
}  // namespace blockptq
