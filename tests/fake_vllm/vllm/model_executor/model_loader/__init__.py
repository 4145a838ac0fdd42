loaders = {}


def register_model_loader(load_format):
    def register(loader):
        loaders[load_format] = loader
        return loader

    return register
