from dataclasses import dataclass

from vllm.config.model import ModelConfig
from vllm.config.parallel import ParallelConfig


@dataclass
class VllmConfig:
    model_config: ModelConfig
    parallel_config: ParallelConfig
    use_v2_model_runner: bool = False
