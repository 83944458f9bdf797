// AVX2 vectors of 8 fp32 lanes, in the shape that the kernels of this folder are written against
// (avx512.h has the same members). Only for files named *_avx2.cpp. Addresses need no alignment.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

struct Avx2 {
  static constexpr int64_t kLanes = 8;
  static constexpr int64_t kBytes = 32;
  using Floats = __m256;
  using Bytes = __m256i;

  static Floats broadcast(float value) { return _mm256_set1_ps(value); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  /// a * b + c
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  /// c - a * b
  static Floats subtract_product(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
  /// The larger; `b` where one is NaN.
  static Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
  /// The smaller; `b` where one is NaN.
  static Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
  /// Without the sign.
  static Floats magnitude(Floats a) {
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
  }
  /// The larger of two magnitudes; NaN is larger than infinity.
  static Floats max_magnitude(Floats a, Floats b) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }
  /// value, negated where the sign bit of `sign` is set
  static Floats with_sign_of(Floats value, Floats sign) {
    return _mm256_xor_ps(value, _mm256_and_ps(sign, _mm256_set1_ps(-0.0F)));
  }
  /// NaN is not less.
  static bool any_not_less(Floats a, Floats b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ)) != 0;
  }
  static Floats round(Floats a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// a * 2^n for integers n in [-126, 127]
  static Floats scale_by_power(Floats a, Floats n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  /// value, or 0 where a < b
  static Floats zero_if_less(Floats a, Floats b, Floats value) {
    return _mm256_andnot_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), value);
  }
  /// value, or `otherwise` where the byte at at[lane] is 0
  static Floats where_nonzero(const uint8_t* at, Floats value, Floats otherwise) {
    const __m256i lanes = _mm256_cvtepu8_epi32(load_8_bytes(at));
    const __m256i is_zero = _mm256_cmpeq_epi32(lanes, _mm256_setzero_si256());
    return _mm256_blendv_ps(value, otherwise, _mm256_castsi256_ps(is_zero));
  }
  static float max_of_lanes(Floats a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static float max_magnitude_of_lanes(Floats a) {
    const __m256i bits = _mm256_castps_si256(a);
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
  }
  static double sum_of_lanes(Floats a) {
    const __m256d pairs = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                                        _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }

  template <FloatType type>
  static Floats load(const uint8_t* at) {
    if constexpr (type == FloatType::f32) {
      return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
    } else {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      if constexpr (type == FloatType::f16) {
        return _mm256_cvtph_ps(bits);
      } else {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
      }
    }
  }
  /// kLanes pairs: the first elements to `a`, the second ones to `b`.
  template <FloatType type>
  static void load_pairs(const uint8_t* at, Floats& a, Floats& b) {
    if constexpr (type == FloatType::bf16) {
      const __m256i pairs = load_bytes(at);
      a = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      b = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000)));
    } else {
      const Floats low = load<type>(at);
      const Floats high = load<type>(at + kLanes * element_size(type));
      a = in_order(_mm256_shuffle_ps(low, high, 0x88));
      b = in_order(_mm256_shuffle_ps(low, high, 0xdd));
    }
  }
  /// Rounds half to even; a NaN is kept where `may_be_nan` allows for one.
  template <FloatType type, bool may_be_nan = true>
  static void store(Floats value, uint8_t* at) {
    if constexpr (type == FloatType::f32) {
      _mm256_storeu_ps(reinterpret_cast<float*>(at), value);
    } else if constexpr (type == FloatType::f16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                       _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                       upper_words(rounded_to_bf16<may_be_nan>(value)));
    }
  }

  /// The way back from load_pairs, for bf16.
  template <bool may_be_nan = true>
  static void store_bf16_pairs(Floats a, Floats b, uint8_t* at) {
    const __m256i first = _mm256_srli_epi32(rounded_to_bf16<may_be_nan>(a), 16);
    store_bytes(_mm256_blend_epi16(first, rounded_to_bf16<may_be_nan>(b), 0xaa), at);
  }
  /// Integers beyond int8 saturate.
  static void store_int8(Floats integers, uint8_t* at) {
    const __m256i wide = _mm256_cvtps_epi32(integers);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(at), _mm_packs_epi16(words, words));
  }
  static Floats load_int8(const uint8_t* at) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(at)));
  }
  /// E4M3 codes; NaN codes give a wrong finite value.
  static Floats load_e4m3(const uint8_t* at) {
    // The code's exponent and mantissa are the upper ones of an f16 whose value is 2^8 too small.
    const __m128i shifted = _mm_slli_epi16(_mm_cvtepi8_epi16(load_8_bytes(at)), 7);
    const __m128i half = _mm_and_si128(shifted, _mm_set1_epi16(static_cast<int16_t>(0xbf80)));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0F));
  }

  static Bytes load_bytes(const uint8_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  }
  /// kBytes / 2 bytes to one byte per 4 bits, the lower ones first.
  static Bytes load_nibbles(const uint8_t* at) {
    const __m256i pairs =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    const __m256i spread = _mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4));
    return _mm256_and_si256(spread, _mm256_set1_epi8(15));
  }
  static void store_bytes(Bytes value, uint8_t* at) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), value);
  }
  static Bytes broadcast_byte(uint8_t value) {
    return _mm256_set1_epi8(static_cast<int8_t>(value));
  }
  static Bytes subtract_bytes(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
  static Bytes bitwise_and(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
  static Bytes max_bytes(Bytes a, Bytes b) { return _mm256_max_epu8(a, b); }
  static bool any_equal(Bytes a, Bytes b) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)) != 0;
  }

 private:
  /// Exchanges the middle quarters.
  static Floats in_order(Floats a) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8));
  }
  static __m128i load_8_bytes(const uint8_t* at) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  }
  /// bf16 in the upper 16 bits of every lane; the lower ones are left over.
  template <bool may_be_nan>
  static __m256i rounded_to_bf16(Floats value) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    __m256i rounded = _mm256_add_epi32(bits, half);
    if constexpr (may_be_nan) {
      const __m256i quiet_nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
      const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
      rounded = _mm256_blendv_epi8(rounded, quiet_nan, is_nan);
    }
    return rounded;
  }
  /// The upper 16 bits of every lane.
  static __m128i upper_words(__m256i a) {
    const __m256i to_low_half = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, 3, 6, 7, 10, 11, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m256i halves = _mm256_shuffle_epi8(a, to_low_half);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 0x08));
  }
};

}  // namespace blockptq::kernels
