"""The list of seeded changes: what is declared, and who reads it."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from harness.cli.selftest import select_changes, selftest
from harness.engine.seeded import UNCHANGED, declare, declared, resolve
from harness.errors import BadInputError

KINDS = {
    "dropped", "swapped", "stale", "duplicated", "transposed", "down-cast", "not relayed",
    "layer slice", "PLE slice", "norm, softcap", "embedding scale", "residual", "RoPE",
    "sliding, full", "KV cache", "mutated", "micro-batches", "long context", "PP=4 only",
    "decode only", "large batch", "one expert", "one ULP", "numeric", "up-cast", "harmless",
}  # fmt: skip


def test_every_class_is_declared():
    """At least 30 faults in all classes, at least 10 harmless changes."""
    harmless = [change.name for change in declared() if change.harmless]
    assert len(harmless) >= 10
    assert len(declared()) - len(harmless) >= 30
    assert {change.kind for change in declared()} == KINDS


def test_the_list_is_read_without_torch_and_vllm():
    """The controller lists and selects where neither is installed."""
    code = (
        "import sys; from harness.cli.selftest import select_changes;"
        "assert select_changes((), quick=True);"
        "assert not {'torch', 'vllm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_declaration_is_all_that_a_fault_takes(monkeypatch):
    """One more stands in the list, is selected by name and class, and has its action."""
    monkeypatch.setattr(declare, "_declared", dict(declare._declared))
    acted = []

    @declare.fault("turned", "hidden_states lie on their side", quick=True)
    def turned_sideways(site):
        acted.append(site)
        return nullcontext()

    listed = CliRunner().invoke(selftest, ["--list"])
    assert "turned-sideways            turned           ple PP=2: hidden_states" in listed.output
    for asked in ("turned-sideways", "turned"):
        (change,) = select_changes((asked,), quick=True)
        assert change.action is turned_sideways
    site = SimpleNamespace(memory={"begun": True})
    with resolve("turned-sideways")(site):
        assert acted == [site]
    with pytest.raises(ValueError, match="two changes of the self-test are named 'turned-sideways"):
        declare.fault("turned", "again")(turned_sideways)


def test_a_change_that_is_not_declared_is_refused():
    """A name that no one declared is our bug; that of the unchanged run is no fault's."""
    with pytest.raises(LookupError, match="sideways"):
        resolve("sideways")

    def unchanged(_site):
        return nullcontext()

    with pytest.raises(ValueError, match=UNCHANGED):
        declare.harmless("taken")(unchanged)


def test_only_selects_by_class_and_name():
    """A class, a name, or an error that says what there is."""
    assert {change.kind for change in select_changes(("RoPE",), quick=False)} == {"RoPE"}
    assert [change.name for change in select_changes(("one-ulp",), quick=False)] == ["one-ulp"]
    assert all(change.quick for change in select_changes((), quick=True))
    with pytest.raises(BadInputError, match="sideways"):
        select_changes(("sideways",), quick=False)
    with pytest.raises(BadInputError, match="nothing of it is in the subset"):
        select_changes(("kv-wrong-source",), quick=True)


def test_a_release_without_a_pin_is_refused():
    """--pin names a release as --pp-pin does."""
    refused = CliRunner().invoke(selftest, ["--quick", "--pin", "9.9"])
    assert "no pin for vLLM 9.9; known: 0.20.2" in str(refused.exception)
