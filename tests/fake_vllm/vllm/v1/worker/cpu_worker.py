from vllm.v1.worker.gpu_worker import Worker


class CPUWorker(Worker):
    def init_device(self):
        super().init_device()

    def compile_or_warm_up_model(self):
        return
