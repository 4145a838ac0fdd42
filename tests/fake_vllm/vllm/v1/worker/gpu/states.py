import numpy as np


class RequestState:
    def __init__(self):
        self.req_id_to_index = {}
        self.num_computed_tokens_np = np.zeros(64, np.int32)
