"""Settings that the user asked for by vLLM's own names: what vLLM refuses is told apart."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.engine.main import RefusedSettingError, _with_asked
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
