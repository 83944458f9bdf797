// Ranks that are threads of one process, one for each of its devices.
#pragma once

#include <functional>
#include <memory>

#include "base/ranks.h"

namespace blockptq {

/// Runs `work` on `size` threads (the caller's is rank 0) and returns when all are done; throws
/// what the first of them to fail has thrown.
void run_ranks(int size, const std::function<void(Ranks& ranks)>& work);

}  // namespace blockptq
