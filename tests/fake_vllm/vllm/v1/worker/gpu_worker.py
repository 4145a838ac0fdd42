import torch
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.sequence import IntermediateTensors
from vllm.v1.worker.worker_base import WorkerBase


class AsyncIntermediateTensors(IntermediateTensors):
    def __init__(self, tensors, comm_handles, comm_postprocess):
        super().__init__(tensors)
        self._comm_handles = comm_handles
        self._comm_postprocess = comm_postprocess
        self._comm_waited = False

    def wait_for_comm(self):
        if self._comm_waited:
            return
        for handle in self._comm_handles:
            handle.wait()
        for function in self._comm_postprocess:
            function()
        self._comm_waited = True

    def __getattribute__(self, name):
        if name == "tensors" and not object.__getattribute__(self, "_comm_waited"):
            object.__getattribute__(self, "wait_for_comm")()
        return object.__getattribute__(self, name)


class Worker(WorkerBase):
    def __init__(self, vllm_config, local_rank, rank, distributed_init_method=""):
        super().__init__(vllm_config, local_rank, rank, distributed_init_method)

    def init_device(self):
        if self.vllm_config.use_v2_model_runner:
            from vllm.v1.worker.gpu.model_runner import GPUModelRunner
        else:
            from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        self.model_runner = GPUModelRunner(self.vllm_config, torch.device("cpu"))

    def load_model(self):
        self.model_runner.load_model()

    def determine_available_memory(self):
        self.model_runner._dummy_run(4)
        return 1 << 30

    def get_kv_cache_spec(self):
        return self.model_runner.get_kv_cache_spec()

    def execute_model(self, scheduler_output):
        intermediate_tensors = None
        if scheduler_output.total_num_scheduled_tokens and not get_pp_group().is_first_rank:
            intermediate_tensors = AsyncIntermediateTensors(
                *get_pp_group().irecv_tensor_dict(all_gather_group=get_tp_group())
            )
        output = self.model_runner.execute_model(scheduler_output, intermediate_tensors)
        if isinstance(output, IntermediateTensors):
            get_pp_group().isend_tensor_dict(output.tensors, all_gather_group=get_tp_group())
        return

    def sample_tokens(self, grammar_output):
        return self.model_runner.sample_tokens(grammar_output)

    def shutdown(self):
        self.model_runner.shutdown()
