"""Where the shipped instruments and their problems are. No torch, nothing is built here."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BadInputError
from harness.models.instruments.recipes import RECIPES, recipe_of

_HERE = Path(__file__).resolve().parent


def instrument_names() -> tuple[str, ...]:
    """Return the names of the bundled instruments, in the order in which a sweep runs them."""
    return tuple(RECIPES)


def instrument_path(name: str) -> Path:
    """Return the folder of a shipped checkpoint.

    Raises:
        BadInputError: no instrument has that name, or this installation lacks its files.

    """
    folder = _HERE / "checkpoints" / recipe_of(name).name
    if not (folder / "model.safetensors").is_file():
        raise BadInputError(
            f"the files of instrument {name!r} are not installed; "
            f"rebuild them: pp-harness model build {name} --out {folder}"
        )
    return folder


def problems_path() -> Path:
    """Return the path of the bundled word problems, a JSONL file in GSM8K's format."""
    return _HERE / "problems.jsonl"
