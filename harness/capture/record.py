"""A capture on disk, read back. Needs numpy, no torch: logits are exact float32."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..engine.json_lines import first_events, read_lines
from ..engine.names import ADAPTER, ANSWERS, SECOND_ANSWERS, key_names, weight_name
from ..engine.packed import unpacked
from ..engine.probes import ProbeRequest, split_pass
from ..plan.cell import Cell
from .manifest import Failure, Manifest, Status, load_manifest

_Of = TypeVar("_Of")


@dataclass(frozen=True)
class Span:
    """`count` rows of one probe request, from absolute position `start`."""

    request: str
    start: int
    count: int

    @property
    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield (request, position) of each row."""
        for offset in range(self.count):
            yield self.request, self.start + offset


@dataclass(frozen=True)
class StepTrace:
    """One forward pass on one rank: what crossed the boundary, what was read, layer fingerprints.

    Each of `returned`, `sent`, `received`, `copied` maps a key to its description (shape, dtype,
    contiguous, a 64-bit digest per row) or None; the mapping itself is None where nothing of the
    kind happened on this rank. `used` maps a key to the [start, stop) ranges of a row's elements
    that the forward used; only the first step is watched for it, None means not watched.
    """

    index: int
    spans: tuple[Span, ...]
    reads: dict[str, str]
    layers: dict[int, dict[str, list[Any]]]
    returned: dict[str, Any] | None = None
    sent: dict[str, Any] | None = None
    received: dict[str, Any] | None = None
    copied: dict[str, Any] | None = None
    used: dict[str, list[list[int]]] | None = None


@dataclass(frozen=True)
class RankTrace:
    """Everything that one rank wrote.

    `floor_steps` are the steps of each floor pass, under the names of the first pass; only PP=1 has
    them. Where it is not `eager`, what a forward reads and what its layers give was not seen.
    """

    rank: int
    stage: int
    tp_rank: int
    tracing: bool
    eager: bool
    runner: str
    adapter: str
    declared: dict[str, Any] | None
    declared_error: str | None
    layers: tuple[int, ...]
    steps: tuple[StepTrace, ...]
    dummies: tuple[dict[str, Any], ...]
    misuses: tuple[dict[str, str], ...]
    floor_steps: tuple[tuple[StepTrace, ...], ...] = ()


@dataclass(frozen=True)
class SentProbe:
    """A request as it was sent, and the tokens of its prompt that the prefix cache held.

    The engine computes no row for cached tokens: of positions below `cached` there are no logits.
    `prompt_logprobs` are digests of what vLLM returned for each position of the prompt, if asked.
    """

    request: ProbeRequest
    cached: int
    prompt_logprobs: tuple[str, ...] = ()

    @property
    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield (request, position) of each row that the engine computes for it."""
        for position in self.request.positions[self.cached :]:
            yield self.request.name, position


@dataclass(frozen=True)
class Sensitivity:
    """What the logits of an engine answered to, for each known perturbation that was tried.

    `asked` are the perturbations that the engine had to try: one weight of each kind and the
    adapter at PP=1, each key at each boundary at PP=N. `effects` maps those that moved the logits
    to the change as a share of their size, in the measure of the logits check, `excuses` those that
    cannot to the reason.
    """

    asked: tuple[str, ...]
    effects: dict[str, float]
    excuses: dict[str, str]


@dataclass(frozen=True)
class LogitTable:
    """Logits [rows, vocabulary] (memory-mapped) and the row of each (request, position)."""

    values: npt.NDArray[np.float32]
    index: dict[tuple[str, int], int]


@dataclass(frozen=True)
class Capture:
    """The folder of one cell, and its manifest."""

    folder: Path
    manifest: Manifest = field(repr=False)

    @property
    def cell(self) -> Cell:
        """The cell that was captured."""
        return self.manifest.cell

    @property
    def status(self) -> Status:
        """What became of the engine."""
        return self.manifest.status

    @property
    def failure(self) -> Failure | None:
        """The root cause; None where the status is ok."""
        return self.manifest.failure

    @cached_property
    def ranks(self) -> dict[tuple[int, int], RankTrace]:
        """Return the trace of each rank by (pipeline stage, tensor-parallel rank)."""
        found = (_read_rank(path) for path in sorted(self.folder.glob("rank*.jsonl")))
        return {(trace.stage, trace.tp_rank): trace for trace in found if trace is not None}

    @cached_property
    def stages(self) -> dict[int, RankTrace]:
        """Return the trace of each pipeline stage: its tensor-parallel rank 0 speaks for it.

        Hidden states are whole on each of these ranks, and only rank 0 writes logits. Where the
        ranks of a stage disagree all the same, the contract check says so.
        """
        return {stage: trace for (stage, tp), trace in self.ranks.items() if tp == 0}

    @cached_property
    def logits(self) -> LogitTable:
        """Return the logits; an empty table where the engine produced none."""
        return self._logits[0]

    @property
    def floor_logits(self) -> tuple[LogitTable, ...]:
        """Return the logits of each floor pass of PP=1, under the names of `logits`."""
        return self._logits[1:]

    @cached_property
    def _logits(self) -> tuple[LogitTable, ...]:
        lines = list(read_lines(self.folder / "logits.jsonl"))
        if not lines:
            return (LogitTable(np.zeros((0, 0), np.float32), {}),)
        shape = (len(lines), int(lines[0]["vocab"]))
        values = np.memmap(self.folder / "logits.f32", np.float32, mode="r", shape=shape)
        rows = ((split_pass(line["request"]), line["position"], line["row"]) for line in lines)
        passes = _by_pass((number, ((name, at), row)) for (number, name), at, row in rows)
        return tuple(LogitTable(values, dict(index)) for index in passes)

    @cached_property
    def probes(self) -> dict[str, SentProbe]:
        """Return the requests of the first pass by name."""
        sent = {}
        for line in read_lines(self.folder / "probes.jsonl"):
            number, name = split_pass(line["name"])
            if number == 0:
                request = ProbeRequest(name, tuple(line["prompt"]), tuple(line["forced"]))
                returned = tuple(line.get("prompt_logprobs", ()))
                sent[name] = SentProbe(request, line["cached"], returned)
        return sent

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Return what the logits were seen to answer to."""
        first = first_events(read_lines(self.folder / "rank0.jsonl"))
        if len(self.stages) > 1:
            later = (rank for stage, rank in sorted(self.stages.items()) if stage > 0)
            asked = key_names(rank.declared or {} for rank in later)
        else:
            asked = [weight_name(kind) for kind in first.get("weights", {}).get("kinds", ())]
            asked += [ADAPTER] if self.cell.asks("enable_lora") else []
        effects: dict[str, float] = {}
        for line in read_lines(self.folder / "sensitivity.jsonl"):
            if line["effect"] != 0:  # NaN has moved too
                effect = math.inf if math.isnan(line["effect"]) else float(line["effect"])
                effects[line["change"]] = max(effect, effects.get(line["change"], 0.0))
        excuses = {
            weight_name(kind): why
            for kind, why in first.get("excuses", {}).get("kinds", {}).items()
        }
        return Sensitivity(
            tuple(asked), effects, {name: excuses[name] for name in asked if name in excuses}
        )

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """Return the lines that lm-eval left, one per question, in order."""
        return list(read_lines(self.folder / ANSWERS))

    @cached_property
    def second_answers(self) -> list[dict[str, Any]]:
        """Return the answers of PP=1 asked again in other batches; stress alone has them."""
        return list(read_lines(self.folder / SECOND_ANSWERS))


def load_capture(folder: Path) -> Capture | None:
    """Read the capture in a folder; None if its manifest is missing or none of this version."""
    manifest = load_manifest(folder)
    return None if manifest is None else Capture(folder, manifest)


_OF_HEARTBEAT = ("stage", "tp_rank", "tracing", "eager", "runner", "adapter")


def _read_rank(path: Path) -> RankTrace | None:
    events = list(read_lines(path))
    first = first_events(events)
    heartbeat = first.get("heartbeat")
    if heartbeat is None:
        return None
    declared = first.get("declared", {})
    steps, *floor = _by_pass(_read_step(event) for event in events if event["kind"] == "step")
    return RankTrace(
        rank=int(path.stem.removeprefix("rank")),
        **{name: heartbeat[name] for name in _OF_HEARTBEAT},
        declared=declared.get("keys"),
        declared_error=declared.get("error"),
        layers=tuple(first.get("layers", {}).get("indices", ())),
        steps=steps,
        dummies=tuple(event for event in events if event["kind"] == "dummy"),
        misuses=tuple(event for event in events if event["kind"] == "misuse"),
        floor_steps=tuple(floor),
    )


def _by_pass(numbered: Iterable[tuple[int, _Of]]) -> tuple[tuple[_Of, ...], ...]:
    """Group what has the number of its pass by that: the first pass, then each floor pass."""
    passes: list[list[_Of]] = [[]]
    for number, value in numbered:
        passes.extend([] for _ in range(len(passes), number + 1))
        passes[number].append(value)
    return tuple(map(tuple, passes))


_SIDES = ("returned", "sent", "received", "copied")
# Fingerprints by side (or `layer`) and key, of each kind a list of one for each row.
_Prints = dict[str, dict[str, dict[str, list[Any]]]]


def _read_step(event: dict[str, Any]) -> tuple[int, StepTrace]:
    """Return the pass that a step belongs to, and the step under the names of the first pass."""
    prints = _read_prints(event["prints"])
    named = [(split_pass(name), start, count) for name, start, count in event["spans"]]
    return named[0][0][0], StepTrace(
        index=event["index"],
        spans=tuple(Span(name, start, count) for (_, name), start, count in named),
        reads=event["reads"],
        layers={int(name): one for name, one in prints.get("layer", {}).items()},
        **{side: _read_side(event, side, prints) for side in _SIDES},
        used=event.get("used"),
    )


def _read_prints(groups: list[dict[str, Any]]) -> _Prints:
    """Return the fingerprints of a step, which were taken of several tensors together."""
    found: _Prints = {}
    for group in groups:
        prints = {kind: unpacked(text) for kind, text in group.items() if kind != "of"}
        for place, name in enumerate(group["of"]):
            side, _, key = name.partition("/")
            # Layers come first in their group, and only they have a norm and a sketch.
            one = {kind: values[place] for kind, values in prints.items() if place < len(values)}
            found.setdefault(side, {})[key] = one
    return found


def _read_side(event: dict[str, Any], side: str, prints: _Prints) -> dict[str, Any] | None:
    if side not in event:
        return None
    taken = prints.get(side, {})
    return {key: form and {**form, **taken.get(key, {})} for key, form in event[side].items()}
