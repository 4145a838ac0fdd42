"""The harness knows structures, not families: what it does goes by the keys of a config."""

from pathlib import Path

import harness

HARNESS = Path(harness.__file__).resolve().parent
# The instruments are data.
DATA = "models/instruments"


def test_no_code_asks_for_a_family():
    """Outside the data no module names Gemma4, whose case the harness was made for."""
    named = [
        path.relative_to(HARNESS).as_posix()
        for path in HARNESS.rglob("*.py")
        if not path.relative_to(HARNESS).as_posix().startswith(DATA)
        and "_data" not in path.parts
        and "gemma" in path.read_text(encoding="utf-8").lower()
    ]
    assert named == []
