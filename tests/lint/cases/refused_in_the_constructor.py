# right
"""A heir of a model with PP refuses pipelines before it builds anything (vllm-omni's encoders)."""

import torch.nn as nn

from .interfaces import SupportsPP
from .utils import PPMissingLayer, get_pp_group, make_empty_intermediate_tensors_factory, make_layers
from vllm.sequence import IntermediateTensors


class ToyLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states):
        return self.proj(hidden_states)


class ToyForCausalLM(nn.Module, SupportsPP):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        if get_pp_group().is_first_rank:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        else:
            self.embed_tokens = PPMissingLayer()
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers, lambda prefix: ToyLayer(config), prefix=f"{prefix}.layers"
        )
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states"], config.hidden_size
        )

    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None):
        if get_pp_group().is_first_rank:
            hidden_states = self.embed_tokens(input_ids)
        else:
            hidden_states = intermediate_tensors["hidden_states"]
        for layer in self.layers[self.start_layer : self.end_layer]:
            hidden_states = layer(hidden_states)
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": hidden_states})
        return hidden_states


class ToyTextEncoder(ToyForCausalLM):
    def __init__(self, *, vllm_config, prefix=""):
        if vllm_config.parallel_config.pipeline_parallel_size != 1:
            raise ValueError("no pipeline parallelism here")
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.layers[-1] = nn.Identity()
