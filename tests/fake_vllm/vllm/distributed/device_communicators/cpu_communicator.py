class _CPUSHMDistributed:
    def __init__(self, communicator):
        self.communicator = communicator
        self.group_name = "group"
        self.handle = self._init_cpu_shm()

    def _init_cpu_shm(self):
        return 0
