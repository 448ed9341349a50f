"""Other people's programs on simulated machines: nothing raises, and every number is the machine's.

Those whose wheel is small run as they are. Of the others the calls are made anew, from what they are documented to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import third_party

import amdsmi
from gpuev.amdsmi import _units
from gpuev.sim import Machine

WATTS, JUNCTION, EDGE, BUSY = 213, 74, 61, 73
MACHINES = [
    pytest.param({"gpus": 1}, id="1-gpu"),
    pytest.param({"gpus": 2}, id="2-gpus"),
    pytest.param({"gpus": 8}, id="8-gpus"),
    pytest.param({"gpus": 2, "partitions": 4}, id="partitions"),
    pytest.param({"gpus": 1, "apu": True}, id="apu"),
]
GPU = "sys/bus/pci/devices/0000:{:02x}:00.0"


@pytest.fixture(params=MACHINES)
def machine(request):
    """A machine whose GPUs are at work; each draws a watt more than the one before."""
    what = dict(request.param)
    apu = what.pop("apu", False)
    with Machine(**what) as machine:
        partitions = what.get("partitions", 1)
        for gpu in range(what["gpus"] * partitions):
            machine.set_power((WATTS + gpu // partitions) * 1_000_000, gpu=gpu)
            machine.set_temperature("junction", JUNCTION * 1000, gpu=gpu)
            machine.set_temperature("edge", EDGE * 1000, gpu=gpu)
            machine.set_activity(BUSY, gpu=gpu)
        if apu:
            make_an_apu(machine)
        machine.apu = apu
        machine.gpus = what["gpus"]
        machine.partitions = partitions
        machine.memory = (49148, 0) if partitions > 1 else (46064, 26)
        machine.limit = 750 if partitions > 1 else 241
        machine.name = "AMD Instinct MI300X OAM" if "partitions" in what else "AMD Radeon PRO W7900"
        yield machine


def make_an_apu(machine: Machine) -> None:
    """No unique id, one sensor, no limits, a table of metrics of the second format."""
    device = GPU.format(3)
    hwmon = next(Path(machine.root, device, "hwmon").iterdir()).name
    for file in ("unique_id", "serial_number", "ras", "pp_dpm_fclk"):
        machine.remove_file(f"{device}/{file}")
    for path in Path(machine.root, device, "hwmon", hwmon).iterdir():
        if path.name.startswith(("temp2", "temp3", "power1_cap", "fan", "pwm")):
            machine.remove_file(f"{device}/hwmon/{hwmon}/{path.name}")
    machine.write_file(f"{device}/gpu_metrics", bytes([120, 0, 2, 1]) + bytes([255]) * 116)
    node = "sys/class/kfd/kfd/topology/nodes/1/properties"
    text = Path(machine.root, node).read_text()
    lines = (line for line in text.splitlines() if not line.startswith("unique_id"))
    machine.write_file(node, "\n".join(lines) + "\n")


@pytest.fixture
def units(monkeypatch):
    """Chooses the units for one test."""
    before = _units._chosen, _units._settled
    yield _units.use_units
    while True:
        try:
            amdsmi.amdsmi_shut_down()
        except amdsmi.AmdSmiLibraryException:
            break
    _units._chosen, _units._settled = before
    _units.describe()


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    return third_party.download(tmp_path_factory.mktemp("packages"))


def handles():
    amdsmi.amdsmi_init()
    found = amdsmi.amdsmi_get_processor_handles()
    assert found
    return found


def watts(handle) -> int:
    """What the GPU draws, by its place."""
    sockets = amdsmi.amdsmi_get_socket_handles()
    return WATTS + [socket.gpu.bdf for socket in sockets].index(handle.gpu.bdf)


def test_codecarbon(packages, machine, units):
    units(power="vendor")
    gpus = third_party.load(packages, "codecarbon.core.gpu_amd", "codecarbon.core", "codecarbon.external")
    uuids = set()
    for index, handle in enumerate(handles()):
        device = gpus.AMDGPUDevice(handle=handle, gpu_index=index)
        uuids.add(device._get_uuid())
        assert device._get_power_usage() == watts(handle)
        assert device._get_temperature() == (0 if machine.apu else JUNCTION)
        assert device._get_power_limit() == (None if machine.apu else machine.limit)
        memory = device._get_memory_info()
        assert (memory.total >> 20, memory.used >> 20) == machine.memory
        assert device._get_gpu_name() == machine.name
        energy = device._get_total_energy_consumption()
        assert energy is None if machine.apu else energy > 0
        assert device._get_compute_processes() == []
        partitions = amdsmi.amdsmi_get_gpu_accelerator_partition_profile(handle)["partition_profile"]
        if partitions["num_partitions"] == 1:
            assert device._get_gpu_utilization() == BUSY
    assert len(uuids) == len(amdsmi.amdsmi_get_processor_handles())


def test_codecarbon_catches_errors_by_their_module(packages, machine, units):
    gpus = third_party.load(packages, "codecarbon.core.gpu_amd", "codecarbon.core", "codecarbon.external")
    [handle, *_] = handles()
    device = gpus.AMDGPUDevice(handle=handle, gpu_index=0)
    amdsmi.amdsmi_shut_down()
    # It catches amdsmi.amdsmi_exception.AmdSmiLibraryException of code 32, and initializes again.
    assert device._get_uuid() == amdsmi.amdsmi_get_gpu_device_uuid(handle)


def test_zeus(packages, machine, units, monkeypatch):
    units(power="vendor")
    zeus = third_party.load(packages, "zeus.device.gpu.amd", "zeus.device.gpu")
    monkeypatch.setattr(zeus.time, "sleep", lambda seconds: None)
    # It keeps the handles of the machine before.
    zeus._hip_to_amdsmi_handle.cache_clear()
    zeus.amdsmi_is_available.cache_clear()
    assert zeus.amdsmi_is_available()
    if machine.apu:
        # An APU counts no energy, which zeus 0.16 needs to begin; as with the vendor's library.
        with pytest.raises(zeus.gpu_common.ZeusGPUNotSupportedError):
            zeus.AMDGPUs()
        return
    for index, gpu in enumerate(zeus.AMDGPUs().gpus):
        assert gpu.gpu_index == index
        assert gpu.get_name() == machine.name
        assert gpu.get_average_power_usage() == watts(gpu.handle) * 1000
        assert gpu.get_gpu_temperature() == JUNCTION
        assert gpu.get_power_management_limit() == machine.limit * 1000
        assert gpu.get_power_management_limit_constraints()[1] >= machine.limit * 1000
        least, most = sorted(gpu.get_supported_memory_clocks())
        assert 0 < least < most
        with pytest.raises(zeus.gpu_common.ZeusGPUNotSupportedError):
            gpu.set_power_management_limit(200_000)


def test_kernel_tuner(packages, machine, units):
    pytest.importorskip("numpy")
    units("vendor")
    tuner = third_party.load(packages, "kernel_tuner.observers.amd", "kernel_tuner")
    devices = handles()
    for index, handle in enumerate(devices):
        bdf = amdsmi.amdsmi_get_gpu_device_bdf(handle)
        place = (int(bdf[:4], 16), int(bdf[5:7], 16), int(bdf[8:10], 16))
        found = tuner._find_device_by_bdf(devices, *place)
        # Partitions share an address: which of them it is cannot be known by it.
        assert found == (index if machine.partitions == 1 else None)
        device = tuner.AMDDevice(handle)
        assert device.core_voltage() > 0.5
        assert 100_000_000 < device.core_freq() < 4_000_000_000
        assert 90_000_000 < device.mem_freq() < 4_000_000_000
        if not machine.apu:
            assert device.temperature() == JUNCTION
            assert device.total_energy_usage()["energy_accumulator"] > 0


def torch_says(index: int) -> dict:
    """What PyTorch 2.11 asks for torch.cuda.temperature, power_draw, clock_rate, utilization, memory."""
    amdsmi.amdsmi_init()
    handle = amdsmi.amdsmi_get_processor_handles()[index]
    current = amdsmi.AmdSmiTemperatureMetric.CURRENT
    power = amdsmi.amdsmi_get_power_info(handle)
    average = power["average_socket_power"]
    clock = amdsmi.amdsmi_get_clock_info(handle, amdsmi.AmdSmiClkType.GFX)
    try:
        temperature = amdsmi.amdsmi_get_temp_metric(handle, amdsmi.AmdSmiTemperatureType.JUNCTION, current)
    except amdsmi.AmdSmiException as error:
        temperature = error.err_code
    return {
        "temperature": temperature,
        "power": average if average != "N/A" else power["current_socket_power"],
        "clock": clock["cur_clk"] if "cur_clk" in clock else clock["clk"],
        "busy": amdsmi.amdsmi_get_gpu_activity(handle)["gfx_activity"],
        "used": amdsmi.amdsmi_get_gpu_vram_usage(handle)["vram_used"] * 1024 * 1024,
        "serial": amdsmi.amdsmi_get_gpu_asic_info(handle)["asic_serial"],
        "processes": amdsmi.amdsmi_get_gpu_process_list(handle),
    }


def test_pytorch(machine, units):
    units("vendor")
    for index, handle in enumerate(handles()):
        told = torch_says(index)
        assert told["power"] == watts(handle)
        assert told["temperature"] == (2 if machine.apu else JUNCTION)
        assert told["used"] == machine.memory[1] << 20 and told["clock"] > 0 and told["processes"] == []
        assert (told["serial"] == "N/A") == machine.apu


def is_fully_connected(ids: list[int]) -> bool:
    """What vLLM and sglang ask before they reduce over XGMI: is each GPU one XGMI link from each other one?"""
    from amdsmi import AmdSmiException, amdsmi_get_processor_handles, amdsmi_init, amdsmi_shut_down
    from amdsmi import amdsmi_topo_get_link_type

    amdsmi_init()
    try:
        found = [amdsmi_get_processor_handles()[i] for i in ids]
        for i, one in enumerate(found):
            for j, other in enumerate(found):
                if i < j:
                    try:
                        link = amdsmi_topo_get_link_type(one, other)
                        if link["hops"] != 1 or link["type"] != 2:
                            return False
                    except AmdSmiException:
                        return False
        return True
    finally:
        amdsmi_shut_down()


def test_vllm_and_sglang(machine, units):
    count = len(handles())
    assert is_fully_connected(list(range(count))) == (count == 1)
    # Joins all GPUs by XGMI, as on an MI300 board.
    for node in range(1, count + 1):
        for link, other in enumerate((n for n in range(1, count + 1) if n != node), 1):
            path = f"sys/class/kfd/kfd/topology/nodes/{node}/io_links/{link}/properties"
            machine.write_file(path, f"type 11\nnode_from {node}\nnode_to {other}\nweight 15\n")
    assert is_fully_connected(list(range(count)))
    info = amdsmi.amdsmi_get_gpu_asic_info(amdsmi.amdsmi_get_processor_handles()[0])
    assert (info["target_graphics_version"], info["device_id"]) in [("gfx1100", "0x7448"), ("gfx942", "0x74a1")]


def test_gpustacks_detector(packages, machine, units, monkeypatch):
    units("vendor")
    # It looks for PCI devices of this machine, and keeps what it found.
    monkeypatch.setenv("GPUSTACK_RUNTIME_DETECT_NO_PCI_CHECK", "1")
    monkeypatch.syspath_prepend(packages)
    gpustack = third_party.load(packages, "gpustack_runtime.detector.amd", "gpustack_runtime")
    monkeypatch.setattr(gpustack.pyamdsmi, "_libInitialized", False)
    gpustack.AMDDetector.is_supported.cache_clear()
    detector = gpustack.AMDDetector()
    if machine.apu:
        # For what an APU does not count it asks the vendor's older library, which is not here.
        with pytest.raises(gpustack.pyrocmsmi.ROCMSMIError):
            detector.detect_info()
        return
    devices = detector.detect_info()
    assert [device.name for device in devices] == [machine.name] * machine.gpus * machine.partitions
    assert {device.power for device in devices} == {machine.limit}
    assert {device.memory for device in devices} == {machine.memory[0]}
    # It tells devices apart by serial number, which partitions share: of these it shows no use.
    if machine.partitions > 1:
        return
    for device, handle in zip(detector.detect_usage(devices), handles()):
        assert device.power_used == watts(handle)
        assert device.memory_used == machine.memory[1]
        assert (device.temperature, device.cores_utilization) == (JUNCTION, BUSY)


def test_gpustack(machine, units):
    units("vendor")
    given: dict = {}
    exec("from amdsmi import *", given)
    found = handles()
    for handle in found:
        bdf = given["amdsmi_get_gpu_device_bdf"](handle)
        assert given["amdsmi_get_processor_handle_from_bdf"](bdf) in found
        assert given["amdsmi_get_gpu_driver_info"](handle)["driver_name"] == "amdgpu"
        power = given["amdsmi_get_power_info"](handle)
        assert power["socket_power"] == watts(handle)
        assert machine.apu or power["power_limit"] // 1_000_000 == machine.limit
        assert given["amdsmi_topo_get_numa_node_number"](handle) == 0
        assert given["amdsmi_get_xgmi_info"](handle)["xgmi_lanes"] == 0
        if machine.apu:
            continue
        assert given["amdsmi_get_gpu_ecc_count"](handle, given["AmdSmiGpuBlock"].UMC)["correctable_count"] == 0
        metrics = given["amdsmi_get_gpu_metrics_info"](handle)
        assert metrics["temperature_hotspot"] == JUNCTION
        assert metrics["average_socket_power"] == watts(handle)
        assert metrics["average_gfx_activity"] == BUSY
    types = {given["amdsmi_topo_get_link_type"](a, b)["type"] for a in found for b in found if a != b}
    assert types <= {given["AmdSmiLinkType"].AMDSMI_LINK_TYPE_PCIE}


def test_optimum_benchmark(machine, units):
    names = [amdsmi.amdsmi_get_gpu_vendor_name(handle) for handle in handles()]
    assert set(names) == {"Advanced Micro Devices, Inc. [AMD/ATI]"}
    kind = amdsmi.AmdSmiMemoryType.VRAM
    totals = [amdsmi.amdsmi_get_gpu_memory_total(h, mem_type=kind) for h in handles()]
    assert {total >> 20 for total in totals} == {machine.memory[0]}
    assert [amdsmi.amdsmi_get_gpu_process_list(handle) for handle in handles()] == [[]] * len(names)


def test_aiperf(machine, units):
    units("vendor")
    assert tuple(map(int, amdsmi.__version__.partition("+")[0].split("."))) >= (7, 0)
    for handle in handles():
        told = {}
        for name in ("energy_count", "gpu_board_info", "gpu_metrics_info", "gpu_total_ecc_count"):
            try:
                told[name] = getattr(amdsmi, f"amdsmi_get_{name}")(handle)
            except amdsmi.AmdSmiException:
                assert machine.apu and name != "gpu_board_info"
        assert told["gpu_board_info"]["product_name"] == machine.name


OMNISTAT = ["average_gfxclk_frequency", "average_socket_power", "average_uclk_frequency"]


def test_omnistats_sampling(machine, units):
    units("vendor")
    version = amdsmi.amdsmi_get_lib_version()
    assert (version["major"], version["minor"]) >= (7, 0)
    temperatures = amdsmi.AmdSmiTemperatureType
    for handle in handles():
        assert amdsmi.amdsmi_get_gpu_vbios_info(handle)["version"].startswith("113-")
        # Sensors that are not there are found by their errors.
        found = {}
        for kind in temperatures:
            try:
                current = amdsmi.AmdSmiTemperatureMetric.CURRENT
                found[kind.name] = amdsmi.amdsmi_get_temp_metric(handle, kind, current)
            except amdsmi.AmdSmiException:
                continue
        assert found["EDGE"] == EDGE and ("HOTSPOT" in found) == (not machine.apu)
        blocks = [block for block in amdsmi.AmdSmiGpuBlock if block]
        for block in blocks:
            try:
                status = amdsmi.amdsmi_get_gpu_ecc_status(handle, block)
            except amdsmi.AmdSmiException:
                assert machine.apu
                continue
            if status == amdsmi.AmdSmiRasErrState.ENABLED and block.name in ("UMC", "GFX", "SDMA"):
                assert amdsmi.amdsmi_get_gpu_ecc_count(handle, block)["uncorrectable_count"] == 0
        if not machine.apu:
            metrics = amdsmi.amdsmi_get_gpu_metrics_info(handle)
            assert all(int(metrics[name]) > 0 for name in OMNISTAT)
            energy = amdsmi.amdsmi_get_energy_count(handle)
            assert energy["energy_accumulator"] * energy["counter_resolution"] > 0


def test_omnistats_event_collector(machine, units):
    """A thread for each GPU that reads for ever and counts what comes; what is read meanwhile is counted too."""
    found = handles()
    kinds = [amdsmi.AmdSmiEvtNotificationType.THERMAL_THROTTLE]
    readers = [amdsmi.AmdSmiEventReader(handle, kinds) for handle in found]
    counts, reads = [0] * len(readers), [0] * len(readers)
    over = threading.Event()

    def poll(place: int) -> None:
        while not over.is_set():
            counts[place] += len(readers[place].read(100))
            reads[place] += 1

    threads = [threading.Thread(target=poll, args=(place,)) for place in range(len(readers))]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for gpu in range(machine.gpus):
        machine.emit("THERMAL_THROTTLE", gpu=gpu, times=6)
    over.wait(0.5)
    over.set()
    for thread in threads:
        thread.join()
    # One read in 100 milliseconds, one for each event at most, and the one that was under way.
    most = (time.monotonic() - begun) * 10 + 6 + 1
    assert max(reads) <= most
    # The driver tells the first partition of a GPU only.
    assert sum(counts) >= 6 * machine.gpus
    assert {count for count in counts} <= {0, 6}


AMD_SMI_EVENT = """
import amdsmi, gpuev.sim
from amdsmi import amdsmi_exception, amdsmi_interface
with gpuev.sim.Machine(gpus=2) as machine:
    amdsmi.amdsmi_init()
    for handle in amdsmi.amdsmi_get_processor_handles():
        listener = amdsmi_interface.AmdSmiEventReader(handle, amdsmi_interface.AmdSmiEvtNotificationType)
        machine.emit("VMFAULT", pid=4242, process="python3")
        machine.emit("VMFAULT", pid=4242, process="python3", gpu=1)
        try:
            for event in listener.read(2000):
                message = {}
                for item in event["message"].split("  "):
                    if not item == "":
                        parts = item.split(": ")
                        message.update({parts[0]: parts[1]})
                print(event["event"], message, amdsmi.amdsmi_get_gpu_device_bdf(event["processor_handle"]))
        except amdsmi_exception.AmdSmiLibraryException as e:
            assert e.err_code == amdsmi_interface.amdsmi_wrapper.AMDSMI_STATUS_NO_DATA
        listener.stop()
"""


def test_amd_smis_event_command():
    environment = {**os.environ, "GPUEV_AMDSMI_MESSAGES": "vendor"}
    ran = subprocess.run(
        [sys.executable, "-c", AMD_SMI_EVENT], capture_output=True, text=True, env=environment
    )
    fields = "{'PID': '4242', 'task name': 'python3'}"
    lines = [f"VMFAULT {fields} 0000:03:00.0", f"VMFAULT {fields} 0000:04:00.0"]
    assert (ran.stdout.splitlines(), ran.stderr) == (lines, "")
