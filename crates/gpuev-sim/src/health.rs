//! How a GPU feels: what its sensors and counters say.

use crate::board::Board;

/// A temperature sensor of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sensor {
    /// `temp1`, the edge of the die.
    Edge,
    /// `temp2`, the hottest spot of the die.
    Junction,
    /// `temp3`, the memory.
    Memory,
}

/// A part of the GPU that counts memory errors (`ras/<block>_err_count`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RasBlock {
    /// Memory controller.
    Umc,
    /// DMA engines.
    Sdma,
    /// Compute and graphics.
    Gfx,
    /// Memory hub.
    Mmhub,
    /// Links between GPUs.
    XgmiWafl,
}

impl RasBlock {
    /// Name in sysfs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RasBlock::Umc => "umc",
            RasBlock::Sdma => "sdma",
            RasBlock::Gfx => "gfx",
            RasBlock::Mmhub => "mmhub",
            RasBlock::XgmiWafl => "xgmi_wafl",
        }
    }
}

/// Blocks that have counters, in the order of `amdgpu_ras.c`.
pub(crate) const RAS_BLOCKS: [&str; 12] = [
    "umc",
    "sdma",
    "gfx",
    "mmhub",
    "athub",
    "pcie_bif",
    "hdp",
    "xgmi_wafl",
    "df",
    "smn",
    "mp0",
    "mp1",
];

/// The state that the files of a GPU show.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// Edge, junction and memory, thousandths of a degree Celsius.
    pub(crate) temperatures_mc: [i32; 3],
    pub(crate) power_uw: u64,
    pub(crate) busy_percent: u32,
    pub(crate) mem_busy_percent: u32,
    pub(crate) vram_used: u64,
    pub(crate) gtt_used: u64,
    /// Bits of `SMU_THROTTLER_*` that hold the clocks down now.
    pub(crate) throttlers: u64,
    /// Uncorrectable and correctable errors by place in [`RAS_BLOCKS`].
    pub(crate) ras: [(u64, u64); RAS_BLOCKS.len()],
    pub(crate) bad_pages: Vec<u64>,
    pub(crate) pcie_replays: u64,
    /// Joules would be too coarse: units of 15.259 microjoules, as the firmware counts.
    pub(crate) energy: u64,
    /// Of the board: with nothing to do, and at most.
    power_range_uw: (u64, u64),
    vram_total: u64,
}

/// Taken by the driver and firmware themselves.
const DRIVER_VRAM_BYTES: u64 = 27_418_624;
/// Edge, junction and memory with nothing to do.
const IDLE_MC: [i32; 3] = [38_000, 43_000, 46_000];

impl Health {
    pub(crate) fn idle(board: &Board) -> Self {
        Health {
            temperatures_mc: IDLE_MC,
            power_uw: board.idle_uw,
            busy_percent: 0,
            mem_busy_percent: 0,
            vram_used: DRIVER_VRAM_BYTES,
            gtt_used: 14_618_624,
            throttlers: 0,
            ras: [(0, 0); RAS_BLOCKS.len()],
            bad_pages: Vec::new(),
            pcie_replays: 0,
            energy: 123_456_789,
            power_range_uw: (board.idle_uw, board.power_cap_uw),
            vram_total: board.vram_bytes,
        }
    }

    /// One moment under a load.
    pub(crate) fn follow(&mut self, busy_percent: u32, throttlers: u64, vram_bytes: u64) {
        self.busy_percent = busy_percent.min(100);
        self.mem_busy_percent = self.busy_percent / 2;
        self.throttlers = throttlers;
        self.vram_used = DRIVER_VRAM_BYTES + vram_bytes.min(self.vram_total - DRIVER_VRAM_BYTES);
        let load = u64::from(self.busy_percent);
        let (idle, cap) = self.power_range_uw;
        let power = idle + cap.saturating_sub(idle) * load / 100;
        self.power_uw = self.power_uw.midpoint(power);
        self.energy += power / 15_259 * 100;
        let warm = i32::try_from(load).unwrap_or(100) * 400;
        let hot = if throttlers == 0 { 0 } else { 25_000 };
        for (temperature, rest) in self.temperatures_mc.iter_mut().zip(IDLE_MC) {
            let towards = rest + warm + hot;
            *temperature += (towards - *temperature) / 4;
        }
    }

    /// Which of a few clock levels the load asks for.
    pub(crate) fn level(&self, levels: usize) -> usize {
        let highest = levels.saturating_sub(1);
        match self.busy_percent {
            0..=4 => 0,
            _ if self.throttlers != 0 => highest.saturating_sub(1),
            5..=49 => highest.saturating_sub(1),
            _ => highest,
        }
    }

    pub(crate) fn fan_percent(&self) -> u32 {
        let [_, junction, _] = self.temperatures_mc;
        u32::try_from((junction - 50_000).clamp(0, 50_000) / 500).unwrap_or(0)
    }
}
