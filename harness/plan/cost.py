"""A model of what a cell costs: seconds, and host memory on the CPU. Pure, the same everywhere."""

from dataclasses import dataclass

from ..engine.settings import Device
from .cell import Cell

_GIB = 2**30
# Memory of a CPU cell beside its weights and KV cache: the engine's process with its share of the
# fork server, and each rank. Measured as proportional set size with the instruments (vLLM 0.20.2):
# 0.3 and 0.8 (server), 0.5 GiB.
_CELL_BYTES, _RANK_BYTES = 1.1 * _GIB, 0.6 * _GIB
# Forward passes of the probes, and sequences that GSM8K runs side by side (engine.py).
_PROBE_PASSES, _BATCH = 50, 32
# Answers end at a stop string, at this share of the longest answer.
_ANSWERED = 0.6


@dataclass(frozen=True)
class _Rates:
    """The model of a cell's time: seconds to start and stop, per rank, per forward pass and stage.

    Weights load and pass at so many bytes a second. CPU: fitted to the instruments on two cores.
    CUDA: a plain guess, good for the order; earlier records replace it as soon as there are any.
    """

    start: float
    rank: float
    step: float
    load: float
    bandwidth: float
    imports: float


_RATES = {
    Device.CPU: _Rates(start=1.0, rank=1.9, step=0.014, load=0.5e9, bandwidth=8e9, imports=10.0),
    Device.CUDA: _Rates(start=8.0, rank=4.0, step=0.010, load=1e9, bandwidth=2e12, imports=20.0),
}


def modelled_seconds(cell: Cell) -> float:
    """Return the seconds that a cell will take from what it is: the same on every machine."""
    rates, ranks = _RATES[cell.device], cell.pp * cell.tp
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
    return _RATES[device].imports


def expected_bytes(cell: Cell) -> float:
    """Return the host memory in bytes that a CPU cell takes; a GPU cell's is not its host's."""
    if cell.device is not Device.CPU:
        return 0.0
    ranks = cell.pp * cell.tp
    return _CELL_BYTES + ranks * _RANK_BYTES + 1.2 * cell.load.weight_bytes + cell.load.kv_bytes
