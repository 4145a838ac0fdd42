from dataclasses import dataclass

import torch


@dataclass
class ModelConfig:
    vocab_size: int = 32
    layers: int = 4
    dtype: torch.dtype = torch.float32
    enforce_eager: bool = True
    architectures: tuple[str, ...] = ("TinyForCausalLM",)

    def get_vocab_size(self):
        return self.vocab_size

    def get_total_num_hidden_layers(self):
        return self.layers
