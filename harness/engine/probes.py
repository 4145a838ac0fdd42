"""The fixed probe sets: token-id prompts and the token ids that each decode step is forced to take.

Everything is seeded from the probe's name and the vocabulary size, so that no cell waits for
another's output and every cell of a model sees the same inputs (teacher forcing).
"""

import random
from dataclasses import dataclass, replace
from functools import lru_cache

from .settings import DRAFTS, MAX_SEQUENCES, EngineSettings, Profile

# Without a sliding window nothing special happens at any length; this one only spreads lengths.
_DEFAULT_WINDOW = 32
# Tokens forced after a prompt: the first comes from the prefill, each other takes a decode step.
_DECODE = 4
# Passes of PP=1 over the same requests, after the first: what rounding alone does to their rows.
# Parity repeats its batches, so one pass shows what does not repeat; stress draws other batches.
_FLOOR_PASSES = {Profile.PARITY: 1, Profile.STRESS: 3}
# The name of a request in floor pass 2 is `floor2:NAME`; no probe's own name has a colon.
_FLOOR = "floor"
_REVISIT = "revisit/"
# Tokens that a request would generate that is cancelled before.
_ABORTED_DECODE = 8
# Unequal prompts, in tokens, that fill a decode batch.
_DECODE_BATCH = 24
# vLLM shards the vocabulary over tensor-parallel ranks in whole multiples of this, each.
_VOCABULARY_PADDING = 64
# Logits that are kept of one prompt: 32 rows of a vocabulary of 262144, 32 MiB.
_PROMPT_LOGITS = 1 << 23


@dataclass(frozen=True)
class ProbeRequest:
    """One request: a prompt, the ids forced during decode, in order, and images in the prompt.

    Of a request that was sent, `prompt` holds what the engine made of it: images are ids there.
    """

    name: str
    prompt: tuple[int, ...]
    forced: tuple[int, ...]
    images: int = 0

    @property
    def positions(self) -> range:
        """The positions that have a row: all tokens but the last, which nothing follows."""
        return range(len(self.prompt) + len(self.forced) - 1)


@dataclass(frozen=True)
class Probe:
    """Requests handed to the engine together: one request, or one batch."""

    name: str
    requests: tuple[ProbeRequest, ...]


# After so many tokens the probe that repeats itself does so.
_PERIOD = 5
# Prompt and decode steps of the sensitivity probe, in tokens: short, because it runs often, and
# less than a block, so that no prefix cache holds it.
_SENSITIVITY_PROMPT, _SENSITIVITY_DECODE = 15, 2


def aborted_requests(settings: EngineSettings) -> tuple[Probe, ...]:
    """Return requests to be cancelled in flight, in parts that are handed over one after another.

    By lengths short, longer than a chunk of a prompt and past the window.
    """
    window = settings.sliding_window or _DEFAULT_WINDOW
    room = settings.max_model_len - _ABORTED_DECODE
    lengths = [
        min(room, each) for each in (3, chunk_tokens(settings.max_model_len) + 1, window + 5)
    ]
    return tuple(
        Probe(
            name,
            tuple(
                _request(f"{name}/{index}", length, _ABORTED_DECODE, settings.vocab_size)
                for index, length in enumerate(lengths)
            ),
        )
        for name in ("aborted-first", "aborted-second")
    )


def longest_probe(sliding_window: int | None) -> int:
    """Return the context, in tokens, that the longest probe needs: well past the window."""
    return 2 * (sliding_window or _DEFAULT_WINDOW) + 7 + _DECODE


def chunk_tokens(max_model_len: int) -> int:
    """Return the token budget of a step in the stress profile, which cuts longer prompts."""
    return max(32, max_model_len // 8)


def step_tokens(profile: Profile, max_model_len: int, max_sequences: int) -> int:
    """Return the token budget of a step: in *parity* all prompts of a batch of probes fit.

    Where more requests run at once than probes are, their decode steps do not use up the budget.
    """
    if profile is Profile.STRESS:
        return chunk_tokens(max_model_len) + 3 * (max_sequences - MAX_SEQUENCES)
    return max(2048, max_model_len, min(4 * max_model_len, 8192))


def _request(name: str, length: int, decode: int, vocab_size: int) -> ProbeRequest:
    draw = random.Random(f"{name}/{length}/{decode}/{vocab_size}")  # noqa: S311 - reproducible, not secret
    ids = tuple(draw.randrange(vocab_size) for _ in range(length + decode))
    return ProbeRequest(name, ids[:length], ids[length:])


def probe_set(settings: EngineSettings, block_size: int) -> tuple[Probe, ...]:
    """Build the probes of an engine whose KV cache has blocks of `block_size` tokens.

    Lengths are in tokens and cross the boundaries where bugs hide: 1 to 5, the sliding window and
    one to either side, past a chunk of a prompt by one, well past the window, all that the context
    holds, and the edges of a block, which decode steps cross too. The ids of one prompt are the
    edges of the vocabulary and of its shards. *parity* runs each of them alone, and then batches of
    2 to 8 and of 24 unequal prompts. The requests of such a batch end together: when one ends
    before the others, vLLM puts the rest into another order at PP=N than at PP=1, and rows in
    another order are not bit-identical. *stress* has all in flight at once, among them requests
    that end one after another, and then prompts that begin as earlier ones did. So has *parity*
    where it was asked for a prefix cache. Where tokens are drafted, one request more repeats
    itself, so that drafts are right, and errs once. Where images are asked for, requests with one
    and two come alone, and in a batch with one that has none.
    A prompt and its decode steps always fit into the context.

    Raises:
        ValueError: if the context leaves no room for the shortest probe.
    """
    vocab_size, max_model_len = settings.vocab_size, settings.max_model_len
    window = settings.sliding_window or _DEFAULT_WINDOW
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
    ids = _edge_ids(vocab_size, settings.tp)
    room = max_model_len - _DECODE
    edges = replace(request("ids", len(ids)), prompt=ids[:room], forced=(ids * _DECODE)[:_DECODE])
    blocks = tuple(
        request(f"block{by:+d}", block_size + by)
        for by in (-2, -1, 0, 1)  # the decode steps of the first two open the second block
    )
    crowd = tuple(
        request(f"batch-{_DECODE_BATCH}/{index}", 1 + index % 3, decode=2)
        for index in range(_DECODE_BATCH)
    )
    revisit = tuple(_begins_as(one, vocab_size) for one in singles if len(one.prompt) > 5)
    is_drafted = settings.asks(DRAFTS)
    drafted = (_repeating(vocab_size, max_model_len),) if is_drafted else ()
    seen = tuple(
        replace(request(name, length), images=images)
        for name, length, images in (
            ("image", 7, 1),
            ("images", 11, 2),
            ("image+window", window + 5, 1),
            ("image-batch/0", 7, 0),
            ("image-batch/1", 5, 1),
            ("image-batch/2", 9, 2),
        )
        if settings.images
    )
    if settings.profile is Profile.PARITY:
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
        return (
            *(Probe(one.name, (one,)) for one in (*singles, edges)),
            *batches,
            Probe("blocks", blocks),
            Probe(f"batch-{_DECODE_BATCH}", crowd),
            *(Probe(one.name, (one,)) for one in (*drafted, *seen[:3])),
            *([Probe("image-batch", seen[3:])] if seen else ()),
            *(Probe(one.name, (one,)) for one in revisit if settings.asks("enable_prefix_caching")),
        )
    shrinking = tuple(
        request(f"shrinking/{index}", length, decode=2 + index)
        for index, length in enumerate((2, 11, window + 5, 3, 1, window, 5, 7))
    )
    return (
        Probe("crowd", crowd),
        Probe("flood", (*singles, edges, *blocks, *shrinking, *drafted, *seen)),
        Probe("revisit", revisit),
    )


def _repeating(vocab_size: int, max_model_len: int) -> ProbeRequest:
    """Return a request of ids that come again and again, but for one that was never there."""
    draw = _request("repeating", _PERIOD, 1, vocab_size)
    ids = (draw.prompt * max_model_len)[: min(max_model_len, 6 * _PERIOD)]
    middle = len(ids) - len(ids) // 4
    ids = (*ids[:middle], *draw.forced, *ids[middle + 1 :])
    begin = len(ids) // 2
    return replace(draw, prompt=ids[:begin], forced=ids[begin:])


def _edge_ids(vocab_size: int, tp: int) -> tuple[int, ...]:
    """Return the first and the last token id of the vocabulary and of each rank's shard of it."""
    padded = -(-vocab_size // _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    shard = -(-padded // tp)
    starts = [shard * rank for rank in range(1, tp)]
    ids = {0, vocab_size - 1, *starts, *(start - 1 for start in starts)}
    return tuple(sorted(word for word in ids if word < vocab_size))


def _begins_as(one: ProbeRequest, vocab_size: int) -> ProbeRequest:
    """Return a request whose prompt differs from that of `one` in its last token at most."""
    draw = _request(_REVISIT + one.name, 1, len(one.forced), vocab_size)
    return replace(draw, prompt=(*one.prompt[:-1], *draw.prompt))


def floor_passes(profile: Profile, probes: tuple[Probe, ...]) -> tuple[tuple[Probe, ...], ...]:
    """Return the same requests again under names of their own, once for each floor pass.

    In *stress*, where PP=N sees other batches than PP=1, the requests of each probe are shuffled,
    and pass k hands them over in k parts, one after the other: a step of PP=N holds fewer requests
    than one of PP=1. Probes keep their order. In *parity* PP=N sees the same batches: probes are
    shuffled and a batch keeps its rows, since one whose rows are turned differs in its last bits
    even on the CPU, and would excuse what must be equal. In both what begins as an earlier prompt
    comes behind it, so that what a prefix cache gave in the first pass it gives in all.
    """
    passes = []
    for number in range(1, _FLOOR_PASSES[profile] + 1):
        draw = random.Random(f"{_FLOOR}/{number}")  # noqa: S311 - reproducible, not secret
        again = [_in_pass(number, probe) for probe in probes]
        if profile is Profile.STRESS:
            again = [part for probe in again for part in _shuffled_parts(draw, probe, number)]
        else:
            draw.shuffle(again)
            again.sort(key=lambda probe: _REVISIT in probe.name)
        passes.append(tuple(again))
    return tuple(passes)


def _in_pass(number: int, probe: Probe) -> Probe:
    requests = (replace(one, name=f"{_FLOOR}{number}:{one.name}") for one in probe.requests)
    return Probe(f"{_FLOOR}{number}:{probe.name}", tuple(requests))


def _shuffled_parts(draw: random.Random, probe: Probe, parts: int) -> list[Probe]:
    requests = draw.sample(probe.requests, len(probe.requests))
    dealt = (requests[part::parts] for part in range(parts))
    return [replace(probe, requests=tuple(part)) for part in dealt if part]


def split_pass(name: str) -> tuple[int, str]:
    """Return the pass of a request's name, 0 for the first, and its name in that."""
    begin, colon, rest = name.partition(":")
    return (int(begin.removeprefix(_FLOOR)), rest) if colon else (0, name)


@lru_cache(maxsize=256)
def kept_positions(prompt_length: int, vocab: int) -> frozenset[int]:
    """Return where a prompt keeps its logits: everywhere, or evenly spread, its ends included.

    A full-size vocabulary takes 1 MB a row; the logits that a prompt keeps are bounded, and layers
    are fingerprinted row by row anyway. Positions are those of the whole prompt, however it is cut
    into chunks: another PP size may cut it elsewhere.
    """
    limit = max(2, _PROMPT_LOGITS // vocab)
    if prompt_length <= limit:
        return frozenset(range(prompt_length))
    return frozenset(index * (prompt_length - 1) // (limit - 1) for index in range(limit))


def keeps_logits(position: int, prompt_length: int, vocab: int) -> bool:
    """Whether the logits of a row are kept: those after the prompt, and some within it."""
    return position >= prompt_length - 1 or position in kept_positions(prompt_length, vocab)


def sensitivity_request(settings: EngineSettings) -> ProbeRequest:
    """Return the short request that runs once for each known perturbation."""
    length = min(_SENSITIVITY_PROMPT, settings.max_model_len - _SENSITIVITY_DECODE)
    request = _request("sensitivity", length, _SENSITIVITY_DECODE, settings.vocab_size)
    return replace(request, images=int(settings.images))
