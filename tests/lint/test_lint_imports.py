"""Imports lead to the same files, whatever was read before and however they are encoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_models import SOUND

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


@pytest.mark.parametrize(
    ("encoding", "newline"), [("utf-8-sig", "\n"), ("utf-8", "\r"), ("utf-8", "\r\n")]
)
def test_a_file_is_read_alike_judged_and_imported(tmp_path, encoding, newline):
    """A byte order mark and other line ends change nothing, also in a file that is imported."""
    inner, outer = SOUND.split("class ToyForCausalLM(nn.Module")
    inner += "class Base(nn.Module):\n    pass\n"
    imports = "from .inner import *\nfrom .inner import Base, ToyModel\n\n\n"
    folder = written(tmp_path, outer=f"{imports}class ToyForCausalLM(Base{outer}")
    (folder / "inner.py").write_text(inner, encoding=encoding, newline=newline)
    assert lint_paths([folder / "outer.py"]).findings == ()
    (folder / "toy.py").write_text(SOUND, encoding=encoding, newline=newline)
    assert lint_paths([folder / "toy.py"]).findings == ()
