"""The fixed probe sets: token-id prompts and the token ids that each decode step is forced to take.

Everything is seeded from the probe's name and the vocabulary size, so that no cell waits for
another's output and every cell of a model sees the same inputs (teacher forcing).
"""

import random
from dataclasses import dataclass, replace

from .settings import EngineSettings

# Without a sliding window nothing special happens at any length; this one only spreads lengths.
_DEFAULT_WINDOW = 32
# Tokens forced after a prompt: the first comes from the prefill, each other takes a decode step.
_DECODE = 4
# The names of the second pass begin so; no probe's own name does.
AGAIN = "again:"


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


# Prompt and decode steps of the sensitivity probe, in tokens: short, because it runs often, and
# less than a block, so that no prefix cache holds it.
_SENSITIVITY_PROMPT, _SENSITIVITY_DECODE = 15, 2


def longest_probe(sliding_window: int | None) -> int:
    """Return the context, in tokens, that the longest probe needs: well past the window."""
    return 2 * (sliding_window or _DEFAULT_WINDOW) + 7 + _DECODE


def chunk_tokens(max_model_len: int) -> int:
    """Return the token budget of a step in the stress profile, which cuts longer prompts."""
    return max(32, max_model_len // 8)


def _request(name: str, length: int, decode: int, vocab_size: int) -> ProbeRequest:
    draw = random.Random(f"{name}/{length}/{decode}/{vocab_size}")  # noqa: S311 - reproducible, not secret
    ids = tuple(draw.randrange(vocab_size) for _ in range(length + decode))
    return ProbeRequest(name, ids[:length], ids[length:])


def probe_set(
    profile: str, vocab_size: int, sliding_window: int | None, max_model_len: int
) -> tuple[Probe, ...]:
    """Return the probes of a profile, `parity` or `stress`.

    Lengths are in tokens and cross the boundaries where bugs hide: 1 to 5, the sliding window and
    one to either side, past a chunk of a prompt by one, well past the window, and all that the
    context holds. *parity* runs each of them alone, and then batches of 2 to 8 unequal prompts.
    The requests of such a batch end together: when one ends before the others, vLLM puts the rest
    into another order at PP=N than at PP=1, and rows in another order are not bit-identical.
    *stress* has all in flight at once, among them requests that end one after another, and then
    prompts that begin as earlier ones did.
    A prompt and its decode steps always fit into `max_model_len`.

    Raises:
        ValueError: if `max_model_len` leaves no room for the shortest probe.
    """
    window = sliding_window or _DEFAULT_WINDOW
    if max_model_len <= _DECODE:
        raise ValueError(f"max_model_len {max_model_len} leaves no room for a probe")

    def request(name: str, length: int, decode: int = _DECODE) -> ProbeRequest:
        decode = min(decode, max_model_len - 1)
        fitting = min(max(length, 1), max_model_len - decode)
        return _request(name, fitting, decode, vocab_size)

    lengths = {
        "one": 1,
        "two": 2,
        "three": 3,
        "four": 4,
        "five": 5,
        "window-1": window - 1,
        "window": window,
        "window+1": window + 1,
        "chunk+1": chunk_tokens(max_model_len) + 1,
        "long": longest_probe(window) - _DECODE,
        "full": max_model_len,
    }
    singles = tuple(request(name, length) for name, length in lengths.items())
    if profile == "parity":
        batches = tuple(
            Probe(
                f"batch-{size}",
                tuple(
                    request(f"batch-{size}/{index}", length, decode=2)
                    for index, length in enumerate((2, 11, window + 5, 3, 1, 7, 5, 4)[:size])
                ),
            )
            for size in range(2, 9)
        )
        return (*(Probe(one.name, (one,)) for one in singles), *batches)
    shrinking = tuple(
        request(f"shrinking/{index}", length, decode=2 + index)
        for index, length in enumerate((2, 11, window + 5, 3, 1, window, 5, 7))
    )
    revisit = tuple(_begins_as(one, vocab_size) for one in singles if len(one.prompt) > 5)
    return (Probe("flood", (*singles, *shrinking)), Probe("revisit", revisit))


def requested_probes(settings: EngineSettings) -> tuple[Probe, ...]:
    """Build the probes of an engine."""
    return probe_set(
        settings.profile, settings.vocab_size, settings.sliding_window, settings.max_model_len
    )


def _begins_as(one: ProbeRequest, vocab_size: int) -> ProbeRequest:
    """Return a request whose prompt differs from that of `one` in its last token at most."""
    draw = _request(f"revisit/{one.name}", 1, len(one.forced), vocab_size)
    return replace(draw, prompt=(*one.prompt[:-1], *draw.prompt))


def second_pass(profile: str, probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
    """Return the same requests under names of their own, in another order.

    Probes come in reverse. In *stress*, where PP=N sees other batches than PP=1, so do the requests
    within each. In *parity* it sees the same, and a batch keeps its rows: one whose rows are turned
    differs in its last bits even on the CPU, and would excuse what must be equal.
    """
    turn = -1 if profile == "stress" else 1
    return tuple(
        Probe(
            AGAIN + probe.name,
            tuple(replace(one, name=AGAIN + one.name) for one in probe.requests[::turn]),
        )
        for probe in reversed(probes)
    )


def sensitivity_request(vocab_size: int, max_model_len: int) -> ProbeRequest:
    """Return the short request that runs once for each known perturbation."""
    room = max_model_len - _SENSITIVITY_DECODE
    length = min(_SENSITIVITY_PROMPT, room)
    return _request("sensitivity", length, _SENSITIVITY_DECODE, vocab_size)
