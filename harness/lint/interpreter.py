"""Walks methods as one pipeline rank would run them, with abstract values instead of tensors.

Conditions about the rank are decided by the role that is being played; conditions that the code
leaves open take both branches and the results are joined. Loops are walked twice, calls into the
model's own code are walked inline. Statements, expressions and calls lead into each other, so one
class walks all of them; what needs no walk is in the modules that it imports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import TypeAlias

from harness.lint import conditions, containers, notes
from harness.lint.binding import Arguments, bind, options_given, switches
from harness.lint.conditions import place_of, refine
from harness.lint.engine import Engine
from harness.lint.project import ClassRef, Module, Spot
from harness.lint.trace import Note, Read, Role, Trace
from harness.lint.tree import (
    Function,
    Loop,
    argument,
    dotted,
    find,
    is_none,
    keyword,
    last_name,
    parameter_names,
)
from harness.lint.values import (
    NO_TAGS,
    NONE,
    UNKNOWN,
    Bound,
    ClassValue,
    Closure,
    Const,
    Env,
    Factory,
    Inner,
    Instance,
    Layers,
    Missing,
    Null,
    OneOf,
    Opaque,
    Partial,
    Payload,
    Received,
    Seq,
    Value,
    derived,
    entries_of,
    join,
    join_env,
    joined,
    kinds,
    nullness,
    one_of,
    options_of,
    tags_of,
    unsure,
    with_tags,
)

_Comprehension: TypeAlias = "ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp"
_MOST_DEPTH = 7
_TIED = "the head is tied to an embedding that the last rank does not build"
_EMBEDS = frozenset({"embed_input_ids", "get_input_embeddings", "embed_tokens"})
_TENSOR_MAKERS = frozenset(
    {"zeros", "empty", "ones", "full", "rand", "randn", "zeros_like", "empty_like"}
)
_PASS_THROUGH = frozenset(
    {"list", "tuple", "set", "sorted", "iter", "reversed"} | {"cast", "copy", "deepcopy", "islice"}
)
# What IntermediateTensors answers to, in every release from 0.19 to 0.33.
_IT_METHODS = frozenset(
    {"items", "empty_like", "tensors", "kv_connector_output"}
    | {"__len__", "__getitem__", "__setitem__", "__eq__"}
)
_OF_INTERMEDIATE_TENSORS = frozenset({"tensors", "items", "kv_connector_output"})
_MODULE_ATTRIBUTES = frozenset(
    {"forward", "parameters", "named_parameters", "buffers", "named_buffers", "modules"}
    | {"named_modules", "children", "named_children", "to", "cpu", "cuda", "eval", "train"}
    | {"training", "state_dict", "load_state_dict", "apply", "half", "float", "__class__"}
    | {"register_buffer", "register_parameter", "requires_grad_"}
)
_DTYPES = {
    **{name: name for name in ("float32", "float64", "float16", "bfloat16")},
    **{"float": "float32", "double": "float64", "half": "float16"},
}
_CASTS = frozenset({"to", "type_as", "type", "float", "half", "double", "bfloat16"})


def construct(engine: Engine, instance: Instance, trace: Trace) -> Env:
    """`self.<name>` of an object after the walk of its `__init__`."""
    constructor = engine.project.find_method(instance.cls, "__init__")
    if constructor is None:
        return {}
    owner, method = constructor
    walker = Walker(engine, trace, owner.module, instance, owner)
    given: Env = {"self": instance, **dict(instance.options)}
    for name, default in switches(method):
        given.setdefault(name, walker.eval(default, {}))
    return walker.run(method, owner, instance, given, {})[1]


class Walker:
    """The walk of one function; `self_value` is the object that `self` is in it."""

    def __init__(
        self,
        engine: Engine,
        trace: Trace,
        module: Module,
        self_value: Instance | None,
        owner: ClassRef | None,
        depth: int = 0,
        certain: bool = True,
    ) -> None:
        """`owner` is the class whose source holds the function: super() starts behind it."""
        self.engine = engine
        self.project = engine.project
        self.trace = trace
        self.module = module
        self.self_value = self_value
        self.owner = owner
        self.depth = depth
        self.returns: list[tuple[Value, Env]] = []
        self.function: Function | None = None
        self._uncertain = 0 if certain else 1
        self._supposed = 0
        self._loops: list[tuple[list[Env], list[Env]]] = []

    @property
    def certain(self) -> bool:
        """Is this point reached on every path?"""
        return self._uncertain == 0

    def run(
        self,
        function: Function,
        owner: ClassRef | None,
        self_value: Instance | None,
        arguments: Env,
        self_entries: Env,
        module: Module | None = None,
    ) -> tuple[Value, Env]:
        """Walk a function inline; its joined result, and the attributes of self afterwards."""
        if self.depth >= _MOST_DEPTH:
            tags = NO_TAGS.union(*map(tags_of, arguments.values()))
            computed = (tag for tag in tags if not tag.startswith("same:"))
            return Opaque(tags=frozenset(computed)), self_entries
        where = module or (owner.module if owner is not None else self.module)
        inner = Walker(
            self.engine, self.trace, where, self_value, owner, self.depth + 1, self.certain
        )
        inner.function = function
        for name, value in arguments.items():
            if isinstance(value, Received):
                self.trace.receivers.append((where, function, name))
        end = inner.block(function.body, {**arguments, **self_entries})
        if self.depth == 0:
            self.trace.refuses = end is None and not inner.returns
        end = reduce(join_env, (env for _, env in inner.returns), end)
        result = joined(value for value, _ in inner.returns) if inner.returns else NONE
        return result, entries_of(end or {}) or self_entries

    # ---- statements

    def block(self, body: Iterable[ast.stmt], env: Env | None) -> Env | None:
        """Walk statements; None when no path falls through."""
        for statement in body:
            if env is None:
                return None
            env = self._statement(statement, env)
        return env

    def _statement(self, node: ast.stmt, env: Env) -> Env | None:
        self.engine.step()
        match node:
            case ast.Return():
                value = self.eval(node.value, env) if node.value is not None else NONE
                self._use(value)
                self.returns.append((unsure(value) if self._supposed else value, env))
                return None
            case ast.Raise():
                return None
            case ast.If():
                return self._if(node, env)
            case ast.For() | ast.AsyncFor():
                return self._for(node, env)
            case ast.While():
                return self._repeat(node.body, env, lambda _: None, at_least_once=False)
            case ast.Break() | ast.Continue():
                if self._loops:
                    self._loops[-1][0 if isinstance(node, ast.Break) else 1].append(env)
                return None
            case ast.Assign():
                value = self.eval(node.value, env)
                if notes.ties_head(node) and isinstance(value, Missing):
                    self._note("PP502", node, _TIED)
                for target in node.targets:
                    self._assign(target, value, env)
            case ast.AnnAssign():
                if node.value is not None:
                    self._assign(node.target, self.eval(node.value, env), env)
            case ast.AugAssign():
                self._augment(node, env)
            case ast.Expr():
                value = self.eval(node.value, env)
                self._use(value)
                place = place_of(notes.changed_in_place(node.value))
                if place is not None and isinstance(env.get(place), Opaque):
                    env[place] = value
            case ast.Assert():
                self._decide(node.test, env)
                return refine(node.test, env, True)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.eval(item.context_expr, env)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, value, env)
                return self.block(node.body, env)
            case ast.Try():
                done = self.block([*node.body, *node.orelse], dict(env))
                caught = self._branches([h.body for h in node.handlers], env, None)
                return self.block(node.finalbody, join_env(done, caught))
            case ast.Match():
                return self._branches([case.body for case in node.cases], env, dict(env))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                env[node.name] = Closure(node, self.module, dict(env), self.owner)
            case ast.Delete():
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        env.pop(target.id, None)
        return env

    def _if(self, node: ast.If, env: Env) -> Env | None:
        truth = self._decide(node.test, env)
        if truth is False:
            notes.guard(self.trace, node, env)
        if truth is not None:
            chosen = node.body if truth else node.orelse
            return self.block(chosen, refine(node.test, dict(env), truth))
        supposed = conditions.supposes_none(node.test, env)
        self._uncertain += 1
        self._supposed += supposed is True
        asks_shape = notes.asks_shape(node.test, env)
        self.trace.in_shape_test += asks_shape
        yes = self.block(node.body, refine(node.test, dict(env), True))
        self._supposed += (supposed is False) - (supposed is True)
        no = self.block(node.orelse, refine(node.test, dict(env), False))
        self._supposed -= supposed is False
        self.trace.in_shape_test -= asks_shape
        self._uncertain -= 1
        return join_env(yes, no)

    def _branches(
        self, bodies: Iterable[list[ast.stmt]], env: Env, otherwise: Env | None
    ) -> Env | None:
        self._uncertain += 1
        for body in bodies:
            otherwise = join_env(otherwise, self.block(body, dict(env)))
        self._uncertain -= 1
        return otherwise

    # ---- loops

    def _for(self, node: Loop, env: Env) -> Env | None:
        items = self.eval(node.iter, env)
        if isinstance(items, Seq) and not items.open and len(items.items) <= containers.MOST_ITEMS:
            return self._unrolled(node, items, env)
        self._use(items)
        layers = self._layers_in(node.iter, env)

        def bind_target(scope: Env) -> None:
            self._assign(node.target, _loop_item(layers, items, node), scope)

        if layers is None:
            return self._repeat(node.body, env, bind_target, at_least_once=False)
        forwards = tuple(forward for _, forward in self._forwards_of(layers.element))
        carried = notes.layer_loop(self.trace, self.module, node, env, forwards)
        self.trace.in_loop += 1
        # Every rank has at least one layer, so a loop over layers runs.
        result = self._repeat(node.body, env, bind_target, at_least_once=True)
        self.trace.in_loop -= 1
        if result is None:
            return None
        for name in carried:
            if nullness(result.get(name, UNKNOWN)) is Null.YES:
                # Layers that always give None back hand nothing on.
                self.trace.carried.pop(name, None)
            elif name in result:
                held = result[name]
                known = Opaque(Null.NO) if isinstance(held, Payload) else held
                result[name] = with_tags(known, {f"carry:{name}"})
        return result

    def _layers_in(self, node: ast.expr, env: Env) -> Layers | None:
        """The list of decoder layers that an iterable runs over, if it is one."""
        for part in find(node, ast.Attribute, ast.Name):
            value = env.get(place_of(part) or "")
            if isinstance(value, Layers):
                return value
        if any(part.attr == "start_layer" for part in find(node, ast.Attribute)):
            # The list itself is not known (an odd constructor), or the loop goes over its indices.
            lists = [value for value in env.values() if isinstance(value, Layers)]
            return lists[0] if len(lists) == 1 else Layers(UNKNOWN, partial=True)
        return None

    def _forwards_of(self, element: Value) -> tuple[tuple[ClassRef, Function], ...]:
        """The forward of every class that a layer can be of; empty where one is not known."""
        methods = [
            self.project.find_method(option.cls, "forward")
            for option in options_of(element)
            if isinstance(option, Instance)
        ]
        known = tuple(method for method in methods if method is not None)
        return known if len(known) == len(options_of(element)) else ()

    def _unrolled(self, node: Loop, items: Seq, env: Env) -> Env | None:
        current: Env | None = env
        ended: Env | None = None
        for item in items.items:
            if current is not None:
                self._assign(node.target, item, current)
                breaks, current = self._loop_body(node.body, current)
                ended = join_env(ended, breaks)
        return join_env(current, ended)

    def _loop_body(self, body: list[ast.stmt], env: Env) -> tuple[Env | None, Env | None]:
        """Walk one round; the paths that leave the loop, and those that come round again."""
        self._loops.append(([], []))
        fallen = self.block(body, env)
        breaks, continues = self._loops.pop()
        return reduce(join_env, breaks, None), reduce(join_env, continues, fallen)

    def _repeat(
        self,
        body: list[ast.stmt],
        env: Env,
        bind_target: Callable[[Env], None],
        *,
        at_least_once: bool,
    ) -> Env | None:
        self._uncertain += not at_least_once
        first = dict(env)
        bind_target(first)
        left, round_one = self._loop_body(body, first)
        second = join_env(None if at_least_once else dict(env), round_one)
        if second is not None:
            again = dict(second)
            bind_target(again)
            left_again, round_two = self._loop_body(body, again)
            second = join_env(join_env(second, round_two), left_again)
        self._uncertain -= not at_least_once
        return join_env(second, left)

    # ---- assignment

    def _assign(self, target: ast.expr, value: Value, env: Env) -> None:
        """Bind a target, which may be a tuple, an attribute of self or a key of a dict."""
        match target:
            case ast.Name():
                env[target.id] = value
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value, env)
            case ast.Starred():
                self._assign(target.value, UNKNOWN, env)
            case ast.Attribute():
                if self._is_self(target.value):
                    env[f"self.{target.attr}"] = notes.kept_on_module(value, target.attr)
                else:
                    self._use(value)
                    self.eval(target.value, env)
            case ast.Subscript():
                self._use(value)
                key = self.eval(target.slice, env)
                place = place_of(target.value) or ""
                held = env.get(place)
                if isinstance(held, Payload):
                    env[place] = containers.put(held, key, value, self._line(target))
                else:
                    self.eval(target.value, env)

    def _unpack(self, targets: list[ast.expr], value: Value, env: Env) -> None:
        rows: list[list[Value]] = []
        starred = any(isinstance(t, ast.Starred) for t in targets)
        for option in options_of(value):
            if isinstance(option, Seq) and len(option.items) == len(targets) and not starred:
                items = list(option.items)
            else:
                # IntermediateTensors cannot be unpacked: a part is something else.
                tags = tags_of(option) - {"it", "forwarded"}
                items = [Opaque(Null.UNKNOWN, tags) for _ in targets]
            rows.append(items)
        for target, parts in zip(targets, zip(*rows, strict=True), strict=False):
            self._assign(target, joined(parts), env)

    def _augment(self, node: ast.AugAssign, env: Env) -> None:
        value = self.eval(node.value, env)
        self._use(value)
        place = place_of(node.target)
        if place is None:
            return
        held = env.get(place, UNKNOWN)
        if isinstance(held, Seq) and isinstance(value, Seq):
            env[place] = containers.concatenate(held, value)
        elif isinstance(held, Payload) and isinstance(value, Payload):
            env[place] = containers.update(held, value)
        else:
            self._touch(held, node)
            step = self._applied(
                node, lambda: notes.arithmetic(node.op, node.value, value), held, value
            )
            env[place] = Opaque(Null.NO, tags_of(held) | tags_of(value) | step)

    def _is_self(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == "self" and self.self_value is not None

    def _store(self, node: ast.expr, value: Payload | Seq, env: Env) -> None:
        """Put a changed container back into the variable that held it."""
        place = place_of(node) or ""
        held = env.get(place)
        if isinstance(held, Payload | Seq):
            packed = isinstance(held, Payload) and held.packed
            env[place] = replace(value, packed=packed) if isinstance(value, Payload) else value

    # ---- events

    def _line(self, node: ast.expr) -> Spot:
        """The line of a node: a key is reported by it."""
        return Spot(self.module, node.lineno)

    def _note(self, code: str, node: ast.AST, text: str, subject: str = "") -> None:
        self.trace.notes.append(Note(code, Spot(self.module, node), text, subject))

    def _use(self, value: Value) -> None:
        """The value goes somewhere: what was received has been put to use."""
        self.trace.used.update(tags_of(value))

    def _touch(self, value: Value, node: ast.AST) -> None:
        """Arithmetic on a value that may be IntermediateTensors on this rank."""
        if self.trace.role is Role.LAST:
            return
        if "forwarded" in tags_of(value) or (isinstance(value, Payload) and value.packed):
            text = "before the last rank this is IntermediateTensors, not a tensor"
            self._note("PP304", node, text)

    def _applied(
        self, node: ast.AST, describe: Callable[[], str], *operands: Value
    ) -> frozenset[str]:
        """Note an operation on what the layers take or give; the tags of its result."""
        if self.trace.in_loop or self.trace.in_shape_test or not (text := describe()):
            return NO_TAGS
        return notes.applied(self.trace, Spot(self.module, node), text, operands)

    def _read(self, key: str | None, node: ast.AST, *, certain: bool) -> Value:
        """A key is taken from the received tensors."""
        self.trace.executed_reads.add(id(node))
        if key is None or not key.strip("*"):
            self.trace.open_read = True
            return Opaque(Null.NO, frozenset({"read:*"}))
        sure = certain and self.certain and "*" not in key
        self.trace.reads.append(Read(key, sure, Spot(self.module, node), tolerant=not certain))
        return Opaque(Null.NO if certain else Null.UNKNOWN, frozenset({f"read:{key}"}))

    # ---- conditions

    def _decide(self, node: ast.expr, env: Env) -> bool | None:
        """Is the condition true on this rank? None when the code leaves it open."""
        match node:
            case ast.BoolOp():
                ending = not isinstance(node.op, ast.And)
                verdicts = [verdict for _, _, verdict in self._operands(node, env)]
                if ending in verdicts:
                    return ending
                return None if None in verdicts else not ending
            case ast.UnaryOp(op=ast.Not()):
                inner = self._decide(node.operand, env)
                return None if inner is None else not inner
            case ast.Compare(ops=[op], comparators=[right]):
                return self._compare(node.left, op, right, env)
            case ast.Compare() | ast.UnaryOp():
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self._use(self.eval(part, env))
                return None
        return conditions.truth_of(self.eval(node, env), self.trace.role)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr, env: Env) -> bool | None:
        value = self.eval(left, env)
        if isinstance(op, ast.Is | ast.IsNot) and is_none(right):
            null = nullness(value)
            known = null in (Null.YES, Null.NO)
            return (null is Null.YES) is isinstance(op, ast.Is) if known else None
        other = self.eval(right, env)
        self._use(value)
        self._use(other)
        if isinstance(op, ast.In | ast.NotIn):
            inside = containers.contains(other, value)
            return None if inside is None else inside is isinstance(op, ast.In)
        return conditions.compare(op, value, other, (left, right), self.trace.role)

    def _operands(self, node: ast.BoolOp, env: Env) -> Iterator[tuple[ast.expr, Env, bool | None]]:
        """The operands that are reached, what those before say of the variables, the verdict."""
        goes_on = isinstance(node.op, ast.And)
        scope, before = env, self._uncertain
        for part in node.values:
            verdict = self._decide(part, scope)
            yield part, scope, verdict
            if verdict is (not goes_on):
                break
            # Python itself looks at the next operand only when this one came out this way.
            scope = refine(part, dict(scope), goes_on)
            self._uncertain += verdict is None
        self._uncertain = before

    # ---- expressions

    def eval(self, node: ast.expr, env: Env) -> Value:
        """The abstract value of an expression."""
        self.engine.step()
        match node:
            case ast.Constant():
                return NONE if node.value is None else Const(node.value)
            case ast.Name():
                if node.id in env:
                    return env[node.id]
                return self._unset(node)
            case ast.Attribute():
                return self._attribute(node, env)
            case ast.Call():
                return self._call(node, env)
            case ast.Subscript():
                return self._subscript(node, env)
            case ast.Dict():
                return self._dict(node, env)
            case ast.Tuple() | ast.List() | ast.Set():
                return containers.sequence(
                    (self.eval(item, env), isinstance(item, ast.Starred)) for item in node.elts
                )
            case ast.JoinedStr():
                return Const("".join(self._text(part, env) for part in node.values))
            case ast.IfExp():
                truth = self._decide(node.test, env)
                if truth is not None:
                    return self.eval(node.body if truth else node.orelse, env)
                self._uncertain += 1
                yes = self.eval(node.body, refine(node.test, dict(env), True))
                no = self.eval(node.orelse, refine(node.test, dict(env), False))
                self._uncertain -= 1
                return join(yes, no)
            case ast.BinOp():
                return self._binary(node, env)
            case ast.BoolOp():
                return self._either(node, env)
            case ast.Compare() | ast.UnaryOp():
                truth = self._decide(node, env)
                if truth is not None:
                    return Const(truth)
                if isinstance(node, ast.UnaryOp):
                    return Opaque(Null.NO, tags_of(self.eval(node.operand, env)) - {"it"})
                return Opaque(Null.NO)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node, env)
            case ast.Lambda():
                return Closure(node, self.module, dict(env), self.owner)
            case ast.NamedExpr():
                value = self.eval(node.value, env)
                env[node.target.id] = value
                return value
            case ast.Await() | ast.Starred():
                return self.eval(node.value, env)
        return UNKNOWN

    def _text(self, part: ast.expr, env: Env) -> str:
        """A piece of an f-string; `*` for what is not known."""
        if isinstance(part, ast.Constant):
            return str(part.value)
        value = self.eval(part.value, env) if isinstance(part, ast.FormattedValue) else UNKNOWN
        return str(value.value) if isinstance(value, Const) else "*"

    def _unset(self, node: ast.Name) -> Value:
        """A name that no path so far has set, as the top of the module defines it."""
        name, function = node.id, self.function
        if self.certain and function is not None and name in notes.assigned_names(function):
            self._note("PP609", node, f"`{name}` is set on the first rank only", name)
        memo, key = self.module.memo, ("global", name)
        if key not in memo:
            memo[key] = self._defined(name)
        value: Value = memo[key]
        return value

    def _defined(self, name: str) -> Value:
        cls = self.project.find_class(self.module, name)
        if cls is not None:
            return ClassValue(cls)
        function = self.project.find_function(self.module, name)
        if function is not None:
            return Closure(function[1], function[0])
        constant = self.module.constants.get(name)
        if isinstance(constant, ast.Constant | ast.List | ast.Tuple):
            return self.eval(constant, {})
        if isinstance(constant, ast.Dict) and len(constant.keys) <= containers.MOST_ITEMS:
            return self._dict(constant, {})
        return UNKNOWN

    def _dict(self, node: ast.Dict, env: Env) -> Value:
        payload = Payload()
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.eval(item, env)
            self._use(value)
            if key is None:
                payload = containers.update(payload, value, self._line(item))
            else:
                payload = containers.put(payload, self.eval(key, env), value, self._line(key))
        return payload

    def _comprehension(self, node: _Comprehension, env: Env) -> Value:
        """A list or dict with an item for each of the iterable's; else one item as a pattern."""
        first, *others = node.generators
        items = self.eval(first.iter, env)
        rounds = items.items if isinstance(items, Seq) and not others else ()
        known = isinstance(items, Seq) and not (items.open or first.ifs or others)
        scope, payload = dict(env), Payload()
        values: list[Value] = []
        for item in rounds or (Opaque(tags=derived(tags_of(items))),):
            self._assign(first.target, item, scope)
            for each in others:
                self._assign(each.target, UNKNOWN, scope)
            if isinstance(node, ast.DictComp):
                key, value = self.eval(node.key, scope), self.eval(node.value, scope)
                self._use(value)
                payload = containers.put(payload, key, value, self._line(node), sure=known)
            else:
                values.append(self.eval(node.elt, scope))
        if isinstance(node, ast.DictComp):
            self._use(items)
            return payload
        told = [
            v for v in values if not isinstance(v, Const) or (containers.text_of(v) or "*") != "*"
        ]
        return Seq(tuple(values if known and rounds else told), open=not (known and rounds))

    def _subscript(self, node: ast.Subscript, env: Env) -> Value:
        owner = self.eval(node.value, env)
        if isinstance(node.slice, ast.Slice):
            self._touch(owner, node)
            return owner
        key = self.eval(node.slice, env)
        match owner:
            case Received():
                return self._read(containers.text_of(key), node, certain=True)
            case Payload():
                entry = owner.entries.get(containers.text_of(key) or "")
                if entry is not None:
                    return entry.value
                # A table of classes or modules, asked for one that the config names.
                values = [e.value for e in owner.entries.values()]
                if owner.packed or not all(isinstance(v, ClassValue | Partial) for v in values):
                    return UNKNOWN
                return one_of(values)
            case Seq():
                index = key.value if isinstance(key, Const) else None
                if isinstance(index, int) and -len(owner.items) <= index < len(owner.items):
                    return owner.items[index]
                return Opaque(tags=tags_of(owner))
            case Layers():
                return owner.element
            case OneOf():
                if any(isinstance(option, Received) for option in owner.options):
                    self._uncertain += 1
                    value = self._read(containers.text_of(key), node, certain=True)
                    self._uncertain -= 1
                    return value
        self._use(owner)
        return Opaque(Null.UNKNOWN, tags_of(owner) - {"it"} | tags_of(key))

    def _binary(self, node: ast.BinOp, env: Env) -> Value:
        left, right = self.eval(node.left, env), self.eval(node.right, env)
        for operand in (left, right):
            self._use(operand)
            self._touch(operand, node)
        if isinstance(left, Seq) and isinstance(right, Seq) and isinstance(node.op, ast.Add):
            return containers.concatenate(left, right)
        swapped = notes.is_state(right) and not notes.is_state(left)
        other, by = (node.left, left) if swapped else (node.right, right)
        step = self._applied(node, lambda: notes.arithmetic(node.op, other, by), left, right)
        # What is added to float32 becomes float32.
        wide = {f"dtype:{d}" for v in (left, right) for d in kinds(v, "dtype:") & {"float32"}}
        return Opaque(Null.NO, derived(tags_of(left) | tags_of(right)) | wide | step)

    def _either(self, node: ast.BoolOp, env: Env) -> Value:
        """`x or y` and `x and y`, as values."""
        truth = self._decide(node, env)
        values = [self.eval(part, scope) for part, scope, _ in self._operands(node, env)]
        if truth is not None and all(isinstance(v, Const) for v in values):
            return Const(truth)
        result = joined(values)
        if isinstance(node.op, ast.Or) and nullness(values[-1]) is not Null.YES:
            # `x or y` is None only when y is.
            kept = [o for o in options_of(result) if nullness(o) is not Null.YES]
            result = one_of(kept)
            if isinstance(result, Opaque):
                result = replace(result, null=nullness(values[-1]))
        return result

    # ---- attributes

    def _attribute(self, node: ast.Attribute, env: Env) -> Value:
        if node.attr in ("is_first_rank", "is_last_rank"):
            wanted = Role.FIRST if node.attr == "is_first_rank" else Role.LAST
            return Const(self.trace.role is wanted)
        if node.attr in _DTYPES and isinstance(node.value, ast.Name) and node.value.id == "torch":
            return Opaque(Null.NO, frozenset({f"is:{_DTYPES[node.attr]}"}))
        if node.attr == "pipeline_parallel_size":
            return Opaque(Null.NO, frozenset({"at:world_size"}))
        if conditions.is_pp_group(node):
            return Opaque(Null.NO, frozenset({f"at:{node.attr}"}))
        if self._is_self(node.value):
            held = env.get(f"self.{node.attr}")
            if held is not None:
                return held
            assert self.self_value is not None
            value = self._class_attribute(self.self_value, node.attr, env)
            return value or Opaque(tags=frozenset({f"attr:{node.attr}"}))
        owner = self.eval(node.value, env)
        if isinstance(owner, OneOf):
            return joined(self._attribute_of(o, node, certain=False) for o in owner.options)
        return self._attribute_of(owner, node, certain=True)

    def _attribute_of(self, owner: Value, node: ast.Attribute, *, certain: bool) -> Value:
        """One attribute of one value."""
        name = node.attr
        match owner:
            case Received():
                return Received(tensors=True) if name == "tensors" else Bound(owner, name)
            case Payload():
                return replace(owner, packed=False) if name == "tensors" else Bound(owner, name)
            case Seq() | Inner() | Factory() | Const() | ClassValue():
                return Bound(owner, name)
            case Missing():
                if certain and name not in _MODULE_ATTRIBUTES:
                    self._note("PP405", node, ast.unparse(node.value), name)
                return UNKNOWN
            case Instance():
                built = self.engine.built(owner, self.trace.role)
                if built is None:
                    return UNKNOWN
                held = built[0].get(f"self.{name}") or self._class_attribute(owner, name, {})
                return held or Opaque(tags=frozenset({f"attr:{name}"}))
            case Opaque():
                if owner.null is Null.YES and certain and self.certain:
                    for parameter in kinds(owner, "first-only:"):
                        text = f"later ranks are not given `{parameter}`: it is None here, and "
                        self._note("PP606", node, f"{text}has no .{name}", parameter)
                if name == "dtype":
                    return Opaque(Null.NO, frozenset(f"is:{d}" for d in kinds(owner, "dtype:")))
                if name in ("shape", "device", "ndim"):
                    return Opaque(Null.NO)
                if name in ("append", "extend", "update"):
                    return Bound(owner, name)
                if "forwarded" in owner.tags and name not in _OF_INTERMEDIATE_TENSORS:
                    self._touch(owner, node)
                return Opaque(tags=owner.tags - {"it"})
        return UNKNOWN

    def _class_attribute(self, owner: Instance, name: str, env: Env) -> Value | None:
        """The class's own attribute of an object; `env` holds the attributes of self."""
        definition = self.project.find_method(owner.cls, name)
        if definition is not None:
            holder, method = definition
            if any(dotted(d).endswith("property") for d in method.decorator_list):
                return self.run(method, holder, owner, {"self": owner}, entries_of(env))[0]
            return Bound(owner, name)
        assigned = self.project.lineage(owner.cls).attribute(name)
        if assigned is None:
            return None
        ref, value = assigned
        if isinstance(value, ast.Constant | ast.List | ast.Tuple):
            return self.eval(value, {})
        held = self.project.find_class(ref.module, dotted(value)) if dotted(value) else None
        return ClassValue(held) if held is not None else UNKNOWN

    # ---- calls

    def _call(self, node: ast.Call, env: Env) -> Value:
        name = last_name(node.func)
        if name in _EMBEDS and self.certain and self.trace.role is not Role.FIRST:
            self._note("PP608", node, f"{ast.unparse(node.func)} runs on later ranks too", name)
        special = self._special(node, name, env)
        if special is not None:
            return special
        function = self._callee(node, env)
        self._use(function)
        given = self._arguments(node, env)
        for value in given.all:
            self._use(value)
        if name == "tie_weights" and any(isinstance(v, Missing) for v in given.all):
            self._note("PP502", node, _TIED)
        if isinstance(function, OneOf):
            return joined(self._apply(option, given, env) for option in function.options)
        return self._apply(function, given, env)

    def _arguments(self, node: ast.Call, env: Env) -> Arguments:
        args = [self.eval(a, env) for a in node.args]
        keywords: dict[str, Value] = {}
        splats: list[Value] = []
        for each in node.keywords:
            value = self.eval(each.value, env)
            if each.arg is not None:
                keywords[each.arg] = value
            elif isinstance(value, Payload) and value.is_sure:
                keywords.update({k: e.value for k, e in value.entries.items()})
            else:
                splats.append(value)
        spread = bool(splats) or any(isinstance(a, ast.Starred) for a in node.args)
        return Arguments(node, args, keywords, tuple(splats), spread)

    def _callee(self, node: ast.Call, env: Env) -> Value:
        func = node.func
        match func:
            case ast.Attribute(value=ast.Call(func=ast.Name("super"), args=args)):
                if self.self_value is not None:
                    start = dotted(args[0]) if args else ""
                    return Bound(self.self_value, f"super:{start}:{func.attr}")
        return self.eval(func, env)

    def _special(self, node: ast.Call, name: str, env: Env) -> Value | None:
        """Calls that mean something to PP, or that only pass their argument on."""
        first = node.args[0] if node.args else None
        match name:
            case "IntermediateTensors":
                return self._pack(node, env)
            case "PPMissingLayer" | "Identity":
                return Missing()
            case "make_layers":
                return self._make_layers(node, env)
            case "make_empty_intermediate_tensors_factory":
                keys = argument(node, 0, "keys")
                value = self.eval(keys, env) if keys is not None else UNKNOWN
                return Factory(containers.declared_by(value, self._line(node)))
            case "init_vllm_registered_model" | "get_language_model":
                return Inner(name)
            case "partial" if first is not None:
                given = self._arguments(node, env)
                return Partial(given.args[0], tuple(given.args[1:]), tuple(given.keywords.items()))
            case "ModuleList" | "ModuleDict" if first is not None:
                return self._module_list(first, env)
            case "getattr" if len(node.args) >= 2:
                return self._getattr(node, env)
            case "isinstance" if len(node.args) == 2:
                answer = conditions.is_instance(self.eval(node.args[0], env), node.args[1])
                return Opaque(Null.NO) if answer is None else Const(answer)
            case "dict" if not isinstance(node.func, ast.Attribute):
                return self._dict_call(node, env)
            case "enumerate" | "zip" | "range" | "len":
                tags = NO_TAGS.union(*(tags_of(self.eval(each, env)) for each in node.args))
                return Opaque(Null.NO, derived(tags) if name in ("enumerate", "zip") else NO_TAGS)
            case _ if name in _PASS_THROUGH and first is not None and self._is_function(node.func):
                return self.eval(node.args[-1] if name == "cast" else first, env)
            case _ if name in _TENSOR_MAKERS and first is not None:
                return self._made(node, env)
        return None

    def _is_function(self, node: ast.expr) -> bool:
        """A plain name, or one of a module such as `typing.cast`: no method of an object."""
        return isinstance(node, ast.Name) or dotted(node).count(".") == 1

    def _made(self, node: ast.Call, env: Env) -> Value:
        """A tensor that the code makes, and its dtype."""
        self.eval(node.args[0], env)
        dtype = keyword(node, "dtype")
        given = self.eval(dtype, env) if dtype is not None else UNKNOWN
        cast_to = {f"dtype:{name}" for name in kinds(given, "is:")}
        return Opaque(Null.NO, frozenset({"made"} | cast_to))

    def _pack(self, node: ast.Call, env: Env) -> Value:
        source = argument(node, 0, "tensors")
        value = self.eval(source, env) if source is not None else UNKNOWN
        if isinstance(value, Received):
            return value
        if not isinstance(value, Payload):
            value = containers.update(Payload(), value)
        return replace(value, packed=True)

    def _make_layers(self, node: ast.Call, env: Env) -> Value:
        maker = argument(node, 1, "layer_fn")
        given = Arguments(node, [], {"prefix": UNKNOWN}, spread=True)
        makers = options_of(self.eval(maker, env)) if maker is not None else ()
        element = joined(
            self._apply(option, given, env)
            if isinstance(option, Closure | ClassValue | Partial)
            else UNKNOWN
            for option in makers
        )
        ends = (Opaque(Null.NO, frozenset({f"at:{end}"})) for end in ("start_layer", "end_layer"))
        return Seq((*ends, Layers(element, partial=True)))

    def _module_list(self, first: ast.expr, env: Env) -> Value:
        items = self.eval(first, env)
        if isinstance(items, Payload):
            items = Seq(tuple(entry.value for entry in items.entries.values()))
        if isinstance(items, Seq) and items.items:
            element = joined(items.items)
            return Layers(element, partial=isinstance(element, OneOf))
        return Opaque(Null.NO)

    def _getattr(self, node: ast.Call, env: Env) -> Value:
        name = node.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return UNKNOWN
        attribute = ast.copy_location(ast.Attribute(node.args[0], name.value, ast.Load()), node)
        value = self.eval(attribute, env)
        if len(node.args) == 2:
            return value
        default = self.eval(node.args[2], env)
        if isinstance(value, Opaque) and value.null is Null.UNKNOWN:
            # A default of None says what happens without the attribute, not that it is missing.
            return value if nullness(default) is Null.YES else join(value, default)
        return value

    def _dict_call(self, node: ast.Call, env: Env) -> Value:
        payload = Payload()
        for positional in node.args:
            value = self.eval(positional, env)
            self._use(value)
            payload = containers.update(payload, value)
        for each in node.keywords:
            value = self.eval(each.value, env)
            self._use(value)
            if each.arg is None:
                payload = containers.update(payload, value)
            else:
                payload = containers.put(payload, Const(each.arg), value, self._line(node))
        return payload

    def _apply(self, function: Value, given: Arguments, env: Env) -> Value:
        """The value of a call of one thing."""
        match function:
            case ClassValue():
                constructor = self.project.find_method(function.cls, "__init__")
                options = options_given(constructor[1], given) if constructor is not None else ()
                return Instance(function.cls, options)
            case Partial():
                args = [*function.args, *given.args]
                keywords = {**dict(function.keywords), **given.keywords}
                behind = replace(given, args=args, keywords=keywords)
                return self._apply(function.target, behind, env)
            case Closure():
                return self._run_function(function, given)
            case Factory():
                return function.payload
            case Instance():
                return self._run_module(function, given)
            case Inner():
                return self._unknown(given, "forwarded")
            case Missing():
                return given.all[0] if given.all else UNKNOWN
            case Bound():
                return self._run_bound(function, given, env)
            case Opaque():
                return self._run_opaque(function, given)
        return self._unknown(given)

    def _unknown(self, given: Arguments, mark: str = "maybe-forwarded") -> Opaque:
        tags = derived(given.tags)
        # An object of a class that is not followed can hold what it is given.
        holds = last_name(given.node.func)[:1].isupper() and given.passes_sent
        if given.passes_received or holds:
            tags |= {mark}
        return Opaque(Null.UNKNOWN, tags)

    def _run_opaque(self, function: Opaque, given: Arguments) -> Value:
        """A method of a tensor, a module that is not followed, or a function of torch."""
        func = given.node.func
        if isinstance(func, ast.Attribute) and func.attr in ("size", "dim", "numel"):
            return Opaque(Null.NO)
        value = self._unknown(given)
        # A method of a tensor gives something computed from that tensor.
        tags = value.tags | derived(function.tags)
        if isinstance(func, ast.Attribute):
            if func.attr in _CASTS:
                asked = [*given.args, *given.keywords.values()]
                names = {d for v in asked for d in kinds(v, "is:") | kinds(v, "dtype:")}
                names |= {_DTYPES[func.attr]} if func.attr in _DTYPES and not asked else set()
                tags |= {f"dtype:{name}" for name in names}
            else:
                tags |= {t for t in function.tags if t.startswith("dtype:")}
        tags |= self._applied(given.node, lambda: notes.changes(given.node), function, *given.all)
        return Opaque(value.null, tags)

    def _run_module(self, module: Instance, given: Arguments) -> Value:
        """`module(...)`: walk its forward when it takes part in PP, else read off its result."""
        definition = self.project.find_method(module.cls, "forward")
        if definition is None:
            return self._unknown(given)
        owner, method = definition
        wants = "intermediate_tensors" in parameter_names(method)
        if not wants and not notes.takes_part(method):
            step = self._applied(given.node, lambda: notes.changes(given.node), *given.all)
            return with_tags(self._layer_result(module, owner, method, given), step)
        first = self.trace.role is Role.FIRST
        if wants and not given.passes_received and not given.spread and not first:
            text = "on later ranks the inner model is called without intermediate_tensors"
            self._note("PP303", given.node, text)
        arguments = self._bind(method, given, module, owner.module)
        attributes = self.engine.attributes(module, self.trace.role)
        value, _ = self.run(method, owner, module, arguments, dict(attributes))
        return value

    def _layer_result(
        self, module: Instance, owner: ClassRef, method: Function, given: Arguments
    ) -> Value:
        """A layer returns items that are None on every path, or cast to a dtype on some."""
        memo = owner.module.memo
        key = ("returns", method, module.cls)
        if key not in memo:
            memo[key] = ()  # for a layer that calls itself
            inside = Walker(
                self.engine, Trace(Role.MIDDLE), owner.module, module, owner, _MOST_DEPTH
            )
            # Walking what a layer is made of is dear: only where its own attributes name a dtype.
            own = self.engine.attributes(module, Role.MIDDLE) if notes.casts_to_own(method) else {}
            names = parameter_names(method)
            taken = {name: Opaque(tags=frozenset({f"same:{name}"})) for name in names}
            inside.block(method.body, {**own, **taken, "self": module})
            memo[key] = notes.returned_items(value for value, _ in inside.returns)
        tags = derived(given.tags)
        bound = self._bind(method, given, module, owner.module) if memo[key] else {}
        items: list[Value] = []
        for item in memo[key]:
            made = Opaque(item.null, tags | item.tags)
            items.append(next((bound[name] for name in kinds(item, "same:")), made))
        if len(items) == 1:
            return items[0]
        return Seq(tuple(items)) if items else Opaque(tags=tags)

    def _run_bound(self, bound: Bound, given: Arguments, env: Env) -> Value:
        """A method of a value that is known."""
        owner, name = bound.owner, bound.name
        func = given.node.func
        held = func.value if isinstance(func, ast.Attribute) else func
        match owner:
            case Received():
                return self._received_method(owner, name, given)
            case Payload():
                if owner.packed and name not in _IT_METHODS:
                    self._no_method(name, given)
                # `update(**more)` puts in what `update(more)` does.
                args = [*given.args, *given.splats]
                value, changed = containers.dict_method(
                    owner, name, args, given.keywords, self._line(given.node)
                )
                self._store(held, changed, env)
                return value
            case Seq():
                value, longer = containers.list_method(owner, name, given.args)
                self._store(held, longer, env)
                return value
            case Opaque() if name in ("append", "extend", "update"):
                return NONE
            case ClassValue():
                # `Base.__init__(self, ...)`
                definition = self.project.find_method(owner.cls, name)
                of_self = bool(given.args) and isinstance(given.args[0], Instance)
                if definition is None or not of_self or self.self_value is None:
                    return self._unknown(given)
                rest = replace(given, args=given.args[1:])
                return self._run_method(*definition, self.self_value, rest, env)
            case Instance():
                return self._run_own_method(owner, name, given, env)
            case Inner():
                return self._unknown(given, "forwarded") if given.all else Bound(owner, name)
        return self._unknown(given)

    def _no_method(self, name: str, given: Arguments) -> None:
        self._note("PP202", given.node, f"IntermediateTensors has no method `{name}`", name)

    def _received_method(self, owner: Received, name: str, given: Arguments) -> Value:
        if not owner.tensors and name not in _IT_METHODS:
            self._no_method(name, given)
        if name in ("get", "pop", "__getitem__"):
            text = containers.text_of(given.args[0]) if given.args else None
            return self._read(text, given.node, certain=name == "__getitem__")
        if name in ("items", "values", "keys"):
            self.trace.open_read = True
            return Opaque(Null.NO, frozenset({"read:*"}))
        return UNKNOWN

    def _run_own_method(self, owner: Instance, name: str, given: Arguments, env: Env) -> Value:
        own = self.self_value is not None and owner.cls is self.self_value.cls
        if name.startswith("super:"):
            _, start, name = name.split(":")
            after = self.project.find_class(self.module, start) if start else self.owner
            definition = self.project.find_method(owner.cls, name, after=after or self.owner)
        else:
            definition = self.project.find_method(owner.cls, name)
        if definition is None:
            return self._unknown(given)
        if not own:
            env = dict(self.engine.attributes(owner, self.trace.role))
        return self._run_method(*definition, owner, given, env)

    def _run_method(
        self,
        owner: ClassRef,
        method: Function,
        self_value: Instance,
        given: Arguments,
        env: Env,
    ) -> Value:
        decorators = [dotted(decorator) for decorator in method.decorator_list]
        if any(name.endswith("contextmanager") for name in decorators):
            return UNKNOWN  # what stands in the `with` block is walked
        static = any(name.endswith("staticmethod") for name in decorators)
        arguments = self._bind(method, given, None if static else self_value, owner.module)
        value, after = self.run(method, owner, self_value, arguments, entries_of(env))
        env.update(after)
        return with_tags(value, derived(given.tags))

    def _run_function(self, function: Closure, given: Arguments) -> Value:
        node = function.node
        arguments = self._bind(node, given, None, function.module)
        if isinstance(node, ast.Lambda):
            return self.eval(node.body, {**function.env, **arguments})
        value, _ = self.run(
            node,
            function.owner,
            self.self_value,
            {**function.env, **arguments},
            entries_of(function.env),
            function.module,
        )
        # Kernels write into tensors that were made empty: what they were given is in there.
        return with_tags(value, derived(given.tags))

    def _bind(
        self,
        function: Function | ast.Lambda,
        given: Arguments,
        self_value: Value | None,
        module: Module,
    ) -> Env:
        def evaluate(node: ast.expr) -> Value:
            return Walker(self.engine, self.trace, module, None, None, self.depth).eval(node, {})

        return bind(function, given, self_value, self.trace.role, evaluate)


def _loop_item(layers: Layers | None, items: Value, node: Loop) -> Value:
    """The loop variable holds a layer, a number and a layer, or something else."""
    if layers is None or (isinstance(node.iter, ast.Call) and dotted(node.iter.func) == "range"):
        return Opaque(tags=derived(tags_of(items)))
    if isinstance(node.target, ast.Tuple) and len(node.target.elts) == 2:
        return Seq((Opaque(Null.NO), layers.element))
    return layers.element
