class WorkerProcHandle:
    proc: object


class WorkerProc:
    def __init__(self, rank):
        self.rank = rank


class MultiprocExecutor:
    def __init__(self, workers):
        self.workers = workers
        self.is_failed = False

    @staticmethod
    def _ensure_worker_termination(worker_procs):
        for process in worker_procs:
            process.ended = True

    def shutdown(self):
        self._ensure_worker_termination([worker.proc for worker in self.workers])
