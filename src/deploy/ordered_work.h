// Items that are computed side by side and taken in order.
#pragma once

#include <cstdint>
#include <functional>

namespace blockptq {

/// Calls produce(item, slot) for every item of [0, count), on `threads` threads of one core each,
/// and take(item, slot) in the order of the items on the calling thread. The slot, of [0, slots),
/// is the item's from the one to the other. No thread waits for another but for a slot: unlike the
/// fork and join of at::parallel_for, which keeps the cores spinning while one thread takes. Throws
/// what either throws.
void produce_in_order(int64_t count, int threads, int64_t slots,
                      const std::function<void(int64_t item, int64_t slot)>& produce,
                      const std::function<void(int64_t item, int64_t slot)>& take);

}  // namespace blockptq
