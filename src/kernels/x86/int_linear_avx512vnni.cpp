#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/int_linear_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {
namespace {

/// VPDPBUSD: products of four unsigned and four signed bytes. The weights are made unsigned by a
/// bias, which adds the bias times the sum of the token's codes to every sum.
struct Vnni {
  using Vector = Avx512;
  using Sums = __m512i;
  static constexpr int64_t kDepth = 4;
  static constexpr int64_t kVectors = 4;
  static constexpr int64_t kRows = 6;

  template <int bits>
  static __m512i load_codes(const uint8_t* at) {
    if constexpr (bits == 4) {
      return Avx512::load_nibbles(at);
    } else {
      return _mm512_xor_si512(Avx512::load_bytes(at), _mm512_set1_epi8(-128));
    }
  }

  /// Of 16 x 16 groups of four codes.
  static void transpose(__m512i (&rows)[16]) {
    __m512i pairs[16];
    for (int i = 0; i < 16; i += 2) {
      pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    __m512i fours[16];  // [4 q + j]: column 4 L + j of rows 4 q... in quarter L
    for (int i = 0; i < 16; i += 4) {
      fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
      fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
      fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
      fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int j = 0; j < 4; ++j) {
      const __m512i even_low = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0x88);
      const __m512i odd_low = _mm512_shuffle_i32x4(fours[j], fours[4 + j], 0xdd);
      const __m512i even_high = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0x88);
      const __m512i odd_high = _mm512_shuffle_i32x4(fours[8 + j], fours[12 + j], 0xdd);
      rows[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
      rows[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
      rows[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
      rows[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
  }

  static __m512i broadcast_codes(const int8_t* at) {
    int32_t four = 0;
    std::memcpy(&four, at, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Sums add_products(Sums sums, __m512i weights, __m512i codes) {
    return _mm512_dpbusd_epi32(sums, weights, codes);
  }
  static __m512 scaled(Sums sums, int32_t excess, double token, const double* outputs) {
    const __m512i exact = _mm512_sub_epi32(sums, _mm512_set1_epi32(excess));
    const __m256 low = scaled_half(_mm512_castsi512_si256(exact), token, outputs);
    const __m256 high = scaled_half(_mm512_extracti64x4_epi64(exact, 1), token, outputs + 8);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }

  static void find_excess(const int8_t* codes, int64_t tokens, int64_t inputs, int bits,
                          int32_t* excess) {
    const int shift = bits - 1;  // of the bias
    for (int64_t t = 0; t < tokens; ++t) {
      const int8_t* row = codes + t * inputs;
      __m512i sums = _mm512_setzero_si512();
      for (int64_t i = 0; i < inputs; i += 64) {
        const int64_t left = inputs - i;
        const __mmask64 there = left < 64 ? (uint64_t{1} << left) - 1 : ~uint64_t{0};
        sums =
            _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(there, row + i));
      }
      excess[t] =
          static_cast<int32_t>(static_cast<uint32_t>(_mm512_reduce_add_epi32(sums)) << shift);
    }
  }

 private:
  static __m256 scaled_half(__m256i sums, double token, const double* outputs) {
    const __m512d scales = _mm512_mul_pd(_mm512_set1_pd(token), _mm512_loadu_pd(outputs));
    return _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtepi32_pd(sums), scales));
  }
};

}  // namespace

void int_linear_avx512(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                       FloatType type, void* out, void* scratch) {
  int_linear_vectors<Vnni>(x, w, begin, end, type, out, scratch);
}

}  // namespace blockptq::kernels

#endif
