"""Continuous integration: every suite is run by a job, and the files are of the form they claim."""

import configparser
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from scopes import ALONE, SHARED, scope_of

from harness.assets import suites_dir
from harness.cli.main import _COMMANDS

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BUILDKITE = yaml.safe_load((ROOT / ".buildkite/test_areas/pp_harness.yaml").read_text())
# Fields of a step as vLLM's pipeline generator knows them (.buildkite/test_areas/ of vLLM).
STEP_FIELDS = {
    *("label", "key", "depends_on", "device", "optional", "num_devices", "working_dir"),
    *("timeout_in_minutes", "source_file_dependencies", "commands", "autorun_on_main"),
}


def jobs(path):
    """Return (name, job) of a workflow."""
    return yaml.safe_load(path.read_text())["jobs"].items()


def tox_commands(run):
    """Return the commands of the tox environments that a step of a job names."""
    tox = configparser.ConfigParser(interpolation=None, delimiters="=")
    tox.read(ROOT / "tox.ini")
    for name in re.findall(r"tox run -e ([\w-]+)", run):
        section = f"testenv:{name}"
        assert tox.has_section(section), f"no tox environment {name}"
        yield from tox[section]["commands"].splitlines()


def suites_run_by(path):
    """Return the suite files that the jobs of a workflow collect, whole."""
    found = set()
    for _, job in jobs(path):
        for step in job["steps"]:
            for command in tox_commands(step.get("run", "")):
                words = shlex.split(command)
                if words[:1] != ["pytest"] or {"-k", "--ignore", "--deselect"} & set(words):
                    continue
                for word in words[1:]:
                    target = ROOT / word
                    if target.is_dir():
                        found |= set(target.rglob("test_*.py"))
                    elif target.is_file():
                        found.add(target)
    return found


def test_every_suite_is_run_by_the_nightly_jobs():
    """A suite file that no job collects would be green for ever."""
    suites = set(suites_dir().rglob("*.py"))
    assert suites
    assert suites <= suites_run_by(ROOT / ".github/workflows/nightly.yml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_read_and_end(path):
    """Every job ends by itself and may only read; an action is named by its commit."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in jobs(path):
        assert job.get("timeout-minutes"), f"{name} has no limit"
        assert job.get("permissions", {}) == {}
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step["uses"]


def test_own_runners_never_see_a_pull_request():
    """What runs on a machine of ours is started by a clock or by a maintainer."""
    for path in WORKFLOWS:
        # YAML 1.1 reads the key `on` as true.
        triggers = set(yaml.safe_load(path.read_text())[True])
        own = any("self-hosted" in str(job["runs-on"]) for _, job in jobs(path))
        assert not own or triggers <= {"schedule", "workflow_dispatch"}


def test_scripts_that_jobs_call_are_there():
    """A script of ours is named by its place in the repository, and can be executed."""
    text = "".join(path.read_text() for path in WORKFLOWS)
    scripts = re.findall(r"tools/[\w/-]+\.sh", text)
    assert scripts
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_a_job_s_summary_reaches_pytest():
    """tox hands on the file of a job's summary, and what kind of terminal there is."""
    tox = configparser.ConfigParser(interpolation=None, delimiters="=")
    tox.read(ROOT / "tox.ini")
    assert {"GITHUB_STEP_SUMMARY", "CI", "TERM"} <= set(tox["testenv"]["pass_env"].split())


def test_unit_tests_run_on_every_python_that_is_served():
    """The matrix of the unit tests is what pyproject.toml lets install."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.findall(r"3\.(\d+)", metadata["requires-python"])
    jobs_of = dict(jobs(ROOT / ".github/workflows/checks.yml"))
    served = [f"3.{minor}" for minor in range(int(low), int(high))]
    assert jobs_of["unit"]["strategy"]["matrix"]["python"] == served


def test_one_commit_per_action():
    """An action has the same commit wherever it is used."""
    uses = re.findall(r"uses: ([\w/-]+)@(\w+)", "".join(path.read_text() for path in WORKFLOWS))
    assert len(set(uses)) == len({name for name, _ in uses})


def test_buildkite_steps_have_vllm_s_form():
    """Fields that vLLM's generator knows, keys of their own, and commands that we have."""
    assert set(BUILDKITE) == {"group", "depends_on", "steps"}
    keys = [step["key"] for step in BUILDKITE["steps"]]
    assert len(set(keys)) == len(keys)
    for step in BUILDKITE["steps"]:
        assert set(step) <= STEP_FIELDS
        assert step["timeout_in_minutes"] > 0
        for command in step["commands"]:
            for name in re.findall(r"pp-harness (\w+)", command):
                assert name in _COMMANDS


def test_tests_that_share_engines_are_one_scope():
    """Files of a folder that shares engines are one scope, any other file is its own."""
    files = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    scopes = {str(path): scope_of(f"{path}::test_x[a/b::c]") for path in files}
    for folder in SHARED:
        inside = {str(p) for p in files if p.parent.name == folder and p.name not in ALONE}
        assert len(inside) > 1
        assert {scopes.pop(path) for path in inside} == {f"tests/{folder}"}
    assert all(path == scope for path, scope in scopes.items())
    assert {Path(path).name for path in scopes} >= set(ALONE)
