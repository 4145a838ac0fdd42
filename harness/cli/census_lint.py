"""The lint's word on each architecture of a release: findings in the classes that it is made of."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..lint.analyse import lint_paths
from ..lint.project import ClassRef, Project
from ..lint.report import Severity
from ..source.registry import ModelClass


@dataclass(frozen=True)
class LintWord:
    """Codes of the lint's errors and warnings; those of loading weights apart."""

    codes: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()


def lint_words(root: Path, models: Iterable[ModelClass]) -> dict[str, LintWord]:
    """Read what the lint says of each architecture of the tree at `root`.

    A finding counts for the architectures whose class names the class of the finding, directly or
    through others; a decoder that a wrapper takes from the registry is not named.
    """
    project = Project(root)
    found: dict[tuple[Path, str], list[tuple[str, bool]]] = {}
    for finding in lint_paths([root / "vllm"]).findings:
        if finding.severity is not Severity.INFO:
            owner, _, member = finding.symbol.partition(".")
            place = (Path(finding.path).resolve(), owner)
            found.setdefault(place, []).append((finding.code, "load" in member))
    words = {}
    for model in models:
        said = [
            each
            for cls in _made_of(project, root, model)
            for each in found.get((cls.module.path.resolve(), cls.name), ())
        ]
        word = LintWord(
            tuple(sorted({code for code, is_loading in said if not is_loading})),
            tuple(sorted({code for code, is_loading in said if is_loading})),
        )
        words.update(dict.fromkeys(model.architectures, word))
    return words


def class_of(project: Project, root: Path, model: ModelClass) -> ClassRef | None:
    """Find the class of a model in the tree at `root`; None where its file does not define it."""
    module = project.module(model.file(root))
    return None if module is None else project.find_class(module, model.name)


def _made_of(project: Project, root: Path, model: ModelClass) -> list[ClassRef]:
    """List the class of a model and every class of a model file that it names, over any hops."""
    first = class_of(project, root, model)
    made_of = [first] if first is not None else []
    for cls in made_of:  # grows as it is read
        names = {node.id for node in ast.walk(cls.node) if isinstance(node, ast.Name)}
        for name in sorted(names):
            named = project.find_class(cls.module, name)
            if named is not None and named not in made_of:
                made_of.append(named)
    return made_of
