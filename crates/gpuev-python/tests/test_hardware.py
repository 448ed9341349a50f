"""Caches, power profiles, policies, what is known of errors, compute processes, and the tables of APUs."""

from __future__ import annotations

import struct

import pytest
from test_functions import raises

GPU = "sys/bus/pci/devices/0000:03:00.0"
NODE = "sys/class/kfd/kfd/topology/nodes/1"


def cache(level: int, kib: int, kind: int, siblings: str) -> str:
    return (
        f"processor_id_low 2147487744\nlevel {level}\nsize {kib}\ncache_line_size 128\n"
        f"cache_lines_per_tag 0\nassociation 0\nlatency 0\ntype {kind}\nsibling_map {siblings}\n"
    )


def test_caches(gpu_machine, smi, handle):
    with raises(smi, 40):
        smi.amdsmi_get_gpu_cache_info(handle)
    caches = [cache(1, 16, 9, "1,0,0"), cache(1, 16, 9, "0,1,0"), cache(1, 64, 10, "1,1,0")]
    caches += [cache(2, 4096, 9, "1,1,1"), "level 3\nsize 0\ntype 9\nsibling_map 1\n", "level 1\n"]
    for place, text in enumerate(caches):
        gpu_machine.write_file(f"{NODE}/caches/{place}/properties", text)
    assert smi.amdsmi_get_gpu_cache_info(handle) == {
        "cache": [
            {
                "cache_properties": properties,
                "cache_size": size,
                "cache_level": level,
                "max_num_cu_shared": shared,
                "num_cache_instance": count,
            }
            for properties, size, level, shared, count in [
                (["DATA_CACHE", "SIMD_CACHE"], 16, 1, 1, 2),
                (["INST_CACHE", "SIMD_CACHE"], 64, 1, 2, 1),
                (["DATA_CACHE", "SIMD_CACHE"], 4096, 2, 3, 1),
            ]
        ]
    }


def test_width_of_the_memory(gpu_machine, smi, handle):
    assert smi.amdsmi_get_gpu_vram_info(handle)["vram_bit_width"] == 384
    gpu_machine.write_file(f"{NODE}/mem_banks/0/properties", "heap_type 1\nsize_in_bytes 48301604864\n")
    assert smi.amdsmi_get_gpu_vram_info(handle)["vram_bit_width"] == "N/A"


LINES = """\
PROFILE_INDEX(NAME) CLOCK_TYPE(NAME) FPS MinActiveFreqType MinActiveFreq
 0 BOOTUP_DEFAULT :
                    0(       GFXCLK)       0       5       1       0
 1 3D_FULL_SCREEN*:
                    0(       GFXCLK)       0       5       1       0
 6         CUSTOM :
                    0(       GFXCLK)       0       5       1       0
"""
COLUMNS = """\
                              0 BOOTUP_DEFAULT  1 3D_FULL_SCREEN  5 COMPUTE*  6 CUSTOM  7 WINDOW_3D
Mid Level Activity            1               1
"""
SHORT = " 0 BOOTUP_DEFAULT*\n 3          VIDEO\n 4             VR\n"


@pytest.mark.parametrize(
    ("text", "available", "current", "count"),
    [(LINES, 0x61, 0x20, 3), (COLUMNS, 0x69, 0x08, 4), (SHORT, 0x52, 0x40, 3)],
    ids=["lines", "columns", "short"],
)
def test_power_profiles(gpu_machine, smi, handle, text, available, current, count):
    gpu_machine.write_file(f"{GPU}/pp_power_profile_mode", text)
    assert smi.amdsmi_get_gpu_power_profile_presets(handle, 0) == {
        "available_profiles": available,
        "current": current,
        "num_profiles": count,
    }
    with raises(smi, 2):
        smi.amdsmi_get_gpu_power_profile_presets(handle, 1)
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_gpu_power_profile_presets(handle, "0")


def test_a_profile_that_the_vendor_has_no_bit_for(gpu_machine, smi, handle):
    for text in (" 0 BOOTUP_DEFAULT\n 7 WINDOW_3D*\n", "", None):
        if text is None:
            gpu_machine.remove_file(f"{GPU}/pp_power_profile_mode")
        else:
            gpu_machine.write_file(f"{GPU}/pp_power_profile_mode", text)
        with raises(smi, 2):
            smi.amdsmi_get_gpu_power_profile_presets(handle, 0)


def test_policies(gpu_machine, smi, handle):
    for function in (smi.amdsmi_get_soc_pstate, smi.amdsmi_get_xgmi_plpd):
        with raises(smi, 2):
            function(handle)
    gpu_machine.write_file(f"{GPU}/pm_policy/soc_pstate", "0 : soc_pstate_default\n1 : soc_pstate_0*\n")
    assert smi.amdsmi_get_soc_pstate(handle) == {
        "num_supported": 2,
        "current_id": 1,
        "policies": [
            {"policy_id": 0, "policy_description": "soc_pstate_default"},
            {"policy_id": 1, "policy_description": "soc_pstate_0"},
        ],
    }
    gpu_machine.write_file(f"{GPU}/pm_policy/xgmi_plpd", "1 : plpd_default *\n2 : plpd_optimized\n")
    told = smi.amdsmi_get_xgmi_plpd(handle)
    assert (told["num_supported"], told["current_id"]) == (2, 1)
    assert [policy["policy_description"] for policy in told["plpds"]] == ["plpd_default", "plpd_optimized"]


def test_how_errors_are_found(gpu_machine, smi, handle):
    with raises(smi, 2):
        smi.amdsmi_get_gpu_ras_feature_info(handle)
    gpu_machine.write_file(f"{GPU}/ras/version", "table version: 0x21000\n")
    gpu_machine.write_file(f"{GPU}/ras/schema", "schema: 0x9\n")
    assert smi.amdsmi_get_gpu_ras_feature_info(handle) == {
        "eeprom_version": "0x21000",
        "parity_schema": True,
        "single_bit_schema": False,
        "double_bit_schema": False,
        "poison_schema": True,
    }


def test_bad_page_threshold(gpu_machine, smi, handle):
    with raises(smi, 2):
        smi.amdsmi_get_gpu_bad_page_threshold(handle)
    card = smi.amdsmi_get_gpu_enumeration_info(handle)["drm_card"]
    gpu_machine.write_file(f"sys/kernel/debug/dri/{card}/ras/bad_page_cnt_threshold", "250\n")
    assert smi.amdsmi_get_gpu_bad_page_threshold(handle) == 250


@pytest.mark.gpu_machine(gpus=2)
def test_compute_processes(gpu_machine, smi):
    assert smi.amdsmi_get_gpu_compute_process_info() == []
    gpu_machine.add_process(4242, "train", gpus=[0, 1], vram=8 << 30)
    first, second = (smi.amdsmi_get_gpu_kfd_info(h)["kfd_id"] for h in smi.amdsmi_get_processor_handles())
    process = "sys/class/kfd/kfd/proc/4242"
    gpu_machine.write_file(f"{process}/sdma_{first}", "1500\n")
    gpu_machine.write_file(f"{process}/sdma_{second}", "500\n")
    # Of 96 compute units each.
    gpu_machine.write_file(f"{process}/stats_{first}/cu_occupancy", "96\n")
    told = {"process_id": 4242, "vram_usage": 16 << 30, "sdma_usage": 2000, "cu_occupancy": 50}
    assert smi.amdsmi_get_gpu_compute_process_info() == [told]
    assert smi.amdsmi_get_gpu_compute_process_info_by_pid(4242) == told
    for nobody in (1, -1, 1 << 40):
        with raises(smi, 31):
            smi.amdsmi_get_gpu_compute_process_info_by_pid(nobody)
    with pytest.raises(smi.AmdSmiParameterException):
        smi.amdsmi_get_gpu_compute_process_info_by_pid("4242")


def apu_table(size: int, revision: tuple[int, int], fields: dict[int, int]) -> bytes:
    """A table with 16-bit fields at their offsets, all others without a value."""
    table = bytearray(b"\xff" * size)
    struct.pack_into("<HBB", table, 0, size, *revision)
    for offset, value in fields.items():
        struct.pack_into("<H", table, offset, value)
    return bytes(table)


@pytest.mark.parametrize(
    ("size", "revision", "clock", "throttled"),
    [(120, (2, 1), 76, 108), (152, (2, 3), 76, 108), (120, (2, 0), 80, 112)],
    ids=["2.1", "2.3", "2.0"],
)
def test_the_table_of_an_apu(gpu_machine, smi, handle, size, revision, clock, throttled):
    gpu_machine.set_power(15_000_000)
    gpu_machine.set_temperature("edge", 48_900)
    fields = {clock: 1800, clock + 4: 2400, clock + 8: 900, throttled: 0, throttled + 2: 0}
    gpu_machine.write_file(f"{GPU}/gpu_metrics", apu_table(size, revision, fields))
    metrics = smi.amdsmi_get_gpu_metrics_info(handle)
    assert metrics["common_header.format_revision"] == 2
    assert (metrics["current_gfxclk"], metrics["current_uclk"], metrics["current_vclk0"]) == (1800, 2400, 900)
    assert metrics["throttle_status"] is False
    assert metrics["temperature_edge"] == 48
    assert metrics["average_socket_power"] == 15
    assert metrics["energy_accumulator"] == metrics["temperature_hotspot"] == "N/A"
    # What it has no counter for stays unsupported.
    for function in (smi.amdsmi_get_energy_count, smi.amdsmi_get_violation_status, smi.amdsmi_get_link_metrics):
        with raises(smi, 2):
            function(handle)


def test_the_table_of_strix_halo(gpu_machine, smi, handle):
    table = apu_table(264, (3, 0), {174: 2900, 176: 600, 184: 0, 186: 1000})
    gpu_machine.set_power(120_000_000)
    gpu_machine.write_file(f"{GPU}/gpu_metrics", table)
    metrics = smi.amdsmi_get_gpu_metrics_info(handle)
    assert metrics["average_gfxclk_frequency"] == 2900 and metrics["average_socclk_frequency"] == 600
    assert metrics["average_uclk_frequency"] == 1000 and metrics["average_vclk0_frequency"] == 0
    assert metrics["average_socket_power"] == 120 and metrics["current_gfxclk"] == "N/A"
