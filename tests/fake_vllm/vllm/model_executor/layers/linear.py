class LinearMethodBase:
    def apply(self, layer, x, bias=None):
        raise NotImplementedError
