"""Machines that are not one card with everything: what the vendor's functions answer there."""

from __future__ import annotations

from pathlib import Path

import pytest

import amdsmi
from gpuev.amdsmi import amdsmi_wrapper
from gpuev.sim import Machine, machines

DEVICE = "sys/bus/pci/devices/0000:03:00.0"


def raises(code: int):
    return pytest.raises(amdsmi.AmdSmiLibraryException, match=f"\t{code} \\|")


def without_driver(machine: Machine) -> None:
    machine.remove_file("sys/module/amdgpu")
    machine.remove_file("sys/class/kfd")


def test_wsl_has_no_driver(gpu_machine):
    without_driver(gpu_machine)
    gpu_machine.write_file("dev/dxg", "")
    gpu_machine.write_file("proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n")
    with raises(amdsmi_wrapper.AMDSMI_STATUS_DRIVER_NOT_LOADED) as raised:
        amdsmi.amdsmi_init()
    assert "WSL" in str(raised.value.__cause__)
    # It is not initialized, so that nobody takes it for a machine without GPUs.
    with raises(amdsmi_wrapper.AMDSMI_STATUS_NOT_INIT):
        amdsmi.amdsmi_get_processor_handles()


def test_a_machine_without_the_driver(gpu_machine):
    without_driver(gpu_machine)
    with raises(34):
        amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_ALL_PROCESSORS)


@pytest.mark.gpu_machine(gpus=0)
def test_a_machine_whose_driver_has_no_gpu(smi):
    assert smi.amdsmi_get_processor_handles() == []


def test_a_driver_without_kfd_has_no_gpu_to_list(gpu_machine, smi):
    gpu_machine.remove_file("sys/class/kfd")
    assert smi.amdsmi_get_processor_handles() == []


@pytest.mark.parametrize("text", [None, "", "0\n", "0000000000000000\n"])
def test_a_card_without_a_unique_id_has_the_vendors_uuid(gpu_machine, smi, text):
    gpu_machine.remove_file(f"{DEVICE}/unique_id")
    if text is not None:
        gpu_machine.write_file(f"{DEVICE}/unique_id", text)
    node = "sys/class/kfd/kfd/topology/nodes/1/properties"
    lines = Path(gpu_machine.root, node).read_text().splitlines()
    gpu_machine.write_file(node, "\n".join(line for line in lines if not line.startswith("unique_id")) + "\n")
    [handle] = smi.amdsmi_get_processor_handles()
    assert smi.amdsmi_get_gpu_device_uuid(handle) == "00ff7448-0000-1000-8000-000000000000"
    assert smi.amdsmi_get_gpu_asic_info(handle)["asic_serial"] == "N/A"
    assert smi.amdsmi_get_gpu_enumeration_info(handle)["hip_uuid"] == "N/A"


@pytest.mark.gpu_machine(gpus=3, denied=1)
def test_in_a_container_numbers_are_those_of_the_gpus_that_are_seen(smi):
    infos = [smi.amdsmi_get_gpu_enumeration_info(h) for h in smi.amdsmi_get_processor_handles()]
    assert [info["hip_id"] for info in infos] == [0, 1, 2]
    assert len({info["drm_render"] for info in infos}) == 3


@pytest.mark.gpu_machine(gpus=2, partitions=4)
def test_partitions_are_told_apart(gpu_machine, smi):
    gpu_machine.add_process(4711, "train", gpus=[5], vram=512 << 20)
    handles = smi.amdsmi_get_processor_handles()
    for place, handle in enumerate(handles):
        profile = smi.amdsmi_get_gpu_accelerator_partition_profile(handle)
        assert profile["partition_id"] == [place % 4]
        assert profile["partition_profile"]["profile_type"] == "QPX"
        assert profile["partition_profile"]["num_partitions"] == 4
        assert smi.amdsmi_get_gpu_bdf_id(handle) >> 28 & 0xF == place % 4
        assert smi.amdsmi_get_gpu_compute_partition(handle) == "QPX"
        assert smi.amdsmi_get_gpu_memory_partition(handle) == "NPS1"
        # Its own memory, of which what its processes hold is used.
        whole = int(Path(gpu_machine.root, "sys/class/drm/renderD128/device/mem_info_vram_total").read_text())
        vram = smi.amdsmi_get_gpu_vram_usage(handle)
        assert vram["vram_total"] == whole // 4 >> 20
        assert vram["vram_used"] == (512 if place == 5 else 0)
    assert len({smi.amdsmi_get_gpu_enumeration_info(h)["drm_render"] for h in handles}) == 8
    assert len({smi.amdsmi_get_gpu_device_uuid(h) for h in handles}) == 8


@pytest.mark.gpu_machine(gpus=2)
def test_xgmi_links_and_what_they_can_do(gpu_machine, smi):
    first, second = smi.amdsmi_get_processor_handles()
    xgmi = smi.AmdSmiLinkType.AMDSMI_LINK_TYPE_XGMI
    assert smi.amdsmi_topo_get_link_type(first, second) == {"hops": 2, "type": 1}
    assert smi.amdsmi_topo_get_link_weight(first, second) == 40
    assert not smi.amdsmi_is_P2P_accessible(first, second)
    with raises(2):
        smi.amdsmi_topo_get_p2p_status(first, second)
    with raises(2):
        smi.amdsmi_get_minmax_bandwidth_between_processors(first, second)
    link = "type 11\nnode_to 2\nweight 15\nmin_bandwidth 50000\nmax_bandwidth 100000\nflags 2147483657\n"
    gpu_machine.write_file("sys/class/kfd/kfd/topology/nodes/1/io_links/1/properties", link)
    assert smi.amdsmi_topo_get_link_type(first, second) == {"hops": 1, "type": int(xgmi)}
    assert smi.amdsmi_topo_get_link_weight(first, second) == 15
    assert smi.amdsmi_is_P2P_accessible(first, second)
    assert smi.amdsmi_get_minmax_bandwidth_between_processors(first, second) == {
        "min_bandwidth": 50000,
        "max_bandwidth": 100000,
    }
    assert smi.amdsmi_topo_get_p2p_status(first, second) == {
        "type": int(xgmi),
        "cap": {
            "is_iolink_coherent": 1,
            "is_iolink_atomics_32bit": 1,
            "is_iolink_atomics_64bit": 0,
            "is_iolink_dma": 1,
            "is_iolink_bi_directional": 1,
        },
    }
    assert smi.amdsmi_get_link_topology_nearest(first, xgmi) == {"processor_list": [second]}
    # A GPU and itself.
    assert smi.amdsmi_topo_get_link_type(first, first) == {"hops": 0, "type": 0}
    assert smi.amdsmi_is_P2P_accessible(first, first)
    with raises(1):
        smi.amdsmi_get_minmax_bandwidth_between_processors(first, first)


# A table of the MI300 family, revision 1.6, and where some of its fields are.
MI300 = {4: 71, 6: 64, 8: 60, 10: 512, 12: 93, 14: 40, 16: 1 << 40, 24: 77, 32: 1000, 36: 0, 40: 500, 60: 16, 62: 320}
WIDTHS = {16: 8, 24: 8, 32: 4, 36: 4, 40: 4}


def table(values: dict[int, int]) -> bytes:
    data = bytearray(b"\xff" * 1664)
    data[:4] = 1664 .to_bytes(2, "little") + bytes([1, 6])
    for offset, value in values.items():
        width = WIDTHS.get(offset, 2)
        data[offset : offset + width] = value.to_bytes(width, "little")
    return bytes(data)


def test_the_table_of_an_accelerator(gpu_machine, smi, handle):
    gpu_machine.write_file(f"{DEVICE}/gpu_metrics", table(MI300))
    metrics = smi.amdsmi_get_gpu_metrics_info(handle)
    assert list(metrics) == list(smi.amdsmi_interface._NA_amdsmi_get_gpu_metrics_info())
    assert (metrics["temperature_hotspot"], metrics["current_socket_power"]) == (71, 512)
    assert (metrics["temperature_edge"], metrics["average_socket_power"]) == ("N/A", "N/A")
    assert (metrics["ppt_residency_acc"], metrics["pcie_link_speed"]) == (500, 320)
    assert metrics["current_gfxclks"] == ["N/A"] * 8 and metrics["current_gfxclk"] == "N/A"
    assert metrics["xcp_stats.gfx_busy_inst"] == [["N/A"] * 8] * 8
    assert smi.amdsmi_get_energy_count(handle) == {
        "energy_accumulator": 1 << 40,
        "counter_resolution": 15.2587890625,
        "timestamp": 77,
    }
    header = {"structure_size": 1664, "format_revision": 1, "content_revision": 6}
    assert smi.amdsmi_get_gpu_metrics_header_info(handle) == header


def test_violations_are_the_shares_of_a_tenth_of_a_second(gpu_machine, smi, handle, monkeypatch):
    from gpuev.amdsmi import _telemetry

    gpu_machine.write_file(f"{DEVICE}/gpu_metrics", table(MI300))
    after = table({**MI300, 32: 1100, 40: 525})
    monkeypatch.setattr(
        _telemetry.time, "sleep", lambda seconds: gpu_machine.write_file(f"{DEVICE}/gpu_metrics", after)
    )
    status = smi.amdsmi_get_violation_status(handle)
    assert (status["acc_counter"], status["acc_ppt_pwr"]) == (1100, 525)
    assert (status["per_ppt_pwr"], status["active_ppt_pwr"]) == (25, True)
    assert (status["per_prochot_thrm"], status["active_prochot_thrm"]) == (0, False)
    assert (status["per_hbm_thrm"], status["active_hbm_thrm"]) == ("N/A", "N/A")
    assert status["per_low_utilization"] == [["N/A"] * 8] * 8


def test_a_gpu_that_is_gone_says_so_everywhere(gpu_machine, smi, handle):
    gpu_machine.remove_gpu(0)
    for ask in (
        smi.amdsmi_get_energy_count,
        smi.amdsmi_get_gpu_board_info,
        smi.amdsmi_get_gpu_metrics_info,
        smi.amdsmi_topo_get_numa_node_number,
        smi.amdsmi_get_fw_info,
    ):
        with raises(31):
            ask(handle)


def test_bad_pages_and_firmware(gpu_machine, smi, handle):
    assert smi.amdsmi_get_gpu_bad_page_info(handle) == []
    gpu_machine.write_file(f"{DEVICE}/ras/gpu_vram_bad_pages", "0x00abcdef : 0x00001000 : P\n")
    page = {"value": 0, "page_address": 0xABCDEF, "page_size": 4096, "status": 1}
    assert smi.amdsmi_get_gpu_bad_page_info(handle) == [page]
    gpu_machine.write_file(f"{DEVICE}/fw_version/smc_fw_version", "0x00557e00\n")
    gpu_machine.write_file(f"{DEVICE}/fw_version/sos_fw_version", "0x0036022b\n")
    gpu_machine.write_file(f"{DEVICE}/fw_version/mec_fw_version", "0x000000b5\n")
    listed = smi.amdsmi_get_fw_info(handle)["fw_list"]
    assert {entry["fw_name"].name: entry["fw_version"] for entry in listed} == {
        "AMDSMI_FW_ID_CP_MEC1": "181",
        "AMDSMI_FW_ID_PM": "00.85.126.00",
        "AMDSMI_FW_ID_PSP_SOSDRV": "00.36.02.2B",
    }


@pytest.mark.parametrize(
    ("name", "files", "answer"),
    [
        ("pci_bandwidth", {"pp_dpm_pcie": "0: 2.5GT/s, x1 619Mhz\n1: 16.0GT/s, x16 619Mhz *\n"}, [1, 16]),
        ("process_isolation", {"enforce_isolation": "1\n"}, 1),
        ("perf_level", {"power_dpm_force_performance_level": "profile_peak\n"}, "AMDSMI_DEV_PERF_LEVEL_STABLE_PEAK"),
        ("overdrive_level", {"pp_sclk_od": "5\n"}, 5),
        ("topo_numa_affinity", {"numa_node": "-1\n"}, -1),
        ("vram_vendor", {"mem_info_vram_vendor": "hynix\n"}, "hynix"),
    ],
)
def test_what_one_file_says(gpu_machine, smi, handle, name, files, answer):
    for file, text in files.items():
        gpu_machine.write_file(f"{DEVICE}/{file}", text)
    told = getattr(smi, f"amdsmi_get_gpu_{name}")(handle)
    if name == "pci_bandwidth":
        assert told["transfer_rate"]["frequency"] == [2_500_000_000, 16_000_000_000]
        told = [told["transfer_rate"]["current"], told["lanes"][1]]
    assert told == answer
    for file in files:
        gpu_machine.remove_file(f"{DEVICE}/{file}")
    if name != "vram_vendor":
        with raises(2):
            getattr(smi, f"amdsmi_get_gpu_{name}")(handle)


@pytest.mark.parametrize("name", machines())
def test_every_machine_answers_or_says_that_it_cannot(name):
    """Machines as people found them: nothing but the documented exceptions, and what programs need at their start."""
    with Machine(machine=name):
        try:
            amdsmi.amdsmi_init()
        except amdsmi.AmdSmiLibraryException as error:
            assert error.err_code == amdsmi_wrapper.AMDSMI_STATUS_DRIVER_NOT_LOADED
            return
        try:
            handles = amdsmi.amdsmi_get_processor_handles()
            for handle in handles:
                ask_everything(handle, handles)
        finally:
            amdsmi.amdsmi_shut_down()


def ask_everything(handle, handles) -> None:
    from gpuev.amdsmi import _identity, _telemetry

    assert len(amdsmi.amdsmi_get_gpu_device_uuid(handle)) == 36
    assert amdsmi.amdsmi_get_gpu_enumeration_info(handle)["hip_id"] in range(len(handles))
    assert amdsmi.amdsmi_get_gpu_board_info(handle)["product_name"]
    assert amdsmi.amdsmi_get_gpu_vendor_name(handle).startswith("Advanced Micro Devices")
    for other in handles:
        try:
            link = amdsmi.amdsmi_topo_get_link_type(handle, other)
        except amdsmi.AmdSmiLibraryException as error:
            assert error.err_code == 2
        else:
            assert link["hops"] in range(5) and link["type"] in range(3)
            assert (link["hops"] == 0) == (handle == other)
    for name in (*_identity.__all__, *_telemetry.__all__):
        function = getattr(amdsmi, name)
        if function.__code__.co_argcount != 1 or "violation" in name or "status_code" in name:
            continue
        try:
            assert function(handle) is not None
        except amdsmi.AmdSmiException:
            continue
