"""The decoder layers of a rank are found whatever the model calls their stack."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="hooks watch torch modules")

from fake_ranks import Modules  # noqa: E402 - needs torch

LAYERS = 3


@pytest.mark.parametrize("stack", ["layers", "h", "blocks"])
def test_a_stack_of_any_name_is_found(stack):
    """A model of GPT-2's or MPT's names has as many traced layers as its config says."""
    model, decoder = torch.nn.Module(), torch.nn.Module()
    decoder.add_module(stack, torch.nn.ModuleList(torch.nn.Identity() for _ in range(LAYERS)))
    # A tower of another depth is not the decoder.
    tower = torch.nn.Module()
    tower.add_module("blocks", torch.nn.ModuleList(torch.nn.Identity() for _ in range(LAYERS + 1)))
    model.add_module("tower", tower)
    model.add_module("transformer", decoder)
    runner = SimpleNamespace(
        get_model=lambda: model,
        model_config=SimpleNamespace(get_total_num_hidden_layers=lambda: LAYERS),
    )
    with Modules()():
        from harness.engine.hooks.model import decoder_layers

        assert sorted(decoder_layers(runner)) == list(range(LAYERS))
