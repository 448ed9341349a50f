//! Setting what a simulated GPU's sensors and counters say.

use std::io;

use crate::health::{RAS_BLOCKS, RasBlock, Sensor};
use crate::machine::SimMachine;

/// Each of these gives `NotFound` for an index that is no GPU's, and the errors of writing files.
/// Partitions of one GPU share its sensors.
impl SimMachine {
    /// Moves all sensors towards what a load makes of them, as fast as a cooler allows.
    pub(crate) fn follow(
        &self,
        gpu_index: usize,
        busy_percent: u32,
        throttlers: u64,
        vram_bytes: u64,
    ) -> io::Result<()> {
        self.change_health(gpu_index, |health| health.follow(busy_percent, throttlers, vram_bytes))
    }

    /// Sets a temperature, in thousandths of a degree Celsius.
    ///
    /// # Errors
    /// See above.
    pub fn set_temperature_millidegrees(
        &self,
        gpu_index: usize,
        sensor: Sensor,
        value: i32,
    ) -> io::Result<()> {
        let place = match sensor {
            Sensor::Edge => 0,
            Sensor::Junction => 1,
            Sensor::Memory => 2,
        };
        self.change_health(gpu_index, |health| health.temperatures_mc[place] = value)
    }

    /// Sets the power drawn, in microwatts.
    ///
    /// # Errors
    /// See above.
    pub fn set_power_microwatts(&self, gpu_index: usize, value: u64) -> io::Result<()> {
        self.change_health(gpu_index, |health| health.power_uw = value)
    }

    /// Sets how busy the GPU is, in per cent; clocks and voltage follow.
    ///
    /// # Errors
    /// See above.
    pub fn set_busy_percent(&self, gpu_index: usize, value: u32) -> io::Result<()> {
        self.change_health(gpu_index, |health| health.busy_percent = value)
    }

    /// Sets the memory in use, in bytes.
    ///
    /// # Errors
    /// See above.
    pub fn set_vram_used(&self, gpu_index: usize, bytes: u64) -> io::Result<()> {
        self.change_health(gpu_index, |health| health.vram_used = bytes)
    }

    /// Sets what holds the clocks down, bits of [`throttler`](crate::throttler).
    ///
    /// # Errors
    /// See above.
    pub fn set_throttlers(&self, gpu_index: usize, bits: u64) -> io::Result<()> {
        self.change_health(gpu_index, |health| health.throttlers = bits)
    }

    /// Counts one more memory error; an uncorrectable one of the memory itself retires a page.
    ///
    /// # Errors
    /// See above.
    pub fn add_ras_error(
        &self,
        gpu_index: usize,
        block: RasBlock,
        uncorrectable: bool,
    ) -> io::Result<()> {
        self.change_health(gpu_index, |health| {
            let place = RAS_BLOCKS.iter().position(|name| *name == block.name());
            let Some(counts) = place.and_then(|place| health.ras.get_mut(place)) else { return };
            if uncorrectable {
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
            if uncorrectable && block == RasBlock::Umc {
                let page = 0x0123_4000 + health.bad_pages.len() as u64;
                health.bad_pages.push(page);
            }
        })
    }
}
