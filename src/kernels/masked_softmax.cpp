#include "kernels/masked_softmax.h"

#include <vector>

#include "kernels/dispatch.h"
#include "kernels/reference/masked_softmax_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void masked_softmax(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                    int64_t keys, float scale, const Visibility& visible, FloatType out_type,
                    void* out) {
  std::vector<float> row(static_cast<size_t>(keys + 15) / 16 * 16);
  const auto kernel = BLOCKPTQ_CHOOSE(masked_softmax);
  kernel(scores, in_type, heads, queries, keys, scale, visible, out_type, out, row.data());
}

}  // namespace blockptq::kernels
