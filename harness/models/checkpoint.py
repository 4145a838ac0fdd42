"""Find a checkpoint by instrument name, path or hub id, and identify its content. No torch."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import BadInputError, first_line
from ..files import sha256_of
from .config import Decoder, read_config
from .hub import download
from .instruments import CHECKPOINTS, instrument_names, instrument_path
from .shape import PREFIX, config_digest, read_shape, write_config
from .size import PICKLE_SUFFIXES

# Files above this size enter the digest by size and modification time, not by content:
# a 60 GB checkpoint is not to be read again on every run.
HASH_LIMIT_BYTES = 64 * 1024 * 1024

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_CODE_CARRIERS = ("config.json", "tokenizer_config.json", *_PROCESSORS)
# What can change a result: configuration, weights and their index, tokenizer, chat template.
_CONTENT = (
    "*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "vocab*",
    "merges*", "special_tokens_map.json", "added_tokens.json", "*.model", "chat_template*", "*.py",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"


class _Index(BaseModel):
    weight_map: dict[str, str]


@dataclass(frozen=True)
class ModelSource:
    """A checkpoint on this machine.

    Attributes:
        name: the user's name for it, shortened to a word for item ids.
        path: the folder with its files; a hub checkpoint's is the local snapshot.
        config: the content of `config.json`.
        digest: sha256 of its files, in hexadecimal; see `content_digest`.
        is_shape: it is taken without weights; the engine draws them (shape.py).
    """

    name: str
    path: Path
    config: dict[str, Any]
    digest: str
    is_shape: bool = False

    @property
    def has_processor(self) -> bool:
        """Whether it says how images become inputs."""
        return any((self.path / name).is_file() for name in _PROCESSORS)

    @property
    def is_instrument(self) -> bool:
        """Whether this is one of the bundled instruments."""
        return self.path.parent == CHECKPOINTS


def resolve_model(
    name_or_path: str,
    *,
    shapes_dir: Path | None = None,
    allow_pickle: bool = False,
    allow_remote_code: bool = False,
) -> ModelSource:
    """Find and identify a checkpoint.

    A bundled instrument's name comes first, then a folder, then a hub id (`owner/name`). Write
    `./ple` for a folder that has the name of an instrument. `shape:NAME` is a config without a
    checkpoint, written below `shapes_dir`; `shape:FOLDER` takes the folder's config, tokenizer and
    processor, and leaves weights that it may have unread.

    Raises:
        BadInputError: there is no such checkpoint, it is incomplete, the hub does not give it, or
            it has only pickled weights or asks for code of its own and that is not allowed.
    """
    if name_or_path.startswith(PREFIX) and shapes_dir is not None:
        if (path := Path(name_or_path.removeprefix(PREFIX)).expanduser()).is_dir():
            path = path.resolve()
            config, digest = read_config(path), content_digest(path)
            return ModelSource(path.name, path, config, digest, is_shape=True)
        name, config = read_shape(name_or_path)
        path = write_config(config, shapes_dir)
        return ModelSource(name, path, config, config_digest(config), is_shape=True)
    if name_or_path in instrument_names():
        name, path = name_or_path, instrument_path(name_or_path)
    elif (folder := Path(name_or_path).expanduser()).exists():
        path = folder.resolve()
        name = path.name
    elif _HUB_ID.fullmatch(name_or_path):
        pickles = [f"*{suffix}" for suffix in PICKLE_SUFFIXES if allow_pickle]
        path = download(name_or_path, [*_CONTENT, *pickles])
        name = name_or_path.rpartition("/")[2]
    else:
        raise BadInputError(
            f"no model {name_or_path!r}: it is no instrument ({', '.join(instrument_names())}), "
            "no shape (shape:NAME), no folder, and no hub id (owner/name)"
        )
    if not path.is_dir():
        raise BadInputError(f"{path} is a file; give the folder that holds the checkpoint")
    config = read_config(path)
    try:
        Decoder.of(config)
    except BadInputError as error:
        raise BadInputError(f"{path / 'config.json'}: {error}") from error
    _check_weights(path, allow_pickle=allow_pickle)
    if not allow_remote_code:
        _refuse_code(path)
    return ModelSource(name, path, config, content_digest(path))


def content_digest(folder: Path) -> str:
    """Compute the sha256 over the names and contents of the files that can change a result.

    Larger files than `HASH_LIMIT_BYTES` enter with size and modification time instead of their
    content. So copying a large checkpoint changes its digest; a small one's depends on content
    alone.
    """
    whole = hashlib.sha256()
    patterns = list(_CONTENT)
    if not any(folder.glob("*.safetensors")):
        patterns += [f"*{suffix}" for suffix in PICKLE_SUFFIXES]
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        status = file.stat()
        if status.st_size > HASH_LIMIT_BYTES:
            mark = f"size {status.st_size} mtime_ns {status.st_mtime_ns}"
        else:
            mark = sha256_of(file)
        whole.update(f"{file.name}\0{mark}\n".encode())
    return whole.hexdigest()


def _check_weights(path: Path, *, allow_pickle: bool) -> None:
    """Refuse a folder without weights, with a missing shard, or with pickled weights only."""
    index = path / _INDEX
    if index.is_file():
        try:
            shards = set(_Index.model_validate_json(index.read_bytes()).weight_map.values())
            missing = sorted(shard for shard in shards if not (path / shard).is_file())
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise BadInputError(f"{index} is not an index of weights: {reason}") from error
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
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES)
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
