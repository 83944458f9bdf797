// AVX-512 vectors of 16 fp32 lanes, in the shape that the kernels of this folder are written
// against (avx2.h has the same members). Only for files named *_avx512.cpp. Addresses need no
// alignment.
#pragma once

// GCC 12 takes the deliberately undefined operands inside its own intrinsics for a mistake (GCC bug
// 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

struct Avx512 {
  static constexpr int64_t kLanes = 16;
  static constexpr int64_t kBytes = 64;
  using Floats = __m512;
  using Bytes = __m512i;

  static Floats broadcast(float value) { return _mm512_set1_ps(value); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  /// a * b + c
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  /// c - a * b
  static Floats subtract_product(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
  /// The larger; `b` where one is NaN.
  static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  /// The smaller; `b` where one is NaN.
  static Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  /// Without the sign.
  static Floats magnitude(Floats a) { return _mm512_abs_ps(a); }
  /// The larger of two magnitudes; NaN is larger than infinity.
  static Floats max_magnitude(Floats a, Floats b) {
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
  /// value, negated where the sign bit of `sign` is set
  static Floats with_sign_of(Floats value, Floats sign) {
    return _mm512_xor_ps(value, _mm512_and_ps(sign, _mm512_set1_ps(-0.0F)));
  }
  /// NaN is not less.
  static bool any_not_less(Floats a, Floats b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ) != 0;
  }
  static Floats round(Floats a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// a * 2^n for integers n in [-126, 127]
  static Floats scale_by_power(Floats a, Floats n) { return _mm512_scalef_ps(a, n); }
  /// value, or 0 where a < b
  static Floats zero_if_less(Floats a, Floats b, Floats value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), value);
  }
  /// value, or `otherwise` where the byte at at[lane] is 0
  static Floats where_nonzero(const uint8_t* at, Floats value, Floats otherwise) {
    const __m128i lanes = load_16_bytes(at);
    return _mm512_mask_mov_ps(otherwise, _mm_test_epi8_mask(lanes, lanes), value);
  }
  static float max_of_lanes(Floats a) { return _mm512_reduce_max_ps(a); }
  static float max_magnitude_of_lanes(Floats a) {
    return _mm_cvtss_f32(
        _mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_castps_si512(a)))));
  }
  static double sum_of_lanes(Floats a) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
  }

  template <FloatType type>
  static Floats load(const uint8_t* at) {
    if constexpr (type == FloatType::f32) {
      return _mm512_loadu_ps(at);
    } else {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
      if constexpr (type == FloatType::f16) {
        return _mm512_cvtph_ps(bits);
      } else {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      }
    }
  }
  /// kLanes pairs: the first elements to `a`, the second ones to `b`.
  template <FloatType type>
  static void load_pairs(const uint8_t* at, Floats& a, Floats& b) {
    if constexpr (type == FloatType::bf16) {
      const __m512i pairs = load_bytes(at);
      a = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
      b = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)));
    } else {
      const __m512i even = _mm512_slli_epi32(
          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 1);
      const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
      const Floats low = load<type>(at);
      const Floats high = load<type>(at + kLanes * element_size(type));
      a = _mm512_permutex2var_ps(low, even, high);
      b = _mm512_permutex2var_ps(low, odd, high);
    }
  }
  /// Rounds half to even; a NaN is kept where `may_be_nan` allows for one.
  template <FloatType type, bool may_be_nan = true>
  static void store(Floats value, uint8_t* at) {
    if constexpr (type == FloatType::f32) {
      _mm512_storeu_ps(at, value);
    } else if constexpr (type == FloatType::f16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at),
                          _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at),
                          upper_words(rounded_to_bf16<may_be_nan>(value)));
    }
  }

  /// The way back from load_pairs, for bf16.
  template <bool may_be_nan = true>
  static void store_bf16_pairs(Floats a, Floats b, uint8_t* at) {
    const __m512i first = _mm512_srli_epi32(rounded_to_bf16<may_be_nan>(a), 16);
    store_bytes(_mm512_mask_blend_epi16(0xaaaaaaaaU, first, rounded_to_bf16<may_be_nan>(b)), at);
  }
  /// Integers beyond int8 saturate.
  static void store_int8(Floats integers, uint8_t* at) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                     _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(integers)));
  }
  static Floats load_int8(const uint8_t* at) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16_bytes(at)));
  }
  /// E4M3 codes; NaN codes give a wrong finite value.
  static Floats load_e4m3(const uint8_t* at) {
    // The code's exponent and mantissa are the upper ones of an f16 whose value is 2^8 too small.
    const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load_16_bytes(at)), 7);
    const __m256i half = _mm256_and_si256(shifted, _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0F));
  }

  static Bytes load_bytes(const uint8_t* at) { return _mm512_loadu_si512(at); }
  /// kBytes / 2 bytes to one byte per 4 bits, the lower ones first.
  static Bytes load_nibbles(const uint8_t* at) {
    const __m512i pairs =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
    const __m512i spread = _mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4));
    return _mm512_and_si512(spread, _mm512_set1_epi8(15));
  }
  static void store_bytes(Bytes value, uint8_t* at) { _mm512_storeu_si512(at, value); }
  static Bytes broadcast_byte(uint8_t value) {
    return _mm512_set1_epi8(static_cast<int8_t>(value));
  }
  static Bytes subtract_bytes(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }
  static Bytes bitwise_and(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
  static Bytes max_bytes(Bytes a, Bytes b) { return _mm512_max_epu8(a, b); }
  static bool any_equal(Bytes a, Bytes b) { return _mm512_cmpeq_epi8_mask(a, b) != 0; }

 private:
  static __m128i load_16_bytes(const uint8_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  }
  /// bf16 in the upper 16 bits of every lane; the lower ones are left over.
  template <bool may_be_nan>
  static __m512i rounded_to_bf16(Floats value) {
    const __m512i bits = _mm512_castps_si512(value);
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const __m512i below_half = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_mask_add_epi32(below_half, odd, below_half, _mm512_set1_epi32(1));
    if constexpr (may_be_nan) {
      const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
      rounded = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
    }
    return rounded;
  }
  /// The upper 16 bits of every lane.
  static __m256i upper_words(__m512i a) {
    const __m512i odd_words = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(
        _mm_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)));
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(odd_words, a));
  }
};

}  // namespace blockptq::kernels
