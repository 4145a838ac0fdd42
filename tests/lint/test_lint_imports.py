"""Imports lead to the same files, whatever was read before."""

from __future__ import annotations

from pathlib import Path

from harness.lint import lint_paths

MODELS = Path("vllm/model_executor/models")
PARAMETER = "from ..parameter import Base\n\n\nclass Heir(Base, SupportsPP):\n    pass\n"
PACKAGE = "from ..models import Other\n\n\nclass First(Other, SupportsPP):\n    pass\n"


def written(root: Path, **files: str) -> Path:
    """The model folder of a vLLM tree with these files in it."""
    folder = root / MODELS
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


def test_order_does_not_decide_what_is_followed(tmp_path):
    """A file outside of the models is not followed, also after one that imports their package."""
    folder = written(tmp_path, first=PACKAGE, heir=PARAMETER)
    (folder.parent / "parameter.py").write_text("class Base:\n    pass\n")
    files = [folder / "first.py", folder / "heir.py"]
    one, other = lint_paths(files, jobs=1), lint_paths(files[::-1], jobs=1)
    assert one.findings == other.findings
    assert "bases of Heir are not in this tree: Base" in {f.message for f in one.findings}
