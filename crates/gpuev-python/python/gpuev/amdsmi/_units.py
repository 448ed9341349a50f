"""In which units temperatures and powers are given: as documented, or as the vendor's library gives them."""

from __future__ import annotations

import os
import sys

from .._core import is_initialized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional

VARIABLE = "GPUEV_AMDSMI_UNITS"
_QUANTITIES = ("power", "temperature")
_UNITS = ("documented", "vendor")
_DESCRIPTIONS = {
    ("power", "documented"): "power in microwatts",
    ("power", "vendor"): "power in watts",
    ("temperature", "documented"): "temperatures in thousandths of a degree Celsius",
    ("temperature", "vendor"): "temperatures in degrees Celsius",
}

# By quantity; None until something needs it.
_chosen: Optional[Dict[str, str]] = None
# Whether somebody chose, so that nobody need be warned.
_settled = False


def _parse(text: str, source: str) -> Dict[str, str]:
    """`vendor`, `documented`, or `QUANTITY=UNITS` of them, set apart by commas."""
    units = dict.fromkeys(_QUANTITIES, "documented")
    for part in filter(None, (part.strip() for part in text.split(","))):
        quantity, _, name = part.rpartition("=")
        if name not in _UNITS or quantity not in ("", *_QUANTITIES):
            raise ValueError(
                f"{source}: {part!r} is not known: say documented or vendor, or one of them for a quantity, "
                "as in power=vendor,temperature=documented"
            )
        for known in [quantity] if quantity else _QUANTITIES:
            units[known] = name
    return units


def units() -> Dict[str, str]:
    """The units by quantity. Raises ValueError where the environment names what does not exist."""
    global _chosen, _settled
    if _chosen is None:
        text = os.environ.get(VARIABLE, "")
        _chosen = _parse(text, VARIABLE)
        _settled = bool(text.strip())
    return _chosen


def use_units(
    units: Optional[str] = None, *, power: Optional[str] = None, temperature: Optional[str] = None
) -> None:
    """
    Choose the units of temperatures and powers, before `amdsmi_init`.

    Parameters:
    - units (str): "documented" (microwatts, thousandths of a degree Celsius) or "vendor" (watts, degrees Celsius)
    - power, temperature (str): the same for one of them

    The environment variable GPUEV_AMDSMI_UNITS does the same from outside: "vendor", or for one of them
    "power=vendor".

    Raises:
    - ValueError: If there are no such units
    - RuntimeError: If the library is initialized: what was read before would be in other units
    """
    global _chosen, _settled
    if is_initialized():
        raise RuntimeError("use_units: the library is initialized; call it before amdsmi_init")
    named = {"power": power, "temperature": temperature}
    parts = [str(units)] if units else []
    parts += [f"{quantity}={name}" for quantity, name in named.items() if name]
    _chosen = _parse(",".join(parts), "use_units")
    _settled = True
    describe()


def version_suffix() -> str:
    """`documented`, `vendor`, or what it is for each."""
    power, temperature = units()["power"], units()["temperature"]
    return power if power == temperature else f"power.{power}.temperature.{temperature}"


def describe() -> None:
    """Says in the packages' documentation which units are on."""
    try:
        chosen = units()
    except ValueError as error:
        told = str(error)
    else:
        told = ", ".join(_DESCRIPTIONS[quantity, name] for quantity, name in chosen.items())
    for name in (__package__, "amdsmi"):
        module = sys.modules.get(name)
        # Not of a vendor's package.
        if module is not None and (name == __package__ or hasattr(module, "use_units")):
            module.__doc__ = _DOCUMENTATION.format(units=told, variable=VARIABLE)


_DOCUMENTATION = """The documented Python API of AMD SMI, on gpuev: no ROCm is needed.

Units now: {units}.
{variable}=vendor, or gpuev.amdsmi.use_units("vendor") before amdsmi_init(), gives watts and degrees Celsius as the
vendor's library does; {variable}=documented keeps the units of the documentation. `docs/coming-from-amdsmi.md`
says which programs want which.

Every name of the vendor's package exists. What the kernel's files cannot answer, and what would change the
hardware, raises AmdSmiLibraryException with code 2 (NOT_SUPPORTED).
"""


def power(microwatts: int) -> int:
    """A power in the units that were chosen."""
    return microwatts // 1_000_000 if _is_vendors("power") else microwatts


def temperature(millidegrees: int) -> int:
    """A temperature in the units that were chosen; as C divides, towards 0."""
    return int(millidegrees / 1000) if _is_vendors("temperature") else millidegrees


def _is_vendors(quantity: str) -> bool:
    chosen = units()
    if not _settled:
        _warn_installed_package()
    return chosen[quantity] == "vendor"


def _warn_installed_package() -> None:
    """Warns once, when an installed package asks and nobody chose. A user's own script is not warned."""
    frame = sys._getframe(1)
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or not _is_installed(frame.f_code.co_filename):
        return
    global _settled
    _settled = True
    import warnings

    caller = frame.f_globals.get("__name__", "").partition(".")[0] or frame.f_code.co_filename
    message = (
        f"{caller} reads power or temperature from gpuev's amdsmi, which gives microwatts and thousandths of a "
        f"degree Celsius as documented. If {caller} expects watts and degrees as from the vendor's library, set "
        f"{VARIABLE}=vendor; set {VARIABLE}=documented if all is well. docs/coming-from-amdsmi.md lists programs."
    )
    warnings.warn_explicit(message, UserWarning, frame.f_code.co_filename, frame.f_lineno)


def _is_ours(name: str) -> bool:
    return name == "amdsmi" or name.startswith(("gpuev.", "amdsmi."))


def _is_installed(filename: str) -> bool:
    return "/site-packages/" in filename or "/dist-packages/" in filename
