//! What the kind of chip says that KFD does not.
//!
//! Sources: the driver's list of PCI ids (`drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c`), the versions of the graphics
//! core for which it sets `AMD_IS_APU` (`amdgpu_discovery.c`), and their instruction sets (`kfd_device.c`).

use crate::GfxTarget;

/// The instruction set of a chip that the first kernels with KFD knew: since Linux 5.16 KFD says it itself.
pub(super) fn gfx_target_of(device_id: u16) -> Option<GfxTarget> {
    let target = match device_id {
        // Kaveri, Hawaii, Carrizo, Tonga.
        0x1304..=0x1318 | 0x131b..=0x131d => 70_000,
        0x67a0..=0x67a2 | 0x67a8..=0x67aa | 0x67b0 | 0x67b1 | 0x67b8..=0x67be => 70_001,
        0x9870 | 0x9874..=0x9877 => 80_001,
        0x6920 | 0x6921 | 0x6928..=0x692b | 0x692f | 0x6930 | 0x6938 | 0x6939 => 80_002,
        // Fiji, Polaris 10, 11 and 12, Vega M.
        0x7300 | 0x730f => 80_003,
        0x67c0..=0x67d0 | 0x67df | 0x6fdf | 0x67e0..=0x67ff => 80_003,
        0x6980..=0x699f | 0x694c..=0x694f => 80_003,
        // Vega 10, 12 and 20; Raven and Picasso; Renoir, Lucienne, Cezanne, Barcelo.
        0x6860..=0x687f => 90_000,
        0x69a0..=0x69af => 90_004,
        0x66a0..=0x66af => 90_006,
        0x15dd | 0x15d8 => 90_002,
        0x15e7 | 0x1636 | 0x1638 | 0x164c => 90_012,
        // Arcturus (MI100), Aldebaran (MI200).
        0x7388 | 0x738c | 0x738e | 0x7390 => 90_008,
        0x7408 | 0x740c | 0x740f | 0x7410 => 90_010,
        // Navi 10, 12, 14; Cyan Skillfish.
        0x7310..=0x731f => 100_100,
        0x7360 | 0x7362 => 100_101,
        0x7340..=0x734f => 100_102,
        0x13f9..=0x13fe | 0x143f => 100_103,
        // Navi 21 to 24; Van Gogh; Rembrandt.
        0x73a0..=0x73bf => 100_300,
        0x73c0..=0x73df => 100_301,
        0x73e0..=0x73ff => 100_302,
        0x7420..=0x743f => 100_304,
        0x163f => 100_303,
        0x164d | 0x1681 => 100_305,
        _ => return None,
    };
    Some(GfxTarget(target))
}

/// Whether chips of this instruction set share package and memory with a CPU; `None` where there are both, and for
/// chips that are newer than this list.
pub(super) fn is_apu(target: GfxTarget) -> Option<bool> {
    match target.0 {
        70_000
        | 80_001
        | 80_100
        | 90_002
        | 90_009
        | 90_012
        | 100_103
        | 100_303
        | 100_305
        | 100_306
        | 110_003
        | 110_500..=110_599 => Some(true),
        70_001
        | 80_002
        | 80_003
        | 90_000
        | 90_004
        | 90_006
        | 90_008
        | 90_010
        | 90_500
        | 100_100..=100_102
        | 100_300..=100_302
        | 100_304
        | 110_000..=110_002
        | 120_000
        | 120_001 => Some(false),
        _ => None,
    }
}

/// MI300A is an APU, MI300X and its kin are not, and all are gfx940 to gfx942.
pub(crate) fn is_mi300(target: GfxTarget) -> bool {
    (90_400..=90_402).contains(&target.0)
}

/// Whether the driver can divide such a GPU into partitions.
pub(super) fn may_be_partitioned(target: GfxTarget) -> bool {
    is_mi300(target) || target.0 == 90_500
}

/// MI300A's PCI id.
pub(super) const MI300A: u16 = 0x74a0;

/// How many compute dies (XCC) such a GPU has: in mode CPX each is a partition.
pub(super) fn compute_dies(device_id: u16) -> Option<u32> {
    match device_id {
        MI300A => Some(6),
        // MI308X, its virtual functions.
        0x74a2 | 0x74a8 | 0x74b6 | 0x74bc => Some(4),
        // MI300X, MI325X, MI350X, MI355X, and their virtual functions.
        0x74a1 | 0x74a5 | 0x74a9 | 0x74b5 | 0x74b9 | 0x74bd => Some(8),
        0x75a0 | 0x75a3 | 0x75b0 | 0x75b3 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_chips_have_the_instruction_set_of_their_kind() {
        for (device, target) in [
            (0x6860, "gfx900"),
            (0x15dd, "gfx902"),
            (0x67ef, "gfx803"),
            (0x7300, "gfx803"),
            (0x738c, "gfx908"),
            (0x740f, "gfx90a"),
            (0x1638, "gfx90c"),
            (0x73bf, "gfx1030"),
        ] {
            assert_eq!(gfx_target_of(device).map(|t| t.to_string()).as_deref(), Some(target));
        }
        assert_eq!(gfx_target_of(0x74a1), None, "KFD says it");
    }
}
