// The x86 versions of the kernels; the headers in kernels/ say what they do.
//
// A kernel is a template over the vectors of an instruction set (x_impl.h over avx2.h or avx512.h)
// and one instance per instruction set (x_avx2.cpp, x_avx512.cpp). Those files may run on the
// chosen level only, so they call no inline function that other files call: the linker could keep
// their copy.
#pragma once

#include <cstdint>

#include "kernels/cross_entropy.h"
#include "kernels/descend_codes.h"
#include "kernels/fake_quantize_backward.h"
#include "kernels/fp8_block.h"
#include "kernels/int_linear.h"
#include "kernels/int_weights.h"
#include "kernels/masked_softmax.h"
#include "kernels/quantize_rows.h"
#include "kernels/rope.h"
#include "kernels/round_features.h"
#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void accumulate_softmax_avx2(const void* logits, FloatType type, int64_t tokens, int64_t width,
                             int64_t stride, SoftmaxStats* stats);
void accumulate_softmax_avx512(const void* logits, FloatType type, int64_t tokens, int64_t width,
                               int64_t stride, SoftmaxStats* stats);

void add_at_maxima_avx2(const void* in, FloatType type, const RowGroups& shape, const float* maxima,
                        const float* amounts, void* grad);
void add_at_maxima_avx512(const void* in, FloatType type, const RowGroups& shape,
                          const float* maxima, const float* amounts, void* grad);

void bounded_rows_backward_avx2(const void* in, FloatType type, int64_t rows, int64_t cols,
                                const float* scales, const RowBounds& bounds, const void* grad_out,
                                FloatType grad_type, const BoundedGradients& gradients);
void bounded_rows_backward_avx512(const void* in, FloatType type, int64_t rows, int64_t cols,
                                  const float* scales, const RowBounds& bounds,
                                  const void* grad_out, FloatType grad_type,
                                  const BoundedGradients& gradients);

void convert_avx2(const void* in, FloatType in_type, int64_t count, FloatType out_type, void* out);
void convert_avx512(const void* in, FloatType in_type, int64_t count, FloatType out_type,
                    void* out);

bool decode_fp8_block_avx2(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                           FloatType type, void* out);
bool decode_fp8_block_avx512(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                             FloatType type, void* out);

void decode_int_avx2(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                     void* out);
void decode_int_avx512(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                       void* out);

void descend_codes_avx2(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                        float* gradients, int8_t* codes);
void descend_codes_avx512(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                          float* gradients, int8_t* codes);

void fake_quantize_rows_avx2(const void* in, FloatType type, const RowGroups& shape, int bits,
                             const float* scales, const RowBounds& bounds, FloatType out_type,
                             void* out);
void fake_quantize_rows_avx512(const void* in, FloatType type, const RowGroups& shape, int bits,
                               const float* scales, const RowBounds& bounds, FloatType out_type,
                               void* out);

void fake_quantize_rows_backward_avx2(const void* in, FloatType type, const RowGroups& shape,
                                      int bits, const float* scales, const void* grad_out,
                                      FloatType grad_type, void* grad_in, float* grad_scales);
void fake_quantize_rows_backward_avx512(const void* in, FloatType type, const RowGroups& shape,
                                        int bits, const float* scales, const void* grad_out,
                                        FloatType grad_type, void* grad_in, float* grad_scales);

void group_absmax_avx2(const void* in, FloatType type, const RowGroups& shape, float* maxima);
void group_absmax_avx512(const void* in, FloatType type, const RowGroups& shape, float* maxima);

void hadamard_rows_avx2(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                        float* scratch);
void hadamard_rows_avx512(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                          float* scratch);

void index_scores_avx2(const float* dots, const float* weights, int64_t queries, int64_t heads,
                       int64_t keys, float* out, int64_t out_stride);
void index_scores_avx512(const float* dots, const float* weights, int64_t queries, int64_t heads,
                         int64_t keys, float* out, int64_t out_stride);

void int_linear_avx2(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                     FloatType type, void* out, void* scratch);
/// Needs AVX512_VNNI.
void int_linear_avx512(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                       FloatType type, void* out, void* scratch);

void masked_softmax_avx2(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                         int64_t keys, float scale, const Visibility& visible, FloatType out_type,
                         void* out, float* row);
void masked_softmax_avx512(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                           int64_t keys, float scale, const Visibility& visible, FloatType out_type,
                           void* out, float* row);

void quantize_rows_avx2(const void* in, FloatType type, const RowGroups& shape, int bits,
                        const float* scales, int8_t* codes);
void quantize_rows_avx512(const void* in, FloatType type, const RowGroups& shape, int bits,
                          const float* scales, int8_t* codes);

void rms_norm_avx2(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                   int64_t count, int64_t dim, const float* weight, double eps, void* out);
void rms_norm_avx512(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                     int64_t count, int64_t dim, const float* weight, double eps, void* out);

void rotate_avx2(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                 int64_t heads, int64_t dim, const float* cos, const float* sin, bool interleaved,
                 void* out, HeadStrides out_strides);
void rotate_avx512(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                   int64_t heads, int64_t dim, const float* cos, const float* sin, bool interleaved,
                   void* out, HeadStrides out_strides);

void round_features_avx2(const FeatureRounding& rounding, int64_t channel_begin,
                         int64_t channel_end);
void round_features_avx512(const FeatureRounding& rounding, int64_t channel_begin,
                           int64_t channel_end);

void row_range_avx2(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                    float* maxima);
void row_range_avx512(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                      float* maxima);

void scatter_add_rows_avx2(const void* in, FloatType type, const float* weights,
                           const int64_t* rows, int64_t count, int64_t dim, void* out);
void scatter_add_rows_avx512(const void* in, FloatType type, const float* weights,
                             const int64_t* rows, int64_t count, int64_t dim, void* out);

void swiglu_avx2(const void* gate, const void* up, FloatType type, int64_t count, void* out);
void swiglu_avx512(const void* gate, const void* up, FloatType type, int64_t count, void* out);

}  // namespace blockptq::kernels
