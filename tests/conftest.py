"""Every test starts from the same settings and must leave them as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from relprop.engine.registry import TABLE

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """One seed for all; and nothing a test does may change how torch behaves afterwards."""
    torch.manual_seed(0)
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    yield
    after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    assert after == before


@pytest.fixture
def table() -> Iterator[None]:
    """What a test registers ends with it."""
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)
