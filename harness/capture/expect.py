"""What a cell will cost: seconds from earlier cells, else from a model; memory on the CPU. Pure."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..plan.cell import Cell
from .devices import DevicePool

_GIB = 2**30
# Memory of a CPU cell beside its weights and KV cache: the engine's process with its share of the
# fork server, and each rank. Measured as proportional set size with the instruments (vLLM 0.20.2):
# 0.3 and 0.8 (server), 0.5 GiB.
_CELL_BYTES, _RANK_BYTES = 1.1 * _GIB, 0.6 * _GIB
# Sequences at full length that the KV cache has room for (engine.py).
KV_SEQUENCES = 33
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
    "cpu": _Rates(start=1.0, rank=1.9, step=0.014, load=0.5e9, bandwidth=8e9, imports=10.0),
    "cuda": _Rates(start=8.0, rank=4.0, step=0.010, load=1e9, bandwidth=2e12, imports=20.0),
}


@dataclass(frozen=True)
class Expected:
    """Seconds that a cell will take, and where the figure is from: `record` or `model`."""

    seconds: float
    source: str


def expected_seconds(cell: Cell, manifests: Iterable[Mapping[str, Any]] = ()) -> Expected:
    """Return the seconds that a cell will hold its devices, its server's imports left out.

    `manifests` are those of earlier captures. The median over those of the same variant, model,
    questions and shape speaks first, then over those of other variants, then the model.
    """
    alike = [one for one in manifests if one.get("status") != "blocked" and _alike(cell, one)]
    same = [one for one in alike if one["cell"]["variant"] == cell.variant]
    taken = [_busy(one["seconds"]) for one in same or alike]
    if taken:
        return Expected(statistics.median(taken), "record")
    return Expected(modelled_seconds(cell), "model")


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


def import_seconds(device: str) -> float:
    """Return the seconds that the fork server of a variant takes to import vLLM, once."""
    return _RATES[device].imports


def expected_bytes(cell: Cell) -> float:
    """Return the host memory in bytes that a CPU cell takes; a GPU cell's is not its host's."""
    if cell.device != "cpu":
        return 0.0
    ranks = cell.pp * cell.tp
    return _CELL_BYTES + ranks * _RANK_BYTES + 1.2 * cell.load.weight_bytes + cell.load.kv_bytes


def devices_needed(cell: Cell, pool: DevicePool) -> int:
    """Return how many devices of a pool a cell takes."""
    return pool.needed(cell.pp, cell.tp, expected_bytes(cell))


def _alike(cell: Cell, manifest: Mapping[str, Any]) -> bool:
    """Whether an earlier cell asks as much of the same machine; its tree may differ."""
    earlier = manifest.get("cell", {})
    asked, wanted = earlier.get("gsm8k") or {}, cell.gsm8k
    return all(
        earlier.get(name) == getattr(cell, name)
        for name in ("model_digest", "pp", "tp", "device", "profile", "mode", "executor", "host")
    ) and (asked.get("digest"), asked.get("limit")) == (
        (wanted.digest, wanted.limit) if wanted else (None, None)
    )


def _busy(seconds: Mapping[str, float]) -> float:
    return float(seconds["total"]) - float(seconds.get("start", 0.0))
