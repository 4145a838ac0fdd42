"""Rules PP3xx: what the class that claims PP hands on, and what it forgets."""

from __future__ import annotations

from collections.abc import Iterator

from harness.lint.emit import at, finding
from harness.lint.engine import Engine
from harness.lint.report import Finding
from harness.lint.stage import DECLARE, Stage
from harness.lint.trace import Role
from harness.lint.tree import parameter_names
from harness.lint.values import Null, nullness


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """All findings about the wrapper of a class."""
    cls = stage.cls
    if stage.forward is None or stage.is_drafter:
        return
    declared = stage.declared
    passed = "intermediate_tensors" in parameter_names(stage.forward)
    # vLLM's own test: without the parameter (or **kwargs) it refuses PP for the model.
    if not passed and stage.forward.args.kwarg is None:
        return
    # A class without a constructor is a base for others, which set the declaration up.
    built = engine.project.find_method(cls, "__init__") is not None
    if built and (declared.absent or declared.none):
        how = "nothing defines" if declared.absent else "None is what it gets from"
        text = f"{cls.name} claims SupportsPP, but {how} {DECLARE}"
        yield finding("PP301", cls.module, cls.node, text, symbol=cls.name)
    if passed:
        yield from _path(stage)


def _path(stage: Stage) -> Iterator[Finding]:
    cls = stage.cls
    for view in stage.later:
        for spot in view.trace.dropped_calls:
            text = "on later ranks the inner model is called without intermediate_tensors"
            yield at("PP303", spot, text, symbol=cls.name)
    for view in stage.senders:
        for spot in view.trace.touched:
            text = "before the last rank this is IntermediateTensors, not a tensor"
            yield at("PP304", spot, text, symbol=cls.name)
    assert stage.forward is not None
    assert stage.forward_owner is not None
    module = stage.forward_owner.module
    if not any(v.sends or v.passes_on for v in stage.senders):
        # A later rank that has no path to an end raises: the class refuses PP itself.
        refuses = nullness(stage.views[Role.MIDDLE].result) is Null.YES
        touched = any(v.trace.touched or v.trace.no_methods for v in stage.senders)
        if not refuses and not touched:
            text = f"no path of {cls.name}.forward returns IntermediateTensors"
            yield finding("PP305", module, stage.forward, text, symbol=cls.name)
    elif stage.sends_itself:
        silent = all(not v.trace.reads and not v.trace.open_read for v in stage.later)
        received = any(v.trace.receivers for v in stage.later)
        if silent and received and not any(v.trace.dropped_calls for v in stage.later):
            text = f"{cls.name} sends IntermediateTensors, but no later rank reads what it gets"
            yield finding("PP307", module, stage.forward, text, symbol=cls.name)
