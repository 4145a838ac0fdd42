"""The options: each declared once, read and refused in one style."""

import argparse
import re
from dataclasses import fields
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.settings import EngineSettings, Mode, Profile
from harness.errors import BadInputError
from harness.plan.options import (
    SETTINGS,
    Options,
    declarations,
    parse_pps,
    read_options,
)
from harness.plugin.plugin import pytest_addoption
from tools.reference import option_table

README = Path(__file__).resolve().parents[2] / "README.md"
# Frozen: a flag that goes or changes its name breaks somebody's job.
FLAGS = (
    *("--pp", "--pp-variant", "--pp-series", "--pp-patch", "--pp-vllm", "--pp-base"),
    *("--pp-base-version", "--pp-pin", "--pp-model", "--pp-partition", "--pp-load-format"),
    *("--pp-trust-pickle", "--pp-trust-remote-code", "--pp-device", "--pp-share-device"),
    *("--pp-tp", "--pp-profile", "--pp-kernels", "--pp-mode", "--pp-dtype", "--pp-runner"),
    *("--pp-executor", "--pp-recipe", "--pp-engine", "--pp-engine-file", "--pp-env", "--pp-gsm8k"),
    *("--pp-gsm8k-limit", "--pp-gsm8k-fewshot", "--pp-margin", "--pp-store"),
    *("--pp-timeout", "--pp-time-limit", "--pp-plan", "--pp-shard", "--pp-ignore-expected"),
    *("--pp-report", "--pp-history"),
)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("2", (2,)),
        ("3", (2, 3)),
        ("4", (2, 4)),
        ("6", (2, 4, 6)),
        ("8", (2, 4, 8)),
        ("4,2", (2, 4)),
        ("3,5", (3, 5)),
        ("4,4", (4,)),
    ],
)
def test_sizes(text, sizes):
    """One N is the powers of two below it, and N; a list is itself, ascending, each size once."""
    assert parse_pps(text) == sizes


@given(st.integers(2, 1000))
def test_one_size_against_its_definition(top):
    """A single N: every power of two from 2 below N, and N."""
    assert parse_pps(str(top)) == tuple(sorted({2**n for n in range(1, 10) if 2**n < top} | {top}))


@pytest.mark.parametrize("text", ["1", "0", "-2", "x", "", "2,", ",", "2;3", "1,2", "2.5"])
def test_bad_sizes_are_refused(text):
    """What is no size, or PP=1, is refused by name and never dropped from the list."""
    with pytest.raises(BadInputError, match=r"^--pp "):
        read_options({"--pp": text})


def test_flags_are_frozen():
    """The list of flags is a promise to every job that runs the harness."""
    assert tuple(option.flag for _, option in declarations()) == FLAGS


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("--pp-tp", "0", "give a whole number, 1 or more"),
        ("--pp-tp", "x", "give a whole number, 1 or more"),
        ("--pp-gsm8k-limit", "0", "give a whole number, 1 or more"),
        ("--pp-gsm8k-fewshot", "-1", "give a whole number, 0 or more"),
        ("--pp-share-device", "0", "give a whole number, 1 or more"),
        ("--pp-margin", "1", "give a share between 0 and 1"),
        ("--pp-margin", "nan", "give a share between 0 and 1"),
        ("--pp-timeout", "0", "give seconds, above 0"),
        ("--pp-time-limit", "-3", "give seconds, above 0"),
        ("--pp-device", "tpu", "give auto, cpu or cuda"),
        ("--pp-kernels", "other", "give default, invariant or both"),
        ("--pp-mode", "lazy", "give eager or compiled"),
        *(
            ("--pp-shard", text, "give I/N with I from 1 to N")
            for text in ("3/2", "0/2", "1", "x/2", "1/0", "-1/2", "1/2/3")
        ),
        ("--pp-shard", f"1/{'9' * 5000}", "give I/N with I from 1 to N"),
    ],
)
def test_bad_values_are_refused_in_one_style(flag, text, words):
    """Flag, text and reason, in this order, whatever the option."""
    with pytest.raises(BadInputError, match=re.escape(f"{flag} {text}: {words}")):
        read_options({"--pp": "2", flag: text})


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["3,x"], "give layers per stage"),
        (["3,0"], "every stage needs a layer"),
        (["3,5", "4,4"], "give one layer split for each number of stages"),
    ],
)
def test_bad_layer_splits_are_refused(texts, words):
    """A layer split names a layer for each stage, once for each number of stages."""
    with pytest.raises(BadInputError, match=f"^--pp-partition .*: {words}"):
        read_options({"--pp": "2", "--pp-partition": texts})


def test_values_are_typed():
    """Texts become numbers, enums, paths and tuples; what is left out is at its default."""
    options = read_options(
        {
            "--pp": "4",
            "--pp-profile": "both",
            "--pp-mode": "compiled",
            "--pp-variant": ["base,fixed", "merged"],
            "--pp-report": "out",
            "--pp-plan": True,
            "--pp-tp": None,
        }
    )
    assert options.pps == (2, 4)
    assert options.profiles == (Profile.PARITY, Profile.STRESS)
    assert options.mode is Mode.COMPILED
    assert options.variants == ("base", "fixed", "merged")
    assert options.report == Path("out")
    assert options.plan_only
    assert options.tp == 1


def test_words_become_enums_where_enums_are_meant():
    """Options and cells made with plain words are those made with enums; others are refused."""
    words = {"mode": "compiled", "runner": "v2", "executor": "ray"}
    options = Options(pps=(2,), profiles=("stress",), **words)
    assert options.profiles[0] is Profile.STRESS
    assert options.mode is Mode.COMPILED
    settings = EngineSettings(pp=2, device="cuda", profile="stress", weights="dummy", **words)
    enums = {entry.name: entry.default for entry in fields(EngineSettings)}
    for name in (name for name, default in enums.items() if isinstance(default, Enum)):
        assert type(getattr(settings, name)) is type(enums[name]), name
    with pytest.raises(ValueError, match="'fast' is not a valid Mode"):
        EngineSettings(pp=2, mode="fast")


def test_settings_of_every_engine_are_declared():
    """A history compares within these alone."""
    assert SETTINGS == ("load_format", "mode", "dtype", "runner", "executor")


def test_pytest_knows_every_declaration():
    """`pytest --help` has each flag with its help, from the same declaration."""
    parser = argparse.ArgumentParser(add_help=False)
    group = SimpleNamespace(addoption=parser.add_argument)
    pytest_addoption(SimpleNamespace(getgroup=lambda *_: group))
    known = {action.option_strings[0]: action.help for action in parser._actions}
    assert dict.fromkeys(FLAGS, True) == {
        option.flag: known[option.flag].startswith(option.help) for _, option in declarations()
    }
    parser.format_help()


def test_the_readme_has_the_table():
    """The README's table of options is the one that the declarations write."""
    page = README.read_text(encoding="utf-8")
    table = page.partition("<!-- options:begin -->")[2].partition("<!-- options:end -->")[0]
    assert table.strip().splitlines() == option_table()
