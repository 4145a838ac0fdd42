"""A model of the seconds that a cell costs. Pure, the same everywhere."""

from .cell import Cell
from .hosts import KINDS

# Forward passes of the probes, and sequences that GSM8K runs side by side (engine.py).
_PROBE_PASSES = 50
# Answers end at a stop string, at this share of the longest answer.
_ANSWERED = 0.6


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
