"""The bundled instruments: tiny checkpoints, and the word problems that the trained ones solve.

This module finds their files; `tools/instruments` builds them.
"""

import json
from pathlib import Path
from typing import Any

from ...errors import BadInputError

# In the order in which a sweep runs them.
_NAMES = ("dense", "ple", "moe", "mm")
# Of the tokenizer that they share.
VOCAB_SIZE = 448
_HERE = Path(__file__).resolve().parent
CHECKPOINTS = _HERE / "checkpoints"
# The model card of a checkpoint that we built: written last, so that it marks a whole one.
CARD = "instrument.json"


def instrument_names() -> tuple[str, ...]:
    """Return the names of the bundled instruments, in the order in which a sweep runs them."""
    return _NAMES


def instrument_path(name: str) -> Path:
    """Return the folder of a shipped checkpoint.

    Raises:
        BadInputError: no instrument has that name, or this installation lacks its files.
    """
    if name not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise BadInputError(f"no instrument is called {name!r}; there are {known}")
    folder = CHECKPOINTS / name
    if not (folder / "model.safetensors").is_file():
        raise BadInputError(
            f"the files of instrument {name!r} are not installed; "
            "install the harness again, or run from a checkout"
        )
    return folder


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a checkpoint that we built."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return card


def problems_path() -> Path:
    """Return the path of the bundled word problems, a JSONL file in GSM8K's format."""
    return _HERE / "problems.jsonl"
