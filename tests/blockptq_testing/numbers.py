"""Number formats that NumPy lacks: BF16 as uint16 codes, FP8 E4M3 (the "fn" variant) as uint8 codes."""

from __future__ import annotations

import numpy as np

FP8_MAX = 448.0
FP8_NAN = 0x7F


def bf16_to_f32(codes: np.ndarray) -> np.ndarray:
    """Exact values of BF16 codes."""
    return (codes.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """BF16 codes of finite or infinite fp32 values, round half to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def _fp8_value(code: int) -> float:
    """The value of one E4M3 code: 4 exponent bits (bias 7), 3 mantissa bits, no infinities."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 15, code & 7
    if code & 0x7F == FP8_NAN:
        return float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1.0 + mantissa / 8.0) * 2.0 ** (exponent - 7)


FP8_TABLE = np.array([_fp8_value(code) for code in range(256)], dtype=np.float32)


def f32_to_fp8(values: np.ndarray) -> np.ndarray:
    """FP8 codes of fp32 values, round half to even, clamped to +-448."""
    grid = FP8_TABLE[:FP8_NAN].astype(np.float64)
    magnitude = np.minimum(np.abs(values, dtype=np.float64), FP8_MAX)
    upper = np.clip(np.searchsorted(grid, magnitude), 1, FP8_NAN - 1)
    below, above = magnitude - grid[upper - 1], grid[upper] - magnitude
    lower_wins = (below < above) | ((below == above) & (upper % 2 == 1))
    codes: np.ndarray = np.where(lower_wins, upper - 1, upper).astype(np.uint8)
    codes |= np.signbit(values).astype(np.uint8) << 7
    return codes


def decode_fp8_blocks(codes: np.ndarray, scales: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """fp32 weight [out, in] = code x scale of its block; the blocks at the edges may be partial."""
    rows, columns = codes.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    if scales.shape != grid:
        raise ValueError(f"scale grid {scales.shape} for a weight {codes.shape}, expected {grid}")
    spread = np.repeat(np.repeat(scales, block[0], axis=0), block[1], axis=1)[:rows, :columns]
    decoded: np.ndarray = FP8_TABLE[codes] * spread
    return decoded
