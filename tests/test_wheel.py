"""The wheel carries all that a run needs: an installed harness works outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Return a function that runs a module of the unpacked wheel from an empty folder."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty = tmp_path_factory.mktemp("empty")

    def start(*args):
        done = subprocess.run(
            [sys.executable, "-m", *args],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    start.site = site
    return start


def test_wheel_holds_data_and_nothing_of_the_machine(wheel):
    """Suites, patches and instruments are in it; tests, caches and bytecode are not."""
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "harness/_data/suites/test_pipeline.py",
        "harness/_data/suites/expected.toml",
        "harness/_data/patches/pins.toml",
        "harness/_data/patches/gemma4-pp/series",
        "harness/_data/constraints/pins/0.26.0-cpu.txt",
        "harness/models/instruments/problems.jsonl",
        *(
            f"harness/models/instruments/checkpoints/{m}/model.safetensors"
            for m in ("dense", "ple", "moe", "mm")
        ),
    ):
        assert needed in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"harness"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_commands_find_the_shipped_data(run):
    """`suites` and `series list` read the copies inside the package."""
    suites = Path(run("harness", "suites").strip())
    assert suites == run.site / "harness" / "_data" / "suites"
    assert "gemma4-pp" in run("harness", "series", "list")


def test_the_shipped_suites_are_collected(run):
    """Pytest on the shipped suites plans four checks a point, with the plugin of the wheel."""
    suites = run("harness", "suites").strip()
    options = ("--pp", "2", "--pp-variant", "fixed", "--pp-model", "ple")
    without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    listed = run("pytest", suites, *options, "--collect-only", "-q", *without)
    assert listed.count("fixed-ple-pp2") == 4
