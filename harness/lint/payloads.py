"""Operations on the dicts and lists that hold keys."""

from __future__ import annotations

import ast
from dataclasses import replace

from harness.lint.project import dotted
from harness.lint.trace import Role
from harness.lint.values import (
    Const,
    Entry,
    Null,
    OneOf,
    Opaque,
    Payload,
    Seq,
    Value,
    nullness,
    options_of,
)

MOST_ITEMS = 24


def concatenate(left: Seq, right: Seq) -> Seq:
    """`left + right` for lists."""
    items = (*left.items, *right.items)[:MOST_ITEMS]
    cut = len(left.items) + len(right.items) > MOST_ITEMS
    return Seq(items, left.open or right.open or cut, left.tags | right.tags)


def update(payload: Payload, other: Value, line: int = 0) -> Payload:
    """`payload.update(other)`; a dict that is not known leaves the keys open.

    With a `line`, the new entries count as put in there: at the `**` that spreads them.
    """
    for option in options_of(other):
        if isinstance(option, Payload):
            sure = not isinstance(other, OneOf)
            entries = {
                k: replace(e, certain=e.certain and sure, line=line or e.line)
                for k, e in option.entries.items()
            }
            payload = replace(
                payload, entries={**payload.entries, **entries}, open=payload.open or option.open
            )
        elif nullness(option) is not Null.YES:
            payload = replace(payload, open=True)
    return payload


def contains(container: Value, item: Value) -> bool | None:
    """`item in container`, where the code tells."""
    text = item.value if isinstance(item, Const) else None
    if isinstance(container, Payload) and isinstance(text, str) and "*" not in text:
        entry = container.entries.get(text)
        if entry is not None:
            return True if entry.certain else None
        return None if container.open or any("*" in k for k in container.entries) else False
    return None


def is_pp_group(node: ast.expr) -> bool:
    """Is this an attribute of the PP group, as in `get_pp_group().world_size`?"""
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value
    if isinstance(owner, ast.Call):
        return dotted(owner.func).endswith("get_pp_group")
    return dotted(owner).split(".")[-1] in ("pp_group", "pp", "_pp_group")


def compare_rank(name: str, op: ast.cmpop, value: object, role: Role) -> bool | None:
    """`get_pp_group().world_size > 1` and `rank_in_group == 0`, for a rank of a real pipeline."""
    if name == "world_size" and value == 1:
        if isinstance(op, ast.Gt | ast.NotEq):
            return True
        if isinstance(op, ast.Eq | ast.LtE):
            return False
    if name == "rank_in_group" and value == 0:
        if isinstance(op, ast.Eq):
            return role is Role.FIRST
        if isinstance(op, ast.Gt | ast.NotEq):
            return role is not Role.FIRST
    return None


def payload_of_keys(keys: Value, line: int, shape: str) -> Payload:
    """The declaration that a list of keys makes."""
    payload = Payload({}, packed=True, line=line)
    value = Opaque(Null.NO, shape=shape, dtype="dtype")
    for option in options_of(keys):
        if not isinstance(option, Seq):
            payload = replace(payload, open=True)
            continue
        sure = not isinstance(keys, OneOf)
        if option.open:
            # Items of an open list come from one branch or another: what is in it may be there.
            payload = replace(payload, open=not option.items)
            sure = False
        for item in option.items:
            if isinstance(item, Const) and isinstance(item.value, str):
                entry = Entry(value, sure and "*" not in item.value, line)
                payload = payload.with_entry(item.value, entry)
            else:
                payload = replace(payload, open=True)
    return payload
