"""Rules PP4xx and PP502: layers and modules that a rank may not have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.lint.engine import Engine
from harness.lint.loops import carried_names, layer_calls
from harness.lint.project import ClassRef, Spot
from harness.lint.report import Finding
from harness.lint.rules import finding
from harness.lint.stage import Part, Stage
from harness.lint.trace import Role
from harness.lint.tree import Function, dotted, find, is_name, keyword, names_in, walk
from harness.lint.values import Instance, Layers

# Words that show that the code at hand knows that layers may be missing.
_AWARE = ("PPMissingLayer", "start_layer", "end_layer", "is_pp_missing_parameter")
_OF_ONE_RANK = re.compile(r"^(?!not ).*is_(first|last)_rank|intermediate_tensors is None")
_BUT_THE_LAST = re.compile(r"^not .*is_last_rank")
_ASKS_ONE = ("hasattr", "getattr", "isinstance")
_ASKS = ("isinstance", "is_pp_missing_parameter", "issubclass", "type")
# Only elastic expert parallelism calls it, which vLLM refuses together with PP (ParallelConfig).
_NEVER_WITH_PP = ("update_physical_experts_metadata",)


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """All findings about missing layers of a class and the modules in it."""
    for part in stage.parts:
        paths = _layer_paths(stage, part)
        in_pp = bool(stage.senders[0].sends)
        split = tuple(sorted((path, layers.partial) for path, layers in paths.items()))
        methods = engine.project.lineage(part.cls).methods
        for owner, method in methods.values() if paths else ():
            if method.name in _NEVER_WITH_PP:
                continue
            # Heirs share their methods, and ask the same of them.
            memo = owner.module.memo
            key = ("layers", method, split, in_pp)
            if key not in memo:
                memo[key] = list(_Reader(owner, method, paths, in_pp).findings())
            yield from memo[key]
    yield from _modules(engine, stage)


def _layer_paths(stage: Stage, base: Part) -> dict[str, Layers]:
    """Expressions in a module that name a list of layers: `self.layers`, `self.model.layers`."""
    return {
        f"self{part.path.removeprefix(base.path)}.{name}": layers
        for part in stage.below(base)
        for name, layers in part.layers.items()
    }


def _iterated(node: ast.expr) -> tuple[str, bool]:
    """A `for` runs over a dotted list, and over all of it or a part.

    Looks through enumerate, zip, reversed, list and islice.
    """
    if isinstance(node, ast.Call) and node.args:
        name = dotted(node.func).rsplit(".", 1)[-1]
        if name in ("enumerate", "reversed", "list", "zip", "tqdm"):
            return _iterated(node.args[0])
        if name == "islice":
            return _iterated(node.args[0])[0], False
        return "", True
    if isinstance(node, ast.Subscript):
        return dotted(node.value), False
    return dotted(node), True


def _is_aware(node: ast.AST) -> bool:
    asks = (part for part in find(node, ast.Call) if dotted(part.func) in _ASKS)
    # Being assigned, as in __init__, tells nothing.
    return any(name.id in _AWARE for call in asks for name in find(call, ast.Name)) or any(
        part.attr in _AWARE and isinstance(part.ctx, ast.Load) for part in find(node, ast.Attribute)
    )


@dataclass(frozen=True)
class _Reader:
    """One method, read as text, and the lists of layers that it can name."""

    owner: ClassRef
    method: Function
    paths: dict[str, Layers]
    in_pp: bool
    """Does the model send anything?"""

    def findings(self) -> Iterator[Finding]:
        """What the method takes for granted of layers that a rank may lack."""
        node = self.method
        if names_in(node).isdisjoint({"start_layer", *(p.rpartition(".")[2] for p in self.paths)}):
            return
        aware = _is_aware(node)
        sends = any(
            dotted(call.func).endswith("IntermediateTensors") for call in find(node, ast.Call)
        )
        for part in find(node, ast.For, ast.Attribute):
            if isinstance(part, ast.For):
                if sends:
                    yield from self._local_index(part)
                    yield from self._sending_loop(part)
                else:
                    yield from self._other_loop(part, aware=aware)
            elif not aware:
                layer = self._fixed_layer(part.value)
                if layer:
                    text = f"{layer} is asked for .{part.attr}, but this rank may not have that"
                    yield self._finding("PP403", part, f"{text} layer")

    def _finding(self, code: str, node: ast.AST, text: str) -> Finding:
        # The class that holds the code, whichever heir was asked.
        symbol = f"{self.owner.name}.{self.method.name}"
        return finding(code, Spot(self.owner.module, node), text, symbol=symbol)

    def _fixed_layer(self, node: ast.expr) -> str:
        """`self.layers[0]` and the like, for a list of which this rank holds a part."""
        if not isinstance(node, ast.Subscript):
            return ""
        layers = self.paths.get(dotted(node.value))
        index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
        known = layers is not None and layers.partial and isinstance(index, ast.Constant)
        return ast.unparse(node) if known else ""

    def _sending_loop(self, node: ast.For) -> Iterator[Finding]:
        listed, whole = _iterated(node.iter)
        if isinstance(node.iter, ast.Call) and dotted(node.iter.func) == "range":
            listed = self._indexed(node)
        layers = self.paths.get(listed)
        if layers is None or not whole or _is_aware(node):
            return
        if not layer_calls(node):
            yield from self._assumed(node, listed, layers)
        elif layers.partial:
            text = f"{listed} holds PPMissingLayer for the layers of other ranks"
            yield self._finding("PP401", node, text)
        elif self.in_pp and self._runs_everywhere(node):
            yield self._finding("PP402", node, f"every rank holds and runs all of {listed}")

    def _other_loop(self, node: ast.For, *, aware: bool) -> Iterator[Finding]:
        listed, whole = _iterated(node.iter)
        layers = self.paths.get(listed)
        if layers is None or not whole or not layers.partial:
            return
        if not aware and self.method.name == "forward" and layer_calls(node):
            text = f"{listed} is split by make_layers, but what this rank's part computes is "
            yield self._finding("PP407", node, f"{text}not sent on")
        elif not _is_aware(node):
            yield from self._assumed(node, listed, layers)

    def _runs_everywhere(self, node: ast.For) -> bool:
        """Does every rank take the state of the model through the list?"""
        if not carried_names(node):
            return False
        for part in find(self.method, ast.If):
            test, body = ast.unparse(part.test), part.body
            if _OF_ONE_RANK.search(test) and any(node in walk(statement) for statement in body):
                return False
            is_end = isinstance(body[-1], ast.Return) and part.lineno < node.lineno
            if is_end and _BUT_THE_LAST.search(test):
                return False
        return True

    def _indexed(self, node: ast.For) -> str:
        """`layer = self.layers[i]` in a loop over numbers: the list that is indexed."""
        listed = (
            dotted(part.value.value)
            for part in find(node, ast.Assign)
            if isinstance(part.value, ast.Subscript)
        )
        return next((name for name in listed if name in self.paths), "")

    def _assumed(self, node: ast.For, listed: str, layers: Layers) -> Iterator[Finding]:
        """Parts of each layer that are used without asking whether it is there."""
        targets = [name.id for name in find(node.target, ast.Name)]
        if not targets or not layers.partial:
            return
        asked = [
            call
            for call in find(node, ast.Call)
            if dotted(call.func) in _ASKS_ONE
            if call.args and is_name(call.args[0], targets[-1])
        ]
        asserted = (part.test for part in find(node, ast.Assert))
        if asked and asked[0] in asserted:
            text = f"asserts the class of each of {listed}, PPMissingLayer included"
            yield self._finding("PP403", asked[0], text)
        for part in find(node, ast.Attribute) if not asked else ():
            if is_name(part.value, targets[-1]):
                if isinstance(part.ctx, ast.Store):
                    continue  # a PPMissingLayer takes what is set on it
                text = f"each of {listed} is asked for .{part.attr}, PPMissingLayer included"
                yield self._finding("PP403", part, text)
                return

    def _local_index(self, node: ast.For) -> Iterator[Finding]:
        """enumerate(islice(...)) without a start, whose index is used as a layer number."""
        match node:
            case ast.For(
                target=ast.Tuple(elts=[ast.Name(index), *_]),
                iter=ast.Call(func=ast.Name("enumerate"), args=[sliced]) as call,
            ) if keyword(call, "start") is None and not isinstance(sliced, ast.Name):
                if "start_layer" not in ast.unparse(sliced):
                    return
                layers = self.paths.get(_iterated(sliced)[0])
                if layers is not None and _ignored_by_layer(node, layers, index):
                    return
                use = _number_use(node, index)
                if use is not None:
                    text = f"`{index}` counts from 0 on every rank, but is used as a layer number"
                    yield self._finding("PP404", use, text)


def _ignored_by_layer(loop: ast.For, layers: Layers, index: str) -> bool:
    """Is the index only handed to layers whose forward does not look at it?"""
    element = layers.element
    forward = element.cls.methods.get("forward") if isinstance(element, Instance) else None
    if forward is None:
        return False
    handed = [k for call in layer_calls(loop) for k in call.keywords if is_name(k.value, index)]
    uses = [name for s in loop.body for name in find(s, ast.Name) if name.id == index]
    looked_at = {name.id for s in forward.body for name in find(s, ast.Name)}
    return len(uses) == len(handed) and not any(k.arg in looked_at for k in handed)


def _number_use(loop: ast.For, index: str) -> ast.AST | None:
    """The first use of the index that takes it for the number of a layer."""
    for part in (part for statement in loop.body for part in walk(statement)):
        simple = part.test if isinstance(part, ast.If | ast.While) else part
        if simple is part and (not isinstance(part, ast.stmt) or hasattr(part, "body")):
            continue
        uses = [use for use in find(simple, ast.Name) if use.id == index]
        around = ast.unparse(simple) if uses else ""
        if "start_layer" in around and around.startswith((f"{index} =", f"{index} +=")):
            return None
        # Which auxiliary states a drafter gets is no output of this model.
        if uses and not any(word in around for word in ("start_layer", "aux", "hidden_state(")):
            return uses[0]
    return None


def _modules(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """Parts that a rank lacks, and that the walk of its constructors or forward came upon."""
    ranks: dict[tuple[str, str, Spot], list[str]] = {}
    for role in Role:
        traces = [engine.init_trace(part.instance, role) for part in stage.parts]
        for trace in (*traces, stage.views[role].trace):
            for note in trace.noted("PP405"):
                ranks.setdefault((note.text, note.subject, note.spot), []).append(role.value)
            for note in trace.noted("PP502") if role is Role.LAST else ():
                yield stage.finding("PP502", note.spot, note.text)
    for (owner, name, spot), roles in ranks.items():
        where = " and ".join(dict.fromkeys(roles))
        text = f"{owner} is a PPMissingLayer on the {where} rank; it has no .{name}"
        yield stage.finding("PP405", spot, text, name)
