// Precompiled for every translation unit of the library that uses torch.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>
