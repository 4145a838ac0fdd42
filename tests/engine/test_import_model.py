"""The classes that a fork server imports before the ranks fork."""

import json
import sys

import pytest

torch = pytest.importorskip("torch", reason="the engine's process has torch")

from fake_ranks import Modules  # noqa: E402 - needs torch


def test_only_classes_of_modules_are_registered(tmp_path):
    """The model's class, and all else that its file defines and vLLM takes: modules alone.

    Releases after 0.26.0 list functions that choose a class, 0.32.0 a class that is no module;
    vLLM refuses to register either. An entry whose module is not imported stays as it is.
    """
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["TinyForCausalLM"]}))
    with Modules()():
        from vllm.model_executor.models.registry import ModelRegistry

        from harness.engine.main import import_model_class

        before = dict(ModelRegistry.models)
        import_model_class(str(tmp_path))
        changed = {name for name, entry in ModelRegistry.models.items() if entry != before[name]}
        assert changed == {"TinyForCausalLM"}
        served = ModelRegistry.models["TinyForCausalLM"].model_cls
        assert issubclass(served, torch.nn.Module)
        assert "vllm.nowhere" not in sys.modules
