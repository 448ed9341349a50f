"""Units are a choice that cannot be missed."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

# A machine whose GPU draws 18 W and has 61.5 degrees, asked by whoever `ask` is.
PROGRAM = """
import gpuev.sim
with gpuev.sim.Machine() as machine:
    machine.set_power(18_700_000)
    machine.set_temperature("junction", 61_500)
    import amdsmi
    {before}
    amdsmi.amdsmi_init()
    handle = amdsmi.amdsmi_get_processor_handles()[0]
    def ask():
        power = amdsmi.amdsmi_get_power_info(handle)
        junction = amdsmi.AmdSmiTemperatureType.JUNCTION
        temperature = amdsmi.amdsmi_get_temp_metric(handle, junction, amdsmi.AmdSmiTemperatureMetric.CURRENT)
        return power["average_socket_power"], power["socket_power"], temperature, power["power_limit"]
    {ask}
    print(amdsmi.__version__)
"""
DOCUMENTED = "(18700000, 18700000, 61500, 241000000)"
VENDOR = "(18, 18, 61, 241000000)"


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**ENVIRONMENT, **environment}
    )


ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("choice", "answer", "version"),
    [
        ({}, DOCUMENTED, "documented"),
        ({"GPUEV_AMDSMI_UNITS": "documented"}, DOCUMENTED, "documented"),
        ({"GPUEV_AMDSMI_UNITS": "vendor"}, VENDOR, "vendor"),
        (
            {"GPUEV_AMDSMI_UNITS": "power=vendor"},
            "(18, 18, 61500, 241000000)",
            "power.vendor.temperature.documented",
        ),
        (
            {"GPUEV_AMDSMI_UNITS": "vendor, temperature=documented"},
            "(18, 18, 61500, 241000000)",
            "power.vendor.temperature.documented",
        ),
    ],
)
def test_units_by_the_environment(choice, answer, version):
    ran = run(PROGRAM.format(before="", ask="print(ask())"), **choice)
    assert (ran.stderr, ran.stdout.splitlines()[0]) == ("", answer)
    assert ran.stdout.splitlines()[1].endswith(f".{version}")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ('"vendor"', VENDOR),
        ('"documented"', DOCUMENTED),
        ('power="vendor"', "(18, 18, 61500, 241000000)"),
        ('temperature="vendor"', "(18700000, 18700000, 61, 241000000)"),
    ],
)
def test_units_by_the_program(call, answer):
    code = PROGRAM.format(before=f"amdsmi.use_units({call})", ask="print(ask())")
    # What a program says goes before what its environment says.
    ran = run(code, GPUEV_AMDSMI_UNITS="vendor")
    assert (ran.stderr, ran.stdout.splitlines()[0]) == ("", answer)


def test_units_that_do_not_exist(monkeypatch):
    ran = run(PROGRAM.format(before="", ask=""), GPUEV_AMDSMI_UNITS="kelvin")
    assert "'kelvin' is not known: say documented or vendor" in ran.stderr
    assert "Error code:\n\t1 |" in ran.stderr
    code = PROGRAM.format(before="amdsmi.use_units('celsius')", ask="")
    assert "ValueError: use_units: 'celsius'" in run(code).stderr
    code = PROGRAM.format(before="amdsmi.use_units(5)", ask="")
    assert "ValueError: use_units: '5' is not known" in run(code).stderr


def test_units_cannot_change_between_readings(smi):
    with pytest.raises(RuntimeError, match="before amdsmi_init"):
        smi.use_units("vendor")


def test_help_says_which_units_are_on():
    for choice, told in [
        ({}, "power in microwatts, temperatures in thousandths"),
        ({"GPUEV_AMDSMI_UNITS": "vendor"}, "power in watts, temperatures in degrees Celsius"),
    ]:
        for name in ("amdsmi", "gpuev.amdsmi"):
            ran = run(f"import pydoc, {name}\nprint(pydoc.render_doc({name}))", **choice)
            assert told in ran.stdout, ran.stderr
    import amdsmi

    assert "GPUEV_AMDSMI_UNITS" in pydoc.getdoc(amdsmi)


def installed(folder: Path) -> Path:
    """A package in a folder where pip installs packages."""
    packages = folder / "lib/python3/site-packages"
    packages.mkdir(parents=True)
    (packages / "meter.py").write_text("def read(ask):\n    return ask()\n\n\ndef power(smi, handle):\n"
        "    return smi.amdsmi_get_power_info(handle)['socket_power']\n")
    return packages


ASKED_TWICE = "import meter\n    print(meter.power(amdsmi, handle), meter.power(amdsmi, handle), ask()[2])"


def test_an_installed_package_is_warned_once(tmp_path):
    path = str(installed(tmp_path))
    ran = run(PROGRAM.format(before="", ask=ASKED_TWICE), PYTHONPATH=path)
    assert ran.stdout.splitlines()[0] == "18700000 18700000 61500"
    assert ran.stderr.count("UserWarning") == 1
    assert "meter.py:6: UserWarning: meter reads power or temperature" in ran.stderr
    assert "GPUEV_AMDSMI_UNITS=vendor" in ran.stderr
    # The warning is of the first call, even after one of the user's own.
    ran = run(PROGRAM.format(before="", ask="ask(); " + ASKED_TWICE), PYTHONPATH=path)
    assert ran.stderr.count("UserWarning") == 1
    # An empty choice is none.
    ran = run(PROGRAM.format(before="", ask=ASKED_TWICE), PYTHONPATH=path, GPUEV_AMDSMI_UNITS=" ")
    assert ran.stderr.count("UserWarning") == 1


def test_who_chose_is_not_warned(tmp_path):
    path = str(installed(tmp_path))
    for units in ("vendor", "documented"):
        ran = run(PROGRAM.format(before="", ask=ASKED_TWICE), PYTHONPATH=path, GPUEV_AMDSMI_UNITS=units)
        assert ran.stderr == ""
        ran = run(PROGRAM.format(before=f"amdsmi.use_units({units!r})", ask=ASKED_TWICE), PYTHONPATH=path)
        assert ran.stderr == ""


def test_a_users_own_script_is_not_warned(tmp_path):
    # Its own functions, called by an installed package, are the user's too.
    ask = "import meter\n    print(meter.read(ask))"
    ran = run(PROGRAM.format(before="", ask=ask), PYTHONPATH=str(installed(tmp_path)))
    assert (ran.stderr, ran.stdout.splitlines()[0]) == ("", DOCUMENTED)
