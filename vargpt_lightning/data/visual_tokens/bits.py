"""Bits in the words of 16 that codes are kept in.

Legend: V variants, L visual tokens, D bits of a token, W words of a token.
"""

from __future__ import annotations

import numpy as np

WORD = 16


def words_of(bits: int | None) -> int:
    """Return W, how many words a token takes: one for an index (bits None), else as many as its bits need."""
    return 1 if bits is None else -(-bits // WORD)


def packed(bits_VLD: np.ndarray) -> np.ndarray:
    """Return bits, 0 and 1, as words (V, L * W), uint16; bit 0 of a token is the lowest of its first word."""
    count, tokens, bits = bits_VLD.shape
    bytes_VLb = np.packbits(bits_VLD.astype(bool), axis=-1, bitorder="little")
    wide_VLb = np.zeros((count, tokens, 2 * words_of(bits)), np.uint8)
    wide_VLb[..., : bytes_VLb.shape[-1]] = bytes_VLb
    return wide_VLb.reshape(count, -1).view("<u2").astype(np.uint16)


def unpacked(words_VW: np.ndarray, bits: int) -> np.ndarray:
    """Return the bits (V, L, D), uint8, of words (V, L * W)."""
    count, tokens = len(words_VW), words_VW.shape[1] // words_of(bits)
    bytes_VLb = words_VW.astype("<u2").view(np.uint8).reshape(count, tokens, 2 * words_of(bits))
    return np.unpackbits(bytes_VLb, axis=-1, count=bits, bitorder="little")
