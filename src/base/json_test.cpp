#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_refusal.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;

std::string parse_refusal(std::string_view text) {
  return refusal([&] { parse_json(text, "dir/file.json"); });
}

TEST(JsonTest, ParsesWhatJsonAllows) {
  const Json json = parse_json(" {\"a\": [1, -2.5, null, true, \"\\u0041\"]} \n", "f");
  EXPECT_EQ(json["a"].size(), 5);
  EXPECT_EQ(json["a"][4], "A");
  EXPECT_EQ(parse_json("18446744073709551615", "f").get<uint64_t>(), ~uint64_t{0});
  // The same key in different objects is no duplicate.
  EXPECT_EQ(parse_json(R"({"a":{"x":1},"b":{"x":{"x":2}},"x":3})", "f")["x"], 3);
}

TEST(JsonTest, RefusesWhatTheLibraryWouldPass) {
  EXPECT_THAT(parse_refusal(R"({"a":1,"a":2})"), HasSubstr("dir/file.json: duplicate key \"a\""));
  EXPECT_THAT(parse_refusal(R"({"x":[{"a\n":1,"a\n":2}]})"), HasSubstr("duplicate key \"a\\n\""));
  EXPECT_THAT(parse_refusal(std::string(65, '[') + std::string(65, ']')),
              HasSubstr("nested deeper"));
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "f"));
  EXPECT_THAT(parse_refusal(std::string_view("{}\0", 3)), HasSubstr("byte 2: NUL"));
  EXPECT_THAT(parse_refusal(std::string_view("{}\0{", 4)), HasSubstr("NUL"));
  EXPECT_THAT(parse_refusal("1e999"), HasSubstr("not valid JSON"));
}

TEST(JsonTest, RefusesWhatIsNotJson) {
  for (const char* text :
       {"", " ", "{", "{}}", "[1,]", "nan", "'a'", "{\"a\":1,}", "01", "// x", "\"\xff\"",
        "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", R"("\ud800")", "\"a\nb\""}) {
    EXPECT_THAT(parse_refusal(text), HasSubstr("dir/file.json: not valid JSON at byte")) << text;
  }
}

TEST(JsonViewTest, TypedAccess) {
  const Json json =
      parse_json(R"({"s":"x","i":-3,"f":0.5,"b":true,"n":null,"l":[1,2],"o":{"k":7}})", "f");
  const JsonView view(json, "f");
  EXPECT_EQ(view.at("s").string(), "x");
  EXPECT_EQ(view.at("i").integer(), -3);
  EXPECT_EQ(view.at("f").number(), 0.5);
  EXPECT_EQ(view.at("i").number(), -3);
  EXPECT_TRUE(view.at("b").boolean());
  EXPECT_EQ(view.at("l").size(), 2);
  EXPECT_EQ(view.at("l").at(size_t{1}).integer(), 2);
  EXPECT_EQ(view.at("o").at("k").where(), "f: o.k");
  EXPECT_FALSE(view.find("n").has_value());
  EXPECT_FALSE(view.find("none").has_value());
  EXPECT_TRUE(view.contains("n"));
  EXPECT_EQ(view.integer_or("none", 5), 5);
  EXPECT_EQ(view.integer_or("i", 5), -3);
  EXPECT_EQ(view.number_or("none", 1.5), 1.5);
  EXPECT_EQ(view.string_or("n", "y"), "y");
  EXPECT_TRUE(view.boolean_or("none", true));
}

TEST(JsonViewTest, WrongTypesNameTheirPlace) {
  const Json json = parse_json(R"({"s":"x","i":-3,"u":18446744073709551615,"f":1.0,"l":[1]})", "f");
  const JsonView view(json, "f");
  EXPECT_EQ(refusal([&] { view.at("s").integer(); }), "f: s: expected an integer, found \"x\"");
  EXPECT_EQ(refusal([&] { view.at("f").integer(); }), "f: f: expected an integer, found 1.0");
  EXPECT_EQ(refusal([&] { view.at("i").integer(0); }), "f: i: expected an integer >= 0, found -3");
  EXPECT_EQ(refusal([&] { view.at("i").integer(0, 9); }),
            "f: i: expected an integer from 0 to 9, found -3");
  EXPECT_THAT(refusal([&] { view.at("u").integer(); }), HasSubstr("expected an integer"));
  EXPECT_THAT(refusal([&] { view.at("i").string(); }), HasSubstr("expected a string"));
  EXPECT_THAT(refusal([&] { view.at("i").boolean(); }), HasSubstr("expected true or false"));
  EXPECT_THAT(refusal([&] { view.at("s").number(); }), HasSubstr("expected a number"));
  EXPECT_THAT(refusal([&] { view.at("i").size(); }), HasSubstr("expected an array or object"));
  EXPECT_THAT(refusal([&] { view.at("s").at("k"); }), HasSubstr("f: s: expected an object"));
  EXPECT_THAT(refusal([&] { view.at("none"); }), HasSubstr("f: key 'none' is missing"));
  EXPECT_THAT(refusal([&] { view.at("l").at(size_t{1}); }),
              HasSubstr("f: l: expected at least 2 elements, found 1"));
}

}  // namespace
}  // namespace blockptq
