"""Find a checkpoint by instrument name, path or hub id, and identify its content. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import BadInputError
from .config_check import check_config
from .hub import is_silent
from .instruments import instrument_names, instrument_path
from .shape import PREFIX, config_digest, read_shape, write_config

# Files above this size enter the digest by size and modification time, not by content:
# a 60 GB checkpoint is not to be read again on every run.
HASH_LIMIT_BYTES = 64 * 1024 * 1024

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_CODE_CARRIERS = ("config.json", "tokenizer_config.json", "processor_config.json")
# What can change a result: configuration, weights and their index, tokenizer, chat template.
_CONTENT = (
    "*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "vocab*",
    "merges*", "special_tokens_map.json", "added_tokens.json", "*.model", "chat_template*", "*.py",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on this machine.

    Attributes:
        name: how the user named it, shortened to a word for item ids.
        path: the folder with its files; a hub checkpoint's is the local snapshot.
        hub_id: ``owner/name`` if it came from the hub.
        config: the content of ``config.json``.
        digest: sha256 of its files, in hexadecimal; see `content_digest`.
        is_shape: it has a config alone; the engine draws weights (shape.py).

    """

    name: str
    path: Path
    hub_id: str | None
    config: dict[str, Any]
    digest: str
    is_shape: bool = False

    @property
    def is_instrument(self) -> bool:
        """Whether this is one of the bundled instruments."""
        return (
            self.hub_id is None
            and not self.is_shape
            and self.path.parent.parent == _instruments_home()
        )


def resolve_model(
    name_or_path: str,
    *,
    shapes_dir: Path | None = None,
    allow_pickle: bool = False,
    allow_remote_code: bool = False,
) -> ModelSource:
    """Find and identify a checkpoint.

    A bundled instrument's name comes first, then a folder, then a hub id (``owner/name``). Write
    ``./ple`` for a folder that has the name of an instrument. ``shape:NAME`` is a config without a
    checkpoint, written below ``shapes_dir``.

    Raises:
        BadInputError: there is no such checkpoint, it is incomplete, the hub does not give it, or
            it has only pickled weights or asks for code of its own and that is not allowed.

    """
    if name_or_path.startswith(PREFIX) and shapes_dir is not None:
        name, shape = read_shape(name_or_path)
        path = write_config(shape, shapes_dir)
        return ModelSource(name, path, None, shape.config, config_digest(shape), is_shape=True)
    if name_or_path in instrument_names():
        name, hub_id, path = name_or_path, None, instrument_path(name_or_path)
    elif (folder := Path(name_or_path).expanduser()).exists():
        path = folder.resolve()
        name, hub_id = path.name, None
    elif _HUB_ID.fullmatch(name_or_path):
        path = _fetch(name_or_path, allow_pickle=allow_pickle)
        name, hub_id = name_or_path.rpartition("/")[2], name_or_path
    else:
        raise BadInputError(
            f"no model {name_or_path!r}: it is no instrument ({', '.join(instrument_names())}), "
            "no shape (shape:NAME), no folder, and no hub id (owner/name)"
        )
    if not path.is_dir():
        raise BadInputError(f"{path} is a file; give the folder that holds the checkpoint")
    config = read_config(path)
    check_config(config, path / "config.json")
    _check_weights(path, allow_pickle=allow_pickle)
    if not allow_remote_code:
        _refuse_code(path)
    return ModelSource(name, path, hub_id, config, content_digest(path))


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json``, given as the file or the folder that holds it.

    Raises:
        BadInputError: there is none, or it is not a JSON object.

    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInputError(
            f"{path} is not a checkpoint: it has no config.json; "
            "give the folder that holds config.json, *.safetensors and the tokenizer"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{file} holds no JSON object; it is not a model's config")
    return content


def content_digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of the files that can change a result.

    Larger files than `HASH_LIMIT_BYTES` enter with size and modification time instead of their
    content. So copying a large checkpoint changes its digest; a small one's depends on content
    alone.
    """
    whole = hashlib.sha256()
    patterns = list(_CONTENT)
    if not any(folder.glob("*.safetensors")):
        patterns += [f"*{suffix}" for suffix in _PICKLE_SUFFIXES]
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        whole.update(f"{file.name}\0{_file_mark(file)}\n".encode())
    return whole.hexdigest()


def _file_mark(file: Path) -> str:
    status = file.stat()
    if status.st_size > HASH_LIMIT_BYTES:
        return f"size {status.st_size} mtime_ns {status.st_mtime_ns}"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _check_weights(path: Path, *, allow_pickle: bool) -> None:
    """Refuse a folder without weights, with a missing shard, or with pickled weights only."""
    index = path / _INDEX
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            missing = sorted(shard for shard in shards if not (path / shard).is_file())
        except (
            OSError,
            ValueError,
            LookupError,
            AttributeError,
            TypeError,
            RecursionError,
        ) as error:
            raise BadInputError(f"{index} is not an index of weights: {error!r}") from error
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise BadInputError(f"{index} names a file outside its folder: {outside[0]!r}")
        if missing:
            raise BadInputError(
                f"{path} is incomplete: {missing[0]} is missing "
                f"({len(missing)} of {len(shards)} shards); download it again"
            )
        return
    if any(path.glob("*.safetensors")):
        return
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLE_SUFFIXES)
    if not pickled:
        raise BadInputError(f"{path} is not a checkpoint: it has no *.safetensors")
    if not allow_pickle:
        raise BadInputError(
            f"{path} has only pickled weights ({pickled[0]}), which can run any code when "
            "loaded; convert them to safetensors, or trust them: --pp-trust-pickle"
        )


def _refuse_code(path: Path) -> None:
    for name in _CODE_CARRIERS:
        file = path / name
        if file.is_file() and read_config(file).get("auto_map"):
            raise BadInputError(
                f"{file} asks for the checkpoint's own code (auto_map), which is not run; "
                "use a checkpoint of an architecture that vLLM and transformers have, or trust "
                "it: --pp-trust-remote-code"
            )


def _fetch(hub_id: str, *, allow_pickle: bool) -> Path:
    """Return the local snapshot of a hub checkpoint, downloaded if it is not in the cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BadInputError(
            f"{hub_id} is a hub id, and huggingface_hub is not installed; install it, or give "
            "a local folder"
        ) from error
    patterns = [*_CONTENT, *(f"*{suffix}" for suffix in _PICKLE_SUFFIXES if allow_pickle)]
    if is_silent():  # what was downloaded before is there all the same
        return _snapshot(partial(snapshot_download, local_files_only=True), hub_id, patterns)
    return _snapshot(snapshot_download, hub_id, patterns)


def _snapshot(download: Callable[..., str], hub_id: str, patterns: Iterable[str]) -> Path:
    # The hub, its client and the network fail in many ways; for the user they are one.
    try:
        return Path(download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInputError(
            f"{hub_id} is no local folder and the hub does not give it ({reason}); check the "
            "name, log in if it is gated, or give a local folder"
        ) from error


def _instruments_home() -> Path:
    return instrument_path(instrument_names()[0]).parent.parent
