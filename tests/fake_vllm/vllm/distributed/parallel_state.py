import torch


class GroupCoordinator:
    """A group of ranks whose messages lie in `mailboxes`, one list for each of its ranks."""

    device = torch.device("cpu")

    def __init__(self, rank_in_group, mailboxes):
        self.rank_in_group = rank_in_group
        self.world_size = len(mailboxes)
        self.mailboxes = mailboxes

    @property
    def is_first_rank(self):
        return self.rank_in_group == 0

    @property
    def is_last_rank(self):
        return self.rank_in_group == self.world_size - 1

    def isend_object(self, obj, dst):
        for part in (torch.tensor([3]), torch.zeros(3)):
            torch.distributed.isend(part, dst)

    def isend_tensor_dict(self, tensor_dict, dst=None, all_gather_group=None):
        self.isend_object(list(tensor_dict), self.rank_in_group + 1)
        for value in tensor_dict.values():
            torch.distributed.isend(value, self.rank_in_group + 1)
        message = {key: value.clone() for key, value in tensor_dict.items()}
        self.mailboxes[self.rank_in_group + 1].append(message)
        return []

    def irecv_tensor_dict(self, src=None, all_gather_group=None):
        return self.mailboxes[self.rank_in_group].pop(0), [Handle()], []


class Handle:
    def wait(self):
        pass


_PP = _TP = None


def get_pp_group():
    assert _PP is not None
    return _PP


def get_tp_group():
    assert _TP is not None
    return _TP
