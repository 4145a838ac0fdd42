"""The architectures that a model file of vLLM serves, read from its registry without an import.

The registry is a Python file with dictionaries from an architecture to a module and a class.
"""

import ast
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInputError

REGISTRY = "vllm/model_executor/models/registry.py"
# Where vLLM keeps what it takes architectures for that the registry does not list.
_DEFAULTS, _TABLE = "vllm/config/model.py", "_SUFFIX_TO_DEFAULTS"
# The dictionaries of models that generate text; drafts, embeddings and classifiers do not run
# alone or give no logits.
_MULTIMODAL = "_MULTIMODAL_MODELS"
_GENERATING = ("_TEXT_GENERATION_MODELS", _MULTIMODAL)
# The kinds of the other dictionaries, by a word of their names.
_OTHER_KINDS = {
    "EMBEDDING": "an embedding model",
    "LATE_INTERACTION": "a late-interaction model",
    "REWARD": "a reward model",
    "CLASSIFICATION": "a classification model",
    "CROSS_ENCODER": "a cross-encoder",
    "POOLING": "a pooling model",
    "SPECULATIVE": "a draft model for speculative decoding",
}
_OTHER = re.compile("|".join(_OTHER_KINDS))
_CONFIG_MODULES = ("transformers", "vllm.transformers_utils.configs")


@dataclass(frozen=True)
class ModelClass:
    """A class that a checkpoint can name: its module and name, and its architectures.

    `is_multimodal`: by the registry it reads more than text.
    """

    module: str
    name: str
    architectures: tuple[str, ...]
    is_multimodal: bool = False

    def file(self, root: Path) -> Path:
        """The file of the class in the tree at `root`."""
        path = root / self.module.replace(".", "/")
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def is_in(self, file: str) -> bool:
        """Tell whether the class lives in `file`, a path from the tree's root, or its package."""
        path = self.module.replace(".", "/")
        return file == f"{path}.py" or file.startswith(f"{path}/")


def generating_models(root: Path) -> tuple[ModelClass, ...]:
    """Read the classes of the tree at `root` that generate text, in the registry's order.

    Raises `BadInputError` if the tree has no registry, or one that cannot be read.
    """
    path = root / REGISTRY
    served: dict[tuple[str, str, bool], list[str]] = {}
    for dictionary, value in _assigned(path):
        if dictionary in _GENERATING:
            for architecture, model in _entries(value):
                served.setdefault((*model, dictionary == _MULTIMODAL), []).append(architecture)
    if not served:
        raise BadInputError(f"{path}: lists no model in {' or '.join(_GENERATING)}")
    return tuple(
        ModelClass(module, name, tuple(architectures), is_multimodal)
        for (module, name, is_multimodal), architectures in served.items()
    )


def config_classes(root: Path, model: ModelClass) -> tuple[str, ...]:
    """List the classes of configs that a model's file imports for it, as `module:Class`.

    Those of transformers and vLLM's own whose names begin as the model's class does; others are of
    the engine, of another medium, or of a part.
    """
    places = [
        f"{statement.module}:{alias.name}"
        for statement in ast.walk(_parsed(model.file(root)))
        if isinstance(statement, ast.ImportFrom)
        and (statement.module or "").startswith(_CONFIG_MODULES)
        for alias in statement.names
        if alias.name.endswith("Config")
        and model.name.lower().startswith(alias.name.removesuffix("Config").lower())
    ]
    return tuple(dict.fromkeys(places))


def kind_without_text(root: Path, architectures: Sequence[str]) -> str | None:
    """Name the kind of a model that vLLM does not let generate text: "an embedding model".

    None where it does, by the registry of the tree at `root` or, for architectures that this
    does not list, by the end of their names as vLLM reads it; and where neither knows.

    Raises `BadInputError` as `generating_models` does.
    """
    kinds: dict[str, str] = {}
    for dictionary, value in _assigned(root / REGISTRY):
        if dictionary in _GENERATING:
            kinds.update((architecture, "") for architecture, _ in _entries(value))
        elif match := _OTHER.search(dictionary):
            for architecture, _ in _entries(value):
                kinds.setdefault(architecture, _OTHER_KINDS[match[0]])
    known = [kinds[architecture] for architecture in architectures if architecture in kinds]
    known = known or _kinds_by_name(root, architectures)
    return known[0] if known and all(known) else None


def _kinds_by_name(root: Path, architectures: Sequence[str]) -> list[str]:
    """Kinds of architectures by the end of their names; "" generates, and unknown ones are out.

    A release that keeps its table elsewhere, or computes it, leaves all of them unknown.
    """
    suffixes: list[tuple[str, tuple[str, str]]] = []
    with contextlib.suppress(BadInputError, ValueError):
        suffixes = ast.literal_eval(dict(_assigned(root / _DEFAULTS)).get(_TABLE, ast.List([])))
    kinds = []
    for architecture in architectures:
        for suffix, (runner, convert) in suffixes:
            if architecture.endswith(suffix):
                kinds.append("" if runner == "generate" else f"a pooling model ({convert})")
                break
    return kinds


def _assigned(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a Python file assigns at its top level, with the expressions."""
    for statement in _parsed(path).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and statement.value is not None:
                yield target.id, statement.value


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read as Python: {error}") from error


def _entries(dictionary: ast.expr) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each architecture of a dictionary with the module and the name of its class."""
    if not isinstance(dictionary, ast.Dict):
        return
    for key, entry in zip(dictionary.keys, dictionary.values, strict=True):
        try:
            architecture, (file, name) = ast.literal_eval(key or entry), ast.literal_eval(entry)
        except (ValueError, TypeError):
            continue  # not a plain entry: an unpacked dictionary, or a computed one
        # A name without dots is a file beside the registry.
        full = file if file.startswith("vllm.") else f"vllm.model_executor.models.{file}"
        yield architecture, (full, name)
