"""Which files import a file, directly or through others, without parsing any of them."""

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


def importers_of(changed: Sequence[Path], sources: Mapping[Path, str]) -> list[Path]:
    """The files among `sources` that import a changed one, directly or not, in a stable order."""
    wanted = set(changed)
    while True:
        names = {_name(path) for path in wanted}
        mentions = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
        more = {
            path
            for path, source in sources.items()
            if path not in wanted
            and mentions.search(source)
            and not wanted.isdisjoint(_imported(path, source))
        }
        if not more:
            return [path for path in sources if path in wanted and path not in set(changed)]
        wanted |= more


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
