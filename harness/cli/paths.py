"""Folders and files that a command writes: refused before any work, as options of pytest are."""

from collections.abc import Callable
from pathlib import Path

import click

from ..errors import BadInputError
from ..plan.options import new_file, new_folder


def _param(read: Callable[[str], Path]) -> Callable[[str], Path]:
    """Say why a value is refused as click says it, with the option's name."""

    def path(text: str) -> Path:
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(f"{text}: {error}") from error

    return path


NEW_FOLDER, NEW_FILE = _param(new_folder), _param(new_file)


def write_new(file: Path, text: str) -> None:
    """Write a file that a command was asked for, its folder too.

    Raises:
        BadInputError: if it cannot be written, with the system's reason.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{file}: cannot be written: {error.strerror}") from error
