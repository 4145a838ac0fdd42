"""Writes the tables of docs/families.md from the recorded censuses.

    python -m tools.census_page

Every folder of results/census that is named as a release counts; a later run of some of its
architectures (`0.33.0-gpu`) stands for their rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

from harness.report.census import answer_of, answers_in_order, changes_table, markdown_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"


def recorded_files() -> list[Path]:
    """List the censuses of whole releases, the oldest release first."""
    files = (ROOT / "results" / "census").glob("*/census.json")
    whole = [file for file in files if re.fullmatch(r"[\d.]+", file.parent.name)]
    return sorted(whole, key=lambda file: Version(file.parent.name))


def recorded() -> list[dict[str, Any]]:
    """Read the censuses of whole releases, the oldest release first, with what ran again."""
    documents = []
    for file in recorded_files():
        document, *parts = (
            json.loads(each.read_text(encoding="utf-8"))
            for each in (file, *sorted(file.parents[1].glob(f"{file.parent.name}-*/census.json")))
        )
        again = {row["architecture"]: row for part in parts for row in part["rows"]}
        rows = [again.get(row["architecture"], row) for row in document["rows"]]
        documents.append({**document, "rows": rows})
    return documents


def count_table(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Count the architectures of each release by their answers."""
    columns = [[answer_of(row) for row in document["rows"]] for document in documents]
    lines = [("architectures", *(str(len(column)) for column in columns))]
    for answer in answers_in_order():
        numbers = [column.count(answer) for column in columns]
        if any(numbers):
            lines.append((answer, *map(str, numbers)))
    return markdown_table(("", *(str(document["vllm"]) for document in documents)), lines)


def written(page: str) -> str:
    """Put both tables between their marks."""
    documents = recorded()
    tables = {"census": count_table(documents), "changes": changes_table(documents)}
    for name, lines in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, _, rest = page.partition(begin)
        page = (
            before + begin + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]
        )
    return page


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
