#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/fp8_block.h"

namespace blockptq::kernels {
namespace {

__device__ void store(float value, float* out) {
  *out = value;
}
__device__ void store(float value, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(value);
}
__device__ void store(float value, __half* out) {
  *out = __float2half_rn(value);
}

/// One thread per column; blockIdx.y strides over the rows.
template <typename Element>
__global__ void decode(Fp8BlockMatrix matrix, int64_t row_begin, int64_t row_end, Element* out,
                       int32_t* nan_found) {
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= matrix.cols) {
    return;
  }
  const int64_t blocks_per_row = (matrix.cols + matrix.block_cols - 1) / matrix.block_cols;
  const float* scales_of_col = matrix.scales + col / matrix.block_cols;
  for (int64_t row = row_begin + blockIdx.y; row < row_end; row += gridDim.y) {
    const uint8_t code = matrix.codes[row * matrix.cols + col];
    if ((code & 0x7f) == 0x7f) {
      *nan_found = 1;  // every writer writes the same
    }
    const float value = __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
    const float scale = scales_of_col[(row / matrix.block_rows) * blocks_per_row];
    store(value * scale, out + (row - row_begin) * matrix.cols + col);
  }
}

template <typename Element>
void launch(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end, void* out,
            int32_t* nan_found, cudaStream_t stream) {
  constexpr int64_t kThreads = 256;
  constexpr int64_t kMaxGridY = 65535;
  const dim3 grid(static_cast<unsigned>((matrix.cols + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min(row_end - row_begin, kMaxGridY)));
  decode<<<grid, kThreads, 0, stream>>>(matrix, row_begin, row_end, static_cast<Element*>(out),
                                        nan_found);
}

}  // namespace

int decode_fp8_block_cuda(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                          FloatType type, void* out, int32_t* nan_found, void* stream) {
  if (row_begin >= row_end || matrix.cols == 0) {
    return cudaSuccess;  // an empty grid would be an error
  }
  auto* const queue = static_cast<cudaStream_t>(stream);
  switch (type) {
    case FloatType::f32:
      launch<float>(matrix, row_begin, row_end, out, nan_found, queue);
      break;
    case FloatType::bf16:
      launch<__nv_bfloat16>(matrix, row_begin, row_end, out, nan_found, queue);
      break;
    case FloatType::f16:
      launch<__half>(matrix, row_begin, row_end, out, nan_found, queue);
      break;
  }
  return cudaGetLastError();
}

}  // namespace blockptq::kernels
