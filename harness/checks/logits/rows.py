"""The rows that must be there: those of the requests that each side was sent."""

from collections.abc import Iterable

from ...capture.record import Capture
from ...engine.probes import keeps_logits
from ..finding import Finding, Outcome, Verdict, verdict_of
from ..layers import Row, layer_rows

# How many rows a finding's evidence names.
_EXAMPLES = 5


def row_name(row: Row) -> str:
    """Name of a row: its request and position."""
    return f"{row[0]}@{row[1]}"


def missing_rows(baseline: Capture, candidate: Capture) -> Verdict | None:
    """FAIL for rows that one side lacks, BLOCKED for those that both do; None without a gap.

    What a prefix cache held is computed by nobody. Where layers are traced, each must have every
    row; the logits of long prompts are kept in part (`keeps_logits`).
    """
    if {name: sent.request for name, sent in baseline.probes.items()} != {
        name: sent.request for name, sent in candidate.probes.items()
    }:
        return _failed("the two sides were not sent the same requests", ())
    apart = set(baseline.logits.index) ^ set(candidate.logits.index)
    cached = {
        name: max(side.probes[name].cached for side in (baseline, candidate))
        for name in candidate.probes
    }
    lost = sorted(row for row in apart if row[1] >= cached.get(row[0], 0))
    if lost:
        message = f"{len(lost)} logit rows are on one side only, first {row_name(lost[0])}"
        return _failed(message, lost)
    for side in (baseline, candidate):
        rows = {row for sent in side.probes.values() for row in sent.rows}
        vocabulary = side.logits.values.shape[1]
        lengths = {name: len(sent.request.prompt) for name, sent in side.probes.items()}
        kept = {row for row in rows if keeps_logits(row[1], lengths[row[0]], vocabulary)}
        tables: dict[str, Iterable[Row]] = {"the logits": side.logits.index}
        if all(trace.eager for trace in side.stages.values()):
            digests = layer_rows(side, "digest")
            layers = sorted(layer for trace in side.stages.values() for layer in trace.layers)
            tables |= {f"layer {layer}": digests.get(layer, {}) for layer in layers}
        for name, table in tables.items():
            needed = kept if name == "the logits" else rows
            gap = sorted(needed - set(table))
            if gap:
                return Verdict(
                    Outcome.BLOCKED,
                    f"{name} of PP={side.cell.pp} lack {len(gap)} of the {len(needed)} rows that "
                    f"the probes give, first {row_name(gap[0])}",
                )
    return None


def _failed(message: str, rows: Iterable[Row]) -> Verdict:
    named = [row_name(row) for row in list(rows)[:_EXAMPLES]]
    fix = "both cells must run the same probes; clear the store and run again"
    finding = Finding("LOG003", message, fix, evidence={"rows": named} if named else {})
    return verdict_of(Outcome.FAIL, finding)
