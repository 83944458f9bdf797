// The table of algorithms.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "quant/algorithms/algorithm.h"

namespace blockptq {

/// The algorithm `name` with its options, the members of the object `options`; a missing one has
/// the default of the algorithm's header. Error for an unknown name, an unknown option (both name
/// what is known) or a value out of range. products: the type that large products may be computed
/// in (product.h).
Algorithm make_algorithm(std::string_view name, const JsonView& options,
                         at::ScalarType products = at::kFloat);

/// Whether the algorithm `name` reads the cross sums of its statistics.
bool uses_cross_sums(std::string_view name);

/// The names that make_algorithm() knows, "a, b, c".
std::string algorithm_names();

}  // namespace blockptq
