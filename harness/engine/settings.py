"""The settings of one engine: one field for each, and the values that it may take.

`plan.cell.Cell` and `engine.manifest.Request` both inherit from `EngineSettings`: a new field is in
the key of a capture, in what the engine is asked for and in the manifest without another line.
"""

from dataclasses import dataclass, fields
from enum import Enum, StrEnum

# Marks a field that cannot change a result: a name for people, a place on this machine.
NOT_IN_KEY = {"in_key": False}


# The setting of vLLM's engine that has tokens drafted.
DRAFTS = "speculative_config"
# Requests in flight at most, unless a GPU has many real questions to answer; above every probe
# batch, so that parity sees identical batches.
MAX_SEQUENCES = 32


class Profile(StrEnum):
    """How requests run: identical batches at every PP size, or as vLLM serves them."""

    PARITY = "parity"
    STRESS = "stress"


class Kernels(StrEnum):
    """vLLM's kernels: as it chooses them, or those whose rows do not depend on the batch."""

    DEFAULT = "default"
    INVARIANT = "invariant"


class Mode(StrEnum):
    """Whether vLLM compiles the model and captures CUDA graphs."""

    EAGER = "eager"
    COMPILED = "compiled"


class Device(StrEnum):
    """Where ranks run."""

    CPU = "cpu"
    CUDA = "cuda"


class ModelRunner(StrEnum):
    """vLLM's model runner; AUTO leaves the choice to vLLM."""

    AUTO = "auto"
    V1 = "v1"
    V2 = "v2"


class Executor(StrEnum):
    """What starts the ranks: processes of one host, or actors of a Ray cluster."""

    MP = "mp"
    RAY = "ray"


class Weights(StrEnum):
    """Where weights come from: files, our generator inside the engine, vLLM's dummy loader."""

    CHECKPOINT = "checkpoint"
    RANDOM = "random"
    DUMMY = "dummy"


class EnumFields:
    """A frozen dataclass whose fields hold enums wherever their defaults do, given plain words too.

    A word would equal its enum and not be it: code that asks by `is` would take another branch.
    """

    def __post_init__(self) -> None:
        """Turn words into enums. Raises `ValueError` if an enum has no such word."""
        for entry in fields(self):  # type: ignore[arg-type] # for dataclasses
            value, default = getattr(self, entry.name), entry.default
            if isinstance(default, Enum):
                object.__setattr__(self, entry.name, type(default)(value))
            elif isinstance(default, tuple) and any(isinstance(each, Enum) for each in default):
                object.__setattr__(self, entry.name, tuple(map(type(default[0]), value)))


@dataclass(frozen=True, kw_only=True)
class EngineSettings(EnumFields):
    """The settings of one engine; each is part of a capture's key.

    `partition` holds the layers of each stage, None: vLLM's own split. Lengths are in tokens.
    `cache_tokens` is what the KV cache holds, summed over the groups of layers that share a block
    table; `ranks_per_device` is for GPUs that several ranks share. `engine_args` are settings of
    vLLM by its own names, with values as JSON, `env` environment variables, as the user asked;
    `probe_sampling` and `question_sampling` are sampling parameters of the same form. With
    `aborts` requests are cancelled in flight before each probe, with `reload` weights are loaded
    from what an engine of the same sizes saved, with `images` some probes have images.
    """

    pp: int
    tp: int = 1
    partition: tuple[int, ...] | None = None
    dtype: str = "float32"
    device: Device = Device.CPU
    profile: Profile = Profile.PARITY
    kernels: Kernels = Kernels.DEFAULT
    runner: ModelRunner = ModelRunner.AUTO
    mode: Mode = Mode.EAGER
    executor: Executor = Executor.MP
    ranks_per_device: int = 1
    weights: Weights = Weights.CHECKPOINT
    trust_remote_code: bool = False
    max_model_len: int = 512
    max_gen_tokens: int = 256
    max_sequences: int = MAX_SEQUENCES
    cache_tokens: int = (MAX_SEQUENCES + 1) * 512
    vocab_size: int = 0
    sliding_window: int | None = None
    engine_args: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    probe_sampling: tuple[tuple[str, str], ...] = ()
    question_sampling: tuple[tuple[str, str], ...] = ()
    aborts: bool = False
    reload: bool = False
    images: bool = False

    def asks(self, name: str) -> bool:
        """Whether a setting of vLLM's engine was asked for, and not to be off."""
        return dict(self.engine_args).get(name, "false") not in ("false", "null")
