"""What is a wrong parameter, and what the exceptions say."""

import copy
import math
import pickle

import pytest

import amdsmi

GOOD_TYPES = [amdsmi.AmdSmiEvtNotificationType.VMFAULT]


@pytest.mark.parametrize("bad", [None, 0, "0000:03:00.0", object(), [], True])
def test_a_wrong_handle(smi, bad):
    functions = [
        lambda: smi.AmdSmiEventReader(bad, GOOD_TYPES),
        lambda: smi.amdsmi_get_gpu_device_bdf(bad),
        lambda: smi.amdsmi_get_power_info(bad),
        lambda: smi.amdsmi_get_gpu_process_list(bad),
    ]
    for function in functions:
        with pytest.raises(smi.AmdSmiParameterException) as raised:
            function()
        assert raised.value.actualType is type(bad)
        assert raised.value.expectedType is smi.processor_handle


@pytest.mark.parametrize("bad", [None, 5, GOOD_TYPES[0], object()])
def test_types_that_are_not_iterable(smi, handle, bad):
    with pytest.raises(smi.AmdSmiParameterException):
        smi.AmdSmiEventReader(handle, bad)


@pytest.mark.parametrize("bad", [[1], ["VMFAULT"], "VMFAULT", [None], [*GOOD_TYPES, 2], [True]])
def test_a_wrong_member(smi, handle, bad):
    with pytest.raises(smi.AmdSmiParameterException) as raised:
        smi.AmdSmiEventReader(handle, bad)
    assert raised.value.expectedType is smi.AmdSmiEvtNotificationType


@pytest.mark.parametrize(
    "good", [list, tuple, set, frozenset, iter, lambda types: (type for type in types)]
)
def test_any_iterable_is_fine(gpu_machine, smi, handle, good):
    with smi.AmdSmiEventReader(handle, good(GOOD_TYPES)) as reader:
        gpu_machine.emit("VMFAULT")
        assert len(reader.read(0)) == 1


BAD_TIMES = [-1, -0.5, math.nan, math.inf, -math.inf, "0", None, True, False, b"1", [], 10**400]


@pytest.mark.parametrize("bad", BAD_TIMES)
def test_a_wrong_timestamp(smi, reader, bad):
    with pytest.raises(smi.AmdSmiParameterException):
        reader.read(bad)


@pytest.mark.parametrize("bad", [bad for bad in BAD_TIMES if bad is not None])
def test_a_wrong_timeout(smi, reader, bad):
    with pytest.raises(smi.AmdSmiParameterException):
        reader.read(0, timeout_ms=bad)


@pytest.mark.parametrize("bad", [0, -1, 1.0, "10", None, True, math.nan, []])
def test_a_wrong_num_elem(smi, reader, bad):
    with pytest.raises(smi.AmdSmiParameterException):
        reader.read(0, bad)


def test_numbers_of_numpy_are_numbers(gpu_machine, reader):
    numpy = pytest.importorskip("numpy")
    gpu_machine.emit("VMFAULT", times=3)
    assert len(reader.read(numpy.int64(0), numpy.int32(2))) == 2
    assert len(reader.read(numpy.float64(0), 10**30)) == 1


def test_the_documented_hierarchy():
    assert issubclass(amdsmi.AmdSmiLibraryException, amdsmi.AmdSmiException)
    assert issubclass(amdsmi.AmdSmiRetryException, amdsmi.AmdSmiLibraryException)
    assert issubclass(amdsmi.AmdSmiTimeoutException, amdsmi.AmdSmiLibraryException)
    for name in ("Parameter", "Key", "BdfFormat"):
        exception = getattr(amdsmi, f"AmdSmi{name}Exception")
        assert exception.__mro__[1] is amdsmi.AmdSmiException
    assert amdsmi.AmdSmiException.__base__ is Exception


def test_the_documented_texts():
    error = amdsmi.AmdSmiLibraryException(-40)
    assert error.args == (40,)
    assert error.err_code == error.get_error_code() == 40
    assert error.err_info == "AMDSMI_STATUS_NO_DATA - No data was found for given input"
    assert str(error) == f"Error code:\n\t40 | {error.err_info}"
    assert error.get_error_info() == error.err_info
    assert error.get_error_info(detailed=False) == "AMDSMI_STATUS_NO_DATA"
    unknown = amdsmi.AmdSmiLibraryException(4711)
    assert unknown.err_info == "AMDSMI_STATUS_UNKNOWN_ERROR - An unknown error occurred"
    assert amdsmi.AmdSmiRetryException().err_code == 9
    assert amdsmi.AmdSmiTimeoutException().err_code == 8

    wrong = amdsmi.AmdSmiParameterException(5, str)
    assert wrong.err_code is None
    assert wrong.actualType is int
    assert wrong.expectedType is str
    assert str(wrong) == wrong.err_msg
    assert wrong.err_msg == (
        "Invalid parameter:\nActual type: <class 'int'>\nExpected type: <class 'str'>"
    )
    assert str(amdsmi.AmdSmiParameterException(5, str, "told")) == "told"
    assert amdsmi.AmdSmiKeyException("gfx").key == "gfx"
    assert "Wrong BDF format: x" in str(amdsmi.AmdSmiBdfFormatException("x"))


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [
        amdsmi.AmdSmiLibraryException(40),
        amdsmi.AmdSmiRetryException(),
        amdsmi.AmdSmiTimeoutException(),
        amdsmi.AmdSmiParameterException("03:00.0", amdsmi.processor_handle),
        amdsmi.AmdSmiParameterException(5, str, "told"),
        amdsmi.AmdSmiKeyException("gfx", "told"),
        amdsmi.AmdSmiBdfFormatException("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_whole_out_of_another_process(error, again):
    copied = again(error)
    assert type(copied) is type(error)
    assert (str(copied), copied.args, vars(copied)) == (str(error), error.args, vars(error))


def test_the_enum_is_distinct():
    members = amdsmi.AmdSmiEvtNotificationType.__members__
    assert len(members) == 14
    assert [member.value for member in members.values()] == list(range(14))
    assert members["NONE"] == 0
    assert members["PAGE_FAULT_START"] == 7
    assert members["PROCESS_END"] == 13


def test_everything_before_init_raises_32(gpu_machine):
    amdsmi.amdsmi_init()
    handle = amdsmi.amdsmi_get_processor_handles()[0]
    reader = amdsmi.AmdSmiEventReader(handle, GOOD_TYPES)
    amdsmi.amdsmi_shut_down()
    calls = [
        amdsmi.amdsmi_shut_down,
        amdsmi.amdsmi_get_processor_handles,
        amdsmi.amdsmi_get_socket_handles,
        lambda: amdsmi.amdsmi_get_processor_handle_from_bdf("0000:03:00.0"),
        lambda: amdsmi.amdsmi_get_gpu_device_bdf(handle),
        lambda: amdsmi.amdsmi_get_power_info(handle),
        lambda: amdsmi.AmdSmiEventReader(handle, GOOD_TYPES),
        lambda: reader.read(0),
    ]
    for call in calls:
        with pytest.raises(amdsmi.AmdSmiLibraryException) as raised:
            call()
        assert raised.value.err_code == 32
    reader.stop()


def test_init_is_counted(gpu_machine):
    amdsmi.amdsmi_init()
    amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_ALL_PROCESSORS)
    amdsmi.amdsmi_shut_down()
    assert len(amdsmi.amdsmi_get_processor_handles()) == 1
    amdsmi.amdsmi_shut_down()
    with pytest.raises(amdsmi.AmdSmiLibraryException):
        amdsmi.amdsmi_get_processor_handles()


def test_the_flag_is_checked():
    with pytest.raises(amdsmi.AmdSmiParameterException):
        amdsmi.amdsmi_init(2)
