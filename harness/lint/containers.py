"""Dicts and lists that hold keys: how they are made, changed and asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.lint.project import Spot
from harness.lint.values import (
    NONE,
    UNKNOWN,
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
    tags_of,
)

MOST_ITEMS = 24


def text_of(value: Value) -> str | None:
    """The string that a value is known to be; a part that the code computes is `*` in it."""
    return value.value if isinstance(value, Const) and isinstance(value.value, str) else None


def put(payload: Payload, key: Value, value: Value, spot: Spot, *, sure: bool = True) -> Payload:
    """`payload[key] = value`; a key that is computed as a whole leaves the payload open."""
    text = text_of(key)
    if text is None or not text.strip("*"):
        return replace(payload, open=True)
    return payload.with_entry(text, Entry(value, sure and "*" not in text, spot))


def concatenate(left: Seq, right: Seq) -> Seq:
    """`left + right` for lists."""
    items = (*left.items, *right.items)[:MOST_ITEMS]
    too_long = len(left.items) + len(right.items) > MOST_ITEMS
    return Seq(items, left.open or right.open or too_long, left.tags | right.tags)


def update(payload: Payload, other: Value, spot: Spot | None = None) -> Payload:
    """`payload.update(other)`; a dict that is not known leaves the keys open.

    With a `spot`, the new entries count as put in there: at the `**` that spreads them.
    """
    for option in options_of(other):
        if isinstance(option, Payload):
            sure = not isinstance(other, OneOf)
            entries = {
                k: replace(e, certain=e.certain and sure, spot=spot or e.spot)
                for k, e in option.entries.items()
            }
            payload = replace(
                payload, entries={**payload.entries, **entries}, open=payload.open or option.open
            )
        elif nullness(option) is not Null.YES:
            payload = replace(payload, open=True)
    return payload


def sequence(values: Iterable[tuple[Value, bool]]) -> Seq:
    """A list or tuple display; each value with whether it is spread with `*`."""
    items: list[Value] = []
    is_open = False
    for value, starred in values:
        if not starred:
            items.append(value)
        elif isinstance(value, Seq):
            items += value.items
            is_open = is_open or value.open
        else:
            is_open = True
    return Seq(tuple(items), open=is_open)


def contains(container: Value, item: Value) -> bool | None:
    """`item in container`, where the code tells."""
    text = text_of(item)
    if isinstance(container, Payload) and text is not None and "*" not in text:
        entry = container.entries.get(text)
        if entry is not None:
            return True if entry.certain else None
        return None if container.open or any("*" in k for k in container.entries) else False
    return None


def declared_by(keys: Value, spot: Spot) -> Payload:
    """The declaration that `make_empty_intermediate_tensors_factory` makes of a list of keys."""
    payload = Payload(packed=True)
    slot = Opaque(Null.NO, frozenset({"made"}))
    for option in options_of(keys):
        if not isinstance(option, Seq):
            payload = replace(payload, open=True)
            continue
        sure = not isinstance(keys, OneOf) and not option.open
        if option.open:
            # Items of an open list come from one branch or another: what is in it may be there.
            payload = replace(payload, open=not option.items)
        for item in option.items:
            payload = put(payload, item, slot, spot, sure=sure)
    return payload


def dict_method(
    owner: Payload, name: str, args: list[Value], keywords: Mapping[str, Value], spot: Spot
) -> tuple[Value, Payload]:
    """The value of a dict's method, and the dict afterwards."""
    text = text_of(args[0]) if args else None
    entry = owner.entries.get(text) if text is not None else None
    match name:
        case "update":
            changed = owner
            for value in args:
                changed = update(changed, value)
            for key, value in keywords.items():
                changed = changed.with_entry(key, Entry(value, True, spot))
            return NONE, changed
        case "pop" if text is not None:
            kept = {k: e for k, e in owner.entries.items() if k != text}
            return entry.value if entry is not None else UNKNOWN, replace(owner, entries=kept)
        case "pop" | "setdefault" | "get":
            return entry.value if entry is not None else UNKNOWN, owner
        case "copy":
            return owner, owner
        case "items":
            pairs = (Seq((Const(k), e.value)) for k, e in owner.entries.items())
            return Seq(tuple(pairs), open=not owner.is_sure), owner
    return Opaque(Null.NO, tags_of(owner)), owner


def list_method(owner: Seq, name: str, args: list[Value]) -> tuple[Value, Seq]:
    """The value of a list's method, and the list afterwards."""
    if name not in ("append", "extend", "add", "insert"):
        return Opaque(tags=tags_of(owner)), owner
    item = args[-1] if args else UNKNOWN
    added = item if name == "extend" and isinstance(item, Seq) else Seq((item,))
    return NONE, concatenate(owner, added)
