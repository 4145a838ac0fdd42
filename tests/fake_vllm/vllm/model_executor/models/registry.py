import importlib
from dataclasses import dataclass

import torch


@dataclass
class _LazyRegisteredModel:
    module_name: str
    class_name: str

    def load_model_cls(self):
        return getattr(importlib.import_module(self.module_name), self.class_name)


@dataclass
class _RegisteredModel:
    model_cls: type

    def load_model_cls(self):
        return self.model_cls


class _ModelRegistry:
    def __init__(self, models):
        self.models = models

    def register_model(self, model_arch, model_cls):
        if not issubclass(model_cls, torch.nn.Module):  # or no class at all
            raise TypeError(f"{model_arch} is no torch.nn.Module")
        self.models[model_arch] = _RegisteredModel(model_cls)


_TINY = "vllm.model_executor.models.tiny"
ModelRegistry = _ModelRegistry(
    {
        name: _LazyRegisteredModel(_TINY, name)
        for name in ("TinyForCausalLM", "PlainClass", "a_function")
    }
    | {"NotImported": _LazyRegisteredModel("vllm.nowhere", "NotImported")}
)
