"""Lines of JSON, as tracer, child and launcher write them side by side while an engine runs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what the whole lines of a file hold; one cut by a dying writer is left out.

    A file that is not there holds nothing.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def first_events(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the first event of each kind."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        found.setdefault(event["kind"], event)
    return found
