"""The self-test without engines: the catalogue, the cut of a capture, and what is counted."""

from types import SimpleNamespace

import pytest
from builders import CaptureBuilder, answer

from harness.capture.devices import DevicePool
from harness.cli.selftest import chosen
from harness.errors import BadInputError
from harness.selftest.catalogue import FAULTS, HARMLESS, SEEDS
from harness.selftest.outcome import Pair, Selftest, result_of
from harness.selftest.run import shown_here
from harness.selftest.split import split
from harness.selftest.table import lines

KINDS = {
    "dropped", "swapped", "stale", "duplicated", "transposed", "down-cast", "not relayed",
    "layer slice", "PLE slice", "norm, softcap", "embedding scale", "residual", "RoPE",
    "sliding, full", "KV cache", "mutated", "micro-batches", "long context", "PP=4 only",
    "decode only", "large batch", "one expert", "one ULP", "numeric", "up-cast",
}  # fmt: skip


def test_the_catalogue_has_every_class():
    """At least 30 faults in all classes, at least 10 harmless changes, names that are unique."""
    assert len(FAULTS) >= 30
    assert len(HARMLESS) >= 10
    assert {seed.kind for seed in FAULTS} == KINDS
    assert len({seed.name for seed in SEEDS}) == len(SEEDS)


def test_every_seed_is_made():
    """Each name of the catalogue has code behind it."""
    pytest.importorskip("torch", reason="faults run inside the engine")
    from harness.engine.seeded.faults import change

    for seed in SEEDS:
        assert callable(change(seed.name))
    with pytest.raises(LookupError):
        change("sideways")


def test_only_chooses_by_class_and_name():
    """A class, a name, or an error that says what there is."""
    assert {seed.kind for seed in chosen(("RoPE",), quick=False)} == {"RoPE"}
    assert [seed.name for seed in chosen(("one-ulp",), quick=False)] == ["one-ulp"]
    assert all(seed.quick for seed in chosen((), quick=True))
    with pytest.raises(BadInputError, match="sideways"):
        chosen(("sideways",), quick=False)
    with pytest.raises(BadInputError, match="nothing of it is in the subset"):
        chosen(("kv-wrong-source",), quick=True)


def test_what_cannot_be_shown_is_left_out_and_named():
    """What bfloat16 rounds away, and what needs more GPUs than there are."""
    two_gpus = SimpleNamespace(dtype="bfloat16", devices=DevicePool("cuda", (0, 1)))
    said = []
    shown = shown_here(SEEDS, two_gpus, said.append)
    left_out = {seed.name for seed in SEEDS} - {seed.name for seed in shown}
    assert left_out == {seed.name for seed in SEEDS if seed.fine or seed.pp > 2}
    assert len(said) == len(left_out)
    assert "numeric-only is left out: in bfloat16 it changes no bit" in said
    cpu = SimpleNamespace(dtype="float32", devices=DevicePool("cpu", (0, 1)))
    assert shown_here(SEEDS, cpu, said.append) == SEEDS
    with pytest.raises(BadInputError, match="no chosen fault can be shown here; numeric-only: in"):
        shown_here(chosen(("numeric-only",), quick=False), two_gpus, said.append)


@pytest.fixture
def whole(tmp_path):
    """A capture at PP=2 of two runs: unchanged, and under `selftest:x`."""
    built = CaptureBuilder(tmp_path / "whole", pp=2)
    for rank in built.ranks:
        steps = built.steps(rank)
        again = [{**step, "change": "selftest:x", "index": step["index"] + 2} for step in steps]
        for step in steps:
            step["change"] = ""
        misuse = {"kind": "misuse", "what": "absent-key", "key": "k", "place": "m.py:1"}
        built.ranks[rank] += [misuse, *again]
    capture = built.save()
    index = capture.folder / "logits.jsonl"
    text = index.read_text()
    count = len(text.splitlines())
    plain = text.replace('"request"', '"change": "", "request"')
    changed = text.replace('"request"', '"change": "selftest:x", "request"')
    for row in range(count):
        changed = changed.replace(f'"row": {row},', f'"row": {row + count},', 1)
    index.write_text(plain + changed)
    raw = capture.folder / "logits.f32"
    raw.write_bytes(raw.read_bytes() * 2)
    (capture.folder / "gsm8k.selftest:x.jsonl").write_text(
        (capture.folder / "gsm8k.jsonl").read_text()
    )
    return capture


def test_a_capture_is_cut_by_change(whole, tmp_path):
    """Each part is a whole capture; what was noted during a step goes with its change."""
    parts = split(whole, ["selftest:x"], tmp_path / "parts")
    for part in parts.values():
        assert [len(trace.steps) for trace in part.stages.values()] == [2, 2]
        assert len(part.logits.index) == 4
        assert len(part.answers) == 4
    assert not parts[""].stages[1].misuses
    assert parts["selftest:x"].stages[1].misuses


def test_rates_are_counted(build):
    """A caught fault, one that escapes, a quiet change and a false alarm; what one check caught."""
    reference, same, other = build(pp=1).save(), build(pp=2).save(), build(pp=2)
    for row in other.logits.values():
        row[0] += 1.0
    other = other.save()
    fault, harmless = FAULTS[0], HARMLESS[0]
    result = Selftest(
        (
            result_of(fault, reference, other),
            result_of(fault, reference, same),
            result_of(harmless, reference, same),
            result_of(harmless, reference, other),
        ),
        (Pair.of("a pair", reference, same),),
    )
    figures = result.figures
    assert (figures["faults"], figures["caught"], figures["mutation_score"]) == (2, 1, 0.5)
    assert (figures["harmless"], figures["aa_pairs"], figures["false_alarms"]) == (2, 1, 1)
    assert figures["only"] == {"engine": 0, "contract": 0, "logits": 1, "accuracy": 0}
    assert not result.is_good
    text = "\n".join(lines(result))
    assert "ESCAPED" in text
    assert "FALSE ALARM" in text
    assert "one check alone catches: engine 0, contract 0, logits 1, accuracy 0" in text
    assert result.document()["figures"] == figures


def test_a_fault_without_a_layer_counts_as_caught_and_not_as_placed(build):
    """Where no layer differs there is no place to be right about: the rate leaves it out."""
    seed = next(seed for seed in FAULTS if seed.layer is None)
    reference, other = build(pp=1), build(pp=2)
    reference.answers = [answer(number) for number in range(10)]
    other.answers = [answer(number, right=number >= 5) for number in range(10)]
    result = Selftest((result_of(seed, reference.save(), other.save()),), ())
    figures = result.figures
    assert (figures["caught"], figures["localisable"], figures["located"]) == (1, 0, 0)
    assert figures["location_accuracy"] is None
    assert figures["only"]["accuracy"] == 1
    assert result.is_good
    assert "caught, no layer to name" in "\n".join(lines(result))
