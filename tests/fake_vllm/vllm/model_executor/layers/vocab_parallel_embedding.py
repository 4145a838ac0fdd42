import torch


class VocabParallelEmbedding(torch.nn.Embedding):
    pass
