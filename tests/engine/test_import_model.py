"""What a fork server imports before the ranks fork."""

import os
import subprocess
import sys

import pytest

from harness.models.instruments import instrument_path

IMPORT = """
import sys, types
from vllm.model_executor.models import registry
from harness.engine.main import import_model_class

models = registry.ModelRegistry.models
sys.modules["chooser"] = module = types.ModuleType("chooser")
module.choose = lambda: None
models["Chooser"] = lazy = registry._LazyRegisteredModel("chooser", "choose")
import_model_class(sys.argv[1])
print(models["Chooser"] is lazy, type(models["Gemma4ForCausalLM"]).__name__)
"""


@pytest.mark.vllm
def test_registry_entries_that_are_no_class_are_left_alone():
    """Newer releases list functions that choose a class; the model itself is still registered."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(instrument_path("ple"))],
        env=os.environ | {"VLLM_PLUGINS": "", "TORCHDYNAMO_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "True _RegisteredModel"
