//! The graphics cards that a simulated machine can hold, with the values their drivers report.

/// What is the same on every card of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    pub(crate) product_name: &'static str,
    pub(crate) device: u16,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem_device: u16,
    pub(crate) revision: u8,
    pub(crate) class: u32,
    pub(crate) vbios: &'static str,
    /// Major, minor, stepping as `110000`.
    pub(crate) gfx_target: u32,
    pub(crate) compute_units: u32,
    pub(crate) simd_per_cu: u32,
    pub(crate) vram_bytes: u64,
    pub(crate) vis_vram_bytes: u64,
    pub(crate) power_cap_uw: u64,
    pub(crate) power_cap_max_uw: u64,
    pub(crate) sclk_mhz: [u32; 3],
    pub(crate) mclk_mhz: [u32; 4],
    pub(crate) socclk_mhz: [u32; 3],
    pub(crate) fclk_mhz: [u32; 3],
    pub(crate) link_speed: &'static str,
    pub(crate) fan_max_rpm: u32,
    /// Critical edge, junction and memory temperature, thousandths of a degree Celsius.
    pub(crate) critical_mc: [i32; 3],
    /// Power drawn with nothing to do, microwatts.
    pub(crate) idle_uw: u64,
}

/// Radeon PRO W7900 (Navi 31): one KFD node.
pub(crate) const W7900: Board = Board {
    product_name: "AMD Radeon PRO W7900",
    device: 0x7448,
    subsystem_vendor: 0x1002,
    subsystem_device: 0x0e0d,
    revision: 0x00,
    class: 0x03_0000,
    vbios: "113-D7070100-138",
    gfx_target: 110_000,
    compute_units: 96,
    simd_per_cu: 2,
    vram_bytes: 48_301_604_864,
    vis_vram_bytes: 48_301_604_864,
    power_cap_uw: 241_000_000,
    power_cap_max_uw: 277_000_000,
    sclk_mhz: [500, 1495, 2495],
    mclk_mhz: [96, 456, 772, 1124],
    socclk_mhz: [500, 1000, 1200],
    fclk_mhz: [500, 1200, 2000],
    link_speed: "16.0 GT/s PCIe",
    fan_max_rpm: 3_300,
    critical_mc: [100_000, 110_000, 108_000],
    idle_uw: 18_000_000,
};

/// Instinct MI300X, the card that can be partitioned.
pub(crate) const MI300X: Board = Board {
    product_name: "AMD Instinct MI300X OAM",
    device: 0x74a1,
    subsystem_vendor: 0x1002,
    subsystem_device: 0x74a1,
    revision: 0x00,
    class: 0x12_0000,
    vbios: "113-M3000100-102",
    gfx_target: 90_402,
    compute_units: 304,
    simd_per_cu: 4,
    vram_bytes: 206_141_652_992,
    vis_vram_bytes: 206_141_652_992,
    power_cap_uw: 750_000_000,
    power_cap_max_uw: 750_000_000,
    sclk_mhz: [132, 1200, 2100],
    mclk_mhz: [900, 1100, 1200, 1300],
    socclk_mhz: [500, 1000, 1200],
    fclk_mhz: [1200, 1600, 2000],
    link_speed: "32.0 GT/s PCIe",
    fan_max_rpm: 0,
    critical_mc: [100_000, 110_000, 105_000],
    idle_uw: 140_000_000,
};
