"""Every name of the vendor's package exists, with its signature: held against the vendor's wheel, read as a file."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import vendor

import amdsmi
from gpuev.amdsmi import _names


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return vendor.read(vendor.wheel(tmp_path_factory.mktemp("wheel")))


def test_the_tables_are_those_of_the_wheel(package):
    folder = vendor.Path(_names.__file__).parent
    assert (folder / "_names.py").read_text() == vendor.table(package)
    assert (folder / "_types.pyi").read_text() == vendor.stubs(package)


def test_every_name_exists(package):
    submodules = {"amdsmi_exception", "amdsmi_interface", "amdsmi_wrapper"}
    names = package.exported | submodules | {"__version__"}
    assert [name for name in sorted(names) if not hasattr(amdsmi, name)] == []
    interface = [*package.functions, *package.enums, *package.constants, *package.exceptions]
    assert [name for name in interface if not hasattr(amdsmi.amdsmi_interface, name)] == []
    assert [name for name in package.exceptions if not hasattr(amdsmi.amdsmi_exception, name)] == []


def test_all_gives_them_to_a_star_import(package):
    given: dict = {}
    exec("from amdsmi import *", given)
    assert set(given) >= package.exported - {"__version__"}
    given = {}
    exec("from amdsmi.amdsmi_interface import *", given)
    assert set(given) >= {*package.functions, *package.enums, *package.constants}


def test_signatures_are_the_vendors(package):
    for name, function in package.functions.items():
        parameters = list(inspect.signature(getattr(amdsmi, name)).parameters.values())
        own = [parameter.name for parameter in parameters]
        # What is there beyond the vendor's parameters may be left out.
        assert own[: len(function.parameters)] == function.parameters, name
        assert all(p.default is not p.empty for p in parameters[len(function.parameters) :]), name
        for parameter in parameters[: len(function.parameters)]:
            assert (parameter.default is not parameter.empty) == (parameter.name in function.defaults), name


def test_enums_have_the_vendors_members(package):
    # There 7 is lost: the vendor's member is another name of PAGE_FAULT_END.
    package.enums["AmdSmiEvtNotificationType"]["PAGE_FAULT_START"] = 7
    for name, members in package.enums.items():
        enum = getattr(amdsmi, name)
        assert {member: int(value) for member, value in enum.__members__.items()} == members


def test_exceptions_are_made_as_the_vendors(package):
    for name, parameters in package.exceptions.items():
        if parameters:
            own = list(inspect.signature(getattr(amdsmi, name)).parameters)
            assert own[: len(parameters)] == parameters, name


def test_constants_of_the_c_library(package):
    wrapper = amdsmi.amdsmi_wrapper
    assert amdsmi.amdsmi_interface.amdsmi_wrapper is wrapper
    for kind, members in package.c_enums.items():
        assert {name: getattr(wrapper, name) for name in members} == members
        values = getattr(wrapper, f"{kind}__enumvalues")
        assert values == {value: name for name, value in members.items()}
    assert wrapper.AMDSMI_STATUS_NO_DATA == 40
    with pytest.raises(AttributeError, match="no C library"):
        wrapper.amdsmi_get_gpu_event_notification


def test_submodules_are_attributes_of_import_amdsmi():
    code = (
        "import amdsmi\n"
        "assert amdsmi.amdsmi_exception.AmdSmiLibraryException is amdsmi.AmdSmiLibraryException\n"
        "assert amdsmi.amdsmi_interface.amdsmi_wrapper.AMDSMI_STATUS_NO_DATA == 40\n"
        "import sys, amdsmi.amdsmi_interface\n"
        "assert sys.modules['amdsmi.amdsmi_interface'] is amdsmi.amdsmi_interface\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What a function that is not supported is given, by what it must be.
GIVEN = {"int": 0, "list": []}


def test_what_is_not_supported_says_so_after_its_parameters_are_checked(smi, handle, package):
    from gpuev.amdsmi import _unsupported

    unsupported = 0
    for name, function in package.functions.items():
        if not isinstance(getattr(getattr(smi, name), "__signature__", None), inspect.Signature):
            continue
        unsupported += 1
        kinds = function.checks
        if "amdsmi_event_handle_t" in kinds.values():
            continue
        given = {}
        for parameter in function.parameters:
            kind = kinds.get(parameter, "int")
            enum = getattr(smi, kind, None)
            given[parameter] = next(iter(enum)) if enum else GIVEN.get(kind, handle)
        with pytest.raises(smi.AmdSmiLibraryException) as raised:
            getattr(smi, name)(**given)
        assert raised.value.err_code == 2, name
        for parameter in kinds:
            with pytest.raises(smi.AmdSmiParameterException):
                getattr(smi, name)(**{**given, parameter: "wrong"})
    assert 60 < unsupported < 110
    assert _unsupported.unsupported("amdsmi_of_another_world") is None


def test_before_init_every_function_says_so(package):
    for name, function in package.functions.items():
        if name in ("amdsmi_init", "amdsmi_get_lib_version", "amdsmi_get_rocm_version"):
            continue
        if name in ("amdsmi_get_afids_from_cper", "amdsmi_status_code_to_string"):
            continue
        with pytest.raises(amdsmi.AmdSmiLibraryException) as raised:
            getattr(amdsmi, name)(*[None] * len(function.parameters))
        assert raised.value.err_code == 32, name


def test_status_codes_have_a_meaning():
    assert amdsmi.amdsmi_status_code_to_string(2).startswith("AMDSMI_STATUS_NOT_SUPPORTED")
    assert amdsmi.amdsmi_status_code_to_string(amdsmi.amdsmi_wrapper.amdsmi_status_t(40)).endswith("input")
    with pytest.raises(amdsmi.AmdSmiParameterException):
        amdsmi.amdsmi_status_code_to_string("2")


def test_import_loads_nothing_that_nobody_asked_for():
    code = "import sys, amdsmi\nprint(sorted(m for m in sys.modules if m.startswith('gpuev.amdsmi')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "['gpuev.amdsmi', 'gpuev.amdsmi._units']\n"
