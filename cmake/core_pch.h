// Precompiled for the part of the library without torch.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>
