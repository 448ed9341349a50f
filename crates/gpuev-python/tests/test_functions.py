"""Discovery, sensors, memory, errors and processes: the documented keys and units."""

import pytest


def raises(smi, code):
    return pytest.raises(smi.AmdSmiLibraryException, match=f"\t{code} \\|")


@pytest.mark.gpu_machine(gpus=3, denied=1)
def test_handles_of_a_machine(smi):
    handles = smi.amdsmi_get_processor_handles()
    assert [smi.amdsmi_get_gpu_device_bdf(handle) for handle in handles] == [
        "0000:03:00.0",
        "0000:04:00.0",
        "0000:05:00.0",
    ]
    assert len(set(handles)) == 3
    assert sorted(handles) == handles


@pytest.mark.gpu_machine(gpus=0)
def test_a_machine_without_gpus(smi):
    assert smi.amdsmi_get_processor_handles() == []
    assert smi.amdsmi_get_socket_handles() == []


@pytest.mark.gpu_machine(gpus=2, partitions=4)
def test_sockets_are_gpus_and_processors_their_partitions(smi):
    handles = smi.amdsmi_get_processor_handles()
    sockets = smi.amdsmi_get_socket_handles()
    assert len(handles) == 8
    assert sockets == [handles[0], handles[4]]
    assert len({smi.amdsmi_get_gpu_device_uuid(handle) for handle in handles}) == 8
    infos = [smi.amdsmi_get_gpu_kfd_info(handle) for handle in handles]
    assert [info["current_partition_id"] for info in infos] == [0, 1, 2, 3] * 2
    assert len({info["kfd_id"] for info in infos}) == 8


def test_what_it_is(smi, handle):
    assert smi.amdsmi_get_processor_type(handle) == {
        "processor_type": "AMDSMI_PROCESSOR_TYPE_AMD_GPU"
    }
    assert smi.amdsmi_get_gpu_device_uuid(handle) == "92ff7448-0000-1000-8046-f3a1b0c70000"
    assert smi.amdsmi_get_gpu_kfd_info(handle) == {
        "kfd_id": 0x5A21,
        "node_id": 1,
        "current_partition_id": 0,
    }
    assert smi.amdsmi_get_gpu_asic_info(handle) == {
        "market_name": "AMD Radeon PRO W7900",
        "vendor_id": "0x1002",
        "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
        "subvendor_id": "0x1002",
        "device_id": "0x7448",
        "rev_id": "0x00",
        "asic_serial": "0x9246F3A1B0C70000",
        "oam_id": "N/A",
        "num_compute_units": 96,
        "target_graphics_version": "gfx1100",
        "subsystem_id": "0x0e0d",
    }


@pytest.mark.parametrize("bdf", ["0000:03:00.0", "03:00.0"])
def test_the_handle_of_an_address(smi, handle, bdf):
    assert smi.amdsmi_get_processor_handle_from_bdf(bdf) == handle


@pytest.mark.parametrize(
    "bdf",
    ["", "x", "0000:03:00", "03.00.0", "0000:03:20.0", "0000:03:00.8", "0:3:0.0", "0000:03.00:0"]
    + ["0000:0g:00.0", "0000:03:00.0 ", "00000:03:00.0"],
)
def test_what_is_no_address(smi, bdf):
    with pytest.raises(smi.AmdSmiBdfFormatException) as raised:
        smi.amdsmi_get_processor_handle_from_bdf(bdf)
    assert raised.value.bdf == bdf


def test_an_address_without_a_gpu(smi):
    with raises(smi, 31):
        smi.amdsmi_get_processor_handle_from_bdf("0000:ff:00.0")
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_processor_handle_from_bdf(5)


def test_temperatures_are_millidegrees(gpu_machine, smi, handle):
    T, M = smi.AmdSmiTemperatureType, smi.AmdSmiTemperatureMetric
    gpu_machine.set_temperature("edge", 61_000)
    gpu_machine.set_temperature("junction", 74_500)
    gpu_machine.set_temperature("memory", 88_000)

    def current(sensor):
        return smi.amdsmi_get_temp_metric(handle, sensor, M.CURRENT)

    assert [current(T.EDGE), current(T.HOTSPOT), current(T.JUNCTION)] == [61_000, 74_500, 74_500]
    assert current(T.VRAM) == 88_000
    assert smi.amdsmi_get_temp_metric(handle, T.EDGE, M.CRITICAL) == 100_000
    with raises(smi, 2):
        smi.amdsmi_get_temp_metric(handle, T.EDGE, M.LOWEST)
    for sensor, metric in [(0, M.CURRENT), (T.EDGE, 0), (M.CURRENT, T.EDGE), (None, None)]:
        with pytest.raises(smi.AmdSmiParameterException):
            smi.amdsmi_get_temp_metric(handle, sensor, metric)


def test_powers_are_microwatts_and_voltages_millivolts(gpu_machine, smi, handle):
    gpu_machine.set_power(123_000_000)
    info = smi.amdsmi_get_power_info(handle)
    assert info == {
        "socket_power": 123_000_000,
        "current_socket_power": "N/A",
        "average_socket_power": 123_000_000,
        "gfx_voltage": info["gfx_voltage"],
        "soc_voltage": info["soc_voltage"],
        "mem_voltage": info["mem_voltage"],
        "power_limit": 241_000_000,
    }
    assert 500 <= info["gfx_voltage"] <= 1500
    assert smi.amdsmi_get_power_cap_info(handle) == {
        "power_cap": 241_000_000,
        "default_power_cap": 241_000_000,
        "dpm_cap": "N/A",
        "min_power_cap": 0,
        "max_power_cap": 277_000_000,
    }
    with raises(smi, 2):
        smi.amdsmi_get_power_cap_info(handle, 1)
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_power_cap_info(handle, "0")


def test_activity_is_percent(gpu_machine, smi, handle):
    gpu_machine.set_activity(87)
    activity = smi.amdsmi_get_gpu_activity(handle)
    assert set(activity) == {"gfx_activity", "umc_activity", "mm_activity"}
    assert activity["gfx_activity"] == 87
    assert all(value == "N/A" or 0 <= value <= 100 for value in activity.values())


def test_clocks_are_megahertz(gpu_machine, smi, handle):
    C = smi.AmdSmiClkType
    gpu_machine.set_activity(100)
    clock = smi.amdsmi_get_clock_info(handle, C.GFX)
    assert (clock["min_clk"], clock["max_clk"]) == (500, 2495)
    assert clock["min_clk"] <= clock["clk"] <= clock["max_clk"]
    assert set(clock) == {"clk", "min_clk", "max_clk", "clk_locked", "clk_deep_sleep"}
    assert smi.amdsmi_get_clock_info(handle, C.MEM)["max_clk"] == 1124
    assert smi.amdsmi_get_clock_info(handle, C.SYS) == clock
    with raises(smi, 2):
        smi.amdsmi_get_clock_info(handle, C.PCIE)
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_clock_info(handle, 0)


def test_memory(smi, handle):
    M = smi.AmdSmiMemoryType
    total = smi.amdsmi_get_gpu_memory_total(handle, M.VRAM)
    used = smi.amdsmi_get_gpu_memory_usage(handle, M.VRAM)
    assert (total, used) == (48_301_604_864, 27_418_624)
    assert smi.amdsmi_get_gpu_vram_usage(handle) == {
        "vram_total": total >> 20,
        "vram_used": used >> 20,
    }
    assert smi.amdsmi_get_gpu_memory_usage(handle, M.GTT) > 0
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_gpu_memory_total(handle, 0)


def test_errors_in_total_and_by_block(gpu_machine, smi, handle):
    B = smi.AmdSmiGpuBlock
    gpu_machine.add_ras_error("umc")
    gpu_machine.add_ras_error("umc")
    gpu_machine.add_ras_error("gfx", uncorrectable=True)
    total = smi.amdsmi_get_gpu_total_ecc_count(handle)
    assert total == {"correctable_count": 2, "uncorrectable_count": 1, "deferred_count": 0}
    umc = smi.amdsmi_get_gpu_ecc_count(handle, B.UMC)
    assert umc == {"correctable_count": 2, "uncorrectable_count": 0, "deferred_count": 0}
    assert smi.amdsmi_get_gpu_ecc_count(handle, B.GFX)["uncorrectable_count"] == 1
    assert smi.amdsmi_get_gpu_ecc_count(handle, B.XGMI_WAFL)["correctable_count"] == 0
    with raises(smi, 2):
        smi.amdsmi_get_gpu_ecc_count(handle, B.FUSE)
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_gpu_ecc_count(handle, 1)


def test_processes(gpu_machine, smi, handle):
    assert smi.amdsmi_get_gpu_process_list(handle) == []
    gpu_machine.add_process(4242, "my train job", vram=8 << 30)
    gpu_machine.add_process(77, b"\xffname", vram=1 << 20)
    gpu_machine.add_process(99, "elsewhere", gpus=[])
    odd, job = smi.amdsmi_get_gpu_process_list(handle)
    assert (odd["pid"], odd["name"]) == (77, "\\xffname")
    assert set(job) == {"name", "pid", "mem", "engine_usage", "memory_usage", "cu_occupancy"}
    assert (job["pid"], job["name"]) == (4242, "my train job")
    assert set(job["engine_usage"]) == {"gfx", "enc"}
    assert set(job["memory_usage"]) == {"gtt_mem", "cpu_mem", "vram_mem"}
    assert job["memory_usage"]["vram_mem"] == 8 << 30
    assert job["mem"] == sum(job["memory_usage"].values())
    assert job["cu_occupancy"] == "N/A" or 0 <= job["cu_occupancy"] <= 100


def test_what_a_gpu_lacks(gpu_machine, smi, handle):
    device = f"sys/bus/pci/devices/{smi.amdsmi_get_gpu_device_bdf(handle)}"
    gpu = handle.gpu
    for name in ("hwmon", "gpu_metrics", "gpu_busy_percent", "mem_busy_percent", "ras"):
        gpu_machine.remove_file(f"{device}/{name}")
    for name in ("mem_info_vram_total", "vcn_busy_percent"):
        gpu_machine.remove_file(f"{device}/{name}")
    assert set(smi.amdsmi_get_gpu_activity(handle).values()) == {"N/A"}
    assert set(smi.amdsmi_get_power_info(handle).values()) == {"N/A"}
    lacks = [
        lambda: smi.amdsmi_get_temp_metric(
            handle, smi.AmdSmiTemperatureType.EDGE, smi.AmdSmiTemperatureMetric.CURRENT
        ),
        lambda: smi.amdsmi_get_power_cap_info(handle),
        lambda: smi.amdsmi_get_gpu_total_ecc_count(handle),
        lambda: smi.amdsmi_get_gpu_vram_usage(handle),
    ]
    for call in lacks:
        with raises(smi, 2):
            call()
    assert gpu.bdf == "0000:03:00.0"


def test_a_gpu_that_is_gone(gpu_machine, smi, handle):
    calls = [
        lambda: smi.amdsmi_get_gpu_device_uuid(handle),
        lambda: smi.amdsmi_get_gpu_asic_info(handle),
        lambda: smi.amdsmi_get_temp_metric(
            handle, smi.AmdSmiTemperatureType.EDGE, smi.AmdSmiTemperatureMetric.CURRENT
        ),
        lambda: smi.amdsmi_get_power_info(handle),
        lambda: smi.amdsmi_get_power_cap_info(handle),
        lambda: smi.amdsmi_get_gpu_activity(handle),
        lambda: smi.amdsmi_get_clock_info(handle, smi.AmdSmiClkType.GFX),
        lambda: smi.amdsmi_get_gpu_vram_usage(handle),
        lambda: smi.amdsmi_get_gpu_memory_total(handle, smi.AmdSmiMemoryType.VRAM),
        lambda: smi.amdsmi_get_gpu_memory_usage(handle, smi.AmdSmiMemoryType.GTT),
        lambda: smi.amdsmi_get_gpu_total_ecc_count(handle),
        lambda: smi.amdsmi_get_gpu_ecc_count(handle, smi.AmdSmiGpuBlock.UMC),
        lambda: smi.amdsmi_get_gpu_process_list(handle),
    ]
    gpu_machine.remove_gpu(0)
    assert smi.amdsmi_get_processor_handles() == []
    for call in calls:
        with raises(smi, 31):
            call()
    assert smi.amdsmi_get_gpu_device_bdf(handle) == "0000:03:00.0"
    gpu_machine.restore_gpu(0)
    for call in calls:
        call()


def test_the_whole_api_has_docstrings(smi):
    for name in smi.__all__:
        assert getattr(smi, name).__doc__, name
    for name in ("read", "stop", "__init__"):
        text = getattr(smi.AmdSmiEventReader, name).__doc__
        assert text, name


def test_the_vendors_modules_are_importable(smi):
    from amdsmi import amdsmi_exception, amdsmi_interface

    assert amdsmi_exception.AmdSmiException is smi.AmdSmiException
    assert amdsmi_interface.AmdSmiEventReader is smi.AmdSmiEventReader
