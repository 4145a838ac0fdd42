"""Finds the model files in what the user named, reads them, and tells which PP concerns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.errors import BadInputError

MODEL_FOLDERS = ("model_executor/models", "models")
MOST_BYTES = 2_000_000
"""A bigger file is no model file: the largest one in vLLM 0.33 has about 180 kB."""

# A file without any of these words cannot hold a class that takes part in PP in its own code.
_CONCERNS_PP = (
    *("def load_weights", "IntermediateTensors", "intermediate_tensors", "SupportsPP"),
    *("supports_pp", "make_layers", "PPMissingLayer", "pp-lint:"),
)


def model_files(paths: Iterable[Path]) -> list[Path]:
    """The Python files that the paths name, without duplicates, in a stable order.

    For the root of a vLLM checkout or package, only its model folders are taken.

    Raises:
        BadInputError: A path does not exist, or nothing Python is in it.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise BadInputError(f"{path}: no such file or directory")
        if path.is_dir():
            inside = list(_folder(path))
            if not inside:
                raise BadInputError(f"{path}: no Python file in this folder; name a model file")
            files.update(dict.fromkeys(inside))
        elif path.suffix == ".py":
            files[path] = None
        else:
            raise BadInputError(f"{path}: not a Python file; name a .py file or a folder")
    if not files:
        raise BadInputError("no path given; name model files, or the root of a vLLM tree")
    return list(files)


def _folder(path: Path) -> Iterator[Path]:
    for package in (path, path / "vllm"):
        if (package / "model_executor" / "models").is_dir():
            for name in MODEL_FOLDERS:
                yield from _walk(package / name)
            return
    yield from _walk(path)


def _walk(folder: Path) -> Iterator[Path]:
    # os.walk does not follow links to folders, so a loop of links ends here.
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
        for name in sorted(files):
            if name.endswith(".py"):
                yield Path(parent, name)


def read_source(path: Path) -> str:
    r"""Return the text of a file, with `\n` between its lines.

    Raises:
        BadInputError: The file cannot be read, is too large, or is not UTF-8 text.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(f"larger than {MOST_BYTES // 1_000_000} MB: not a model file")
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror or error}") from error
    if b"\0" in data:
        raise BadInputError("a binary file, not Python source")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise BadInputError(f"not UTF-8 text (byte {error.start})") from error


def decoded(path: Path) -> str:
    """Return the text of a file; nothing where it cannot be read, which its own judging reports."""
    try:
        return read_source(path)
    except BadInputError:
        return ""


def concerns_pp(source: str) -> bool:
    """Whether a file speaks of pipeline parallelism at all; the others are only parsed."""
    return any(word in source for word in _CONCERNS_PP)
