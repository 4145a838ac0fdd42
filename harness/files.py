"""Files: their digests, one clear error where they cannot be read, folders that appear whole."""

import glob
import hashlib
import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from .errors import BadInputError

Of = TypeVar("Of")


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(document: object) -> str:
    """Compute the sha256 of a document, as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read a file that the user named. Raises `BadInputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from error


def read_toml(path: Path, of: type[Of]) -> Of:
    """Read a TOML file as the record `of`, a dataclass or model.

    Raises:
        BadInputError: if it cannot be read or is none; the message names the file and the entry.
    """
    try:
        return TypeAdapter(of).validate_python(tomllib.loads(read_bytes(path).decode()))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{path}: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not TOML: {error}") from error


@contextmanager
def building(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of the folder `path`, and remove the remains of builds that were killed.

    Raises:
        BadInputError: if another process holds the lock for `seconds`, or the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=seconds):
            for remains in path.parent.glob(f".{glob.escape(path.name)}.*"):
                shutil.rmtree(remains, ignore_errors=True)
            yield
    except Timeout as error:
        raise BadInputError(
            f"{path}: another process has held its lock for {seconds} s; end it and try again"
        ) from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be made: {error}") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Let the block build a folder aside that becomes `path` at its end, or nothing if it fails.

    The block is given a path that does not exist yet. A folder at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside / "new"
        if path.exists():
            path.rename(aside / "old")
        (aside / "new").rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
