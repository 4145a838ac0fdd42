"""A change is linted with what it touches, and only what it brings decides the status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from lint_models import SOUND, changed

from harness.cli.lint import lint
from harness.errors import BadInputError
from harness.lint import LintReport, lint_change, lint_paths
from harness.lint.baseline import compared, write_baseline

MODELS = Path("vllm/model_executor/models")
ENCODER = """\
class ToyEncoder(nn.Module):
    def __init__(self, config, enable_pp=True, prefix=""):
        super().__init__()
        if enable_pp:
            self.start_layer, self.end_layer, self.layers = make_layers(
                config.n, lambda prefix: ToyLayer(config), prefix=prefix)
        else:
            self.layers = nn.ModuleList([ToyLayer(config) for _ in range(config.n)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""
WHOLE_ENCODER = ENCODER.replace("enable_pp=True", "enable_pp=False")
MAKES_MODEL = "        self.model = ToyModel(vllm_config=vllm_config, prefix=prefix)\n"


def broken(source: str) -> str:
    """A model that declares a key too few."""
    return source.replace('["hidden_states", "residual"], config', '["hidden_states"], config')


BROKEN = broken(SOUND)


def with_encoder(make: str) -> str:
    """The sound model, with an encoder of another file."""
    source = changed((MAKES_MODEL, f"{MAKES_MODEL}        self.encoder = {make}\n"))
    return source.replace("from .utils", "from .encoder import ToyEncoder\nfrom .utils")


@pytest.fixture
def tree(tmp_path):
    """Return a function that writes model files by name into a vLLM tree and returns its root."""

    def write(**files: str) -> Path:
        folder = tmp_path / MODELS
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            (folder / f"{name}.py").write_text(source)
        return tmp_path

    return write


def own(report: LintReport) -> list[tuple[str, str]]:
    """Code and file name of each finding that counts."""
    return [(finding.code, Path(finding.path).name) for finding in report.failing]


@pytest.mark.parametrize("name", ["encoder", "wrapper"])
@pytest.mark.parametrize(
    "make",
    [
        "ToyEncoder(config)",
        "partial(ToyEncoder, config)()",
        'KINDS["audio"](config)',
        "self._build(ToyEncoder, config)",
    ],
)
def test_encoder_and_wrapper_are_judged_together(tree, name, make):
    """An encoder that make_layers splits is reported, whichever of the two files has changed."""
    wrapper = with_encoder(make).replace(
        "class ToyForCausalLM(nn.Module, SupportsPP):",
        'KINDS = {"audio": ToyEncoder}\n\n\nclass ToyForCausalLM(nn.Module, SupportsPP):\n'
        "    def _build(self, cls, config):\n        return cls(config)\n",
    )
    root = tree(encoder=ENCODER, wrapper=wrapper, other=BROKEN)
    assert own(lint_change(root, [MODELS / f"{name}.py"])) == [("PP407", "encoder.py")]


def test_encoder_that_is_built_whole_is_no_error(tree):
    """`enable_pp=False`, given or by default, leaves every rank with the whole encoder."""
    root = tree(encoder=ENCODER, wrapper=with_encoder("ToyEncoder(config, enable_pp=False)"))
    assert own(lint_change(root, [MODELS / "encoder.py"])) == []
    root = tree(encoder=WHOLE_ENCODER, wrapper=with_encoder("ToyEncoder(config)"))
    assert own(lint_change(root, [MODELS / "encoder.py"])) == []


def test_importers_are_followed_through_files_in_between(tree):
    """A wrapper that gets the encoder by way of another file is judged as well."""
    wrapper = with_encoder("ToyEncoder(config)").replace("from .encoder", "from .between")
    root = tree(encoder=ENCODER, between="from .encoder import ToyEncoder\n", wrapper=wrapper)
    assert own(lint_change(root, [MODELS / "encoder.py"])) == [("PP407", "encoder.py")]


@pytest.mark.parametrize(
    ("line", "make", "is_judged"),
    [
        ("from .encoder import ToyEncoder", "ToyEncoder(config)", True),
        ("from .encoder import ToyEncoder as Tower", "Tower(config)", True),
        ("from . import encoder", "encoder.ToyEncoder(config)", True),
        ("from .encoder import (\n    ToyEncoder,  # or not\n)", "ToyEncoder(config)", True),
        ("from .encoder import *", "ToyEncoder(config)", True),
        ("from .encoder import Other, ToyEncoder", "None", False),
        ("from .encoder import ToyEncoder", "MyToyEncoder(config)", False),
        ("from .encoder import ToyEncoder", "ToyEncoders[ToyEncoder](config)", True),
        ("# from .encoder import ToyEncoder", "ToyEncoder(config)", False),
        ("from .between import helper", "helper(config)", False),
        ("from .between import make_encoder", "make_encoder(config)", True),
        ("from .between import KINDS", "KINDS['audio'](config)", True),
    ],
)
def test_only_what_can_reach_the_change_is_judged(tree, line, make, is_judged):
    """A file that imports a changed one and uses nothing of it, or something else, is left out."""
    between = """\
from .encoder import ToyEncoder

KINDS = {"audio": ToyEncoder}

def helper(config):
    return config

@cached
def make_encoder(config):
    return KINDS["audio"](config)
"""
    wrapper = broken(with_encoder(make)).replace("from .encoder import ToyEncoder", line)
    root = tree(encoder=WHOLE_ENCODER, between=between, wrapper=wrapper)
    report = lint_change(root, [MODELS / "encoder.py"])
    assert [finding.code for finding in report.others] == (["PP102"] if is_judged else [])


def test_old_findings_of_importers_do_not_count(tree):
    """A fault that an importer had before is shown among the others, and status 0 is left."""
    root = tree(encoder=WHOLE_ENCODER, wrapper=broken(with_encoder("ToyEncoder(config)")))
    report = lint_change(root, [MODELS / "encoder.py"])
    assert own(report) == []
    assert [finding.code for finding in report.others] == ["PP102"]
    assert report.status == 0


def test_what_a_change_breaks_in_an_importer_counts(tree):
    """With the text before the change, a finding that an importer did not have is the change's.

    A file that was empty before is a text like any other.
    """
    inner, outer = SOUND.split("class ToyForCausalLM")
    outer = "from .inner import *\nfrom .inner import ToyModel\n\n\nclass ToyForCausalLM" + outer
    declaration = "        self.make_empty_intermediate_tensors = None\n"
    root = tree(inner=inner, outer=outer)
    broken = inner.replace(
        "    def forward(self, input_ids", f"{declaration}\n    def forward(self, input_ids"
    )
    tree(inner=broken)
    path = root / MODELS / "inner.py"
    assert own(lint_change(root, [path])) == []
    for text in (inner, ""):
        assert own(lint_change(root, [path], before={path: text})) == [("PP301", "outer.py")]


def test_changes_outside_of_the_models_are_left_out(tree):
    """A deleted file and a file that is no model are nothing to lint."""
    report = lint_change(tree(toy=BROKEN), [MODELS / "gone.py", Path("setup.py")])
    assert report == LintReport()


# ---- baseline


def test_known_findings_do_not_count(tree):
    """A finding of the baseline is known where lines have moved; one more of a kind is new."""
    root = tree(toy=BROKEN)
    file = root / "pp-lint.json"
    assert write_baseline(file, lint_paths([root]).failing) == 1
    tree(toy="# a line more\n" + BROKEN)
    report = compared(lint_paths([root]), file)
    assert report.status == 0
    assert [finding.code for finding in report.others] == ["PP102"]
    tree(more=BROKEN)
    assert own(compared(lint_paths([root]), file)) == [("PP102", "more.py")]


def test_baseline_from_the_command_line(tree):
    """--write-baseline begins, --baseline keeps to it, --all shows what is known."""
    root = tree(toy=BROKEN)
    file = root / "pp-lint.json"

    def run(*words: object):
        return CliRunner().invoke(lint, [str(word) for word in (*words, root)])

    assert run("--baseline", file, "--write-baseline").exit_code == 0
    quiet = run("--baseline", file)
    assert quiet.exit_code == 0
    assert "PP102" not in quiet.output
    assert "1 that do not count (--all)" in quiet.output
    assert "PP102" in run("--baseline", file, "--all").output
    (record,) = json.loads(run("--baseline", file, "--all", "--output-format", "json").output)
    assert record["counts"] is False
    assert "::notice" in run("--baseline", file, "--all", "--output-format", "github").output
    changed_file = root / MODELS / "toy.py"
    assert run("--changed", changed_file).exit_code == 1
    assert run("--changed", changed_file, "--baseline", file).exit_code == 0


@pytest.mark.parametrize("content", [None, "{", "[]", '{"findings": [{}]}'])
def test_bad_baseline(tree, content):
    """A file that is no baseline is bad input, and named."""
    root = tree(toy=BROKEN)
    file = root / "pp-lint.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadInputError, match="pp-lint"):
        compared(lint_paths([root]), file)


def test_write_baseline_needs_a_file(tree):
    """--write-baseline alone is refused with what is missing."""
    result = CliRunner().invoke(lint, ["--write-baseline", str(tree(toy=BROKEN))])
    assert result.exit_code == 2
    assert "--baseline FILE" in result.output
