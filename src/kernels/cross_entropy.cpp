#include "kernels/cross_entropy.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/reference/cross_entropy_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void accumulate_softmax(const void* logits, FloatType type, int64_t tokens, int64_t width,
                        int64_t stride, SoftmaxStats* stats) {
  BLOCKPTQ_CHOOSE(accumulate_softmax)(logits, type, tokens, width, stride, stats);
}

void merge_softmax(const SoftmaxStats& other, SoftmaxStats& stats) {
  if (other.max == stats.max) {  // both -infinity included, where the difference would be NaN
    stats.sum += other.sum;
  } else if (other.max > stats.max) {
    stats.sum = stats.sum * std::exp(static_cast<double>(stats.max) - other.max) + other.sum;
    stats.max = other.max;
  } else {
    stats.sum += other.sum * std::exp(static_cast<double>(other.max) - stats.max);
  }
}

}  // namespace blockptq::kernels
