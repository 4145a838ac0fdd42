"""Compiled code of vLLM: its sources, and the ops that they declare.

A patch or a checkout runs with compiled files of a release, which are not built anew. A kernel
computes the same at every PP size, so that kernels of a near release serve; an op that is declared
otherwise than its caller expects does not, and says so when it is called.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SOURCES = ("csrc/", "cmake/", "CMakeLists.txt")
# Parts of csrc/ that are built for one kind of device.
_CPU, _OTHERS = "csrc/cpu/", ("csrc/cpu/", "csrc/rocm/")
_DECLARATION = re.compile(r'\.def\(\s*((?:"[^"]*"\s*)+)')


@dataclass(frozen=True)
class CompiledDifference:
    """How the compiled files of `release` differ from those that a tree of vLLM would build.

    `files` counts the sources that differ, `ops` names the declarations that the release lacks.
    """

    release: str
    files: int
    ops: tuple[str, ...]

    def __str__(self) -> str:
        """Describe it for people."""
        text = f"compiled files of vLLM {self.release}"
        if self.files:
            text += f", whose sources differ (files: {self.files})"
        if self.ops:
            text += f"; a call of these ops may fail, at PP=1 too: {', '.join(self.ops)}"
        return text


def is_built(name: str, *, cpu: bool) -> bool:
    """Tell whether the source file `name` is compiled for a CPU, else for a CUDA device."""
    if cpu:
        return name.startswith(_CPU)
    return name.startswith("csrc/") and not name.startswith(_OTHERS)


def compare_compiled(
    release: str, tree: Mapping[str, bytes], released: Mapping[str, bytes]
) -> CompiledDifference:
    """Compare the sources of a tree, by their names, with those of the release."""
    files = sum(tree.get(name) != released.get(name) for name in {*tree, *released})
    declared, there = declared_ops(tree.values()), declared_ops(released.values())
    ops = sorted(
        name for name, schemas in declared.items() if not schemas <= there.get(name, set())
    )
    return CompiledDifference(release, files, tuple(ops))


def declared_ops(sources: Iterable[bytes]) -> dict[str, set[str]]:
    """Map the name of each op that C++ sources declare to its schemas, blanks left out."""
    ops: dict[str, set[str]] = {}
    for source in sources:
        for declaration in _DECLARATION.finditer(source.decode("utf-8", "replace")):
            schema = re.sub(r'["\s]', "", declaration[1])
            ops.setdefault(schema.partition("(")[0], set()).add(schema)
    return ops
