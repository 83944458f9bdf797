// Text, numbers and embedded JSON of an HTML page.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace blockptq {

/// `text` for elements and quoted attributes: & < > " ' as references.
std::string escape_html(std::string_view text);

/// JSON for the inside of a script element: no "<", so that nothing in it ends the element. Invalid
/// UTF-8 is replaced.
std::string embed_json(const Json& json);

/// How a number is shown.
enum class Show { number, count, percent, ratio, seconds, bytes };
/// Null (a NaN in JSON): "NaN".
std::string show(const Json& number, Show how);

/// The number at the JSON pointer of the page's data, with pointer and exact value in attributes:
///   <data data-path="/held_out/kl" value="0.0123">0.0123</data>
/// A dash when there is none.
std::string value_html(const Json& data, const std::string& pointer, Show how);

}  // namespace blockptq
