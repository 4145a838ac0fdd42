from dataclasses import dataclass

import numpy as np


@dataclass
class InputBatch:
    req_ids: list[str]
    idx_mapping_np: np.ndarray
    num_scheduled_tokens: np.ndarray
