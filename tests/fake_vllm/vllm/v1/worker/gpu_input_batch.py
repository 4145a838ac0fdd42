from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class CachedRequestState:
    prompt_token_ids: list[int]
    sampling_params: Any


class InputBatch:
    def __init__(self):
        self.req_ids = []
        self.num_computed_tokens_cpu = np.zeros(0, np.int32)
