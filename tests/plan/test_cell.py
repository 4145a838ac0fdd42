"""The key of a cell: all that can change its result, and no name or place."""

import dataclasses
from pathlib import Path

import pytest

from harness.engine.settings import (
    DRAFTS,
    Device,
    Executor,
    Kernels,
    Mode,
    ModelRunner,
    Profile,
    Weights,
)
from harness.plan import cell as module

# Another value for each field; those in NAMES must not change the key.
OTHER = {
    "variant": "merged",
    "model": "dense",
    "pp": 4,
    "tree": Path("/elsewhere"),
    "tree_digest": "other",
    "model_path": "/elsewhere",
    "model_digest": "other",
    "pin": "vllm 0.26.0",
    "partition": (3, 5),
    "tp": 2,
    "dtype": "bfloat16",
    "device": Device.CUDA,
    "profile": Profile.STRESS,
    "kernels": Kernels.INVARIANT,
    "runner": ModelRunner.V2,
    "mode": Mode.COMPILED,
    "executor": Executor.RAY,
    "ranks_per_device": 2,
    "weights": Weights.RANDOM,
    "max_model_len": 1024,
    "max_gen_tokens": 64,
    "max_sequences": 128,
    "cache_tokens": 4096,
    "vocab_size": 65,
    "sliding_window": 8,
    "versions": (("torch", "2.12.0"),),
    "host": "another processor",
    "python": Path("/elsewhere/bin/python"),
    "inherited": (("VLLM_ATTENTION_BACKEND", "OTHER"),),
    "trust_remote_code": True,
    "load": module.Load(1, 2, 3),
    "serving": "kv-fp8",
    "engine_args": (("kv_cache_dtype", '"fp8"'),),
    "env": (("VLLM_LOGGING_LEVEL", "DEBUG"),),
    "probe_sampling": (("prompt_logprobs", "5"),),
    "question_sampling": (("min_tokens", "2"),),
    "aborts": True,
    "reload": True,
    "images": True,
}
NAMES = {"variant", "model", "tree", "model_path", "python", "load", "serving"}
OTHER_QUESTIONS = {
    "name": "file",
    "questions": Path("/elsewhere"),
    "digest": "other",
    "limit": None,
    "fewshot": 5,
    "fewshot_file": Path("/elsewhere"),
}
QUESTION_NAMES = {"name", "questions", "fewshot_file"}


def fields(record):
    return {field.name for field in dataclasses.fields(record)}


def test_every_field_is_decided_on(cell):
    """A new field must be listed here, so that nobody forgets whether it belongs to the key."""
    assert fields(cell.gsm8k) == set(OTHER_QUESTIONS)
    assert fields(cell) == {*OTHER, "gsm8k"}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_key_follows_content_and_not_names(cell, name):
    """What can change a result changes the key; where things lie and are called does not."""
    changed = dataclasses.replace(cell, **{name: OTHER[name]})
    assert (changed.key != cell.key) == (name not in NAMES)


@pytest.mark.parametrize("name", sorted(OTHER_QUESTIONS))
def test_key_follows_the_questions(cell, name):
    """Other questions, fewer of them or other examples change the key; the file's name does not."""
    questions = dataclasses.replace(cell.gsm8k, **{name: OTHER_QUESTIONS[name]})
    changed = dataclasses.replace(cell, gsm8k=questions)
    assert (changed.key != cell.key) == (name not in QUESTION_NAMES)


def test_partitions_that_only_read_alike_differ(cell):
    """The cut 1,23 is not the cut 12,3."""
    keys = {dataclasses.replace(cell, partition=cut).key for cut in ((1, 23), (12, 3), None)}
    assert len(keys) == 3


def test_key_is_stable_and_a_file_name(cell):
    """Equal cells share a key of 64 hexadecimal digits."""
    assert cell.key == dataclasses.replace(cell).key
    assert len(cell.key) == 64
    int(cell.key, 16)


def test_id_is_readable(cell):
    """The name for people is variant, model and PP."""
    assert cell.id == "fixed-ple-pp2"


@pytest.mark.parametrize("part", ["hooks/tracer.py", "main.py"])
def test_key_follows_our_own_code(cell, tmp_path, monkeypatch, part):
    """A change to the code that runs inside the engine makes old captures stale."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "main.py").write_text("one\n")
    (tmp_path / "hooks" / "tracer.py").write_text("one\n")
    monkeypatch.setattr(module, "_ENGINE", tmp_path)
    keys = []
    for text in ("one\n", "two\n"):
        (tmp_path / part).write_text(text)
        module.engine_digest.cache_clear()
        keys.append(dataclasses.replace(cell).key)
    module.engine_digest.cache_clear()
    assert keys[0] != keys[1]


def test_what_stands_beside_pp1_lacks_what_may_move_logits(cell):
    """Compiled code has an eager engine beside it, drafted tokens one without drafts; else none."""
    assert cell.beside is None
    compiled = dataclasses.replace(cell, mode=Mode.COMPILED).beside
    assert (compiled.mode, compiled.serving, compiled.gsm8k) == (Mode.EAGER, "eager", None)
    asked = (("dtype", '"half"'), (DRAFTS, "{}"))
    drafting = dataclasses.replace(cell, serving="spec-ngram", engine_args=asked)
    undrafted = drafting.beside
    assert undrafted.engine_args == asked[:1]
    assert undrafted.serving == "spec-ngram-undrafted"
    assert undrafted.key != drafting.key
    assert undrafted.load.questions == 0
