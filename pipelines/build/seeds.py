"""Random generators that depend on names alone, never on order or on the number of workers."""

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator for the named thing."""
    return np.random.default_rng([seed, digest(*names)])


def digest(*names: str | int) -> int:
    """A stable 64-bit number for names."""
    text = "\x1f".join(map(str, names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
