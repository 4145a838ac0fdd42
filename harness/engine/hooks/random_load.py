"""The load format `pp_harness_random`: weights drawn in the engine, no checkpoint on disk."""

from typing import Any

from vllm.config import ModelConfig
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from ..names import LOAD_FORMAT
from ..random_weights import refill, saved_tensors

_SEED = 0


def install() -> None:
    """Register the load format with vLLM."""
    register_model_loader(LOAD_FORMAT)(RandomLoader)


class RandomLoader(BaseModelLoader):
    """Fills every weight on its device from its name alone: the same on whichever rank has it."""

    def download_model(self, model_config: ModelConfig) -> None:
        """There is nothing to download."""

    def load_weights(self, model: Any, model_config: ModelConfig) -> None:  # noqa: ARG002 - vLLM's
        """Fill parameters and saved buffers; scales of quantised caches are no weights."""
        embeddings = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, VocabParallelEmbedding)
        }
        for name, tensor in saved_tensors(model).items():
            if not name.rpartition(".")[2].startswith("_"):
                refill(name, tensor, _SEED, is_embedding=id(tensor) in embeddings)
