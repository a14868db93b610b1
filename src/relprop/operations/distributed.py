"""Models spread over processes: what torch puts around their modules is linear, and its own backward is right."""

from __future__ import annotations

from relprop.engine.registry import LINEAR

LINEAR |= {
    "torch.distributed.fsdp._fully_shard._fsdp_param_group.RegisterPostBackwardFunction",
    "torch.distributed.fsdp._fully_shard._fsdp_state.RegisterPreBackwardFunction",
    "torch.distributed.tensor._api._FromTorchTensor",
    "torch.distributed.tensor._api._ToTorchTensor",
    "torch.distributed.tensor._redistribute.Redistribute",
    "torch.distributed.tensor._redistribute.NestedRedistribute",
}
