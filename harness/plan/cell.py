"""A cell: one engine, named by all that can change its result."""

import hashlib
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from .. import engine
from ..engine.manifest import Gsm8kSource
from ..engine.settings import DRAFTS, NOT_IN_KEY, EngineSettings, Mode
from ..files import digest_of
from .points import Point

# Our own code that runs inside vLLM's processes: a change there makes captures stale.
_ENGINE = Path(engine.__file__).resolve().parent


@dataclass(frozen=True)
class Load:
    """How large a cell is, in bytes as computed in, and how many questions: for the scheduler.

    `kv_bytes` are those of the stage that holds most of the cache, `embedding_bytes` those of the
    weights' bytes that the first and the last stage each hold, `step_bytes` what the largest step
    computes in a layer, `tokenizer_bytes` what the cell's process and its ranks share.
    """

    weight_bytes: int = 0
    kv_bytes: int = 0
    questions: int = 0
    embedding_bytes: int = 0
    step_bytes: int = 0
    tokenizer_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Cell(EngineSettings):
    """One engine that is to be captured: its settings, and what it runs on.

    `python` is the interpreter of the environment that holds vLLM; None: the controller's own.
    """

    variant: str = field(metadata=NOT_IN_KEY)
    model: str = field(metadata=NOT_IN_KEY)
    serving: str = field(metadata=NOT_IN_KEY, default="")
    tree: Path = field(metadata=NOT_IN_KEY)
    tree_digest: str
    model_path: str = field(metadata=NOT_IN_KEY)
    model_digest: str
    gsm8k: Gsm8kSource | None
    pin: str
    versions: tuple[tuple[str, str], ...] = ()
    host: str = ""
    inherited: tuple[tuple[str, str], ...] = ()
    python: Path | None = field(metadata=NOT_IN_KEY, default=None)
    load: Load = field(metadata=NOT_IN_KEY, default=Load())

    @property
    def id(self) -> str:
        """Its name for people, e.g. `fixed-ple-pp2`."""
        return replace(Point.of(self), pin="").id  # `pin` names the distribution too

    @property
    def beside(self) -> "Cell | None":
        """The same without what may move its logits: eager where it compiles, else undrafted.

        It is asked no questions.
        """
        if self.mode is Mode.COMPILED:
            name, plain = str(Mode.EAGER), replace(self, mode=Mode.EAGER)
        elif self.asks(DRAFTS):
            kept = tuple(pair for pair in self.engine_args if pair[0] != DRAFTS)
            name, plain = "undrafted", replace(self, engine_args=kept)
        else:
            return None
        serving = "-".join(filter(None, (self.serving, name)))
        return replace(plain, serving=serving, gsm8k=None, load=replace(self.load, questions=0))

    @cached_property
    def key(self) -> str:
        """The sha256 over everything that can change the capture, and nothing else."""
        return digest_of({**_content(self), "engine": engine_digest()})


def _content(record: Any) -> dict[str, Any]:
    """Collect the fields of a dataclass that stand in the key."""
    names = [entry.name for entry in fields(record) if entry.metadata.get("in_key", True)]
    values = {name: getattr(record, name) for name in names}
    return {name: _content(v) if is_dataclass(v) else v for name, v in values.items()}


@lru_cache(maxsize=1)
def engine_digest() -> str:
    """Digest our own code that runs inside vLLM's processes: sha256 of its folder."""
    digest = hashlib.sha256()
    for file in sorted(_ENGINE.rglob("*.py")):  # not the table of names, which nothing inside reads
        digest.update(file.relative_to(_ENGINE).as_posix().encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()
