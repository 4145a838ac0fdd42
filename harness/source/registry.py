"""The architectures that a model file of vLLM serves, read from its registry without an import.

The registry is a Python file with dictionaries from an architecture to a module and a class.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInputError

_REGISTRY = "vllm/model_executor/models/registry.py"
# The dictionaries of models that generate text; drafts, embeddings and classifiers do not run
# alone or give no logits.
_GENERATING = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS")


@dataclass(frozen=True)
class ModelClass:
    """A class that a checkpoint can name: its module and name, and its architectures."""

    module: str
    name: str
    architectures: tuple[str, ...]

    def is_in(self, file: str) -> bool:
        """Tell whether the class lives in `file`, a path from the tree's root, or its package."""
        path = self.module.replace(".", "/")
        return file == f"{path}.py" or file.startswith(f"{path}/")


def generating_models(root: Path) -> tuple[ModelClass, ...]:
    """Read the classes of the tree at `root` that generate text, in the registry's order.

    Raises `BadInputError` if the tree has no registry, or one that cannot be read.
    """
    path = root / _REGISTRY
    try:
        module = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read as Python: {error}") from error
    served: dict[tuple[str, str], list[str]] = {}
    for architecture, model in _entries(module):
        served.setdefault(model, []).append(architecture)
    if not served:
        raise BadInputError(f"{path}: lists no model in {' or '.join(_GENERATING)}")
    return tuple(
        ModelClass(module, name, tuple(architectures))
        for (module, name), architectures in served.items()
    )


def _entries(module: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each architecture with the module and the name of its class."""
    for statement in module.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        value = statement.value
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if not isinstance(value, ast.Dict) or not names.intersection(_GENERATING):
            continue
        for key, entry in zip(value.keys, value.values, strict=True):
            try:
                architecture, (file, name) = ast.literal_eval(key or entry), ast.literal_eval(entry)
            except (ValueError, TypeError):
                continue  # not a plain entry: an unpacked dictionary, or a computed one
            # A name without dots is a file beside the registry.
            full = file if file.startswith("vllm.") else f"vllm.model_executor.models.{file}"
            yield architecture, (full, name)
