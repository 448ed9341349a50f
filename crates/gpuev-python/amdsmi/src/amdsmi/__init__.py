"""The documented Python API of AMD SMI, from `gpuev.amdsmi`."""

from gpuev.amdsmi import *  # noqa: F403
from gpuev.amdsmi import __all__ as __all__
