"""`pp-harness check`: the files that it checks, its output, and the run that it starts."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkouts import FILES, Checkout
from click.testing import CliRunner
from families import family

import harness.cli.changed_models
import harness.cli.check
from harness.cli.changed_models import (
    changed_models,
    models_to_run,
    read_change,
    suite_command,
)
from harness.cli.main import cli
from harness.errors import BadInputError
from harness.models.checkpoint import resolve_model
from harness.models.class_defaults import ClassDefault
from harness.models.instruments import CARD
from harness.source.pin import load_pins, locate_vllm
from harness.source.registry import ModelClass, generating_models

REGISTRY = """
_TEXT_GENERATION_MODELS = {
    "LlamaForCausalLM": ("m", "LlamaForCausalLM"),
    "AliasForCausalLM": ("m", "LlamaForCausalLM"),
    "OddForCausalLM": ("odd", "OddForCausalLM"),
}
_EMBEDDING_MODELS = {"MEmbedding": ("m", "MEmbedding")}
_MULTIMODAL_MODELS: dict = {
    **_TEXT_GENERATION_MODELS,
    "NewForCausalLM": ("vllm.models.new", "NewForCausalLM"),
}
"""
CLEAN = """class M(nn.Module, SupportsPP):
    def __init__(self):
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states"], 8
        )

    def forward(self, input_ids, positions, intermediate_tensors=None):
        if get_pp_group().is_first_rank:
            hidden_states = self.embed(input_ids)
        else:
            hidden_states = intermediate_tensors["hidden_states"]
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": hidden_states})
        return hidden_states
"""
BROKEN = CLEAN.replace('({"hidden_states"', '({"hidden"')
MODELS = "vllm/model_executor/models"


@pytest.fixture
def checkout(tmp_path):
    """Give a checkout with a registry and two clean models on main, on a branch of its own."""
    checkout = Checkout(tmp_path / "vllm").init()
    files = {f"{MODELS}/{name}.py": CLEAN for name in ("m", "odd")}
    checkout.commit({**FILES, **files, f"{MODELS}/registry.py": REGISTRY})
    checkout.git("switch", "-q", "-c", "topic")
    return checkout


@pytest.fixture
def check(checkout):
    """Give a function that runs the command on the checkout."""

    def check(*options, vllm=checkout.path):
        return CliRunner().invoke(cli, ["check", "--vllm", str(vllm), *options])

    return check


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Replace the release, the shrinking and pytest; give the commands that would have run."""
    started = SimpleNamespace(commands=[], status=0)

    def run(command, **_):
        started.commands.append(command)
        return SimpleNamespace(returncode=started.status)

    monkeypatch.setattr(harness.cli.check, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr("harness.cli.changed_models.default_store", lambda: tmp_path / "store")

    def defaults(_, models, tree):
        names = [name for model in models for name in model.architectures]
        none = ClassDefault(reason="neither has a class")
        known = ClassDefault({"layers": 2})
        return {name: known if name.startswith("Llama") else none for name in names}

    def shrink(_, out):
        out.mkdir(parents=True)
        (out / CARD).touch()

    monkeypatch.setattr(harness.cli.changed_models, "_shrink", shrink)
    monkeypatch.setattr("harness.cli.check.find_vllm", lambda *_: None)
    monkeypatch.setattr("harness.cli.changed_models.class_defaults", defaults)
    return started


def test_a_byte_order_mark_is_no_part_of_the_text_before(checkout):
    """A file that has one is the same Python with it and without."""
    checkout.commit({f"{MODELS}/m.py": "\ufeff" + CLEAN})
    checkout.write(f"{MODELS}/m.py", BROKEN)
    assert read_change(checkout.path, "HEAD").before == {f"{MODELS}/m.py": CLEAN}


def test_nothing_changed_is_clean(check):
    """No changed model file: status 0, and the summary says that none was looked at."""
    result = check("--diff", "main")
    assert (result.exit_code, "0 of 0 files" in result.output) == (0, True)


def test_only_changed_model_files_are_linted(check, checkout):
    """Committed, uncommitted and new files below the model folders; others and old ones not."""
    checkout.git("switch", "-q", "main")
    checkout.commit({f"{MODELS}/odd.py": BROKEN})
    checkout.git("switch", "-q", "-C", "topic")
    checkout.commit({f"{MODELS}/m.py": BROKEN, "vllm/a.py": BROKEN})
    checkout.write("vllm/models/new/nvidia/n.py", BROKEN)
    result = check("--diff", "main", "--output-format", "json")
    assert result.exit_code == 1
    paths = {finding["path"] for finding in json.loads(result.stdout)}
    names = {f"{MODELS}/m.py", "vllm/models/new/nvidia/n.py"}
    assert paths == {str(checkout.path / name) for name in names}


def test_without_a_revision_all_models_are_linted(check, checkout, tmp_path):
    """Without --diff the whole tree is looked at, and a tree without git will do."""
    checkout.commit({f"{MODELS}/odd.py": BROKEN})
    assert check().exit_code == 1
    (checkout.path / ".git").rename(tmp_path / "git")
    result = check()
    assert (result.exit_code, "of 3 files" in result.output) == (1, True)


ENCODER = """class Encoder(nn.Module):
    def __init__(self, config, enable_pp=%s):
        if enable_pp:
            self.start_layer, self.end_layer, self.layers = make_layers(8, Layer)
        else:
            self.layers = nn.ModuleList([Layer() for _ in range(8)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""
WRAPPER = "from .encoder import Encoder\n" + CLEAN.replace(
    "    def __init__(self):\n", "    def __init__(self):\n        self.encoder = Encoder(1)\n"
)


@pytest.mark.parametrize("name", ["encoder", "m"])
def test_a_change_is_judged_with_what_it_touches(check, checkout, name):
    """An encoder that is split wrongly is found with either of the two files changed alone."""
    checkout.git("switch", "-q", "main")
    files = {f"{MODELS}/encoder.py": ENCODER % True, f"{MODELS}/m.py": WRAPPER}
    good = {f"{MODELS}/encoder.py": ENCODER % False, f"{MODELS}/m.py": CLEAN}
    changed = f"{MODELS}/{name}.py"
    checkout.commit({**files, changed: good[changed], f"{MODELS}/odd.py": BROKEN})
    checkout.git("switch", "-q", "-C", "topic")
    checkout.write(changed, files[changed])
    result = check("--diff", "main", "--output-format", "json")
    assert result.exit_code == 1
    assert [(each["code"], each["counts"]) for each in json.loads(result.stdout)] == [
        ("PP407", True)
    ]


def test_only_what_the_change_brings_decides(check, checkout):
    """What an importer had before is hidden without --all; what the change breaks there counts."""
    checkout.git("switch", "-q", "main")
    importer = "from .base import Base\n" + BROKEN.replace("class M(", "class M(Base, ")
    base = CLEAN.replace("class M(", "class Base(")
    checkout.commit({f"{MODELS}/base.py": base, f"{MODELS}/m.py": importer})
    checkout.git("switch", "-q", "-C", "topic")
    checkout.write(f"{MODELS}/base.py", base + "\n")
    quiet = check("--diff", "main")
    assert (quiet.exit_code, "PP10" in quiet.output) == (0, False)
    assert "that do not count (--all)" in quiet.output
    loud = check("--diff", "main", "--all", "--output-format", "github")
    assert loud.exit_code == 0
    assert {line.split()[0] for line in loud.output.splitlines()} == {"::notice"}
    heir = "from .base import Base\n\n\nclass M(Base):\n    pass\n"
    checkout.commit({f"{MODELS}/m.py": heir})
    before = check("--diff", "HEAD")
    checkout.write(f"{MODELS}/base.py", base.replace('({"hidden_states"', '({"hidden"'))
    after = check("--diff", "HEAD", "--output-format", "sarif")
    assert (before.exit_code, after.exit_code) == (0, 1)
    (run,) = json.loads(after.stdout)["runs"]
    assert "error" in {result["level"] for result in run["results"]}


def test_a_repository_begins_with_what_it_has(check, checkout, tmp_path):
    """Findings of the baseline decide nothing, with --diff and without; new ones do."""
    checkout.commit({f"{MODELS}/odd.py": BROKEN})
    file = str(tmp_path / "known.json")
    assert check("--baseline", file, "--write-baseline").exit_code == 0
    assert check("--baseline", file).exit_code == 0
    assert check("--baseline", file, "--diff", "main").exit_code == 0
    checkout.write(f"{MODELS}/m.py", BROKEN)
    result = check("--baseline", file, "--diff", "main")
    assert (result.exit_code, f"{MODELS}/m.py" in result.output) == (1, True)
    assert f"{MODELS}/odd.py" not in result.output


def test_a_deleted_model_is_not_linted(check, checkout):
    """A file that is gone cannot be read, and is no finding."""
    checkout.git("rm", "-q", f"{MODELS}/odd.py")
    assert check("--diff", "main").exit_code == 0


def test_a_file_that_cannot_be_parsed_is_bad_input(check, checkout):
    """A syntax error is status 2, as in the lint."""
    checkout.write(f"{MODELS}/m.py", "class M(SupportsPP:\n")
    result = check("--diff", "main")
    assert (result.exit_code, "PP901" in result.output) == (2, True)


REFUSED = {
    "no folder": (["--vllm", "gone"], "no vLLM|not a vLLM tree"),
    "no folder with --diff": (["--vllm", "gone", "--diff", "main"], "gone: no such folder"),
    "unknown revision": (["--diff", "gone"], "has no commit 'gone'.*--diff REV"),
    "version without run": (["--base-version", "1.2.3"], "--base-version is for --run"),
    "baseline without a file": (["--write-baseline"], "--baseline FILE"),
    "no baseline": (["--baseline", "gone.json"], "gone.json: cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_error(check, case):
    """Unusable options and folders are refused with the fix."""
    options, words = REFUSED[case]
    result = check(*options)
    assert isinstance(result.exception, BadInputError)
    with pytest.raises(BadInputError, match=words):
        raise result.exception


def test_the_registry_says_which_models_a_file_serves(checkout):
    """Aliases are one class, packages hold their files, and models that do not generate are out."""
    llama = ModelClass(
        "vllm.model_executor.models.m", "LlamaForCausalLM", ("LlamaForCausalLM", "AliasForCausalLM")
    )
    new = ModelClass("vllm.models.new", "NewForCausalLM", ("NewForCausalLM",), is_multimodal=True)
    files = [f"{MODELS}/m.py", "vllm/models/new/nvidia/n.py"]
    assert changed_models(checkout.path, files) == (llama, new)
    assert len(generating_models(checkout.path)) == 3
    with pytest.raises(BadInputError, match="no model that generates text is registered"):
        changed_models(checkout.path, [f"{MODELS}/utils.py"])


@pytest.mark.parametrize("text", [None, "x = 1\n", "_TEXT_GENERATION_MODELS = (\n", "\0"])
def test_a_tree_without_a_registry_is_refused(checkout, text):
    """A registry that is missing, empty or no Python is named."""
    path = checkout.path / MODELS / "registry.py"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(BadInputError, match=r"registry\.py: "):
        generating_models(checkout.path)


@pytest.mark.parametrize(("pytest_status", "expected"), [(0, 0), (1, 1), (4, 2), (5, 2), (-9, 2)])
def test_run_passes_on_the_outcome(check, checkout, runs, pytest_status, expected):
    """--run starts the suite on the work tree with a tiny model; only verdicts count as such."""
    runs.status = pytest_status
    checkout.write(f"{MODELS}/m.py", CLEAN + "\n")
    result = check("--diff", "main", "--run", "--base-version", "0.20.2")
    assert result.exit_code == expected
    (command,) = runs.commands
    text = " ".join(command)
    for words in (
        f"--pp 4 --pp-vllm {checkout.path} --pp-variant worktree --pp-base main",
        "--pp-base-version 0.20.2",
        "shrunk/tiny-LlamaForCausalLM-",
        "-k engine or contract or logits",
    ):
        assert words in text


def test_a_model_that_cannot_be_shrunk_is_never_a_pass(check, checkout, runs):
    """Models that nothing stands for are named, and the status says that they are open."""
    checkout.write(f"{MODELS}/m.py", CLEAN + "\n")
    checkout.write(f"{MODELS}/odd.py", CLEAN + "\n")
    result = check("--diff", "main", "--run")
    assert (result.exit_code, len(runs.commands)) == (2, 1)
    assert "not run: OddForCausalLM (neither has a class)" in result.output
    checkout.git("checkout", "-q", f"{MODELS}/m.py")
    result = check("--diff", "main", "--run")
    assert "nothing can be run: OddForCausalLM (neither" in str(result.exception)
    assert len(runs.commands) == 1


def test_run_without_changes_runs_nothing(check, runs):
    """Nothing changed since the branch's base: reported, and status 0."""
    result = check("--run")
    assert (result.exit_code, "nothing to run" in result.output, len(runs.commands)) == (0, True, 0)


def test_a_tiny_checkpoint_is_built_once(runs, tmp_path):
    """The checkpoint of a configuration is kept, so that its captures are too."""
    llama = ModelClass("vllm.model_executor.models.m", "L", ("LlamaForCausalLM",))
    first = models_to_run([llama], tmp_path, None)
    (path,) = map(Path, first.models)
    assert path.is_relative_to(tmp_path / "store")
    (path / "mark").touch()
    assert models_to_run([llama], tmp_path, None) == first
    assert (path / "mark").exists()


def test_the_suites_options_exist(pytestconfig):
    """Each option that a run is started with is one that the plugin has."""
    command = suite_command(pytestconfig.rootpath, [], base="x", base_version="y")
    names = [word for word in command if word.startswith("--pp")]
    assert len(names) == 9
    for name in names:
        pytestconfig.getoption(name)


def test_the_instruments_of_a_class_run(runs, tmp_path):
    """A class that serves dense, per-layer-input and expert models is run as each of them."""
    gemma4 = ModelClass("vllm.model_executor.models.g", "G", ("Gemma4ForCausalLM",))
    assert models_to_run([gemma4], tmp_path, None).models == ("dense", "ple", "moe")


@pytest.mark.vllm
def test_a_tiny_checkpoint_is_real(tmp_path):
    """It is built in a process of its own, and is one that the harness takes."""
    harness.cli.changed_models._shrink(family("llama"), tmp_path / "l")
    assert resolve_model(str(tmp_path / "l")).config["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.vllm
def test_one_changed_file_is_linted_in_a_moment(tmp_path):
    """One changed file of the real tree with what it touches: under 1 s of processor time."""
    from checkouts import release_checkout

    from harness.lint import lint_change

    checkout = release_checkout(tmp_path / "vllm", locate_vllm(load_pins().default))
    change = read_change(checkout.path, "HEAD")
    assert change.names == (f"{MODELS}/gemma4.py",)
    before = {checkout.path / name: text for name, text in change.before.items()}
    began = time.process_time()
    report = lint_change(checkout.path, change.names, before=before, jobs=1)
    assert time.process_time() - began < 1
    assert not [f for f in report.findings if f.code == "PP104"]
