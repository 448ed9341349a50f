//! What the driver's numbers mean, in the words of the kernel's headers.

/// Why pages moved (`enum KFD_MIGRATE_TRIGGERS`), or `None` for a number of a later kernel.
#[must_use]
pub fn migrate_trigger(trigger: i32) -> Option<&'static str> {
    pick(&["prefetch", "pagefault_gpu", "pagefault_cpu", "ttm_eviction"], trigger)
}

/// Why queues were evicted (`enum KFD_QUEUE_EVICTION_TRIGGERS`).
#[must_use]
pub fn eviction_trigger(trigger: i32) -> Option<&'static str> {
    pick(&["svm", "userptr", "ttm", "suspend", "criu_checkpoint", "criu_restore"], trigger)
}

/// Why a range was unmapped (`enum KFD_SVM_UNMAP_TRIGGERS`).
#[must_use]
pub fn unmap_trigger(trigger: i32) -> Option<&'static str> {
    pick(&["mmu_notify", "mmu_notify_migrate", "unmap_from_cpu"], trigger)
}

fn pick(names: &[&'static str], number: i32) -> Option<&'static str> {
    names.get(usize::try_from(number).ok()?).copied()
}

/// The kind of a reset's cause as the driver words it (`amdgpu_reset.c`, since Linux 6.11): the text up to
/// what it names. `job hang on ring:gfx_0.0.0` is a `job hang`. `None` where the text is none of them.
#[must_use]
pub fn reset_cause(text: &[u8]) -> Option<&'static str> {
    const CAUSES: [&str; 7] = [
        "job hang",
        "RAS error",
        "MES hang",
        "HWS hang",
        "user trigger",
        "user queue trigger",
        "unknown",
    ];
    let text = text.split(|&b| b == b':').next().unwrap_or(text);
    let text = text.strip_suffix(b" on ring").unwrap_or(text);
    CAUSES.into_iter().find(|cause| cause.as_bytes() == text)
}

/// Why a GPU throttles: the names of the set bits of `THERMAL_THROTTLE`'s mask
/// (`SMU_THROTTLER_*_BIT` in `amdgpu_smu.h`), lowest bit first. A bit without a name is left out here;
/// [`unnamed_throttlers`] gives those.
pub fn throttlers(mask: u64) -> impl Iterator<Item = &'static str> {
    let mut rest = mask & NAMED_THROTTLERS;
    std::iter::from_fn(move || {
        let name = THROTTLER_OF_BIT.get(usize::try_from(rest.trailing_zeros()).ok()?)?;
        rest &= rest - 1;
        Some(*name)
    })
}

/// The bits of `mask` that [`throttlers`] has no name for.
#[must_use]
pub fn unnamed_throttlers(mask: u64) -> u64 {
    mask & !NAMED_THROTTLERS
}

/// The bits that have a name.
const NAMED_THROTTLERS: u64 = {
    let mut mask = 0;
    let mut index = 0;
    while index < THROTTLERS.len() {
        mask |= 1 << THROTTLERS[index].0;
        index += 1;
    }
    mask
};

/// The name of each bit, empty where it has none.
static THROTTLER_OF_BIT: [&str; 64] = {
    let mut names = [""; 64];
    let mut index = 0;
    while index < THROTTLERS.len() {
        names[THROTTLERS[index].0 as usize] = THROTTLERS[index].1;
        index += 1;
    }
    names
};

const THROTTLERS: [(u8, &str); 34] = [
    (0, "PPT0"),
    (1, "PPT1"),
    (2, "PPT2"),
    (3, "PPT3"),
    (4, "SPL"),
    (5, "FPPT"),
    (6, "SPPT"),
    (7, "SPPT_APU"),
    (16, "TDC_GFX"),
    (17, "TDC_SOC"),
    (18, "TDC_MEM"),
    (19, "TDC_VDD"),
    (20, "TDC_CVIP"),
    (21, "EDC_CPU"),
    (22, "EDC_GFX"),
    (23, "APCC"),
    (32, "TEMP_GPU"),
    (33, "TEMP_CORE"),
    (34, "TEMP_MEM"),
    (35, "TEMP_EDGE"),
    (36, "TEMP_HOTSPOT"),
    (37, "TEMP_SOC"),
    (38, "TEMP_VR_GFX"),
    (39, "TEMP_VR_SOC"),
    (40, "TEMP_VR_MEM0"),
    (41, "TEMP_VR_MEM1"),
    (42, "TEMP_LIQUID0"),
    (43, "TEMP_LIQUID1"),
    (44, "VRHOT0"),
    (45, "VRHOT1"),
    (46, "PROCHOT_CPU"),
    (47, "PROCHOT_GFX"),
    (56, "PPM"),
    (57, "FIT"),
];
