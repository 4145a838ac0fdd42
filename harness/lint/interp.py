"""Walks a method as one pipeline rank would run it, with abstract values instead of tensors.

Conditions about the rank are decided by the role that is being played; conditions that the code
leaves open take both branches and the results are joined. Loops are walked twice, calls into the
model's own code are walked inline.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint import calls, conditions, displays, loops, notes, payloads
from harness.lint.project import ClassRef, Module, dotted
from harness.lint.trace import Read, Role, Spot, Trace, Use
from harness.lint.values import (
    NONE,
    UNKNOWN,
    Bound,
    ClassValue,
    Const,
    Entry,
    Env,
    Factory,
    Function,
    Inner,
    Instance,
    Layers,
    Missing,
    Null,
    OneOf,
    Opaque,
    Payload,
    Received,
    Seq,
    Value,
    derived,
    join,
    join_env,
    nullness,
    options_of,
    tags_of,
    unsure,
    with_tags,
)

if TYPE_CHECKING:
    from harness.lint.machine import Engine

_MODULE_ATTRIBUTES = frozenset(
    {"forward", "parameters", "named_parameters", "buffers", "named_buffers", "modules"}
    | {"named_modules", "children", "named_children", "to", "cpu", "cuda", "eval", "train"}
    | {"training", "state_dict", "load_state_dict", "apply", "half", "float", "__class__"}
    | {"register_buffer", "register_parameter", "requires_grad_"}
)

_OF_INTERMEDIATE_TENSORS = frozenset({"tensors", "items", "kv_connector_output"})


class Walker:
    """The walk of one function; `self_cls` is the class of the object that `self` is."""

    def __init__(
        self,
        engine: Engine,
        trace: Trace,
        module: Module,
        self_cls: ClassRef | None,
        owner: ClassRef | None,
        depth: int,
        certain: bool = True,
    ) -> None:
        """`owner` is the class whose source holds the function: super() starts behind it."""
        self.engine = engine
        self.project = engine.project
        self.trace = trace
        self.module = module
        self.self_cls = self_cls
        self.owner = owner
        self.depth = depth
        self.returns: list[tuple[Value, Env]] = []
        self.uncertain = 0 if certain else 1
        self._supposed = 0
        self.local_names: frozenset[str] = frozenset()
        self._loops: list[tuple[list[Env], list[Env]]] = []

    # ---- statements

    @property
    def certain(self) -> bool:
        """Is this point reached on every path?"""
        return self.uncertain == 0

    def block(self, body: Iterable[ast.stmt], env: Env | None) -> Env | None:
        """Walk statements; None when no path falls through."""
        for statement in body:
            if env is None:
                return None
            env = self.statement(statement, env)
        return env

    def statement(self, node: ast.stmt, env: Env) -> Env | None:
        """Walk one statement."""
        self.engine.step()
        match node:
            case ast.Return():
                value = self.eval(node.value, env) if node.value is not None else NONE
                self.use(value)
                self.returns.append((unsure(value) if self._supposed else value, env))
                return None
            case ast.Raise():
                return None
            case ast.If():
                return self._if(node, env)
            case ast.For() | ast.AsyncFor():
                return self._for(node, env)
            case ast.While():
                return self._repeat(node.body, env, self._bind_nothing, at_least_once=False)
            case ast.Break() | ast.Continue():
                if self._loops:
                    self._loops[-1][0 if isinstance(node, ast.Break) else 1].append(env)
                return None
            case ast.Assign():
                value = self.eval(node.value, env)
                notes.assignment(self, node, value, env)
                for target in node.targets:
                    self.assign(target, value, env)
            case ast.AnnAssign():
                if node.value is not None:
                    self.assign(node.target, self.eval(node.value, env), env)
            case ast.AugAssign():
                self._augment(node, env)
            case ast.Expr():
                self.use(self.eval(node.value, env))
            case ast.Assert():
                self.condition(node.test, env)
                return self.refine(node.test, env, True)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.eval(item.context_expr, env)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, value, env)
                return self.block(node.body, env)
            case ast.Try():
                return self._try(node, env)
            case ast.Match():
                return self._branches([case.body for case in node.cases], env, fall_through=True)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                env[node.name] = Function(node, self.module, dict(env), self.owner)
            case ast.Delete():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        env.pop(target.id, None)
            case ast.ImportFrom() | ast.Import() | ast.ClassDef() | _:
                pass
        return env

    def _if(self, node: ast.If, env: Env) -> Env | None:
        truth = self.condition(node.test, env)
        if truth is False:
            notes.guard(self, node, env)
        if truth is not None:
            chosen = node.body if truth else node.orelse
            return self.block(chosen, self.refine(node.test, dict(env), truth))
        supposed = conditions.supposes_none(node.test, env)
        self.uncertain += 1
        self._supposed += supposed is True
        yes = self.block(node.body, self.refine(node.test, dict(env), True))
        self._supposed += (supposed is False) - (supposed is True)
        no = self.block(node.orelse, self.refine(node.test, dict(env), False))
        self._supposed -= supposed is False
        self.uncertain -= 1
        return join_env(yes, no)

    def _branches(
        self, bodies: Iterable[list[ast.stmt]], env: Env, *, fall_through: bool
    ) -> Env | None:
        self.uncertain += 1
        result: Env | None = dict(env) if fall_through else None
        for body in bodies:
            result = join_env(result, self.block(body, dict(env)))
        self.uncertain -= 1
        return result

    def _try(self, node: ast.Try, env: Env) -> Env | None:
        done = self.block([*node.body, *node.orelse], dict(env))
        caught = self._branches([h.body for h in node.handlers], env, fall_through=False)
        return self.block(node.finalbody, join_env(done, caught))

    def _bind_nothing(self, env: Env) -> None:
        """A `while` has no loop variable."""

    def _for(self, node: ast.For | ast.AsyncFor, env: Env) -> Env | None:
        items = self.eval(node.iter, env)
        if isinstance(items, Seq) and not items.open and len(items.items) <= payloads.MOST_ITEMS:
            return self._unrolled(node, items, env)
        self.use(items)
        layers = loops.layers_in(self, node.iter, env)

        def bind(scope: Env) -> None:
            self.assign(node.target, loops.loop_item(layers, items, node), scope)

        carried = notes.layer_loop(self, node, env) if layers is not None else {}
        # Every rank has at least one layer, so a loop over layers runs.
        result = self._repeat(node.body, env, bind, at_least_once=layers is not None)
        if result is not None:
            for name in carried:
                if nullness(result.get(name, UNKNOWN)) is Null.YES:
                    # Layers that always give None back hand nothing on.
                    self.trace.carried.pop(name, None)
                elif name in result:
                    result[name] = with_tags(result[name], {f"carry:{name}"})
        return result

    def _unrolled(self, node: ast.For | ast.AsyncFor, items: Seq, env: Env) -> Env | None:
        current: Env | None = env
        ended: Env | None = None
        for item in items.items:
            if current is None:
                break
            self.assign(node.target, item, current)
            breaks, continues = self._loop_body(node.body, current)
            current = continues
            ended = join_env(ended, breaks)
        return join_env(current, ended)

    def _loop_body(self, body: list[ast.stmt], env: Env) -> tuple[Env | None, Env | None]:
        """Walk one round; the paths that leave the loop, and those that come round again."""
        self._loops.append(([], []))
        fallen = self.block(body, env)
        breaks, continues = self._loops.pop()
        left: Env | None = None
        for path in breaks:
            left = join_env(left, path)
        for path in continues:
            fallen = join_env(fallen, path)
        return left, fallen

    def _repeat(
        self, body: list[ast.stmt], env: Env, bind: Callable[[Env], None], *, at_least_once: bool
    ) -> Env | None:
        if not at_least_once:
            self.uncertain += 1
        first = dict(env)
        bind(first)
        left, round_one = self._loop_body(body, first)
        second = join_env(None if at_least_once else dict(env), round_one)
        if second is not None:
            again = dict(second)
            bind(again)
            left_again, round_two = self._loop_body(body, again)
            second = join_env(join_env(second, round_two), left_again)
        if not at_least_once:
            self.uncertain -= 1
        return join_env(second, left)

    # ---- assignment

    def assign(self, target: ast.expr, value: Value, env: Env) -> None:
        """Bind a target, which may be a tuple, an attribute of self or a key of a dict."""
        match target:
            case ast.Name():
                env[target.id] = value
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value, env)
            case ast.Starred():
                self.assign(target.value, UNKNOWN, env)
            case ast.Attribute():
                if self._is_self(target.value):
                    tagged = loops.as_buffer(value, target.attr)
                    env[f"self.{target.attr}"] = tagged
                else:
                    self.use(value)
                    self.eval(target.value, env)
            case ast.Subscript():
                self.use(value)
                self._set_item(target, value, env)

    def _unpack(self, targets: list[ast.expr], value: Value, env: Env) -> None:
        parts: list[Value] = []
        for option in options_of(value):
            if (
                isinstance(option, Seq)
                and len(option.items) == len(targets)
                and not any(isinstance(t, ast.Starred) for t in targets)
            ):
                items = list(option.items)
            else:
                tags = tags_of(option)
                items = [Opaque(Null.UNKNOWN, tags) for _ in targets]
            parts = [join(a, b) for a, b in zip(parts, items, strict=True)] if parts else items
        for target, part in zip(targets, parts, strict=False):
            self.assign(target, part, env)

    def place(self, node: ast.expr) -> str | None:
        """The variable that holds a container expression: `x`, `x.tensors`, `self.x`."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            if self._is_self(node.value):
                return f"self.{node.attr}"
            if node.attr == "tensors":
                return self.place(node.value)
        return None

    def _set_item(self, target: ast.Subscript, value: Value, env: Env) -> None:
        key = self.eval(target.slice, env)
        place = self.place(target.value)
        held = env.get(place) if place is not None else None
        if place is None or not isinstance(held, Payload):
            self.eval(target.value, env)
            return
        if isinstance(key, Const) and isinstance(key.value, str) and key.value.strip("*"):
            entry = Entry(value, "*" not in key.value, target.lineno)
            env[place] = held.with_entry(key.value, entry)
        else:
            env[place] = replace(held, open=True)

    def _augment(self, node: ast.AugAssign, env: Env) -> None:
        value = self.eval(node.value, env)
        self.use(value)
        place = self.place(node.target)
        held = env.get(place, UNKNOWN) if place is not None else UNKNOWN
        if place is None:
            return
        if isinstance(held, Seq) and isinstance(value, Seq):
            env[place] = payloads.concatenate(held, value)
        elif isinstance(held, Payload) and isinstance(value, Payload):
            env[place] = payloads.update(held, value)
        else:
            self.touch(held, node)
            env[place] = Opaque(Null.NO, tags_of(held) | tags_of(value))

    def _is_self(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == "self" and self.self_cls is not None

    # ---- events

    def use(self, value: Value) -> None:
        """The value goes somewhere: what was received has been put to use."""
        self.trace.used.update(tags_of(value))

    def touch(self, value: Value, node: ast.AST) -> None:
        """Arithmetic on a value that may be IntermediateTensors on this rank."""
        if self.trace.role is Role.LAST:
            return
        certain = "forwarded" in tags_of(value) or (isinstance(value, Payload) and value.packed)
        if certain:
            self.trace.touched.append(Spot(self.module, node))

    def read(self, key: str | None, node: ast.AST, *, certain: bool) -> Value:
        """A key is taken from the received tensors."""
        self.trace.executed_reads.add(id(node))
        if key is None or not key.strip("*"):
            self.trace.open_read = True
            return Opaque(Null.NO, frozenset({"read:*"}))
        spot = Spot(self.module, node)
        sure = certain and self.certain and "*" not in key
        self.trace.reads.append(Read(key, sure, spot, tolerant=not certain))
        return Opaque(Null.NO if certain else Null.UNKNOWN, frozenset({f"read:{key}"}))

    def condition(self, node: ast.expr, env: Env) -> bool | None:
        """Is the condition true on this rank? None when the code leaves it open."""
        return conditions.decide(self, node, env)

    def refine(self, node: ast.expr, env: Env, truth: bool) -> Env:
        """What a condition's outcome says about the variables in it."""
        return conditions.refine(self, node, env, truth)

    # ---- expressions

    def eval(self, node: ast.expr, env: Env) -> Value:
        """The abstract value of an expression."""
        self.engine.step()
        match node:
            case ast.Constant():
                return NONE if node.value is None else Const(node.value)
            case ast.Name():
                if node.id not in env and node.id in self.local_names and self.certain:
                    spot = Spot(self.module, node)
                    self.trace.unbound.append(Use(node.id, "", spot))
                return self._name(node.id, env)
            case ast.Attribute():
                return self._attribute(node, env)
            case ast.Call():
                return calls.call(self, node, env)
            case ast.Subscript():
                return self._subscript(node, env)
            case ast.Dict():
                return displays.of_dict(self, node, env)
            case ast.Tuple() | ast.List() | ast.Set():
                return displays.of_sequence(self, node, env)
            case ast.JoinedStr():
                return Const(displays.text_of(self, node, env))
            case ast.IfExp():
                truth = self.condition(node.test, env)
                if truth is not None:
                    return self.eval(node.body if truth else node.orelse, env)
                self.uncertain += 1
                yes = self.eval(node.body, self.refine(node.test, dict(env), True))
                no = self.eval(node.orelse, self.refine(node.test, dict(env), False))
                self.uncertain -= 1
                return join(yes, no)
            case ast.BinOp():
                return self._binary(node, env)
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp():
                return self._boolean(node, env)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return loops.list_comprehension(self, node, env)
            case ast.DictComp():
                return loops.dict_comprehension(self, node, env)
            case ast.Lambda():
                return Function(node, self.module, dict(env), self.owner)
            case ast.NamedExpr():
                value = self.eval(node.value, env)
                env[node.target.id] = value
                return value
            case ast.Await() | ast.Starred():
                return self.eval(node.value, env)
        return UNKNOWN

    def _name(self, name: str, env: Env) -> Value:
        if name in env:
            return env[name]
        if name == "self" and self.self_cls is not None:
            return Instance(self.self_cls)
        found = self.project.find_class(self.module, name)
        if found is not None:
            return ClassValue(found)
        function = self.project.find_function(self.module, name)
        if function is not None:
            return Function(function[1], function[0])
        constant = self.module.constants.get(name)
        if isinstance(constant, ast.Constant | ast.List | ast.Tuple):
            return self.eval(constant, {})
        return UNKNOWN

    def _attribute(self, node: ast.Attribute, env: Env) -> Value:
        if node.attr in ("is_first_rank", "is_last_rank"):
            wanted = Role.FIRST if node.attr == "is_first_rank" else Role.LAST
            return Const(self.trace.role is wanted)
        if self._is_self(node.value):
            held = env.get(f"self.{node.attr}")
            if held is not None:
                return held
            assert self.self_cls is not None
            return self._class_attribute(self.self_cls, node.attr, env) or Opaque(
                tags=frozenset({f"attr:{node.attr}"})
            )
        owner = self.eval(node.value, env)
        found: Value | None = None
        for option in options_of(owner):
            value = self.attribute_of(option, node, certain=not isinstance(owner, OneOf))
            found = value if found is None else join(found, value)
        return found if found is not None else UNKNOWN

    def attribute_of(self, owner: Value, node: ast.Attribute, *, certain: bool) -> Value:
        """One attribute of one value."""
        name = node.attr
        match owner:
            case Received():
                return Received(tensors=True) if name == "tensors" else Bound(owner, name)
            case Payload():
                return replace(owner, packed=False) if name == "tensors" else Bound(owner, name)
            case Seq() | Inner() | Factory() | Const():
                return Bound(owner, name)
            case Missing():
                if certain and name not in _MODULE_ATTRIBUTES:
                    spot = Spot(self.module, node)
                    self.trace.missing_uses.append(Use(name, ast.unparse(node.value), spot))
                return UNKNOWN
            case Instance():
                return self._instance_attribute(owner, node, certain=certain)
            case ClassValue():
                return Bound(owner, name)
            case Opaque():
                if owner.null is Null.YES and certain and self.certain:
                    self._none_used(owner, node)
                if name in ("shape", "dtype", "device"):
                    return Opaque(Null.NO)
                if name in ("append", "extend", "update"):
                    return Bound(owner, name)
                if "forwarded" in owner.tags and name not in _OF_INTERMEDIATE_TENSORS:
                    self.touch(owner, node)
                return Opaque(tags=owner.tags - {"it"})
        return UNKNOWN

    def _none_used(self, owner: Opaque, node: ast.Attribute) -> None:
        for tag in owner.tags:
            if tag.startswith("first-only:") and self.trace.role is not Role.FIRST:
                spot = Spot(self.module, node)
                self.trace.none_uses.append(Use(node.attr, tag.removeprefix("first-only:"), spot))

    def _class_attribute(self, cls: ClassRef, name: str, env: Env) -> Value | None:
        found = self.project.find_method(cls, name)
        if found is not None:
            owner, method = found
            if any(dotted(d).endswith("property") for d in method.decorator_list):
                return self.engine.run(
                    self, method, owner, cls, {"self": Instance(cls)}, _self_entries(env)
                )[0]
            return Bound(Instance(cls), name)
        for ref in self.project.lineage(cls).classes:
            if name in ref.attributes:
                value = ref.attributes[name]
                if isinstance(value, ast.Constant | ast.List | ast.Tuple):
                    return self.eval(value, {})
                held = self.project.find_class(ref.module, dotted(value)) if dotted(value) else None
                return ClassValue(held) if held is not None else UNKNOWN
        return None

    def _instance_attribute(self, owner: Instance, node: ast.Attribute, *, certain: bool) -> Value:
        attributes = self.engine.known_attributes(owner.cls, self.trace.role)
        held = attributes.get(f"self.{node.attr}") if attributes is not None else UNKNOWN
        if held is not None:
            return held
        value = self._class_attribute(owner.cls, node.attr, {})
        if value is not None:
            return value
        wanted = node.attr == "make_empty_intermediate_tensors"
        if wanted and certain and self.engine.is_closed(owner.cls):
            spot = Spot(self.module, node)
            self.trace.lost_attributes.append(Use(node.attr, owner.cls.name, spot))
        return Opaque(tags=frozenset({f"attr:{node.attr}"}))

    def _subscript(self, node: ast.Subscript, env: Env) -> Value:
        owner = self.eval(node.value, env)
        if isinstance(node.slice, ast.Slice):
            self.touch(owner, node)
            return owner
        key = self.eval(node.slice, env)
        text = key.value if isinstance(key, Const) and isinstance(key.value, str) else None
        match owner:
            case Received():
                return self.read(text, node, certain=True)
            case Payload():
                entry = owner.entries.get(text) if text is not None else None
                return entry.value if entry is not None else UNKNOWN
            case Seq():
                index = key.value if isinstance(key, Const) else None
                if isinstance(index, int) and -len(owner.items) <= index < len(owner.items):
                    return owner.items[index]
                return Opaque(tags=tags_of(owner))
            case Layers():
                return owner if isinstance(node.slice, ast.Slice) else owner.element
            case OneOf():
                for option in owner.options:
                    if isinstance(option, Received):
                        self.uncertain += 1
                        value = self.read(text, node, certain=True)
                        self.uncertain -= 1
                        return value
        self.use(owner)
        return Opaque(Null.UNKNOWN, tags_of(owner) - {"it"} | tags_of(key))

    def _binary(self, node: ast.BinOp, env: Env) -> Value:
        left, right = self.eval(node.left, env), self.eval(node.right, env)
        self.use(left)
        self.use(right)
        self.touch(left, node)
        self.touch(right, node)
        if isinstance(left, Seq) and isinstance(right, Seq) and isinstance(node.op, ast.Add):
            return payloads.concatenate(left, right)
        if isinstance(left, Payload) and isinstance(node.op, ast.BitOr):
            return payloads.update(left, right)
        if isinstance(node.op, ast.Add) and isinstance(left, Const) and isinstance(left.value, str):
            tail = right.value if isinstance(right, Const) else "*"
            return Const(f"{left.value}{tail}")
        return Opaque(Null.NO, derived(tags_of(left) | tags_of(right)))

    def _boolean(self, node: ast.BoolOp | ast.Compare | ast.UnaryOp, env: Env) -> Value:
        truth = self.condition(node, env)
        if isinstance(node, ast.BoolOp):
            values = [self.eval(p, scope) for p, scope, _ in conditions.steps(self, node, env)]
            if truth is not None and all(isinstance(v, Const) for v in values):
                return Const(truth)
            result = values[0]
            for value in values[1:]:
                result = join(result, value)
            if isinstance(node.op, ast.Or) and nullness(values[-1]) is not Null.YES:
                # `x or y` is None only when y is.
                kept = [o for o in options_of(result) if nullness(o) is not Null.YES]
                result = kept[0] if len(kept) == 1 else OneOf(tuple(kept)) if kept else UNKNOWN
                if isinstance(result, Opaque):
                    result = replace(result, null=nullness(values[-1]))
            return result
        if truth is not None:
            return Const(truth)
        if isinstance(node, ast.UnaryOp):
            return Opaque(Null.NO, tags_of(self.eval(node.operand, env)) - {"it"})
        return Opaque(Null.NO)


def _self_entries(env: Env) -> Env:
    return {name: value for name, value in env.items() if name.startswith("self.")}
