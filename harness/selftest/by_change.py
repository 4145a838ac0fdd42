"""One folder of an engine that ran under many changes, cut into a capture for each."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..capture.record import Capture
from ..engine.json_lines import read_lines

Lines = list[dict[str, Any]]


def split(whole: Capture, changes: Iterable[str], into: Path) -> dict[str, Capture]:
    """Return a capture for each change ("" is the unchanged run), each in a folder of its own.

    What the engine wrote before its first probe belongs to all of them; a step and what was noted
    during it belong to the change under which it ran.
    """
    names = ["", *changes]
    folders = {name: into / f"{number:03}" for number, name in enumerate(names)}
    for folder in folders.values():
        folder.mkdir(parents=True)
        if (whole.folder / "sensitivity.jsonl").exists():
            shutil.copy(whole.folder / "sensitivity.jsonl", folder)
    for path in sorted(whole.folder.glob("rank*.jsonl")):
        for name, events in _events(list(read_lines(path)), names).items():
            _write(folders[name] / path.name, events)
    _split_logits(whole.folder, folders)
    for name, folder in folders.items():
        for kind in ("probes", "gsm8k"):
            written = whole.folder / (f"{kind}.{name}.jsonl" if name else f"{kind}.jsonl")
            if written.exists():
                shutil.copy(written, folder / f"{kind}.jsonl")
    return {name: Capture(folder, whole.manifest) for name, folder in folders.items()}


def _events(lines: Lines, names: list[str]) -> dict[str, Lines]:
    shared: Lines = []
    parts: dict[str, Lines] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)
    pending: Lines = []
    for line in lines:
        if line["kind"] == "step":
            name = line["change"]
            parts[name] += [*pending, {**line, "index": counts[name]}]
            counts[name] += 1
            pending = []
        elif line["kind"] == "misuse":
            pending.append(line)  # of the step whose line follows
        else:
            shared.append(line)
    return {name: shared + part for name, part in parts.items()}


def _split_logits(folder: Path, folders: dict[str, Path]) -> None:
    lines = list(read_lines(folder / "logits.jsonl"))
    values = np.memmap(
        folder / "logits.f32", np.float32, mode="r", shape=(len(lines), lines[0]["vocab"])
    )
    for name, target in folders.items():
        mine = [line for line in lines if line["change"] == name]
        (target / "logits.f32").write_bytes(values[[line["row"] for line in mine]].tobytes())
        _write(target / "logits.jsonl", [{**line, "row": row} for row, line in enumerate(mine)])


def _write(path: Path, lines: Lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
