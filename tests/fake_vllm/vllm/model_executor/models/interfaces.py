class SupportsPP:
    def make_empty_intermediate_tensors(self, batch_size, dtype, device):
        raise NotImplementedError
