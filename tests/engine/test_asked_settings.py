"""Settings that the user asked for by vLLM's own names: what vLLM refuses is told apart."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harness.engine.main import RefusedSettingError, _build, _kept, _with_asked
from harness.engine.manifest import Request


class EngineArgs:
    """As vLLM's: takes settings, and refuses some when it makes a config of them."""

    def __init__(self, **settings):
        self.settings = settings

    def create_engine_config(self):
        if self.settings["dtype"] == "float8":
            raise ValueError("no such dtype")
        if self.settings.get("kv_cache_dtype") == "fp9":
            raise ValueError("Input should be\n 'auto' or 'fp8'")


@pytest.fixture(autouse=True)
def _vllm(monkeypatch):
    vllm = ModuleType("vllm")
    vllm.EngineArgs = EngineArgs
    monkeypatch.setitem(sys.modules, "vllm", vllm)


def request(*asked):
    return Request(pp=1, folder=Path(), model_path="m", devices=(0,), engine_args=asked)


def test_settings_reach_vllm_with_their_types():
    """A value is JSON: a number stays one; what was asked for wins."""
    settings = _with_asked(request(("block_size", "32")), {"dtype": "float32", "block_size": 16})
    assert settings == {"dtype": "float32", "block_size": 32}


def test_a_refused_setting_is_named_with_the_reason():
    """The user's setting is at fault where vLLM takes everything else: one line that names it."""
    with pytest.raises(RefusedSettingError) as refusal:
        _with_asked(request(("kv_cache_dtype", '"fp9"')), {"dtype": "float32"})
    assert str(refusal.value) == (
        "vLLM refuses kv_cache_dtype=\"fp9\": Input should be 'auto' or 'fp8'"
    )


def test_what_vllm_refuses_anyway_stays_its_own_refusal():
    """Where the engine cannot start without the setting either, it is not the setting's fault."""
    with pytest.raises(ValueError, match="no such dtype"):
        _with_asked(request(("kv_cache_dtype", '"fp8"')), {"dtype": "float8"})


def test_what_vllm_has_of_each_setting_is_read_back():
    """By the name that its configuration has; what is kept by no such name is not told."""
    config = SimpleNamespace(
        instance_id="one",
        model_config=SimpleNamespace(quantization="awq_marlin"),
        cache_config=SimpleNamespace(cache_dtype="auto", kv_offloading_size=1.0),
        speculative_config=SimpleNamespace(method="ngram", quantization=None),
        kv_transfer_config=None,
    )
    asked = ("quantization", "kv_cache_dtype", "kv_offloading_size", "speculative_config")
    names = (*asked, "kv_transfer_config", "enable_lora")
    assert dict(_kept(config, tuple((name, "true") for name in names))) == {
        "quantization": '"awq_marlin"',
        "kv_cache_dtype": '"auto"',
        "kv_offloading_size": "1.0",
        "speculative_config": "true",
        "kv_transfer_config": "null",
    }


def test_weights_are_loaded_from_what_an_engine_of_the_same_settings_saved(tmp_path, monkeypatch):
    """The second engine finds config and saved weights alone, and the first has ended."""
    model, seen = tmp_path / "model", []
    model.mkdir()
    for name in ("config.json", "model.safetensors", "model.safetensors.index.json"):
        (model / name).write_text("of the checkpoint")

    class LLM:
        def __init__(self, path, **settings):
            files = {file.name: file.read_text() for file in Path(path).iterdir()}
            seen.append((files, settings["load_format"], settings["pipeline_parallel_size"]))
            self.llm_engine = self.engine_core = self

        def save_sharded_state(self, folder):
            (Path(folder) / "model-rank-0-part-0.safetensors").write_text("saved")

        def shutdown(self):
            seen.append("ended")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", LLM, raising=False)
    asked = Request(pp=2, folder=tmp_path, model_path=str(model), devices=(0,), reload=True)
    llm, lm = _build(asked)
    assert isinstance(llm, LLM)
    assert lm is None
    (_, load_format, pp), ended, again = seen
    assert (load_format, pp, ended) == ("auto", 2, "ended")
    assert again == (
        {"config.json": "of the checkpoint", "model-rank-0-part-0.safetensors": "saved"},
        "sharded_state",
        2,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no weights stay in the capture"
