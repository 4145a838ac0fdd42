class WorkerBase:
    def __init__(self, vllm_config, local_rank, rank, distributed_init_method=""):
        self.vllm_config = vllm_config
        self.parallel_config = vllm_config.parallel_config
        self.local_rank = local_rank
        self.rank = rank
        self.model_runner = None

    def get_kv_cache_spec(self):
        raise NotImplementedError
