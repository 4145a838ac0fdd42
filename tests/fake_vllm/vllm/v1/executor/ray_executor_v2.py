from vllm.v1.executor.multiproc_executor import MultiprocExecutor


class RayWorkerHandle:
    rank: int
    run_ref: object = None


class RayExecutorV2(MultiprocExecutor):
    def __init__(self, handles):
        super().__init__([])
        self.ray_worker_handles = handles
        self.shutting_down = False

    def shutdown(self):
        self.shutting_down = True
        for handle in self.ray_worker_handles:
            handle.killed = True
