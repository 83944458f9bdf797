#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/int_linear_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {
namespace {

/// VPMADDWD on codes as int16: the products of bytes of this level saturate.
struct WideDots {
  using Vector = Avx2;
  using Sums = __m256i;
  static constexpr int64_t kDepth = 2;
  static constexpr int64_t kVectors = 2;
  static constexpr int64_t kRows = 6;

  template <int bits>
  static __m256i load_codes(const uint8_t* at) {
    if constexpr (bits == 4) {
      const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
      const __m128i words = _mm_cvtepu8_epi16(pairs);
      const __m128i spread = _mm_or_si128(words, _mm_slli_epi16(words, 4));
      const __m128i codes = _mm_and_si128(spread, _mm_set1_epi8(15));
      return _mm256_cvtepi8_epi16(_mm_sub_epi8(codes, _mm_set1_epi8(8)));
    } else {
      return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    }
  }

  /// Of 8 x 8 pairs of codes.
  static void transpose(__m256i (&rows)[8]) {
    __m256i pairs[8];
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    __m256i fours[8];  // [4 q + j]: column 4 L + j of rows 4 q... in half L
    for (int i = 0; i < 8; i += 4) {
      fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
      fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
      fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
      fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int j = 0; j < 4; ++j) {
      rows[j] = _mm256_permute2x128_si256(fours[j], fours[4 + j], 0x20);
      rows[4 + j] = _mm256_permute2x128_si256(fours[j], fours[4 + j], 0x31);
    }
  }

  static __m256i broadcast_codes(const int8_t* at) {
    int16_t two = 0;
    std::memcpy(&two, at, sizeof two);
    return _mm256_cvtepi8_epi16(_mm_set1_epi16(two));
  }
  static Sums add_products(Sums sums, __m256i weights, __m256i codes) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(weights, codes));
  }
  static __m256 scaled(Sums sums, int32_t /*excess*/, double token, const double* outputs) {
    return _mm256_set_m128(scaled_half(_mm256_extracti128_si256(sums, 1), token, outputs + 4),
                           scaled_half(_mm256_castsi256_si128(sums), token, outputs));
  }

  /// The codes of a panel have no bias.
  static void find_excess(const int8_t* /*codes*/, int64_t tokens, int64_t /*inputs*/, int /*bits*/,
                          int32_t* excess) {
    std::memset(excess, 0, 4 * tokens);
  }

 private:
  static __m128 scaled_half(__m128i sums, double token, const double* outputs) {
    const __m256d scales = _mm256_mul_pd(_mm256_set1_pd(token), _mm256_loadu_pd(outputs));
    return _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(sums), scales));
  }
};

}  // namespace

void int_linear_avx2(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                     FloatType type, void* out, void* scratch) {
  int_linear_vectors<WideDots>(x, w, begin, end, type, out, scratch);
}

}  // namespace blockptq::kernels

#endif
