//! GPUs that come, go and are divided anew.

use std::io;
use std::ops::Range;

use super::{SimMachine, State, no_gpu, number_of};
use crate::board::{Board, MI300X, W7900};
use crate::gpu::Device;
use crate::health::Health;
use crate::tree::device;

impl SimMachine {
    /// Plugs in one more GPU; gives the index of its first partition.
    ///
    /// # Errors
    /// As [`SimMachine::write_file`].
    pub fn add_gpu(&self) -> io::Result<usize> {
        let mut state = self.state();
        state.must_be_made()?;
        let partitions = state.devices.first().map_or(1, |device| device.partitions);
        let index = self.plug(&mut state, partitions, false)?;
        state.generation += 1;
        self.write_topology(&state)?;
        Ok(index)
    }

    /// Takes the GPU with this index out, all its partitions with it: its files go, its event
    /// files end.
    ///
    /// # Errors
    /// `NotFound` for an index that is no GPU's; as [`SimMachine::write_file`].
    pub fn remove_gpu(&self, gpu_index: usize) -> io::Result<()> {
        self.set_present(gpu_index, false)
    }

    /// Plugs a GPU that was taken out in again, as it was.
    ///
    /// # Errors
    /// As [`SimMachine::remove_gpu`].
    pub fn restore_gpu(&self, gpu_index: usize) -> io::Result<()> {
        self.set_present(gpu_index, true)
    }

    /// Divides a GPU anew, as writing to `current_compute_partition` does: its KFD nodes go with
    /// their event files and others come, with new ids. KFD is locked meanwhile. Gives the indices
    /// of the new ones.
    ///
    /// # Errors
    /// `InvalidInput` for a GPU that cannot be divided, which is one of a machine that was built
    /// without partitions, and for other numbers than 1, 2, 4 and 8; `NotFound` for an index that is
    /// no GPU's; as [`SimMachine::write_file`].
    pub fn repartition(&self, gpu_index: usize, partitions: u32) -> io::Result<Range<usize>> {
        let _locked = self.lock_kfd();
        let mut state = self.state();
        state.must_be_made()?;
        let place = number_of(&state.devices, gpu_index)?;
        let device = &mut state.devices[place];
        if !device.present {
            return Err(no_gpu(gpu_index));
        }
        if device.board.device != MI300X.device || !matches!(partitions, 1 | 2 | 4 | 8) {
            let what = format!("{} has no {partitions} partitions", device.board.product_name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let (number, board, denied) = (device.number, device.board, device.denied);
        self.take_out(device)?;
        device.replaced = true;
        let unique_id = device.unique_id;
        let mut divided = Device::new(number, board, partitions, next_index(&state), denied);
        divided.unique_id = unique_id;
        let first = self.plug_device(&mut state, divided)?;
        state.generation += 1;
        self.write_topology(&state)?;
        Ok(first..first + partitions as usize)
    }

    fn take_out(&self, device: &mut Device) -> io::Result<()> {
        device.present = false;
        device.life += 1;
        device::remove(&self.inner.tree, device)?;
        for gpu in device.gpus() {
            self.set_in_reset(gpu.index, false);
            if let Some(port) = self.port(gpu.index) {
                port.close();
            }
        }
        Ok(())
    }

    pub(super) fn plug(
        &self,
        state: &mut State,
        partitions: u32,
        denied: bool,
    ) -> io::Result<usize> {
        let board: &'static Board = if partitions > 1 { &MI300X } else { &W7900 };
        let number = state.devices.iter().map(|device| device.number + 1).max().unwrap_or(0);
        let device = Device::new(number, board, partitions, next_index(state), denied);
        self.plug_device(state, device)
    }

    fn plug_device(&self, state: &mut State, device: Device) -> io::Result<usize> {
        let (health, first_index) = (Health::idle(device.board), device.first_index);
        if !device.denied {
            device::add(&self.inner.tree, &device, &health)?;
        }
        self.add_ports(device.gpus().map(|gpu| gpu.kfd_gpu_id));
        state.devices.push(device);
        state.health.push(health);
        Ok(first_index)
    }

    fn set_present(&self, gpu_index: usize, present: bool) -> io::Result<()> {
        let mut state = self.state();
        state.must_be_made()?;
        let State { devices, health, generation, .. } = &mut *state;
        let number = number_of(devices, gpu_index)?;
        let device = &mut devices[number];
        if device.present == present {
            return Ok(());
        }
        if device.replaced {
            return Err(no_gpu(gpu_index));
        }
        if present {
            device.present = true;
            device.life += 1;
            device::add(&self.inner.tree, device, &health[number])?;
        } else {
            self.take_out(device)?;
        }
        *generation += 1;
        self.write_topology(&state)
    }
}

/// The index of the next GPU: none is used again.
fn next_index(state: &State) -> usize {
    state.devices.iter().map(|one| one.first_index + one.partitions as usize).max().unwrap_or(0)
}
