"""A cell: one engine, named by all that can change its result."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from .. import engine
from .points import Point

# Our own code that runs inside vLLM's processes: a change there makes captures stale.
_ENGINE = Path(engine.__file__).resolve().parent


@dataclass(frozen=True)
class Gsm8kSource:
    """The questions of a cell: a JSONL file, its digest, and how many are asked and shown."""

    name: str
    questions: Path
    digest: str
    limit: int | None
    fewshot: int
    fewshot_file: Path | None = None


@dataclass(frozen=True)
class Load:
    """How large a cell is, in bytes as computed in; no result depends on it."""

    weight_bytes: int = 0
    kv_bytes: int = 0
    questions: int = 0


@dataclass(frozen=True)
class Cell:
    """What one engine is asked to be.

    `variant` and `model` are names for people only, `load` is for the scheduler. `python` is the
    interpreter of the environment that holds vLLM; None: the controller's own.
    """

    variant: str
    model: str
    pp: int
    tree: Path
    tree_digest: str
    model_path: str
    model_digest: str
    gsm8k: Gsm8kSource | None
    pin: str
    partition: tuple[int, ...] | None = None
    tp: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    profile: str = "parity"
    runner: str = "auto"
    mode: str = "eager"
    executor: str = "mp"
    ranks_per_device: int = 1
    weights: str = "checkpoint"
    trust_remote_code: bool = False
    max_model_len: int = 512
    max_gen_tokens: int = 256
    vocab_size: int = 0
    sliding_window: int | None = None
    versions: tuple[tuple[str, str], ...] = ()
    host: str = ""
    inherited: tuple[tuple[str, str], ...] = ()
    python: Path | None = None
    load: Load = Load()

    @property
    def id(self) -> str:
        """Return the readable name, e.g. `fixed-ple-pp2`."""
        return Point(self.variant, self.model, self.pp, self.profile, self.tp).id

    @property
    def key(self) -> str:
        """Return the sha256 over everything that can change the capture, and nothing else."""
        content = asdict(self)
        for name in ("variant", "model", "tree", "model_path", "python", "load"):
            del content[name]
        if questions := content["gsm8k"]:
            content["gsm8k"] = {name: questions[name] for name in ("digest", "limit", "fewshot")}
        content["inside"] = inside_digest()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def inside_digest() -> str:
    """Return the sha256 of our own code that runs inside the engine's processes."""
    digest = hashlib.sha256()
    for file in sorted(_ENGINE.rglob("*.py")):
        digest.update(file.relative_to(_ENGINE).as_posix().encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()
