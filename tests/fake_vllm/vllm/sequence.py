class IntermediateTensors:
    def __init__(self, tensors):
        self.tensors = tensors

    def __getitem__(self, key):
        if isinstance(key, slice):
            return self.__class__({name: value[key] for name, value in self.tensors.items()})
        return self.tensors[key]

    def items(self):
        return self.tensors.items()
