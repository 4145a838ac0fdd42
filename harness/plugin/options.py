"""The `--pp` options: what they are, and what they ask for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..plan.sweep import SweepOptions

_PROFILES = {"parity": ("parity",), "stress": ("stress",), "both": ("parity", "stress")}
# Longest number of shards; Python itself refuses to read one of thousands of digits.
_DIGITS = 6


def add_options(parser: pytest.Parser) -> None:
    """Register the `--pp` options."""
    group = parser.getgroup("pp-harness", "pipeline-parallel regression harness")
    add = group.addoption
    add(
        "--pp",
        metavar="N|N,M",
        help="pipeline-parallel sizes to judge against PP=1: one N means the powers of two below "
        "N, and N; a list means exactly those. Without it the plugin does nothing.",
    )
    add(
        "--pp-variant",
        action="append",
        metavar="NAME",
        help="judge only this variant of the series (repeat, or separate by commas)",
    )
    add(
        "--pp-series",
        metavar="DIR",
        help="patch series to measure; every prefix is a variant (default: the pin's own)",
    )
    add(
        "--pp-patch",
        metavar="FILE",
        help="patch file to measure in place of a series, as downloaded from a pull request "
        "(.diff or .patch); variants base and patched",
    )
    add(
        "--pp-vllm",
        metavar="DIR",
        help="git checkout of vLLM to measure in place of a series; variants base and worktree",
    )
    add(
        "--pp-base",
        metavar="REV",
        help="revision that the checkout's branch started from (default: the first that exists of "
        "upstream/main, origin/main, main, else the nearest release tag)",
    )
    add(
        "--pp-base-version",
        metavar="VERSION",
        help="release that lends the checkout its compiled files (default: its nearest release "
        "tag if that is pinned, else the default pin)",
    )
    add(
        "--pp-pin",
        action="append",
        metavar="VERSION",
        help="vLLM release to measure, in its own environment (`pp-harness pin install VERSION`); "
        "repeat, or separate by commas, for a sweep on each (default: the default pin)",
    )
    add(
        "--pp-model",
        action="append",
        metavar="NAME|shape:NAME|PATH|HUB_ID",
        help="model to run: a bundled instrument, a published model's shape with random weights, a "
        "checkpoint folder or a hub id (repeat, or separate by commas; default: all instruments)",
    )
    add(
        "--pp-device",
        default="auto",
        metavar="auto|cpu|cuda",
        help="where the ranks run (default: what the installed vLLM is built for)",
    )
    add(
        "--pp-share-device",
        type=int,
        default=1,
        metavar="N",
        help="let up to N ranks run on each GPU, with 1/N of its memory each; what crosses a "
        "boundary then goes through host memory, not NCCL (default: a GPU for each rank)",
    )
    add(
        "--pp-gsm8k",
        default="bundled",
        metavar="bundled|hub|FILE.jsonl",
        help="the questions: the bundled word problems, openai/gsm8k from the hub, or a file in "
        "GSM8K's format (its examples come from train.jsonl beside it)",
    )
    add(
        "--pp-gsm8k-limit",
        type=int,
        metavar="N",
        help="ask only the first N questions (default: all)",
    )
    add(
        "--pp-gsm8k-fewshot",
        type=int,
        metavar="N",
        help="examples before each question (default: 0 for instruments, else 5)",
    )
    add(
        "--pp-margin",
        type=float,
        metavar="SHARE",
        help="largest fall of accuracy that is accepted, as a share of the questions (default: "
        "0.01, one point)",
    )
    add(
        "--pp-partition",
        action="append",
        metavar="A,B,..",
        help="layers of each stage, for the PP size with that many stages (repeat for several; "
        "default: vLLM's own cut, or the legal cut nearest to balanced)",
    )
    add(
        "--pp-tp",
        type=int,
        default=1,
        metavar="N",
        help="tensor-parallel ranks of every stage, PP=1 included (default: 1)",
    )
    add(
        "--pp-load-format",
        default="auto",
        metavar="auto|dummy",
        help="weights of the checkpoint, or vLLM's dummy weights: those show no difference, and "
        "the logits verdict says so (default: auto)",
    )
    add(
        "--pp-trust-pickle",
        action="store_true",
        help="load pickled weights of a checkpoint that has no others; pickle runs any code",
    )
    add(
        "--pp-trust-remote-code",
        action="store_true",
        help="run the code that a checkpoint brings along (auto_map)",
    )
    add(
        "--pp-runner",
        default="auto",
        metavar="auto|v1|v2",
        help="vLLM's model runner (default: the one that the release takes for the model)",
    )
    add(
        "--pp-dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="dtype of weights and activations (default: float32 on CPU, bfloat16 on GPUs)",
    )
    add(
        "--pp-profile",
        choices=("parity", "stress", "both"),
        default="parity",
        help="how requests run: parity, identical batches at every PP, whose logits must agree bit "
        "by bit; stress, as vLLM serves (many in flight, chunked prefill, prefix caching, "
        "asynchronous scheduling), against the noise floor of PP=1; or both (default: parity)",
    )
    add(
        "--pp-mode",
        choices=("eager", "compiled"),
        default="eager",
        help="eager, or compiled with CUDA graphs as vLLM serves by default: what a stage reads "
        "and what its layers give cannot be seen there (default: eager)",
    )
    add("--pp-report", metavar="DIR", help="write report.json into this folder")
    add(
        "--pp-history",
        metavar="FILE",
        help="append a line per check to this file, for pp-harness report trend",
    )
    add(
        "--pp-store",
        metavar="DIR",
        help="keep captures and variant trees here (default: the user's cache folder)",
    )
    add(
        "--pp-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest time for one phase of an engine (import, start, probes, GSM8K) before its "
        "cell counts as blocked (default: 600)",
    )
    add(
        "--pp-time-limit",
        type=float,
        metavar="SECONDS",
        help="longest time for all engines together: then those that run are ended, what has no "
        "capture is blocked, and what can be judged is judged; the next run goes on from there",
    )
    add(
        "--pp-executor",
        choices=("mp", "ray"),
        default="mp",
        help="who starts the ranks: mp, on this host; ray, on a running Ray cluster of GPUs "
        "(default: mp)",
    )
    add(
        "--pp-plan",
        action="store_true",
        help="print the cells, their devices and expected seconds, and run nothing",
    )
    add(
        "--pp-shard",
        metavar="I/N",
        help="run only the I-th of N parts of the sweep, split by expected cost (join their "
        "reports by pp-harness report merge)",
    )
    add(
        "--pp-ignore-expected",
        action="store_true",
        help="do not read expected.toml: known findings fail too",
    )


def read_options(config: pytest.Config) -> "SweepOptions":
    """Return what the options ask for.

    Raises:
        BadInputError: naming the option and the cure.
    """
    from ..checks.accuracy.power import DEFAULT_MARGIN
    from ..errors import BadInputError
    from ..plan.sweep import SweepOptions, parse_pps
    from ..source.subject import SubjectOptions

    option = config.getoption
    for name in ("--pp-timeout", "--pp-time-limit"):
        if option(name) is not None and not option(name) > 0:
            raise BadInputError(f"{name} must be above 0")
    for name in ("--pp-report", "--pp-store"):
        if option(name):
            _check_folder(name, Path(option(name)))
    if option("--pp-history"):
        _check_file("--pp-history", Path(option("--pp-history")))
    return SweepOptions(
        pps=parse_pps(option("--pp")),
        variants=names(option("--pp-variant")),
        subject=SubjectOptions(
            series=_path(option("--pp-series")),
            patch=_path(option("--pp-patch")),
            checkout=_path(option("--pp-vllm")),
            base=option("--pp-base"),
            base_version=option("--pp-base-version"),
        ),
        models=names(option("--pp-model")),
        device=option("--pp-device"),
        ranks_per_device=option("--pp-share-device"),
        gsm8k=option("--pp-gsm8k"),
        gsm8k_limit=option("--pp-gsm8k-limit"),
        gsm8k_fewshot=option("--pp-gsm8k-fewshot"),
        load_format=option("--pp-load-format"),
        partitions=tuple(_cut(text) for text in option("--pp-partition") or ()),
        store=_path(option("--pp-store")),
        tp=option("--pp-tp"),
        shard=_shard(option("--pp-shard")),
        runner=option("--pp-runner"),
        executor=option("--pp-executor"),
        profiles=_PROFILES[option("--pp-profile")],
        mode=option("--pp-mode"),
        dtype=option("--pp-dtype"),
        margin=DEFAULT_MARGIN if (margin := option("--pp-margin")) is None else margin,
        trust_pickle=option("--pp-trust-pickle"),
        trust_remote_code=option("--pp-trust-remote-code"),
    )


def _check_folder(option: str, folder: Path) -> None:
    """Refuse now what could not be written after an hour of engines; nothing is made yet."""
    from ..errors import BadInputError

    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not nearest.is_dir():
        raise BadInputError(f"{option} {folder}: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInputError(f"{option} {folder}: {nearest} cannot be written to")


def _check_file(option: str, file: Path) -> None:
    from ..errors import BadInputError

    if file.is_dir():
        raise BadInputError(f"{option} {file}: is a folder; name a file in it")
    if file.exists() and not os.access(file, os.W_OK):
        raise BadInputError(f"{option} {file}: cannot be written to")
    _check_folder(option, file.parent)


def names(values: list[str] | None) -> tuple[str, ...]:
    """Split repeated, comma-separated option values."""
    return tuple(name for value in values or () for name in value.split(",") if name)


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _shard(text: str | None) -> tuple[int, int] | None:
    from ..errors import BadInputError

    if text is None:
        return None
    number, _, count = text.partition("/")
    short = max(len(number), len(count)) <= _DIGITS
    if not (short and _is_whole(number) and _is_whole(count) and 1 <= int(number) <= int(count)):
        raise BadInputError(f"--pp-shard {text}: give I/N with I from 1 to N, e.g. 2/4")
    return int(number), int(count)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _cut(text: str) -> tuple[int, ...]:
    from ..errors import BadInputError

    try:
        cut = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"--pp-partition {text}: give layers per stage, e.g. 3,5") from None
    if min(cut) < 1:
        raise BadInputError(f"--pp-partition {text}: every stage needs a layer")
    return cut
