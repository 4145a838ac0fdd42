"""The part of both runners that is no hook's concern; not in vLLM."""

import importlib

import torch
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.sequence import IntermediateTensors


class RunnerBase:
    def __init__(self, vllm_config, device):
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.device = device
        self.max_num_tokens = 512
        self.intermediate_tensors = None
        self.hidden_states = None

    def load_model(self):
        models = importlib.import_module("vllm.model_executor.models.tiny")
        self.model = getattr(models, self.model_config.architectures[0])(self.model_config)

    def get_model(self):
        return self.model

    def get_kv_cache_spec(self):
        return {}

    def shutdown(self):
        pass

    def _make_buffer(self):
        if self.intermediate_tensors is None and not get_pp_group().is_first_rank:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                batch_size=self.max_num_tokens,
                dtype=self.model_config.dtype,
                device=self.device,
            )

    def forward_zeros(self, num_tokens):
        self._make_buffer()
        given = self.intermediate_tensors
        zeros = torch.zeros(num_tokens, dtype=torch.long)
        self.model(
            input_ids=zeros,
            positions=zeros,
            intermediate_tensors=given if given is None else given[:num_tokens],
        )

    def forward(self, requests, output, intermediate_tensors):
        """Run the model on the scheduled rows of `requests`, in this order."""
        ids, positions, self.ends = [], [], []
        for request in requests:
            start = output.computed[request]
            stop = start + output.num_scheduled_tokens[request]
            ids += output.token_ids[request][start:stop]
            positions += range(start, stop)
            self.ends.append(len(ids) - 1)
        result = self.model(
            input_ids=torch.tensor(ids),
            positions=torch.tensor(positions),
            intermediate_tensors=intermediate_tensors,
        )
        if isinstance(result, IntermediateTensors):
            return result
        self.hidden_states = result
        return None

    def compute_logits(self):
        return self.model.compute_logits(self.hidden_states[self.ends])

    def sampled(self, requests, logits):
        if logits is None:  # of a rank that does not gather
            assert get_tp_group().rank_in_group > 0
            return None
        return dict(zip(requests, logits.argmax(dim=-1).tolist(), strict=True))
