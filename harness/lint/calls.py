"""How the interpreter treats calls."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint.payloads import concatenate, payload_of_keys, update
from harness.lint.project import ClassRef, dotted
from harness.lint.trace import Role, Spot, Use
from harness.lint.tree import walk
from harness.lint.values import (
    NO_TAGS,
    NONE,
    UNKNOWN,
    Bound,
    ClassValue,
    Const,
    Entry,
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
    nullness,
    options_of,
    tags_of,
    with_tags,
)

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env


_EMBEDS = frozenset({"embed_input_ids", "get_input_embeddings", "embed_tokens"})
_CASTS = {"float": "torch.float32", "half": "torch.float16", "bfloat16": "torch.bfloat16"}
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


def call(walker: Walker, node: ast.Call, env: Env) -> Value:
    """The value of a call."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
    if name in _EMBEDS and walker.certain and walker.trace.role is not Role.FIRST:
        use = Use(name, ast.unparse(node.func), Spot(walker.module, node))
        walker.trace.embeddings.append(use)
    special = _special(walker, node, name, env)
    if special is not None:
        return special
    function = _callee(walker, node, env)
    walker.use(function)
    arguments = [walker.eval(a, env) for a in node.args]
    keywords: dict[str, Value] = {}
    splats: list[Value] = []
    for keyword in node.keywords:
        value = walker.eval(keyword.value, env)
        if keyword.arg is not None:
            keywords[keyword.arg] = value
        elif isinstance(value, Payload) and not value.open:
            keywords.update({k: e.value for k, e in value.entries.items()})
        else:
            splats.append(value)
    for value in (*arguments, *keywords.values(), *splats):
        walker.use(value)
    if name == "tie_weights" and any(isinstance(v, Missing) for v in arguments):
        walker.trace.missing_ties.append(Spot(walker.module, node))
    given = _Given(node, arguments, keywords, splats, splat=_has_star(node))
    result: Value | None = None
    for option in options_of(function):
        value = _apply(walker, option, given, env)
        if isinstance(option, Opaque) and isinstance(node.func, ast.Attribute):
            value = _laid_out(value, node, node.func.attr)
        result = value if result is None else join(result, value)
    return result if result is not None else UNKNOWN


def _laid_out(value: Value, node: ast.Call, name: str) -> Value:
    """What a tensor's own method says of the dtype or the shape of its result."""
    if not isinstance(value, Opaque):
        return value
    texts = [ast.unparse(argument) for argument in node.args]
    if name == "to" and texts and texts[0].startswith("torch."):
        return replace(value, dtype=texts[0])
    if name in _CASTS and not texts:
        return replace(value, dtype=_CASTS[name])
    if name in ("view", "reshape") and len(texts) > 1 and not _has_star(node):
        return replace(value, shape=f"({', '.join(texts)})")
    return value


class _Given:
    """The evaluated arguments of a call."""

    def __init__(
        self,
        node: ast.Call,
        args: list[Value],
        keywords: dict[str, Value],
        splats: list[Value] | None = None,
        *,
        splat: bool = False,
    ) -> None:
        self.node = node
        self.args = args
        self.keywords = keywords
        splats = splats or []
        self.splat = splat or bool(splats)
        self.all = (*args, *keywords.values(), *splats)
        self.tags = NO_TAGS.union(*(tags_of(value) for value in self.all))


def _has_star(node: ast.Call) -> bool:
    return any(isinstance(a, ast.Starred) for a in node.args)


def _callee(walker: Walker, node: ast.Call, env: Env) -> Value:
    func = node.func
    if (
        isinstance(func, ast.Attribute)
        and isinstance(func.value, ast.Call)
        and dotted(func.value.func) == "super"
        and walker.self_cls is not None
    ):
        start = dotted(func.value.args[0]) if func.value.args else ""
        return Bound(Instance(walker.self_cls), f"super:{start}:{func.attr}")
    return walker.eval(func, env)


def _keyword(node: ast.Call, name: str) -> ast.expr | None:
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value
    return None


def _special(walker: Walker, node: ast.Call, name: str, env: Env) -> Value | None:
    """Calls that mean something to PP, or that only pass their argument on."""
    first = node.args[0] if node.args else None
    match name:
        case "IntermediateTensors":
            source = first if first is not None else _keyword(node, "tensors")
            return _pack(walker, node, source, env)
        case "PPMissingLayer":
            return Missing()
        case "make_layers":
            return _make_layers(walker, node, env)
        case "make_empty_intermediate_tensors_factory":
            keys = first if first is not None else _keyword(node, "keys")
            size = node.args[1] if len(node.args) > 1 else _keyword(node, "hidden_size")
            shape = f"(batch_size, {ast.unparse(size)})" if size is not None else ""
            found = walker.eval(keys, env) if keys is not None else UNKNOWN
            payload = payload_of_keys(found, node.lineno, shape)
            return Factory(replace(payload, module=walker.module))
        case "init_vllm_registered_model" | "get_language_model":
            return Inner(name)
        case "ModuleList" if first is not None:
            return _module_list(walker, node, first, env)
        case "getattr" if len(node.args) >= 2:
            return _getattr(walker, node, env)
        case "isinstance" if len(node.args) == 2:
            return _isinstance(walker, node, env)
        case "dict" if not isinstance(node.func, ast.Attribute):
            return _dict_call(walker, node, env)
        case "enumerate" | "zip" | "range" | "len":
            for argument in node.args:
                walker.eval(argument, env)
            return Opaque(Null.NO)
        case _ if name in _PASS_THROUGH and first is not None:
            value = walker.eval(node.args[-1] if name == "cast" else first, env)
            return value if not isinstance(value, Opaque) else replace(value, null=value.null)
        case _ if name in _TENSOR_MAKERS and first is not None:
            walker.eval(first, env)
            shape = "" if name.endswith("_like") else _shape_text(node)
            dtype = _keyword(node, "dtype")
            return Opaque(Null.NO, shape=shape, dtype=ast.unparse(dtype) if dtype else "")
    return None


def _shape_text(node: ast.Call) -> str:
    if len(node.args) == 1 or isinstance(node.args[0], ast.Tuple):
        return ast.unparse(node.args[0])
    return "(" + ", ".join(ast.unparse(a) for a in node.args) + ")"


def _pack(walker: Walker, node: ast.Call, source: ast.expr | None, env: Env) -> Value:
    payload = Payload({}, packed=True, line=node.lineno, module=walker.module)
    value = walker.eval(source, env) if source is not None else UNKNOWN
    if isinstance(value, Payload):
        return replace(value, packed=True, line=node.lineno, module=walker.module)
    if isinstance(value, Received):
        return value
    return replace(update(payload, value), packed=True, line=node.lineno)


def _make_layers(walker: Walker, node: ast.Call, env: Env) -> Value:
    maker = node.args[1] if len(node.args) > 1 else _keyword(node, "layer_fn")
    element: Value = UNKNOWN
    if maker is not None:
        function = walker.eval(maker, env)
        if isinstance(function, Function):
            element = _run_function(walker, function, _Given(node, [UNKNOWN], {}, splat=True))
        elif isinstance(function, ClassValue):
            element = Instance(function.cls, node.lineno)
    bound = Opaque(Null.NO)
    return Seq((bound, bound, Layers(element, partial=True, line=node.lineno)))


def _module_list(walker: Walker, node: ast.Call, first: ast.expr, env: Env) -> Value:
    items = walker.eval(first, env)
    if isinstance(items, Seq) and items.items:
        element = items.items[0]
        for item in items.items[1:]:
            element = join(element, item)
        return Layers(element, partial=isinstance(element, OneOf), line=node.lineno)
    return Opaque(Null.NO)


def _getattr(walker: Walker, node: ast.Call, env: Env) -> Value:
    name = node.args[1]
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        return UNKNOWN
    attribute = ast.copy_location(ast.Attribute(node.args[0], name.value, ast.Load()), node)
    value = walker.eval(attribute, env)
    if len(node.args) == 2:
        return value
    default = walker.eval(node.args[2], env)
    if isinstance(value, Opaque) and value.null is Null.UNKNOWN:
        # A default of None says what happens without the attribute, not that it is missing.
        return value if nullness(default) is Null.YES else join(value, default)
    return value


def _isinstance(walker: Walker, node: ast.Call, env: Env) -> Value:
    value = walker.eval(node.args[0], env)
    names = {dotted(n).rsplit(".", 1)[-1] for n in _class_nodes(node.args[1])}
    answers: set[bool | None] = set()
    for option in options_of(value):
        if "IntermediateTensors" in names:
            if isinstance(option, Payload | Received):
                answers.add(True)
            else:
                answers.add(None if isinstance(option, Opaque) else False)
        elif names == {"Tensor"}:
            answers.add(False if isinstance(option, Payload | Received | Seq) else None)
        elif names & {"PPMissingLayer", "StageMissingLayer"}:
            answers.add(True if isinstance(option, Missing) else None)
        else:
            answers.add(None)
    answer = answers.pop() if len(answers) == 1 else None
    return Opaque(Null.NO) if answer is None else Const(answer)


def _class_nodes(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _dict_call(walker: Walker, node: ast.Call, env: Env) -> Value:
    payload = Payload({}, line=node.lineno)
    for argument in node.args:
        payload = update(payload, walker.eval(argument, env))
    for keyword in node.keywords:
        value = walker.eval(keyword.value, env)
        walker.use(value)
        if keyword.arg is None:
            payload = update(payload, value)
        else:
            payload = payload.with_entry(keyword.arg, Entry(value, True, node.lineno))
    return payload


def _apply(walker: Walker, function: Value, given: _Given, env: Env) -> Value:
    match function:
        case ClassValue():
            return Instance(function.cls, given.node.lineno)
        case Function():
            return _run_function(walker, function, given)
        case Factory():
            return function.payload
        case Instance():
            return _call_module(walker, function, given)
        case Inner():
            return _call_unknown(given, "forwarded")
        case Missing():
            return given.all[0] if given.all else UNKNOWN
        case Bound():
            return _call_bound(walker, function, given, env)
    value = _call_unknown(given)
    # A method of a tensor gives something computed from that tensor.
    return with_tags(value, derived(tags_of(function)))


def _call_unknown(given: _Given, mark: str = "maybe-forwarded") -> Value:
    passed = any("it" in tags_of(v) or isinstance(v, Received) for v in given.all)
    tags = derived(given.tags)
    return Opaque(Null.UNKNOWN, tags | {mark} if passed else tags)


def _call_module(walker: Walker, module: Instance, given: _Given) -> Value:
    """`module(...)`: walk its forward when it takes part in PP, else read off what it returns."""
    found = walker.project.find_method(module.cls, "forward")
    if found is None:
        return _call_unknown(given)
    owner, method = found
    names = {a.arg for a in (*method.args.args, *method.args.kwonlyargs)}
    if "intermediate_tensors" not in names and not _takes_part(method):
        return _layer_result(method, given)
    passed = any("it" in tags_of(v) or isinstance(v, Received) for v in given.all)
    wants = "intermediate_tensors" in names
    if wants and not passed and not given.splat and walker.trace.role is not Role.FIRST:
        walker.trace.dropped_calls.append(Spot(walker.module, given.node))
    arguments = _bind(walker, method, given, Instance(module.cls))
    attributes = walker.engine.attributes(module.cls, walker.trace.role)
    value, _ = walker.engine.run(walker, method, owner, module.cls, arguments, dict(attributes))
    return value


def _takes_part(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Does a forward without the parameter send all the same, as an inner encoder may?"""
    return any(
        (isinstance(p, ast.Name) and p.id == "IntermediateTensors")
        or (isinstance(p, ast.Attribute) and p.attr in ("is_first_rank", "is_last_rank"))
        for statement in method.body
        for p in walk(statement)
    )


def _layer_result(method: ast.FunctionDef | ast.AsyncFunctionDef, given: _Given) -> Value:
    """What a layer returns: which items of its tuple are None on every path."""
    results: list[ast.Tuple] = []
    for part in walk(method):
        if isinstance(part, ast.Return):
            if not isinstance(part.value, ast.Tuple):
                results = []
                break
            results.append(part.value)
    tags = derived(given.tags)
    if not results or len({len(r.elts) for r in results}) != 1:
        return Opaque(tags=tags)
    items: list[Value] = []
    for column in zip(*(r.elts for r in results), strict=True):
        none = all(isinstance(c, ast.Constant) and c.value is None for c in column)
        items.append(Opaque(Null.YES if none else Null.UNKNOWN, tags))
    return Seq(tuple(items))


def _call_bound(walker: Walker, bound: Bound, given: _Given, env: Env) -> Value:
    owner, name = bound.owner, bound.name
    match owner:
        case Received():
            return _received_method(walker, owner, name, given)
        case Payload():
            return _payload_method(walker, owner, name, given, env)
        case Seq():
            return _list_method(walker, owner, name, given, env)
        case Opaque() if name in ("append", "extend", "update"):
            return NONE
        case ClassValue():
            return _class_method(walker, owner.cls, name, given, env)
        case Instance():
            return _method(walker, owner, name, given, env)
        case Inner():
            if not given.all:
                return Bound(owner, name)
            return _call_unknown(given, "forwarded")
    return _call_unknown(given)


def _received_method(walker: Walker, owner: Received, name: str, given: _Given) -> Value:
    if not owner.tensors and name not in _IT_METHODS:
        spot = Spot(walker.module, given.node)
        walker.trace.no_methods.append(Use(name, "IntermediateTensors", spot))
    if name in ("get", "pop", "__getitem__"):
        key = given.args[0] if given.args else UNKNOWN
        text = key.value if isinstance(key, Const) and isinstance(key.value, str) else None
        return walker.read(text, given.node, certain=name == "__getitem__")
    if name in ("items", "values", "keys"):
        walker.trace.open_read = True
        return Opaque(Null.NO, frozenset({"read:*"}))
    return UNKNOWN


def _payload_method(walker: Walker, owner: Payload, name: str, given: _Given, env: Env) -> Value:
    key = given.args[0] if given.args else UNKNOWN
    text = key.value if isinstance(key, Const) and isinstance(key.value, str) else None
    assert isinstance(given.node.func, ast.Attribute)
    place = walker.place(given.node.func.value)
    if owner.packed and name not in _IT_METHODS:
        spot = Spot(walker.module, given.node)
        walker.trace.no_methods.append(Use(name, "IntermediateTensors", spot))
    if name == "update":
        changed = owner
        for value in given.args:
            changed = update(changed, value)
        for keyword, value in given.keywords.items():
            changed = changed.with_entry(keyword, Entry(value, True, given.node.lineno))
        _store(env, place, changed)
        return NONE
    if name in ("pop", "setdefault", "get"):
        entry = owner.entries.get(text) if text is not None else None
        if name == "pop" and text is not None:
            kept = {k: e for k, e in owner.entries.items() if k != text}
            _store(env, place, replace(owner, entries=kept))
        return entry.value if entry is not None else UNKNOWN
    if name == "copy":
        return owner
    if name == "items":
        pairs: list[Value] = [Seq((Const(k), e.value)) for k, e in owner.entries.items()]
        sure = all(e.certain for e in owner.entries.values())
        return Seq(tuple(pairs), open=owner.open or not sure)
    return Opaque(Null.NO, tags_of(owner))


def _store(env: Env, place: str | None, value: Payload) -> None:
    if place is not None and isinstance(env.get(place), Payload):
        held = env[place]
        assert isinstance(held, Payload)
        env[place] = replace(value, packed=held.packed)


def _list_method(walker: Walker, owner: Seq, name: str, given: _Given, env: Env) -> Value:
    assert isinstance(given.node.func, ast.Attribute)
    place = walker.place(given.node.func.value)
    if place is not None and place in env and name in ("append", "extend", "add", "insert"):
        item = given.args[-1] if given.args else UNKNOWN
        added = item if name == "extend" and isinstance(item, Seq) else Seq((item,))
        env[place] = concatenate(owner, added)
        return NONE
    return Opaque(tags=tags_of(owner))


def _class_method(walker: Walker, cls: ClassRef, name: str, given: _Given, env: Env) -> Value:
    """`Base.__init__(self, ...)` and class methods."""
    found = walker.project.find_method(cls, name)
    first = given.args[0] if given.args else None
    if found is None or not isinstance(first, Instance) or walker.self_cls is None:
        return _call_unknown(given)
    owner, method = found
    rest = _Given(given.node, given.args[1:], given.keywords, splat=given.splat)
    return _run_method(walker, owner, method, walker.self_cls, rest, env)


def _method(walker: Walker, owner: Instance, name: str, given: _Given, env: Env) -> Value:
    own = walker.self_cls is not None and owner.cls.node is walker.self_cls.node
    if name.startswith("super:"):
        _, start, name = name.split(":")
        after = walker.project.find_class(walker.module, start) if start else walker.owner
        found = walker.project.find_method(owner.cls, name, after=after or walker.owner)
    else:
        found = walker.project.find_method(owner.cls, name)
    if found is None:
        return _call_unknown(given)
    holder, method = found
    if own:
        return _run_method(walker, holder, method, owner.cls, given, env)
    attributes = walker.engine.attributes(owner.cls, walker.trace.role)
    return _run_method(walker, holder, method, owner.cls, given, dict(attributes))


def _run_method(
    walker: Walker,
    owner: ClassRef,
    method: ast.FunctionDef | ast.AsyncFunctionDef,
    self_cls: ClassRef,
    given: _Given,
    env: Env,
) -> Value:
    static = any(dotted(d).endswith("staticmethod") for d in method.decorator_list)
    arguments = _bind(walker, method, given, None if static else Instance(self_cls))
    entries = {k: v for k, v in env.items() if k.startswith("self.")}
    value, after = walker.engine.run(walker, method, owner, self_cls, arguments, entries)
    env.update(after)
    return with_tags(_annotated(value, method), derived(given.tags))


def _annotated(value: Value, method: ast.FunctionDef | ast.AsyncFunctionDef) -> Value:
    """`-> X | None` on a method that could not be looked through says that None is possible."""
    if isinstance(value, Opaque) and value.null is Null.UNKNOWN and method.returns is not None:
        text = ast.unparse(method.returns)
        if text.endswith("| None") or text.startswith("Optional["):
            return replace(value, null=Null.MAYBE)
    return value


def _run_function(walker: Walker, function: Function, given: _Given) -> Value:
    node = function.node
    if isinstance(node, ast.Lambda):
        scope = {**function.env, **_bind_lambda(node, given)}
        return walker.eval(node.body, scope)
    arguments = _bind(walker, node, given, None)
    value, _ = walker.engine.run(
        walker,
        node,
        function.owner,
        walker.self_cls,
        {**function.env, **arguments},
        {k: v for k, v in function.env.items() if k.startswith("self.")},
        function.module,
    )
    # Kernels write into tensors that were made empty: what they were given is in there.
    return with_tags(value, derived(given.tags))


def _bind_lambda(node: ast.Lambda, given: _Given) -> Env:
    names = [a.arg for a in node.args.args]
    bound: Env = dict.fromkeys(names, UNKNOWN)
    bound.update(zip(names, given.args, strict=False))
    bound.update({k: v for k, v in given.keywords.items() if k in names})
    return bound


def _bind(
    walker: Walker,
    method: ast.FunctionDef | ast.AsyncFunctionDef,
    given: _Given,
    self_value: Value | None,
) -> Env:
    """Parameter names to values; what is not given takes its default."""
    spec = method.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    values = list(given.args)
    if self_value is not None and names:
        values.insert(0, self_value)
    bound: Env = dict(zip(names, values, strict=False))
    defaults = dict(zip(reversed(names), reversed(spec.defaults), strict=False))
    for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        names.append(argument.arg)
        if default is not None:
            defaults[argument.arg] = default
    for name, value in given.keywords.items():
        if name in names:
            bound[name] = value
    for name in names:
        if name in bound:
            continue
        default = defaults.get(name)
        if given.splat or _is_none(default):
            bound[name] = splatted(name, default, walker.trace.role)
        elif default is not None:
            bound[name] = walker.eval(default, {})
        else:
            bound[name] = UNKNOWN
    for extra in (spec.vararg, spec.kwarg):
        if extra is not None:
            bound[extra.arg] = Opaque(Null.NO)
    return bound


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def splatted(name: str, default: ast.expr | None, role: Role) -> Value:
    """A parameter that the runner or an outer wrapper fills, or not.

    Later ranks get positions and intermediate_tensors (the V1 runner also gives input_ids);
    everything optional is computed from the inputs, which only the first rank has.
    """
    if not _is_none(default):
        return UNKNOWN
    if role is Role.FIRST:
        return Opaque(tags=frozenset({f"input:{name}"}))
    return Opaque(Null.YES, frozenset({f"first-only:{name}"}))
