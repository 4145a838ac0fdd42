"""Values of dict, list and string displays."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint import payloads
from harness.lint.values import Const, Entry, Payload, Seq, Value

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env


def of_dict(walker: Walker, node: ast.Dict, env: Env) -> Value:
    """A dict display; keys that the code computes leave it open."""
    payload = Payload({}, line=node.lineno)
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        value = walker.eval(value_node, env)
        walker.use(value)
        if key_node is None:
            payload = payloads.update(payload, value, value_node.lineno)
            continue
        key = walker.eval(key_node, env)
        if isinstance(key, Const) and isinstance(key.value, str) and key.value.strip("*"):
            entry = Entry(value, "*" not in key.value, key_node.lineno)
            payload = payload.with_entry(key.value, entry)
        else:
            payload = replace(payload, open=True)
    return payload


def of_sequence(walker: Walker, node: ast.Tuple | ast.List | ast.Set, env: Env) -> Value:
    """A list, tuple or set display."""
    items: list[Value] = []
    is_open = False
    for item in node.elts:
        value = walker.eval(item, env)
        if isinstance(item, ast.Starred):
            if isinstance(value, Seq):
                items += value.items
                is_open = is_open or value.open
            else:
                is_open = True
        else:
            items.append(value)
    return Seq(tuple(items), open=is_open)


def text_of(walker: Walker, node: ast.JoinedStr, env: Env) -> str:
    """An f-string, with `*` for what is not known."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            value = walker.eval(part.value, env)
            text += str(value.value) if isinstance(value, Const) else "*"
    return text
