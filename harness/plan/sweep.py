"""From options to cells: which variants, models and PP sizes, and one cell for each engine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..assets import default_store, patches_dir
from ..capture.devices import DevicePool, find_devices, host_identity
from ..capture.ray_cluster import cluster_devices
from ..checks.accuracy.power import DEFAULT_MARGIN
from ..engine.environment import inherited_settings
from ..engine.probes import longest_probe
from ..errors import BadInputError
from ..models.checkpoint import ModelSource, resolve_model
from ..models.hub import is_silent
from ..models.instruments import instrument_names, problems_path
from ..models.partition import PartitionPlan, plan_partition, text_config
from ..models.size import kv_bytes, weight_bytes
from ..source.environments import find_vllm
from ..source.pin import InstalledVllm, Pin, load_pins, sha256_of
from ..source.series import Variant
from ..source.subject import Subject, SubjectOptions, read_subject
from ..source.tree import VariantTree, build_tree
from .cell import Cell, Gsm8kSource, Load
from .cost import KV_SEQUENCES, modelled_seconds
from .points import Point
from .shard import Group, split

# What decides results beside vLLM itself.
_VERSIONED = ("torch", "transformers", "lm-eval", "datasets", "numpy", "tokenizers")
# Longest answer in tokens: bundled ones end within 40, so that a model that is broken and does not
# stop costs little; 256 is lm-eval's own limit.
_BUNDLED_ANSWER, _ANSWER = 64, 256
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# The options that are settings of every engine of a run: figures are compared within one of them.
SETTINGS = ("load_format", "runner", "executor", "mode", "dtype")
# Context of a cell in tokens: room for a bundled question and its answer, for a long question
# without examples, and for one with examples.
_BUNDLED_LENGTH, _ZERO_SHOT_LENGTH, _FEW_SHOT_LENGTH = 512, 1024, 4096


@dataclass(frozen=True)
class SweepOptions:
    """What the user asked for; None means the default that the sweep works out.

    `pin` is empty for the default pin.
    """

    pps: tuple[int, ...]
    variants: tuple[str, ...] = ()
    subject: SubjectOptions = field(default_factory=SubjectOptions)
    models: tuple[str, ...] = ()
    device: str = "auto"
    ranks_per_device: int = 1
    gsm8k: str = "bundled"
    gsm8k_limit: int | None = None
    gsm8k_fewshot: int | None = None
    partitions: tuple[tuple[int, ...], ...] = ()
    load_format: str = "auto"
    store: Path | None = None
    tp: int = 1
    runner: str = "auto"
    pin: str = ""
    shard: tuple[int, int] | None = None
    executor: str = "mp"
    profiles: tuple[str, ...] = ("parity",)
    mode: str = "eager"
    dtype: str = "auto"
    margin: float = DEFAULT_MARGIN
    trust_pickle: bool = False
    trust_remote_code: bool = False


def parse_pps(text: str) -> tuple[int, ...]:
    """Return the PP sizes that `--pp` names, ascending.

    A single N means the powers of two below N, and N; a list means exactly those. PP=1 is always
    the baseline and is not among them.

    Raises:
        BadInputError: if a size is no whole number above 1.
    """
    try:
        sizes = {int(part) for part in text.split(",")}
    except ValueError:
        raise BadInputError(f"--pp {text}: give one size (4) or a list (2,3)") from None
    if min(sizes) < 2:
        raise BadInputError(f"--pp {text}: sizes start at 2; PP=1 is the baseline and always runs")
    if len(sizes) == 1 and "," not in text:
        (top,) = sizes
        power = 2
        while power < top:
            sizes.add(power)
            power *= 2
    return tuple(sorted(sizes))


class Sweep:
    """The plan of a run. Reading it costs no engine and no vLLM import."""

    def __init__(self, options: SweepOptions) -> None:
        """Read the subject, the models and the questions, and refuse what cannot be run.

        Raises:
            BadInputError: naming the option, the thing and the cure.
        """
        self.options = options
        if options.device not in ("auto", "cpu", "cuda"):
            raise BadInputError(f"--pp-device {options.device}: auto, cpu or cuda")
        pins = load_pins(patches_dir())
        self.subject: Subject = read_subject(
            options.subject,
            replace(pins, default=pins.get(options.pin)) if options.pin else pins,
            patches_dir(),
            lambda pin: find_vllm(pin, options.device),
        )
        self.pin: Pin = self.subject.pin
        self.variants = self._chosen_variants()
        self.models = self._chosen_models()
        for cut in options.partitions:
            if len(cut) not in options.pps:
                raise BadInputError(
                    f"--pp-partition {','.join(map(str, cut))} has {len(cut)} stages; "
                    f"--pp asks for {', '.join(map(str, options.pps))}"
                )
        sizes = [len(cut) for cut in options.partitions]
        if len(set(sizes)) < len(sizes):
            raise BadInputError("--pp-partition: give one cut for each number of stages")
        if options.gsm8k_limit is not None and options.gsm8k_limit < 1:
            raise BadInputError("--pp-gsm8k-limit must be at least 1")
        if options.gsm8k_fewshot is not None and options.gsm8k_fewshot < 0:
            raise BadInputError("--pp-gsm8k-fewshot must not be negative")
        if not 0 < options.margin < 1:
            raise BadInputError(
                f"--pp-margin {options.margin:g}: give a share between 0 and 1, "
                "e.g. 0.01 for one point of accuracy"
            )
        if options.load_format not in ("auto", "dummy"):
            raise BadInputError(f"--pp-load-format {options.load_format}: auto or dummy")
        if options.runner not in ("auto", "v1", "v2"):
            raise BadInputError(f"--pp-runner {options.runner}: auto, v1 or v2")
        self._check_tp()
        if options.ranks_per_device < 1:
            raise BadInputError("--pp-share-device must be at least 1")
        self._gsm8k = {
            name: None if model.is_shape else self._questions(name)
            for name, model in self.models.items()
        }

    def _chosen_variants(self) -> tuple[Variant, ...]:
        every = self.subject.variants
        names = [one.name for one in every]
        for name in self.options.variants:
            if name not in names:
                raise BadInputError(
                    f"--pp-variant {name}: {self.subject.title} has {', '.join(names)}"
                )
        asked = self.options.variants
        return tuple(one for one in every if not asked or one.name in asked)

    def _check_tp(self) -> None:
        tp = self.options.tp
        if tp < 1:
            raise BadInputError(f"--pp-tp {tp}: give 1 or more ranks a stage")
        for name, model in self.models.items():
            heads = text_config(model.config).get("num_attention_heads")
            if isinstance(heads, int) and heads % tp:
                raise BadInputError(
                    f"--pp-tp {tp}: {name} has {heads} attention heads, which {tp} ranks cannot "
                    "share; give a divisor"
                )

    def _chosen_models(self) -> dict[str, ModelSource]:
        models: dict[str, ModelSource] = {}
        for asked in self.options.models or instrument_names():
            model = resolve_model(
                asked,
                shapes_dir=self.store / "shapes",
                allow_pickle=self.options.trust_pickle,
                allow_remote_code=self.options.trust_remote_code,
            )
            if model.name in models:
                raise BadInputError(f"--pp-model {asked}: two models are named {model.name}")
            if not text_config(model.config).get("vocab_size"):
                raise BadInputError(f"--pp-model {asked}: its config names no vocab_size")
            models[model.name] = model
        return models

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Return the points of this shard, variants in series order, then models, then PP.

        Raises:
            BadInputError: if nothing is left for the shard.
        """
        if self.options.shard is None:
            return self._every_point
        number, count = self.options.shard
        groups: dict[Point, list[Point]] = {}
        for point in self._every_point:
            groups.setdefault(point.baseline, []).append(point)
        cost = {
            point: modelled_seconds(self._shape(point)) for point in (*groups, *self._every_point)
        }
        shards = split(
            [
                Group(cost[baseline], tuple((point.id, cost[point]) for point in points))
                for baseline, points in groups.items()
            ],
            count,
        )
        mine = tuple(point for point in self._every_point if point.id in shards[number - 1])
        if not mine:
            raise BadInputError(
                f"--pp-shard {number}/{count}: nothing is left for it; "
                f"the sweep has {len(self._every_point)} points"
            )
        return mine

    @property
    def _every_point(self) -> tuple[Point, ...]:
        return tuple(
            Point(variant.name, model, pp, profile, self.options.tp, self.options.pin)
            for variant in self.variants
            for model in self.models
            for profile in self.options.profiles
            for pp in self.options.pps
        )

    @cached_property
    def installed(self) -> InstalledVllm:
        """Return the installed vLLM that the pin asks for."""
        return find_vllm(self.pin, self.options.device)

    @cached_property
    def device(self) -> str:
        """Return cpu or cuda: what the installed vLLM is built for."""
        built_for = "cpu" if self.installed.is_cpu else "cuda"
        if self.options.ranks_per_device > 1 and built_for == "cpu":
            raise BadInputError("--pp-share-device is for GPUs; on a CPU ranks share cores anyway")
        if self.options.executor == "ray" and built_for == "cpu":
            raise BadInputError(
                '--pp-executor ray is for GPUs: vLLM refuses Ray on a CPU ("current platform cpu '
                'does not support ray"); use mp'
            )
        return built_for

    @cached_property
    def devices(self) -> DevicePool:
        """Return the devices that cells may use."""
        if self.options.executor == "ray":
            return cluster_devices(self.installed.python)
        return find_devices(self.device, self.options.ranks_per_device)

    @cached_property
    def store(self) -> Path:
        """Return the folder that keeps captures and variant trees."""
        return self.options.store.absolute() if self.options.store else default_store()

    @cached_property
    def _trees(self) -> dict[str, VariantTree]:
        folder = self.store / "trees"
        return {one.name: build_tree(self.installed, one, folder) for one in self.variants}

    @property
    def tree_notes(self) -> list[str]:
        """Return what there is to say of the variant trees; they are built now if they were not."""
        return [tree.note for tree in self._trees.values() if tree.note]

    @property
    def questions(self) -> int:
        """Return how many questions a cell is asked: 0 if no model can answer any."""
        source = next((one for one in self._gsm8k.values() if one is not None), None)
        if source is None:
            return 0
        count = count_questions(source.questions)
        return count if source.limit is None else min(count, source.limit)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what was measured: release, series, patches, trees, versions beside vLLM."""
        return {
            "pin": self.pin.version,
            "vllm": f"{self.installed.distribution} {self.installed.version}",
            "series": self.subject.name,
            "patches": dict(self.subject.digests),
            "trees": {name: tree.digest for name, tree in self._trees.items()},
            **dict(self.versions),
        }

    @property
    def dtype(self) -> str:
        """Return the dtype that engines run in."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return "float32" if self.device == "cpu" else "bfloat16"

    @property
    def settings(self) -> dict[str, str]:
        """Return what all engines of the run have in common, where it is not the default."""
        chosen = ((one, getattr(self.options, one.name)) for one in fields(self.options))
        return {
            one.name: value
            for one, value in chosen
            if one.name in SETTINGS and value != one.default
        }

    @cached_property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """Return the versions of the packages that can change a result."""
        found = []
        for name in _VERSIONED:
            version = self.installed.package_version(name)
            if version is None:
                cure = (
                    f"run: {self.pin.install_command(self.device)} --again"
                    if self.installed.python
                    else "install the extra 'cpu' or 'cuda' (see README)"
                )
                raise BadInputError(
                    f"{name} is not installed beside vLLM {self.pin.version}; {cure}"
                )
            found.append((name, version))
        return tuple(found)

    def partition(self, point: Point) -> PartitionPlan:
        """Return how the model of a point is cut over its stages, legal or not."""
        requested = next((cut for cut in self.options.partitions if len(cut) == point.pp), None)
        return plan_partition(self.models[point.model].config, point.pp, requested)

    def cell(self, point: Point) -> Cell:
        """Return the cell of a point; its variant tree is built now if it was not."""
        tree = self._trees[point.variant]
        return replace(self._shape(point), tree=tree.path, tree_digest=tree.digest)

    def _shape(self, point: Point) -> Cell:
        """Return the cell of a point without its tree: enough to say what it will cost."""
        model = self.models[point.model]
        text = text_config(model.config)
        plan = self.partition(point)
        gsm8k = self._gsm8k[point.model]
        length = self._length(text, gsm8k)
        return Cell(
            variant=point.variant,
            model=point.model,
            pp=point.pp,
            tree=Path(),
            tree_digest="",
            model_path=str(model.path),
            model_digest=model.digest,
            gsm8k=gsm8k,
            tp=point.tp,
            profile=point.profile,
            runner=self.options.runner,
            mode=self.options.mode,
            pin=f"{self.installed.distribution} {self.installed.version}",
            partition=None if plan.is_default else plan.layers_per_rank,
            dtype=self.dtype,
            device=self.device,
            ranks_per_device=self.options.ranks_per_device,
            executor=self.options.executor,
            weights=self._weights(model),
            trust_remote_code=self.options.trust_remote_code,
            max_model_len=length,
            max_gen_tokens=_BUNDLED_ANSWER if gsm8k and gsm8k.name == "bundled" else _ANSWER,
            vocab_size=int(text["vocab_size"]),
            sliding_window=text.get("sliding_window"),
            versions=self.versions,
            host=host_identity(self.device),
            inherited=inherited_settings(),
            python=self.installed.python,
            load=self._load(model, length, gsm8k),
        )

    def baseline(self, point: Point) -> Cell:
        """Return the PP=1 cell that a point is compared with."""
        return self.cell(point.baseline)

    def _weights(self, model: ModelSource) -> str:
        if self.options.load_format == "dummy":
            return "dummy"
        return "random" if model.is_shape else "checkpoint"

    def _load(self, model: ModelSource, length: int, gsm8k: Gsm8kSource | None) -> Load:
        itemsize = _ITEM_BYTES[self.dtype]
        return Load(
            weight_bytes=weight_bytes(model.path, model.config, itemsize),
            kv_bytes=kv_bytes(model.config, KV_SEQUENCES * length, itemsize),
            questions=count_questions(gsm8k.questions) if gsm8k else 0,
        )

    @staticmethod
    def _length(text: Mapping[str, Any], gsm8k: Gsm8kSource | None) -> int:
        if gsm8k is None or gsm8k.name == "bundled":
            wanted = _BUNDLED_LENGTH
        else:
            wanted = _FEW_SHOT_LENGTH if gsm8k.fewshot else _ZERO_SHOT_LENGTH
        wanted = max(wanted, longest_probe(text.get("sliding_window")))
        return min(wanted, int(text.get("max_position_embeddings") or wanted))

    def _questions(self, model: str) -> Gsm8kSource:
        """Return the questions of a model's cells and how many examples come before each."""
        name, fewshot = self.options.gsm8k, self.options.gsm8k_fewshot
        if fewshot is None:
            few = name != "bundled" and not self.models[model].is_instrument
            fewshot = 5 if few else 0
        if name == "hub":
            path, train = _from_hub(self.store / "gsm8k")
        elif name == "bundled":
            path, train = problems_path(), None
            if fewshot:
                raise BadInputError(
                    f"--pp-gsm8k bundled has no examples for {fewshot} shots ({model}): "
                    "use --pp-gsm8k-fewshot 0, or --pp-gsm8k hub or FILE.jsonl"
                )
        else:
            path = Path(name).absolute()
            _check_questions(path)
            train = path.with_name("train.jsonl")
            if fewshot:
                if not train.is_file():
                    raise BadInputError(
                        f"{train}: not there; {fewshot} shots need it beside {path.name} "
                        "(or use --pp-gsm8k-fewshot 0)"
                    )
                _check_questions(train)
        digest = sha256_of(path)
        if fewshot and train is not None:
            digest += sha256_of(train)
        return Gsm8kSource(
            name=name if name in ("bundled", "hub") else "file",
            questions=path,
            digest=digest,
            limit=self.options.gsm8k_limit,
            fewshot=fewshot,
            fewshot_file=train if fewshot else None,
        )


def plan_sweeps(options: SweepOptions, versions: Sequence[str]) -> dict[str, Sweep]:
    """Return a sweep for each release, by the pin of its points; of the default pin if none.

    Raises:
        BadInputError: if a release is unknown, its sweep cannot be planned, or a checkout is asked
            for, which says itself which release it stands on.
    """
    if not versions:
        return {options.pin: Sweep(options)}
    if options.subject.checkout is not None:
        raise BadInputError(
            "--pp-pin does not go with --pp-vllm: name the release that lends its compiled files "
            "with --pp-base-version"
        )
    pins = load_pins(patches_dir())
    labels = ["" if pins.get(one) is pins.default else one for one in versions]
    return {label: Sweep(replace(options, pin=label)) for label in labels}


@lru_cache(maxsize=8)
def count_questions(path: Path) -> int:
    """Return the number of questions in a file of them."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def _check_questions(path: Path) -> None:
    """Raise `BadInputError` unless every line of a file is a question in GSM8K's format."""
    try:
        # Not splitlines(): JSON may hold U+2028 and other separators unescaped.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--pp-gsm8k {path}: cannot be read: {error}") from error
    if lines == [""]:
        raise BadInputError(f"--pp-gsm8k {path}: holds no questions")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts = isinstance(row["question"], str) and isinstance(row["answer"], str)
            fits = texts and "####" in row["answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise BadInputError(
                f"{path}:{number}: no GSM8K line; each is a JSON object with `question` and an "
                "`answer` that ends in `#### NUMBER`"
            )


def _from_hub(folder: Path) -> tuple[Path, Path]:
    """Fetch openai/gsm8k once and keep it as JSONL files; return its questions and examples.

    Raises:
        BadInputError: if the hub cannot be reached and nothing was kept before.
    """
    test, train = folder / "test.jsonl", folder / "train.jsonl"
    if not (test.is_file() and train.is_file()):
        try:
            import datasets
        except ImportError as error:
            raise BadInputError(
                "--pp-gsm8k hub: the package datasets is not installed in this environment; "
                "install it, or use --pp-gsm8k bundled, or a local FILE.jsonl"
            ) from error
        if is_silent():
            raise BadInputError(
                "--pp-gsm8k hub: the hub does not answer; use --pp-gsm8k bundled, or a local "
                "FILE.jsonl"
            )
        try:
            for path in (test, train):
                rows = datasets.load_dataset("openai/gsm8k", "main", split=path.stem)
                folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                rows.to_json(str(partial))
                partial.replace(path)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BadInputError(
                f"--pp-gsm8k hub: openai/gsm8k cannot be fetched ({reason}); "
                "use --pp-gsm8k bundled, or a local FILE.jsonl"
            ) from error
    return test, train
