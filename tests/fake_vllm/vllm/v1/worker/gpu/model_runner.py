import numpy as np
from vllm.distributed.parallel_state import get_pp_group
from vllm.sequence import IntermediateTensors
from vllm.v1.worker.gpu.async_utils import AsyncOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.states import RequestState
from vllm.v1.worker.runner_base import RunnerBase


class GPUModelRunner(RunnerBase):
    """Copies the keys that are declared; orders a batch by size; computes logits as it samples."""

    def __init__(self, vllm_config, device):
        super().__init__(vllm_config, device)
        self.req_states = RequestState()

    def _dummy_run(self, num_tokens):
        self.forward_zeros(num_tokens)

    def add_requests(self, scheduler_output):
        for new in scheduler_output.scheduled_new_reqs:
            self.req_states.req_id_to_index[new.req_id] = len(self.req_states.req_id_to_index)

    def prepare_inputs(self, scheduler_output, batch_desc):
        counts = scheduler_output.num_scheduled_tokens
        requests = sorted(counts, key=counts.get)
        indices = np.array([self.req_states.req_id_to_index[request] for request in requests])
        computed = [scheduler_output.computed[request] for request in requests]
        self.req_states.num_computed_tokens_np[indices] = computed
        return InputBatch(requests, indices, np.array([counts[request] for request in requests]))

    def execute_model(self, scheduler_output, intermediate_tensors=None, dummy_run=False):
        self.add_requests(scheduler_output)
        self.batch = self.prepare_inputs(scheduler_output, None)
        count = scheduler_output.total_num_scheduled_tokens
        if not get_pp_group().is_first_rank:
            self._make_buffer()
            intermediate_tensors = IntermediateTensors(
                {
                    key: value[:count].copy_(intermediate_tensors.tensors[key][:count])
                    for key, value in self.intermediate_tensors.tensors.items()
                }
            )
        return self.forward(self.batch.req_ids, scheduler_output, intermediate_tensors)

    def sample_tokens(self, grammar_output):
        return AsyncOutput(self.sampled(self.batch.req_ids, self.compute_logits())).get_output()
