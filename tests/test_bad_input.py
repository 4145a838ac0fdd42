"""Whatever stands where input should: it is read, or refused in one clear error; no traceback."""

import json
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sarif_pydantic import Sarif

from harness.assets import patches_dir, suites_dir
from harness.checks.expectations import Setting, load_expectations
from harness.cli.main import main
from harness.errors import BadInputError
from harness.models.checkpoint import resolve_model
from harness.models.instruments import instrument_path
from harness.models.partition import plan_partition
from harness.models.size import kv_bytes, weight_bytes
from harness.plan.options import declarations, read_options
from harness.plan.questions import check_questions
from harness.report.files import read_report
from harness.report.history import read as read_history
from harness.source.pin import load_pins
from harness.source.pull_request import read_patch_file

DEEP = b"[" * 100_000
ANY = st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode())


def mutations(text):
    """The bytes of a file that is right, with a piece cut out, doubled, moved or replaced."""
    data = text.encode()
    place = st.integers(0, len(data))
    return st.builds(
        lambda a, b, new: data[: min(a, b)] + new + data[max(a, b) :],
        place,
        place,
        st.sampled_from([b"", b"\0", b"\xff", b'"', b"[", b"{}", b"-1", b"1e999", b"\r\n"]) | ANY,
    )


def refused_or_read(function, *arguments):
    """Call it; all that it may raise is BadInputError, of one line that says something."""
    try:
        function(*arguments)
    except BadInputError as error:
        said = str(error)
    else:
        said = "read"
    assert said.strip()
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("input") / "file"


PINS = (patches_dir() / "pins.toml").read_text()
EXPECTED = (suites_dir() / "expected.toml").read_text()
SETTING = Setting("0.20.2", "gemma4-pp", "cpu", "bundled")


@given(mutations(PINS) | ANY)
@example(b"a = " + DEEP)
@example(b"")
def test_pins(file, data):
    """`pins.toml`."""
    folder = file.parent / "patches"
    folder.mkdir(exist_ok=True)
    (folder / "pins.toml").write_bytes(data)
    refused_or_read(load_pins, folder)


@given(mutations(EXPECTED) | ANY)
@example(b"a = " + DEEP)
def test_expectations(file, data):
    """`expected.toml`."""
    file.write_bytes(data)
    refused_or_read(load_expectations, file, SETTING)


LINE = json.dumps({"question": "How many?", "answer": "Two. #### 2"}) + "\n"


@given(mutations(LINE * 2) | ANY)
@example(DEEP)
def test_questions(file, data):
    """A JSONL file of questions."""
    file.write_bytes(data)
    refused_or_read(check_questions, file)


@given(ANY)
@example(DEEP)
@example(b'{"schema": ' + DEEP)
def test_history_and_reports(file, data):
    """A history passes over what is no line of one; a report is refused whole."""
    file.write_bytes(data)
    refused_or_read(read_history, file)
    (file.parent / "report.json").write_bytes(data)
    refused_or_read(read_report, file.parent)


@given(ANY)
@settings(max_examples=30)
def test_downloaded_patches(file, data):
    """A patch of a pull request, whatever was downloaded in its place."""
    file.write_bytes(data)
    refused_or_read(read_patch_file, file)


CONFIG = json.loads((instrument_path("ple") / "config.json").read_text())
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.just(10**30), st.lists(st.integers(), max_size=3), st.just({}),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    shutil.copy(instrument_path("ple") / "model.safetensors", folder)
    return folder


def use(folder):
    """What a sweep computes from a config before an engine runs."""
    config = resolve_model(str(folder)).config
    for pp in (1, 2, 5):
        plan_partition(config, pp)
    weight_bytes(folder, config, 4)
    kv_bytes(config, 100, 4)


@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), VALUES, max_size=3))
@settings(max_examples=200)
def test_configs(checkpoint, changes):
    """A `config.json` in which any values stand for others."""
    (checkpoint / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    refused_or_read(use, checkpoint)


@given(mutations(json.dumps(CONFIG)) | ANY)
@example(DEEP)
@example(b'{"num_hidden_layers": 2000000000, "vocab_size": 8}')
def test_config_files(checkpoint, data):
    """A `config.json` of any bytes."""
    (checkpoint / "config.json").write_bytes(data)
    refused_or_read(use, checkpoint)


@given(
    st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=12), inner), max_leaves=4)
)
@example({"weight_map": {"a": ["b"]}})
@example({"weight_map": {"a": "../../etc/passwd"}})
def test_weight_indexes(checkpoint, content):
    """An index of weights that is none, or names files elsewhere."""
    (checkpoint / "config.json").write_text(json.dumps(CONFIG))
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(BadInputError):
        resolve_model(str(checkpoint))
    index.unlink()


@given(st.text(max_size=20))
@example("1/0")
@example("9" * 5000)
@example("9" * 5000 + "/" + "9" * 5000)
@example("\u0662")
@example("2," * 1000)
def test_option_values(text):
    """Any text for any option is read, or refused in one sentence that names the flag."""
    for _, option in declarations():
        given = [text] if option.repeat else text
        refused_or_read(read_options, {"--pp": "2", option.flag: given})


@given(
    mutations("import torch\n\n\nclass A:\n    def forward(self, x=1):\n        return x\n") | ANY
)
@example(b"x = " + b"(" * 10_000)
@example(b"x = " + b"-" * 50_000 + b"1")
@example(b"a." * 50_000 + b"a")
@settings(max_examples=40)
def test_lint_of_any_file(file, data):
    """The lint of any bytes ends with 0, 1 or 2 and, as SARIF, in a valid document."""
    source = file.with_name("any.py")
    source.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        written = []
        patch.setattr("click.echo", lambda text="", **_: written.append(str(text)))
        with pytest.raises(SystemExit) as end:
            main(["lint", str(source), "--output-format", "sarif", "--jobs", "1"])
    assert end.value.code in (0, 1, 2)
    if written and written[0].startswith("{"):
        Sarif.model_validate_json(written[0])
