"""The fixed probe set: token-id prompts and the token ids that each decode step is forced to take.

Everything is seeded from the probe's name and the vocabulary size, so that no cell waits for
another's output and every cell of a model sees the same inputs (teacher forcing).
"""

import random
from dataclasses import dataclass

# Without a sliding window nothing special happens at any length; this one only spreads lengths.
_DEFAULT_WINDOW = 32


@dataclass(frozen=True)
class ProbeRequest:
    """One request: a prompt and the ids forced during decode, in order."""

    name: str
    prompt: tuple[int, ...]
    forced: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """Requests handed to the engine together: one request, or one batch."""

    name: str
    requests: tuple[ProbeRequest, ...]


# Tokens forced after each prompt.
_DECODE = 6


def longest_probe(sliding_window: int | None) -> int:
    """Return the context, in tokens, that the longest probe needs: well past the window."""
    return 2 * (sliding_window or _DEFAULT_WINDOW) + 7 + _DECODE


def _request(name: str, length: int, decode: int, vocab_size: int) -> ProbeRequest:
    draw = random.Random(f"{name}/{length}/{decode}/{vocab_size}")  # noqa: S311 - reproducible, not secret
    ids = tuple(draw.randrange(vocab_size) for _ in range(length + decode))
    return ProbeRequest(name, ids[:length], ids[length:])


def parity_probes(
    vocab_size: int, sliding_window: int | None, max_model_len: int
) -> tuple[Probe, ...]:
    """Return the probes of the parity profile.

    Lengths are in tokens and cross the boundaries where bugs hide: one token, a few, the sliding
    window minus one, the window, the window plus one, well past it; then a batch of unequal
    prompts.
    A prompt and its decode steps always fit into `max_model_len`.

    Raises:
        ValueError: if `max_model_len` leaves no room for the shortest probe.
    """
    window = sliding_window or _DEFAULT_WINDOW
    room = max_model_len - _DECODE
    if room < 1:
        raise ValueError(f"max_model_len {max_model_len} leaves no room for a probe")
    lengths = {
        "one": 1,
        "few": 5,
        "window-1": window - 1,
        "window": window,
        "window+1": window + 1,
        "long": longest_probe(window) - _DECODE,
    }
    single = [
        Probe(name, (_request(name, min(max(length, 1), room), _DECODE, vocab_size),))
        for name, length in lengths.items()
    ]
    batch = tuple(
        _request(f"batch/{index}", min(length, room), _DECODE, vocab_size)
        for index, length in enumerate((2, 11, window + 5, 3))
    )
    return (*single, Probe("batch", batch))
