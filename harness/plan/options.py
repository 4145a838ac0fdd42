"""The `--pp` options: each is declared once, as a field of `Options`.

A declaration holds the flag, its group and help (of `pytest --help`, the reference and the README),
how its text is read and refused, and whether it is a setting of every engine of a run. pytest hands
over plain text; `read_options` turns it into one typed record. Imports nothing heavy: every start
of pytest loads this module.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ..engine.settings import EnumFields, Executor, Kernels, Mode, ModelRunner, Profile
from ..errors import BadInputError
from .serving import Pairs, read_settings, read_settings_file, read_variables

# The largest drop of accuracy that is accepted, as a share of the questions.
DEFAULT_MARGIN = 0.01
# I/N; Python itself refuses to read a number of thousands of digits.
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class Group(StrEnum):
    """What an option decides."""

    SUBJECT = "what is measured"
    MODELS = "models and how their layers are split"
    ENGINES = "how engines run"
    QUESTIONS = "questions"
    RUN = "the run"
    OUTPUT = "what is written"


@dataclass(frozen=True)
class Option:
    """One flag. `read` turns its text into the value, or raises `ValueError` with the reason.

    `choices` are the words that it takes; `repeat` says that it may be given several times, and
    that `read` takes all texts; `switch` that it takes none. `setting`: every engine of a run has
    it, so that figures are compared within one of its values only.
    """

    flag: str
    group: Group
    help: str
    metavar: str | None = None
    read: Callable[[Any], Any] = str
    choices: tuple[str, ...] = ()
    repeat: bool = False
    switch: bool = False
    setting: bool = False

    @property
    def shape(self) -> str:
        """How its text looks; empty for a switch."""
        return self.metavar or "|".join(self.choices)

    def value(self, given: Any) -> Any:
        """Read what pytest was given.

        Raises:
            BadInputError: naming the flag, the text and the reason.
        """
        if self.switch:
            return bool(given)
        text = ",".join(given) if self.repeat else given
        if self.choices and text not in self.choices:
            words, last = ", ".join(self.choices[:-1]), self.choices[-1]
            raise BadInputError(f"{self.flag} {text}: give {words} or {last}")
        try:
            return self.read(given)
        except (ValueError, OSError) as error:
            raise BadInputError(f"{self.flag} {text}: {error}") from None


def _option(flag: str, default: Any, group: Group, help: str, **declared: Any) -> Any:
    return field(default=default, metadata={"option": Option(flag, group, help, **declared)})


# ---- how texts are read ----------------------------------------------------------------------


def parse_pps(text: str) -> tuple[int, ...]:
    """Read the PP sizes that `--pp` names, ascending.

    A single N means the powers of two below N, and N; a list means exactly those. PP=1 is always
    the baseline and is not among them.

    Raises:
        ValueError: if a size is no whole number above 1.
    """
    try:
        sizes = {int(part) for part in text.split(",")}
    except ValueError:
        raise ValueError("give one size (4) or a list (2,3)") from None
    if min(sizes) < 2:
        raise ValueError("sizes start at 2; PP=1 is the baseline and always runs")
    if "," not in text:
        (top,) = sizes
        sizes |= {2**power for power in range(1, top.bit_length()) if 2**power < top}
    return tuple(sorted(sizes))


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for text in texts for name in text.split(",") if name)


def _number(
    kind: type[int] | type[float], allowed: Callable[[float], bool], wanted: str
) -> Callable[[str], float]:
    """Make a reader of numbers; what is none, or not `allowed`, is refused with `give WANTED`."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not allowed(number):
            raise ValueError(f"give {wanted}")
        return number

    return read


_POSITIVE = _number(int, lambda number: number >= 1, "a whole number, 1 or more")
_SECONDS = _number(float, lambda seconds: seconds > 0, "seconds, above 0")


def _partitions(texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    splits = [_partition(text) for text in texts]
    if len({len(split) for split in splits}) < len(splits):
        raise ValueError("give one layer split for each number of stages")
    return tuple(splits)


def _partition(text: str) -> tuple[int, ...]:
    try:
        split = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError("give layers per stage, e.g. 3,5") from None
    if min(split) < 1:
        raise ValueError("every stage needs a layer")
    return split


def _shard(text: str) -> tuple[int, int]:
    match = _SHARD.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("give I/N with I from 1 to N, e.g. 2/4")
    return int(match[1]), int(match[2])


_Word = TypeVar("_Word", bound=StrEnum)


def _one_or_both(words: type[_Word]) -> Callable[[str], tuple[_Word, ...]]:
    return lambda text: tuple(words) if text == "both" else (words(text),)


def new_folder(text: str) -> Path:
    """Read the name of a folder that can be written; nothing is made yet.

    Raises:
        ValueError: now, for what could not be written after an hour of engines.
    """
    folder = Path(text)
    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written to")
    return folder


def new_file(text: str) -> Path:
    """Read the name of a file that can be written; `ValueError` says why it cannot."""
    file = Path(text)
    if file.is_dir():
        raise ValueError("is a folder; name a file in it")
    if file.exists() and not os.access(file, os.W_OK):
        raise ValueError("cannot be written to")
    new_folder(str(file.parent))
    return file


# ---- the options -----------------------------------------------------------------------------


# Each reads as: flag, default, group; help; how its text is read. The formatter would part them.
# fmt: off
@dataclass(frozen=True, kw_only=True)
class Options(EnumFields):
    """What the user asked for; None and empty mean the default that is worked out later."""

    pps: tuple[int, ...] = _option(
        "--pp", MISSING, Group.SUBJECT,
        "pipeline-parallel sizes to compare with PP=1: one N means the powers of two below N, "
        "and N; a list means exactly those. Without it the plugin does nothing",
        metavar="N|N,M", read=parse_pps
    )
    variants: tuple[str, ...] = _option(
        "--pp-variant", (), Group.SUBJECT,
        "judge only this variant of the series (repeat, or separate by commas); `base` is the "
        "release without a patch",
        metavar="NAME", read=_names, repeat=True
    )
    series: Path | None = _option(
        "--pp-series", None, Group.SUBJECT,
        "patch series to measure; every prefix is a variant (default: the pin's own)",
        metavar="DIR", read=Path
    )
    patch: Path | None = _option(
        "--pp-patch", None, Group.SUBJECT,
        "patch file to measure in place of a series, as downloaded from a pull request (.diff "
        "or .patch); variants `base` and `patched`",
        metavar="FILE", read=Path
    )
    vllm: Path | None = _option(
        "--pp-vllm", None, Group.SUBJECT,
        "git checkout of vLLM to measure in place of a series; variants `base` and `worktree`",
        metavar="DIR", read=Path
    )
    base: str | None = _option(
        "--pp-base", None, Group.SUBJECT,
        "revision that the checkout's branch started from (default: the first that exists of "
        "upstream/main, origin/main, main, else the nearest release tag)",
        metavar="REV"
    )
    base_version: str | None = _option(
        "--pp-base-version", None, Group.SUBJECT,
        "release that lends the checkout its compiled files (default: the newest pin that is not "
        "newer than its base)",
        metavar="VERSION"
    )
    pins: tuple[str, ...] = _option(
        "--pp-pin", (), Group.SUBJECT,
        "vLLM release to measure, in its own environment (`pp-harness pin install VERSION`); "
        "repeat, or separate by commas, for a sweep on each (default: the default pin)",
        metavar="VERSION", read=_names, repeat=True
    )
    models: tuple[str, ...] = _option(
        "--pp-model", (), Group.MODELS,
        "model to run: a bundled instrument, a published model's shape with random weights, a "
        "checkpoint folder or a hub id (repeat, or separate by commas; default: all "
        "instruments)",
        metavar="NAME|shape:NAME|PATH|HUB_ID", read=_names, repeat=True
    )
    partitions: tuple[tuple[int, ...], ...] = _option(
        "--pp-partition", (), Group.MODELS,
        "layers of each stage, for the PP size with that many stages (repeat for several; "
        "default: vLLM's own layer split, or the legal one nearest to balanced)",
        metavar="A,B,..", read=_partitions, repeat=True
    )
    load_format: str = _option(
        "--pp-load-format", "auto", Group.MODELS,
        "weights of the checkpoint, or vLLM's dummy weights: those show no difference, and the "
        "logits verdict says so",
        choices=("auto", "dummy"), setting=True
    )
    trust_pickle: bool = _option(
        "--pp-trust-pickle", False, Group.MODELS,
        "load pickled weights of a checkpoint that has no others; pickle runs any code",
        switch=True
    )
    trust_remote_code: bool = _option(
        "--pp-trust-remote-code", False, Group.MODELS,
        "run the code that a checkpoint brings along (auto_map)",
        switch=True
    )
    device: str = _option(
        "--pp-device", "auto", Group.ENGINES,
        "where the ranks run (auto: what the installed vLLM is built for)",
        choices=("auto", "cpu", "cuda")
    )
    ranks_per_device: int = _option(
        "--pp-share-device", 1, Group.ENGINES,
        "let up to N ranks run on each GPU, with 1/N of its memory each; boundary tensors then "
        "go through host memory, not NCCL",
        metavar="N", read=_POSITIVE
    )
    tp: int = _option(
        "--pp-tp", 1, Group.ENGINES,
        "tensor-parallel ranks of every stage, PP=1 included",
        metavar="N", read=_POSITIVE
    )
    profiles: tuple[Profile, ...] = _option(
        "--pp-profile", (Profile.PARITY,), Group.ENGINES,
        "how requests run: parity, identical batches at every PP, whose logits must agree bit "
        "by bit; stress, as vLLM serves (many in flight, chunked prefill, prefix caching, "
        "asynchronous scheduling), against the noise floor of PP=1; or both",
        choices=("parity", "stress", "both"), read=_one_or_both(Profile)
    )
    kernels: tuple[Kernels, ...] = _option(
        "--pp-kernels", (Kernels.DEFAULT,), Group.ENGINES,
        "kernels as vLLM chooses them; invariant, those whose rows do not depend on the batch "
        "(where PP=1 then repeats bit by bit in other batches, bits decide under stress too); or "
        "both",
        choices=(*Kernels, "both"), read=_one_or_both(Kernels)
    )
    mode: Mode = _option(
        "--pp-mode", Mode.EAGER, Group.ENGINES,
        "eager, or compiled with CUDA graphs as vLLM serves by default: which keys a stage "
        "reads and what its layers compute cannot be seen there",
        choices=tuple(Mode), read=Mode, setting=True
    )
    dtype: str = _option(
        "--pp-dtype", "auto", Group.ENGINES,
        "dtype of weights and activations (auto: float32 on CPU, bfloat16 on GPUs)",
        choices=("auto", "float32", "bfloat16", "float16"), setting=True
    )
    runner: ModelRunner = _option(
        "--pp-runner", ModelRunner.AUTO, Group.ENGINES,
        "vLLM's model runner (auto: the one that the release takes for the model); where it is "
        "not in effect nothing is judged",
        choices=tuple(ModelRunner), read=ModelRunner, setting=True
    )
    executor: Executor = _option(
        "--pp-executor", Executor.MP, Group.ENGINES,
        "mp starts the ranks on this host, ray on a running Ray cluster of GPUs",
        choices=tuple(Executor), read=Executor, setting=True
    )
    recipes: tuple[str, ...] = _option(
        "--pp-recipe", (), Group.ENGINES,
        "serve by this recipe (docs/recipes.md), PP=1 too (repeat, or separate by commas, for a "
        "sweep by each)",
        metavar="NAME", read=_names, repeat=True
    )
    engine: Pairs = _option(
        "--pp-engine", (), Group.ENGINES,
        "a setting of vLLM's engine by its own name, its value as JSON or a plain word, PP=1 too "
        "(repeat for several)",
        metavar="NAME=VALUE", read=read_settings, repeat=True
    )
    engine_file: Pairs = _option(
        "--pp-engine-file", (), Group.ENGINES,
        "the same from a TOML file; --pp-engine wins over it",
        metavar="FILE.toml", read=read_settings_file
    )
    env: Pairs = _option(
        "--pp-env", (), Group.ENGINES,
        "an environment variable of vLLM (VLLM_...) for every engine, PP=1 too (repeat for "
        "several)",
        metavar="NAME=VALUE", read=read_variables, repeat=True
    )
    gsm8k: str = _option(
        "--pp-gsm8k", "bundled", Group.QUESTIONS,
        "the questions: the bundled word problems, openai/gsm8k from the hub, or a file in "
        "GSM8K's format (its examples come from train.jsonl beside it)",
        metavar="bundled|hub|FILE.jsonl"
    )
    gsm8k_limit: int | None = _option(
        "--pp-gsm8k-limit", None, Group.QUESTIONS,
        "ask only the first N questions (default: all)",
        metavar="N", read=_POSITIVE
    )
    gsm8k_fewshot: int | None = _option(
        "--pp-gsm8k-fewshot", None, Group.QUESTIONS,
        "examples before each question (default: 0 for instruments, else 5)",
        metavar="N", read=_number(int, lambda number: number >= 0, "a whole number, 0 or more")
    )
    margin: float = _option(
        "--pp-margin", DEFAULT_MARGIN, Group.QUESTIONS,
        "largest drop of accuracy that is accepted, as a share of the questions: 0.01 is one "
        "point",
        metavar="SHARE",
        read=_number(
            float, lambda share: 0 < share < 1,
            "a share between 0 and 1, e.g. 0.01 for one point of accuracy",
        )
    )
    store: Path | None = _option(
        "--pp-store", None, Group.RUN,
        "where captures are kept (default: the user's cache folder)",
        metavar="DIR", read=new_folder
    )
    timeout: float = _option(
        "--pp-timeout", 600.0, Group.RUN,
        "longest time for one phase of an engine (import, start, probes, GSM8K) before its cell"
        " is blocked",
        metavar="SECONDS", read=_SECONDS
    )
    time_limit: float | None = _option(
        "--pp-time-limit", None, Group.RUN,
        "longest time for all engines together: then those that run are ended, what has no "
        "capture is blocked, and the rest is judged; the next run goes on from there",
        metavar="SECONDS", read=_SECONDS
    )
    plan_only: bool = _option(
        "--pp-plan", False, Group.RUN,
        "print the cells, their devices and expected seconds, and run nothing",
        switch=True
    )
    shard: tuple[int, int] | None = _option(
        "--pp-shard", None, Group.RUN,
        "run only the I-th of N parts of the sweep (join their reports by `pp-harness report "
        "merge`)",
        metavar="I/N", read=_shard
    )
    ignore_expected: bool = _option(
        "--pp-ignore-expected", False, Group.RUN,
        "do not read expected.toml: known findings fail too",
        switch=True
    )
    report: Path | None = _option(
        "--pp-report", None, Group.OUTPUT,
        "write `report.json`, `report.md` and `report.html`, a page that needs no network",
        metavar="DIR", read=new_folder
    )
    history: Path | None = _option(
        "--pp-history", None, Group.OUTPUT,
        "append a line per check to this file, for `pp-harness report trend`",
        metavar="FILE", read=new_file
    )
    # fmt: on

    @property
    def settings(self) -> dict[str, str]:
        """The settings that all engines of the run have in common, where not at their default.

        What is at its default is left out, so that a history goes on as new options appear.
        """
        return {
            entry.name: str(value)
            for entry, option in declarations()
            if option.setting and (value := getattr(self, entry.name)) != entry.default
        }


def declarations() -> Iterator[tuple[Field[Any], Option]]:
    """Yield the field and the option of each declaration, in order."""
    for entry in fields(Options):
        yield entry, entry.metadata["option"]


SETTINGS = tuple(entry.name for entry, option in declarations() if option.setting)


def help_of(entry: Field[Any]) -> str:
    """The help of a declaration, with its default where that is a figure or a word."""
    option: Option = entry.metadata["option"]
    plain = isinstance(entry.default, str | int | float) and not option.switch
    return option.help + (f" (default: {entry.default})" if plain else "")


def read_options(given: Mapping[str, Any]) -> Options:
    """Read texts by flag; what is missing or None is at its default.

    Raises:
        BadInputError: naming the flag, the text and the reason.
    """
    return Options(
        **{
            entry.name: option.value(text)
            for entry, option in declarations()
            if (text := given.get(option.flag)) not in (None, False)
        }
    )
