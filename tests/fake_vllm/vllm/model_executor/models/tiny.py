"""Models of four layers with embeddings of their own for each layer, sent on over a boundary."""

import torch
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.interfaces import SupportsPP
from vllm.model_executor.models.utils import PPMissingLayer
from vllm.sequence import IntermediateTensors
from vllm.v1.attention.backend import AttentionBackend

HIDDEN, PER_LAYER = 4, 2


def seeded(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module.requires_grad_(False)


class TinyAttention(AttentionLayerBase, torch.nn.Module):
    def get_attn_backend(self):
        return AttentionBackend


class TinyLayer(torch.nn.Module):
    def __init__(self, index):
        super().__init__()
        self.attn = TinyAttention()
        self.mix = torch.nn.Linear(HIDDEN + PER_LAYER, HIDDEN)
        seeded(self, index)

    def forward(self, hidden, per_layer):
        return hidden + torch.tanh(self.mix(torch.cat([hidden, per_layer], dim=1)))


class TinyModel(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        group = get_pp_group()
        self.embed = seeded(torch.nn.Embedding(config.vocab_size, HIDDEN), 100)
        self.embed_per_layer = seeded(
            torch.nn.Embedding(config.vocab_size, config.layers * PER_LAYER), 101
        )
        share = config.layers // group.world_size
        self.range = range(group.rank_in_group * share, (group.rank_in_group + 1) * share)
        self.layers = torch.nn.ModuleList(
            TinyLayer(index) if index in self.range else PPMissingLayer()
            for index in range(config.layers)
        )

    def forward(self, input_ids, positions, intermediate_tensors=None):
        if get_pp_group().is_first_rank:
            hidden = self.embed(input_ids) + positions[:, None] / 100
            per_layer = self.embed_per_layer(input_ids)
        else:
            hidden = intermediate_tensors["hidden_states"]
            per_layer = intermediate_tensors["per_layer_inputs"]
        for index in self.range:
            start = index * PER_LAYER
            hidden = self.layers[index](hidden, per_layer[:, start : start + PER_LAYER])
        if get_pp_group().is_last_rank:
            return hidden
        return IntermediateTensors({"hidden_states": hidden, "per_layer_inputs": per_layer})


class PoolingModel(torch.nn.Module, SupportsPP):
    """A model without compute_logits."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = TinyModel(config)

    def make_empty_intermediate_tensors(self, batch_size, dtype, device):
        widths = {"hidden_states": HIDDEN, "per_layer_inputs": self.config.layers * PER_LAYER}
        return IntermediateTensors(
            {
                key: torch.zeros(batch_size, width, dtype=dtype, device=device)
                for key, width in widths.items()
            }
        )

    def forward(self, input_ids, positions, intermediate_tensors=None):
        return self.model(input_ids, positions, intermediate_tensors)


class TinyForCausalLM(PoolingModel):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = seeded(torch.nn.Linear(HIDDEN, config.vocab_size, bias=False), 102)

    def compute_logits(self, hidden_states):
        logits = self.lm_head(hidden_states)
        return logits if get_tp_group().rank_in_group == 0 else None


class CalledPastHooks(TinyForCausalLM):
    """As vLLM's decorator for what it may compile has it (on Ernie4_5ForCausalLM itself)."""

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)


class GetsByName(TinyForCausalLM):
    """Calls a method that IntermediateTensors does not have (as Gemma4 did before PR #40786)."""

    def forward(self, input_ids, positions, intermediate_tensors=None):
        if intermediate_tensors is not None:
            intermediate_tensors.get("hidden_states")
        return super().forward(input_ids, positions, intermediate_tensors)


class AddsUnlikeShapes(TinyForCausalLM):
    def forward(self, input_ids, positions, intermediate_tensors=None):
        if intermediate_tensors is not None:
            intermediate_tensors["hidden_states"] + torch.zeros(1, HIDDEN + 1)
        return super().forward(input_ids, positions, intermediate_tensors)


class ForgetsKey(TinyForCausalLM):
    """Declares a key that no stage sends (as falcon_h1 did before PR #55913)."""

    def forward(self, input_ids, positions, intermediate_tensors=None):
        output = super().forward(input_ids, positions, intermediate_tensors)
        if isinstance(output, IntermediateTensors):
            del output.tensors["per_layer_inputs"]
        return output


class PlainClass:
    """An entry of the registry that is the class of no module."""


def a_function():
    """An entry of the registry that is no class."""
