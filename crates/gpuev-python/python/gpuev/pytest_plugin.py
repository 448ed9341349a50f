"""The pytest fixtures that come with gpuev."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .sim import Machine


@pytest.fixture
def gpu_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """
    A simulated machine with one AMD GPU, which gpuev and amdsmi look at during the test.

    `@pytest.mark.gpu_machine(gpus=2, kernel="6.1")` makes it another; see `gpuev.sim.Machine`.
    """
    from .sim import Machine

    marker = request.node.get_closest_marker("gpu_machine")
    arguments = {} if marker is None else marker.kwargs
    with Machine(**arguments) as machine:
        yield machine


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    line = "gpu_machine(gpus=1, **more): what the fixture gpu_machine is; see gpuev.sim.Machine"
    config.addinivalue_line("markers", line)
