//! The binary `gpu_metrics` file, format 1.3 (`struct gpu_metrics_v1_3`, `kgd_pp_interface.h`).

use crate::board::Board;
use crate::health::Health;

/// Size of the structure.
const BYTES: usize = 120;
/// "Not available" in a field of 16 bits.
const NONE: u16 = u16::MAX;

/// Writes fields one after the other, at the offsets that C gives them.
struct Fields {
    at: usize,
    bytes: [u8; BYTES],
}

impl Fields {
    fn put(&mut self, value: &[u8]) -> &mut Self {
        let end = self.at + value.len();
        self.bytes[self.at..end].copy_from_slice(value);
        self.at = end;
        self
    }

    fn u16(&mut self, value: impl TryInto<u16>) -> &mut Self {
        self.put(&value.try_into().unwrap_or(NONE).to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
}

/// The file's bytes at `boot_ns`.
pub(crate) fn gpu_metrics(board: &Board, health: &Health, boot_ns: u64) -> [u8; BYTES] {
    let mut fields = Fields { at: 0, bytes: [0; BYTES] };
    let sclk = board.sclk_mhz[health.level(board.sclk_mhz.len())];
    let socclk = board.socclk_mhz[health.level(board.socclk_mhz.len())];
    let uclk = board.mclk_mhz[health.level(board.mclk_mhz.len())];
    fields.u16(BYTES).put(&[1, 3]);
    for temperature in health.temperatures_mc {
        fields.u16(temperature / 1000);
    }
    let [edge, _, memory] = health.temperatures_mc;
    // Regulators of graphics, SoC and memory.
    fields.u16(edge / 1000 + 4).u16(edge / 1000 + 2).u16(memory / 1000 + 1);
    fields.u16(health.busy_percent).u16(health.mem_busy_percent).u16(0);
    fields.u16(health.power_uw / 1_000_000).u64(health.energy).u64(boot_ns);
    for _average_then_current in 0..2 {
        fields.u16(sclk).u16(socclk).u16(uclk).u16(NONE).u16(NONE).u16(NONE).u16(NONE);
    }
    fields.u32(chip_throttlers(health.throttlers));
    fields.u16(board.fan_max_rpm * health.fan_percent() / 100);
    // Sixteen lanes; speed in 0.1 GT/s.
    fields.u16(16).u16(if board.link_speed.starts_with("32") { 320 } else { 160 }).u16(0);
    fields.u32(health.busy_percent * 1000).u32(health.mem_busy_percent * 1000);
    for _stack in 0..4 {
        fields.u16(memory / 1000);
    }
    fields.u64(boot_ns / 10);
    fields.u16(850).u16(millivolts(health)).u16(1250).u16(NONE);
    fields.u64(health.throttlers);
    fields.bytes
}

/// Voltage of the graphics rail.
pub(crate) fn millivolts(health: &Health) -> u32 {
    650 + 4 * health.busy_percent.min(100)
}

/// The chip's own bits: a few are enough to show that they differ from the common ones.
fn chip_throttlers(throttlers: u64) -> u32 {
    let common_to_chip = [(35, 0), (36, 1), (34, 2), (0, 4), (16, 8)];
    common_to_chip
        .iter()
        .filter(|(common, _)| throttlers & (1 << common) != 0)
        .fold(0, |bits, (_, chip)| bits | 1 << chip)
}
