"""Import statements lead to the files that use a file, without parsing any of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.lint.project import package_root

# A line feed and not `^`: looking for a literal first is several times faster.
_IMPORT = re.compile(r"\n[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)")

_LIBRARIES = frozenset({"utils", "interfaces", "interfaces_base", "registry", "models"})
"""Files that every model imports, and no model is made of."""


def importers_of(changed: Sequence[Path], sources: Mapping[Path, str]) -> list[Path]:
    """The files among `sources` that import a changed one, directly or not, in a stable order."""
    modules = {_module(path): path for path in sources}
    importers: dict[Path, list[Path]] = {}
    for path, source in sources.items():
        for name in _imported(path, source, modules):
            importers.setdefault(modules[name], []).append(path)
    wanted, latest = set(changed), list(changed)
    while latest:
        path = latest.pop()
        if _module(path).rpartition("/")[2] not in _LIBRARIES:
            new = set(importers.get(path, ())) - wanted
            wanted |= new
            latest += new
    return [path for path in sources if path in wanted and path not in set(changed)]


def _module(path: Path) -> str:
    """The path by which an import finds the file: of a package its folder."""
    return str(path.parent if path.stem == "__init__" else path.with_suffix(""))


def _imported(path: Path, source: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules that the import statements of a file can mean."""
    root, folder = package_root(path), str(path.parent)
    for dots, module, names in _IMPORT.findall("\n" + source):
        if not dots and (root is None or not module.startswith("vllm.")):
            continue
        base = folder.rsplit("/", len(dots) - 1)[0] if dots else str(root)
        target = f"{base}/{module.replace('.', '/')}" if module else base
        if target in modules:
            yield target
        # What is not a file of its own is a folder, and the names can be files in it.
        if target not in modules or modules[target].stem == "__init__":
            submodules = (f"{target}/{name}" for name in re.findall(r"\w+", names))
            yield from (name for name in submodules if name in modules)
