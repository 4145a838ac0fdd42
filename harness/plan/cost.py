"""What a cell costs, from its config: seconds, tokens of its cache, the peak of a rank."""

from ..engine.settings import Device
from .cell import Cell
from .hosts import KINDS, device_bytes

# Forward passes of the probes, and the share of the longest answer at which a stop string ends one.
_PROBE_PASSES, _ANSWERED = 50, 0.6
_GIB = 2**30
# The engine's process with its share of the fork server, a rank before it holds anything, and what
# of a rank's resident memory it shares with the server that it was forked from. Measured with the
# instruments (vLLM 0.20.2): proportional set size of the first two, resident size of ranks.
_CELL_BYTES, _RANK_BYTES, _SHARED_BYTES = 1.1 * _GIB, 0.6 * _GIB, 0.3 * _GIB
# Room of a cache on a CPU: two engines of a small checkpoint run side by side on 24 GiB.
_CPU_CACHE_BYTES = 2 * _GIB
# Share of a GPU that vLLM may fill, and what activations, logits and graphs take of it beside
# weights and cache.
_GPU_SHARE, _GPU_WORK_BYTES = 0.9, 6 * _GIB
# Requests at full length that the probes need room for, and requests in flight where a GPU answers
# real questions.
FULL_PROBES, GPU_SEQUENCES = 8, 256
# vLLM's CPU layers keep the embedding, a packed copy of it and one of the head, a head that is tied
# to it too; some models have all three on every stage (results/2026-11-27-cpu-real).
_CPU_EMBEDDING_COPIES = 3
# Copies of logits that a step holds, as computed, in float32, sorted and kept: of the sampler's,
# and of the prompt rows that hooks/logits.py computes at a time.
_LOGIT_COPIES, _PROMPT_LOGITS_BYTES = 4, 64 * 2**20


def modelled_seconds(cell: Cell) -> float:
    """Return the seconds that a cell will take from what it is: the same on every machine."""
    rates, ranks = KINDS[cell.device].rates, cell.pp * cell.tp
    limit = cell.gsm8k.limit if cell.gsm8k else None
    questions = min(limit or cell.load.questions, cell.load.questions)
    batches = -(-questions // cell.max_sequences)
    passes = _PROBE_PASSES + batches * cell.max_gen_tokens * _ANSWERED
    weights = cell.load.weight_bytes
    return (
        rates.start
        + rates.rank * ranks
        + weights / rates.load
        + passes * (rates.step * cell.pp + weights / cell.tp / rates.bandwidth)
    )


def cache_tokens(
    length: int, *, sequences: int, token_bytes: int, weight_bytes: int, device: Device, share: int
) -> int:
    """Return how many tokens the KV cache of an engine holds, the same at every PP size.

    `sequences` requests at their full `length`, and one more, or what the device has
    room for beside the weights of PP=1; no fewer than two requests. `token_bytes` are of one token
    in all layers, `share` ranks share a device.
    """
    wanted = (sequences + 1) * length
    room = _CPU_CACHE_BYTES
    if device is not Device.CPU:
        room = int(_GPU_SHARE * device_bytes(device) / share - _GPU_WORK_BYTES) - weight_bytes
    return max(2 * length, min(wanted, room // max(token_bytes, 1)))


def rank_bytes(cell: Cell) -> int:
    """Predict the most memory that a rank of a cell holds: the first and the last have most.

    Layers are shared out among the stages; a first stage holds the embedding, a last one the head,
    which may be the same weights.
    """
    load, on_cpu = cell.load, cell.device is Device.CPU
    embedding = load.embedding_bytes / cell.tp
    layers = max(load.weight_bytes / cell.tp - embedding, 0) / cell.pp
    ends = embedding * (_CPU_EMBEDDING_COPIES if on_cpu else 1)
    logits = _LOGIT_COPIES * (cell.max_sequences * cell.vocab_size * 4 + _PROMPT_LOGITS_BYTES)
    fixed = _RANK_BYTES + _shared_bytes(cell) if on_cpu else 0
    cache_and_step = (load.kv_bytes + load.step_bytes) / cell.tp
    return int(fixed + ends + layers + cache_and_step + logits)


def expected_bytes(cell: Cell) -> float:
    """Return the host memory in bytes that a CPU cell takes; a GPU cell's is not its host's."""
    if cell.device is not Device.CPU:
        return 0.0
    own = rank_bytes(cell) - _shared_bytes(cell)
    return _CELL_BYTES + cell.load.tokenizer_bytes + cell.pp * cell.tp * own


def _shared_bytes(cell: Cell) -> float:
    return _SHARED_BYTES + cell.load.tokenizer_bytes
