"""Import statements lead to the files that use a file, without parsing any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.lint.project import package_root

_IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(?P<dots>\.*)(?P<module>[\w.]*)[ \t]+import[ \t]+"
    r"(?P<names>\([^)]*\)|[^\n#]*)",
    re.MULTILINE,
)

_LIBRARIES = frozenset({"utils", "interfaces", "interfaces_base", "registry", "models"})
"""Files that every model imports, and no model is made of."""

_OF_A_FOLDER = ("from . import", "from .. import", "models import")


def importers_of(changed: Sequence[Path], sources: Mapping[Path, str]) -> list[Path]:
    """The files among `sources` that import a changed one, directly or not, in a stable order."""
    wanted, latest = set(changed), set(changed)
    imported: dict[Path, set[Path]] = {}
    while latest:
        names = {_name(path) for path in latest} - _LIBRARIES
        words = [*(f"{name} import" for name in names), *(_OF_A_FOLDER if names else ())]
        near: set[Path] = set()
        for path, source in sources.items():
            # Looking for words is fast; only then are the import statements read.
            if path not in wanted and any(word in source for word in words):
                if path not in imported:
                    imported[path] = set(_imported(path, source))
                if not latest.isdisjoint(imported[path]):
                    near.add(path)
        wanted |= near
        latest = near
    return [path for path in sources if path in wanted and path not in set(changed)]


def _name(path: Path) -> str:
    """The word by which an import names the file."""
    return path.parent.name if path.stem == "__init__" else path.stem


def _imported(path: Path, source: str) -> Iterator[Path]:
    """The files that the import statements of a file can mean."""
    root = package_root(path)
    for match in _IMPORT.finditer(source):
        dots, module = len(match["dots"]), match["module"]
        if not dots and (root is None or not module.startswith("vllm.")):
            continue
        base = path.parents[dots - 1] if dots else root
        assert base is not None
        target = base.joinpath(*module.split(".")) if module else base
        names = re.findall(r"\w+", match["names"].replace(" as ", " "))
        for candidate in (target, *(target / name for name in names)):
            yield candidate.with_name(f"{candidate.name}.py")
            yield candidate / "__init__.py"
