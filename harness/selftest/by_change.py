"""Captures by change: the folder of one engine that ran under many, divided into one for each."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..capture.record import Capture
from ..engine.json_lines import read_lines

_Lines = list[dict[str, Any]]


def captures_by_change(whole: Capture, changes: Iterable[str], into: Path) -> dict[str, Capture]:
    """Make a capture for each change ("" is the unchanged run), each in a folder below `into`.

    Events from before the engine's first probe belong to every capture; a step, and the events
    that were noted during it, to the change under which it ran.
    """
    changes = ["", *changes]
    folders = {change: into / f"{number:03}" for number, change in enumerate(changes)}
    for folder in folders.values():
        folder.mkdir(parents=True)
        if (whole.folder / "sensitivity.jsonl").exists():
            shutil.copy(whole.folder / "sensitivity.jsonl", folder)
    for path in sorted(whole.folder.glob("rank*.jsonl")):
        for change, events in _events_by_change(read_lines(path), changes).items():
            _write_lines(folders[change] / path.name, events)
    _divide_logits(whole.folder, folders)
    for change, folder in folders.items():
        for kind in ("probes", "gsm8k"):
            source = whole.folder / (f"{kind}.{change}.jsonl" if change else f"{kind}.jsonl")
            if source.exists():
                shutil.copy(source, folder / f"{kind}.jsonl")
    return {change: Capture(folder, whole.manifest) for change, folder in folders.items()}


def _events_by_change(lines: Iterable[dict[str, Any]], changes: list[str]) -> dict[str, _Lines]:
    shared: _Lines = []
    steps: dict[str, _Lines] = {change: [] for change in changes}
    counts = dict.fromkeys(changes, 0)
    of_next_step: _Lines = []
    for line in lines:
        if line["kind"] == "step":
            change = line["change"]
            steps[change] += [*of_next_step, {**line, "index": counts[change]}]
            counts[change] += 1
            of_next_step = []
        elif line["kind"] == "misuse":
            of_next_step.append(line)
        else:
            shared.append(line)
    return {change: shared + own for change, own in steps.items()}


def _divide_logits(folder: Path, folders: dict[str, Path]) -> None:
    lines = list(read_lines(folder / "logits.jsonl"))
    values = np.memmap(
        folder / "logits.f32", np.float32, mode="r", shape=(len(lines), lines[0]["vocab"])
    )
    for change, target in folders.items():
        own = [line for line in lines if line["change"] == change]
        (target / "logits.f32").write_bytes(values[[line["row"] for line in own]].tobytes())
        _write_lines(
            target / "logits.jsonl", [{**line, "row": row} for row, line in enumerate(own)]
        )


def _write_lines(path: Path, lines: _Lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
