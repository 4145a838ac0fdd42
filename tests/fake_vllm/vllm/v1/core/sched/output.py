from dataclasses import dataclass, field
from typing import Any


@dataclass
class NewRequestData:
    req_id: str
    prompt_token_ids: list[int]
    sampling_params: Any


@dataclass
class SchedulerOutput:
    """A step. `token_ids` (all that are known) and `computed` are of each scheduled request."""

    scheduled_new_reqs: list[NewRequestData]
    num_scheduled_tokens: dict[str, int]
    token_ids: dict[str, list[int]]
    computed: dict[str, int]
    finished_req_ids: set[str] = field(default_factory=set)

    @property
    def total_num_scheduled_tokens(self):
        return sum(self.num_scheduled_tokens.values())
