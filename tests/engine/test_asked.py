"""What recipes ask of a running engine: sampling parameters, log-probabilities, an adapter."""

import json
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from harness.engine.asked import has_adapter, prompt_digests, random_adapter, sampling
from harness.engine.settings import EngineSettings


@dataclass
class Structured:
    """As vLLM's `StructuredOutputsParams`."""

    regex: str


@pytest.fixture
def vllm(monkeypatch):
    """The two classes of vLLM that are asked for here."""
    parameters, requests = ModuleType("vllm.sampling_params"), ModuleType("vllm.lora.request")
    parameters.StructuredOutputsParams = Structured
    requests.LoRARequest = lambda name, number, path: SimpleNamespace(number=number, path=path)
    for module in (parameters, requests):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_sampling_parameters_have_their_types(vllm):
    """Values are JSON; a grammar becomes vLLM's own class, which checks it."""
    asked = sampling((("prompt_logprobs", "5"), ("structured_outputs", '{"regex": "a+"}')))
    assert asked == {"prompt_logprobs": 5, "structured_outputs": Structured("a+")}


def test_a_setting_that_is_off_is_not_asked_for():
    """`enable_lora=false` is no wish for an adapter."""
    given = (("enable_lora", "false"), ("speculative_config", '{"method": "ngram"}'))
    settings = EngineSettings(pp=1, engine_args=given)
    assert settings.asks("speculative_config")
    assert not settings.asks("enable_lora")
    assert not settings.asks("quantization")


def test_each_position_of_a_prompt_has_a_digest_of_all_that_was_returned():
    """Token, log-probability and rank each change it; the first token has nothing before it."""

    def output(token=7, logprob=-0.5, rank=1):
        place = {token: SimpleNamespace(logprob=logprob, rank=rank)}
        return SimpleNamespace(prompt_logprobs=[None, place, {3: place[token]}])

    digests = {tuple(prompt_digests(output(**change))) for change in (
        {}, {"token": 8}, {"logprob": -0.5000001}, {"rank": 2},
    )}  # fmt: skip
    assert len(digests) == 4
    assert {len(each) for each in digests} == {2}
    assert prompt_digests(SimpleNamespace(prompt_logprobs=None)) == []


def test_an_adapter_changes_every_projection_of_a_checkpoint(vllm, tmp_path):
    """In the form of PEFT, alike in every engine; a checkpoint without projections is refused."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    model.mkdir()
    save_file(
        {
            "model.layers.0.self_attn.q_proj.weight": torch.zeros(6, 4),
            "model.layers.0.self_attn.q_norm.weight": torch.zeros(4),
            "model.embed_tokens.weight": torch.zeros(9, 4),
        },
        model / "model.safetensors",
    )
    made = [random_adapter(model, tmp_path / name) for name in ("one", "other")]
    first, second = (load_file(f"{each.path}/adapter_model.safetensors") for each in made)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    assert {key: tuple(value.shape) for key, value in first.items()} == {
        f"{name}A.weight": (8, 4),
        f"{name}B.weight": (6, 8),
    }
    assert all(torch.equal(first[key], second[key]) and first[key].any() for key in first)
    config = json.loads((tmp_path / "one/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 8)
    (model / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no projection"):
        random_adapter(model, tmp_path / "third")


def test_a_probe_has_the_adapter_in_every_pass_or_in_none():
    """Floor passes repeat the first: the same requests run with the adapter."""
    names = [f"batch-8/{index}" for index in range(8)]
    assert [has_adapter(f"floor2:{name}") for name in names] == list(map(has_adapter, names))
