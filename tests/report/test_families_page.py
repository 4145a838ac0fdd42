"""docs/families.md counts what the recorded censuses have."""

import json
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_counts_are_those_of_the_records():
    """A renewed census renews the page."""
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    table = page.split("<!-- census:begin -->")[1].split("<!-- census:end -->")[0]
    head, _, *lines = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    for column, release in enumerate(head):
        file = ROOT / "results" / "census" / release / "census.json"
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        counted = Counter(row["reason"] or "answered by a run" for row in rows)
        shown = {line[0]: int(line[column + 1]) for line in lines}
        assert shown.pop("architectures") == len(rows)
        assert shown == counted
