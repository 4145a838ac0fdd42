import numpy as np
from vllm.distributed.parallel_state import get_pp_group
from vllm.sequence import IntermediateTensors
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch
from vllm.v1.worker.runner_base import RunnerBase


class AsyncGPUModelRunnerOutput:
    def __init__(self, tokens):
        self.tokens = tokens

    def get_output(self):
        return self.tokens


class GPUModelRunner(RunnerBase):
    """Copies the keys that were sent into its buffer; computes logits with the forward."""

    def __init__(self, vllm_config, device):
        super().__init__(vllm_config, device)
        self.requests = {}
        self.input_batch = InputBatch()
        self.kv_caches = []

    def _dummy_run(self, num_tokens):
        self.forward_zeros(num_tokens)

    def _update_states(self, scheduler_output):
        for finished in scheduler_output.finished_req_ids:
            del self.requests[finished]
        for new in scheduler_output.scheduled_new_reqs:
            self.requests[new.req_id] = CachedRequestState(
                new.prompt_token_ids, new.sampling_params
            )
        self.input_batch.req_ids = list(scheduler_output.num_scheduled_tokens)
        computed = [scheduler_output.computed[request] for request in self.input_batch.req_ids]
        self.input_batch.num_computed_tokens_cpu = np.array(computed, np.int32)

    def sync_and_slice_intermediate_tensors(self, num_tokens, intermediate_tensors, sync_self):
        if sync_self:
            for key, value in intermediate_tensors.items():
                self.intermediate_tensors[key][:num_tokens].copy_(value[:num_tokens])
        return self.intermediate_tensors[:num_tokens]

    def execute_model(self, scheduler_output, intermediate_tensors=None):
        self._update_states(scheduler_output)
        count = scheduler_output.total_num_scheduled_tokens
        if not get_pp_group().is_first_rank:
            assert self.intermediate_tensors is not None
            intermediate_tensors = self.sync_and_slice_intermediate_tensors(
                count, intermediate_tensors, True
            )
        output = self.forward(self.input_batch.req_ids, scheduler_output, intermediate_tensors)
        if isinstance(output, IntermediateTensors):
            return output
        self.logits = self.compute_logits()
        return None

    def sample_tokens(self, grammar_output):
        tokens = self.sampled(self.input_batch.req_ids, self.logits)
        return AsyncGPUModelRunnerOutput(tokens).get_output()
