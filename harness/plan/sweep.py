"""A sweep: which variants, models and PP sizes are judged, and the cell of each engine."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..assets import default_store
from ..engine.devices import KINDS
from ..engine.environment import inherited_settings
from ..engine.manifest import Gsm8kSource
from ..engine.probes import longest_probe, step_tokens
from ..engine.settings import MAX_SEQUENCES, Device, Executor, Mode, Profile, Weights
from ..errors import BadInputError
from ..models.checkpoint import ModelSource, resolve_model
from ..models.config import text_config
from ..models.instruments import instrument_names
from ..models.partition import PartitionPlan, as_value, plan_partition
from ..models.size import (
    embedding_bytes,
    kv_bytes,
    kv_groups,
    kv_share,
    step_bytes,
    tokenizer_bytes,
    weight_bytes,
)
from ..source.pin import Pin, load_pins
from ..source.series import Variant
from ..source.subject import Subject, read_subject
from ..source.tree import VariantTree
from .cell import Cell, Load
from .cost import FULL_PROBES, GPU_SEQUENCES, cache_tokens, modelled_seconds
from .generating import check_generates, check_sees
from .hosts import host_identity
from .installation import Finder, Installation, find_installation
from .options import Options
from .points import Point
from .questions import choose_questions, count_questions
from .serving import Serving, check_serving, servings
from .shard import Group, split

# Longest answer in tokens: bundled ones end within 40, so that a model that is broken and does not
# stop costs little; 256 is lm-eval's own limit.
_BUNDLED_ANSWER, _ANSWER = 64, 256
# Bundled questions where answers must be equal, so that one flip shows. Elsewhere all are asked,
# enough to rule out a fall of a point.
_EQUAL_ANSWERS = 128
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Context of a cell in tokens: room for a bundled question and its answer, for a long question
# without examples, and for one with examples.
_BUNDLED_LENGTH, _ZERO_SHOT_LENGTH, _FEW_SHOT_LENGTH = 512, 1024, 4096
# More where there are images: two of a tower that makes 1024 tokens of each.
_IMAGE_LENGTH = 2048


class Sweep:
    """The plan of a run on one release. Reading it costs no engine and no vLLM import."""

    def __init__(
        self, options: Options, pin: str = "", *, find: Finder = find_installation
    ) -> None:
        """Read the subject, the models and the questions, and refuse what cannot be run.

        `pin` is the release, empty for the default pin; `find` finds what is installed of it.

        Raises:
            BadInputError: naming the option, the thing and the fix.
        """
        self.options, self._label, self._find = options, pin, find
        pins = load_pins()
        self.subject: Subject = read_subject(
            replace(pins, default=pins.get(pin)),
            lambda lender: find(lender, options.device).vllm,
            series=options.series,
            patch=options.patch,
            checkout=options.vllm,
            base=options.base,
            base_version=options.base_version,
        )
        self.pin: Pin = self.subject.pin
        self.variants = _chosen_variants(options, self.subject)
        self.models = _chosen_models(options, self.store / "shapes")
        _check_partitions(options, self.models)
        asked = dict(options.engine_file) | dict(options.engine)
        self.servings = {
            serving.label: serving
            for serving in servings(options.recipes, tuple(sorted(asked.items())), options.env)
        }
        _check_files(self.servings, self.models)
        self._gsm8k = {
            name: None
            if model.is_shape
            else choose_questions(options, name, self.store / "gsm8k", few=not model.is_instrument)
            for name, model in self.models.items()
        }

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The points of this shard: variants in series order, models, profiles, kernels, PP sizes.

        Raises:
            BadInputError: if nothing is left for the shard.
        """
        every = tuple(
            Point(variant.name, model, pp, profile, kernels, self.options.tp, serving, self._label)
            for variant in self.variants
            for model in self.models
            for profile in self.options.profiles
            for kernels in self.options.kernels
            for serving in self.servings
            for pp in self.options.pps
        )
        if self.options.shard is None:
            return every
        number, count = self.options.shard
        groups: dict[Point, list[Point]] = {}
        for point in every:
            groups.setdefault(point.baseline, []).append(point)
        cost = {point: modelled_seconds(self._shape(point)) for point in (*groups, *every)}
        shards = split(
            [
                Group(cost[baseline], tuple((point.id, cost[point]) for point in points))
                for baseline, points in groups.items()
            ],
            count,
        )
        mine = tuple(point for point in every if point.id in shards[number - 1])
        if not mine:
            raise BadInputError(
                f"--pp-shard {number}/{count}: nothing is left for it; "
                f"the sweep has {len(every)} points"
            )
        return mine

    @cached_property
    def store(self) -> Path:
        """The folder that keeps captures and variant trees."""
        return self.options.store.absolute() if self.options.store else default_store()

    # ---- what is installed ------------------------------------------------------------------

    @cached_property
    def installation(self) -> Installation:
        """The installed vLLM that the pin asks for.

        Raises:
            BadInputError: if it is not there, or gives no text from a model of the sweep.
        """
        installation = self._find(self.pin, self.options.device)
        for model in self.models.values():
            check_generates(model, installation.vllm, self.variants)
        for serving in self.servings.values():
            check_serving(serving, installation.vllm, self.options.profiles)
            if serving.recipe.images:
                for model in self.models.values():
                    check_sees(model, installation.vllm, self.variants)
        return installation

    @cached_property
    def device(self) -> Device:
        """The kind of device that engines run on: the one that vLLM is built for.

        Raises:
            BadInputError: if an option is for another kind.
        """
        device = self.installation.device
        if device is Device.CPU and self.options.ranks_per_device > 1:
            raise BadInputError("--pp-share-device is for GPUs; on a CPU ranks share cores anyway")
        if device is Device.CPU and self.options.executor is Executor.RAY:
            raise BadInputError(
                '--pp-executor ray is for GPUs: vLLM refuses Ray on a CPU ("current platform cpu '
                'does not support ray"); use mp'
            )
        return device

    @property
    def dtype(self) -> str:
        """The dtype that engines run in."""
        if self.options.dtype != "auto":
            return self.options.dtype
        return KINDS[self.device].default_dtype

    @cached_property
    def trees(self) -> dict[str, VariantTree]:
        """The tree of each variant, by its name; built now if they were not."""
        folder = self.store / "trees"
        return {
            variant.name: self.installation.build_tree(variant, folder) for variant in self.variants
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What was measured: release, series, patches, trees, versions beside vLLM."""
        vllm = self.installation.vllm
        return {
            "pin": self.pin.version,
            "vllm": f"{vllm.distribution} {vllm.version}",
            "series": self.subject.name,
            "patches": dict(self.subject.digests),
            "notes": list(self.subject.notes),
            "variants": {
                variant.name: [patch.name for patch in variant.patches] for variant in self.variants
            },
            "trees": {name: tree.digest for name, tree in self.trees.items()},
            **dict(self.installation.versions),
        }

    # ---- cells ------------------------------------------------------------------------------

    def questions(self, profile: Profile) -> int:
        """How many questions a cell of a profile is asked: 0 if no model can answer any."""
        for model in self.models:
            if (source := self._asked(model, profile)) is not None:
                count = count_questions(source.questions)
                return count if source.limit is None else min(count, source.limit)
        return 0

    def _asked(self, model: str, profile: Profile) -> Gsm8kSource | None:
        """The questions of a cell: all that are bundled only where answers need not be equal."""
        source = self._gsm8k[model]
        few = profile is Profile.PARITY and self.options.mode is Mode.EAGER
        if source and few and source.name == "bundled" and source.limit is None:
            return replace(source, limit=_EQUAL_ANSWERS)
        return source

    def partition(self, point: Point) -> PartitionPlan:
        """Plan how the layers of a point's model are split over its stages, legal or not."""
        requested = next(
            (split for split in self.options.partitions if len(split) == point.pp), None
        )
        return plan_partition(self.models[point.model].config, point.pp, requested)

    def cell(self, point: Point) -> Cell:
        """Build the cell of a point, and its variant tree if that was not built yet."""
        tree = self.trees[point.variant]
        return replace(self._shape(point), tree=tree.path, tree_digest=tree.digest)

    def cells(self, point: Point, *, beside: bool = True) -> dict[Point, Cell]:
        """Build the cells of a point: PP=N, PP=1, and with `beside` what stands beside PP=1."""
        made = {place: self.cell(place) for place in (point, point.baseline)}
        if beside and (plain := made[point.baseline].beside):
            made[replace(point.baseline, serving=plain.serving)] = plain
        return made

    def _shape(self, point: Point) -> Cell:
        """Build the cell of a point without its tree: enough to say what it will cost."""
        options, model = self.options, self.models[point.model]
        text = text_config(model.config)
        plan, gsm8k = self.partition(point), self._asked(point.model, point.profile)
        serving, itemsize = self.servings[point.serving], _ITEM_BYTES[self.dtype]
        length, vllm = _context_length(text, gsm8k, serving), self.installation.vllm
        bundled = gsm8k is not None and gsm8k.name == "bundled"
        real = gsm8k is not None and not bundled
        sequences = GPU_SEQUENCES if real and self.device is not Device.CPU else MAX_SEQUENCES
        weights = weight_bytes(model.path, model.config, itemsize)
        cache = cache_tokens(
            length,
            sequences=sequences if gsm8k else FULL_PROBES,
            token_bytes=kv_bytes(model.config, 1, itemsize),
            weight_bytes=weights,
            device=self.device,
            share=options.ranks_per_device,
        )
        kept = kv_bytes(model.config, cache, itemsize)
        step = step_tokens(point.profile, length, sequences)
        return Cell(
            variant=point.variant,
            model=point.model,
            serving=serving.label,
            engine_args=serving.engine,
            env=serving.env,
            probe_sampling=serving.probes,
            question_sampling=serving.questions,
            aborts=serving.recipe.aborts,
            reload=serving.recipe.reload,
            images=serving.recipe.images,
            pp=point.pp,
            tree=Path(),
            tree_digest="",
            model_path=str(model.path),
            model_digest=model.digest,
            gsm8k=gsm8k,
            tp=point.tp,
            profile=point.profile,
            kernels=point.kernels,
            runner=options.runner,
            mode=options.mode,
            pin=f"{vllm.distribution} {vllm.version}",
            partition=None if plan.is_default else plan.layers_per_rank,
            dtype=self.dtype,
            device=self.device,
            ranks_per_device=options.ranks_per_device,
            executor=options.executor,
            weights=_weights(options, model),
            trust_remote_code=options.trust_remote_code,
            max_model_len=length,
            max_gen_tokens=_BUNDLED_ANSWER if bundled else _ANSWER,
            vocab_size=int(text["vocab_size"]),
            sliding_window=text.get("sliding_window"),
            versions=self.installation.versions,
            host=host_identity(self.device),
            inherited=inherited_settings(),
            python=vllm.python,
            max_sequences=sequences,
            cache_tokens=cache * kv_groups(model.config),
            load=Load(
                weight_bytes=weights,
                kv_bytes=int(kept * kv_share(model.config, plan.layers_per_rank)),
                questions=count_questions(gsm8k.questions) if gsm8k else 0,
                embedding_bytes=embedding_bytes(model.config, itemsize),
                step_bytes=step_bytes(model.config, step, itemsize),
                tokenizer_bytes=tokenizer_bytes(model.path) if gsm8k else 0,
            ),
        )


def plan_sweeps(options: Options, *, find: Finder = find_installation) -> dict[str, Sweep]:
    """Plan a sweep for each release, by the pin of its points; of the default pin if none.

    Raises:
        BadInputError: if a release is unknown, its sweep cannot be planned, or a checkout is asked
            for, which says itself which release it stands on.
    """
    if not options.pins:
        return {"": Sweep(options, find=find)}
    if options.vllm is not None:
        raise BadInputError(
            "--pp-pin does not go with --pp-vllm: name the release that lends its compiled files "
            "with --pp-base-version"
        )
    pins = load_pins()
    labels = ["" if pins.get(name) is pins.default else name for name in options.pins]
    return {label: Sweep(options, label, find=find) for label in labels}


def _chosen_variants(options: Options, subject: Subject) -> tuple[Variant, ...]:
    names = [variant.name for variant in subject.variants]
    for name in options.variants:
        if name not in names:
            raise BadInputError(f"--pp-variant {name}: {subject.title} has {', '.join(names)}")
    asked = options.variants or names
    return tuple(variant for variant in subject.variants if variant.name in asked)


def _chosen_models(options: Options, shapes: Path) -> dict[str, ModelSource]:
    models: dict[str, ModelSource] = {}
    for asked in options.models or instrument_names():
        model = resolve_model(
            asked,
            shapes_dir=shapes,
            allow_pickle=options.trust_pickle,
            allow_remote_code=options.trust_remote_code,
        )
        if model.name in models:
            raise BadInputError(f"--pp-model {asked}: two models are named {model.name}")
        text = text_config(model.config)
        if not text.get("vocab_size"):
            raise BadInputError(f"--pp-model {asked}: its config names no vocab_size")
        heads = text.get("num_attention_heads")
        if isinstance(heads, int) and heads % options.tp:
            raise BadInputError(
                f"--pp-tp {options.tp}: {model.name} has {heads} attention heads, which "
                f"{options.tp} ranks cannot share; give a divisor"
            )
        models[model.name] = model
    return models


def _check_files(servings: Mapping[str, Serving], models: Mapping[str, ModelSource]) -> None:
    """Refuse settings that read a checkpoint's files for a model that has none."""
    for label, serving in servings.items():
        for name, model in models.items():
            if serving.needs_weights and model.is_shape:
                raise BadInputError(
                    f"{label} needs the weights of a checkpoint, and {name} is a config without: "
                    "make a small one with `pp-harness model shrink`"
                )
            if serving.recipe.images and not model.has_processor:
                raise BadInputError(
                    f"{label} needs a processor, and {name} has none: give a checkpoint with its "
                    "processor_config.json, or shape:FOLDER with it and the tokenizer"
                )


def _check_partitions(options: Options, models: Mapping[str, ModelSource]) -> None:
    """Refuse a layer split that was asked for and that no engine could load."""
    for layers in options.partitions:
        asked = f"--pp-partition {as_value(layers)}"
        if len(layers) not in options.pps:
            raise BadInputError(
                f"{asked} has {len(layers)} stages; "
                f"--pp asks for {', '.join(map(str, options.pps))}"
            )
        for name, model in models.items():
            reason = plan_partition(model.config, len(layers), layers).illegal_reason
            if reason is None:
                continue
            legal = plan_partition(model.config, len(layers))
            fix = (
                f"no layer split over {len(layers)} stages is"
                if legal.illegal_reason
                else f"{legal.value} is"
            )
            raise BadInputError(
                f"{asked} is impossible for {name}, which has {sum(legal.default_split)} layers: "
                f"{reason}; {fix} legal (--pp-model chooses the models)"
            )


def _weights(options: Options, model: ModelSource) -> Weights:
    if options.load_format == "dummy":
        return Weights.DUMMY
    return Weights.RANDOM if model.is_shape else Weights.CHECKPOINT


def _context_length(text: Mapping[str, Any], gsm8k: Gsm8kSource | None, serving: Serving) -> int:
    if gsm8k is None or gsm8k.name == "bundled":
        wanted = _BUNDLED_LENGTH
    else:
        wanted = _FEW_SHOT_LENGTH if gsm8k.fewshot else _ZERO_SHOT_LENGTH
    wanted = max(wanted, longest_probe(text.get("sliding_window")))
    wanted += _IMAGE_LENGTH * serving.recipe.images
    return min(wanted, int(text.get("max_position_embeddings") or wanted))
