"""A model of what a cell costs: seconds, and host memory on the CPU. Pure, the same everywhere."""

from ..engine.settings import Device
from .cell import Cell
from .hosts import KINDS

_GIB = 2**30
# Memory of a CPU cell beside its weights and KV cache: the engine's process with its share of the
# fork server, and each rank. Measured as proportional set size with the instruments (vLLM 0.20.2):
# 0.3 and 0.8 (server), 0.5 GiB.
_CELL_BYTES, _RANK_BYTES = 1.1 * _GIB, 0.6 * _GIB
# Forward passes of the probes, and sequences that GSM8K runs side by side (engine.py).
_PROBE_PASSES, _BATCH = 50, 32
# Answers end at a stop string, at this share of the longest answer.
_ANSWERED = 0.6


def modelled_seconds(cell: Cell) -> float:
    """Return the seconds that a cell will take from what it is: the same on every machine."""
    rates, ranks = KINDS[cell.device].rates, cell.pp * cell.tp
    limit = cell.gsm8k.limit if cell.gsm8k else None
    questions = min(limit or cell.load.questions, cell.load.questions)
    batches = -(-questions // _BATCH)
    passes = _PROBE_PASSES + batches * cell.max_gen_tokens * _ANSWERED
    weights = cell.load.weight_bytes
    return (
        rates.start
        + rates.rank * ranks
        + weights / rates.load
        + passes * (rates.step * cell.pp + weights / cell.tp / rates.bandwidth)
    )


def import_seconds(device: Device) -> float:
    """Return the seconds that the fork server of a variant takes to import vLLM, once."""
    return KINDS[device].rates.imports


def expected_bytes(cell: Cell) -> float:
    """Return the host memory in bytes that a CPU cell takes; a GPU cell's is not its host's."""
    if cell.device is not Device.CPU:
        return 0.0
    ranks = cell.pp * cell.tp
    return _CELL_BYTES + ranks * _RANK_BYTES + 1.2 * cell.load.weight_bytes + cell.load.kv_bytes
