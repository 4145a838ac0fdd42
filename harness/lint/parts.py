"""The modules that a model is made of, and its lists of decoder layers."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.lint.engine import Engine
from harness.lint.project import ClassRef
from harness.lint.trace import Role
from harness.lint.tree import dotted
from harness.lint.values import Instance, Layers, options_of

_DEEP = 3


@dataclass(frozen=True)
class Part:
    """A module of the model: its class, and the attribute path that leads to it from the top."""

    instance: Instance
    path: str
    layers: dict[str, Layers]
    """Attributes of it that are lists of layers."""

    @property
    def cls(self) -> ClassRef:
        """The class of the module."""
        return self.instance.cls


def parts_of(
    engine: Engine, instance: Instance, path: str = "self", deep: int = 0
) -> Iterator[Part]:
    """The class itself and the modules below it, the decoder layers left out."""
    attributes = engine.attributes(instance, Role.MIDDLE)
    layers = {
        name.removeprefix("self."): option
        for name, value in attributes.items()
        for option in options_of(value)
        if isinstance(option, Layers)
    }
    yield Part(instance, path, layers)
    if deep >= _DEEP:
        return
    for name, value in attributes.items():
        for option in options_of(value) if name.startswith("self.") else ():
            attribute = name.removeprefix("self.")
            if isinstance(option, Instance):
                yield from parts_of(engine, option, f"{path}.{attribute}", deep + 1)
            elif isinstance(option, Layers) and not option.partial:
                for element in options_of(option.element):
                    # Blocks of an encoder are many and hold no layers of their own.
                    if isinstance(element, Instance) and element.cls.asks_for_rank:
                        yield from parts_of(engine, element, f"{path}.{attribute}[]", deep + 1)


def layer_paths(parts: Iterable[Part], base: str) -> dict[str, Layers]:
    """Expressions under `base` that name a list of layers: `self.layers`, `self.model.layers`."""
    paths: dict[str, Layers] = {}
    for part in parts:
        if part.path == base or part.path.startswith(f"{base}."):
            head = "self" + part.path.removeprefix(base)
            for name, layers in part.layers.items():
                paths[f"{head}.{name}"] = layers
    return paths


def iterated(node: ast.expr) -> tuple[str, bool]:
    """A `for` runs over a dotted list, and over all of it or a part.

    Looks through enumerate, zip, reversed, list and islice.
    """
    if isinstance(node, ast.Call) and node.args:
        name = dotted(node.func).rsplit(".", 1)[-1]
        if name in ("enumerate", "reversed", "list", "zip", "tqdm"):
            return iterated(node.args[0])
        if name == "islice":
            return iterated(node.args[0])[0], False
        return "", True
    if isinstance(node, ast.Subscript):
        return dotted(node.value), False
    return dotted(node), True
