//! What the simulated `/dev/dri` nodes answer: as much as libdrm asks to know its GPU
//! (`drm_ioctl.c`, `amdgpu_kms.c`). Nothing is drawn or computed here.

use super::notice::Answer;
use super::supervisor::Call;
use super::sysfs::Device;

/// `DRM_IOCTL_*` by the low byte of their numbers.
const VERSION: u8 = 0x00;
const GET_CLIENT: u8 = 0x05;
const GET_CAP: u8 = 0x0C;
const AMDGPU_INFO: u8 = 0x45;

/// `AMDGPU_INFO_*`.
const ACCEL_WORKING: u32 = 0x00;
const FW_VERSION: u32 = 0x0E;
const VRAM_USAGE: u32 = 0x10;
const GTT_USAGE: u32 = 0x11;
const VRAM_GTT: u32 = 0x14;
const READ_MMR_REG: u32 = 0x15;
const DEV_INFO: u32 = 0x16;
const VIS_VRAM_USAGE: u32 = 0x17;
const MEMORY: u32 = 0x19;
const SENSOR: u32 = 0x1D;

/// `AMDGPU_INFO_SENSOR_*`.
const SENSOR_GFX_SCLK: u32 = 0x1;
const SENSOR_GFX_MCLK: u32 = 0x2;
const SENSOR_GPU_TEMP: u32 = 0x3;
const SENSOR_GPU_LOAD: u32 = 0x4;
const SENSOR_GPU_AVG_POWER: u32 = 0x5;

/// Bytes of `struct drm_version` that are fetched: three numbers and three strings.
const VERSION_BYTES: usize = 64;

/// Answers an ioctl on a DRM node of this GPU.
pub(super) fn answer(call: &Call<'_>, device: &Device) -> Answer {
    #[allow(clippy::cast_possible_truncation)] // the number is the low byte
    let number = call.ioctl.request as u8;
    let done = match number {
        VERSION => version(call),
        GET_CLIENT => get_client(call),
        // No capability: value 0.
        GET_CAP => call.put(call.ioctl.argument.wrapping_add(8), &0u64.to_ne_bytes()),
        AMDGPU_INFO => info(call, device),
        _ => Err(libc::EINVAL),
    };
    match done {
        Ok(()) => Answer::Return(0),
        Err(errno) => Answer::Fail(errno),
    }
}

/// Names and numbers of the driver; each string goes where the caller has room for it.
fn version(call: &Call<'_>) -> Result<(), i32> {
    let mut bytes: [u8; VERSION_BYTES] = call.get(call.ioctl.argument)?;
    let numbers = [3u32, call.driver.drm_minor(), 0];
    for (slot, value) in bytes.chunks_exact_mut(4).zip(numbers) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    for (at, text) in [(16, "amdgpu"), (32, "20150101"), (48, "AMD GPU")] {
        let room = u64_at(&bytes, at);
        let target = u64_at(&bytes, at + 8);
        let taken = usize::try_from(room).unwrap_or(usize::MAX).min(text.len());
        if taken > 0 && target != 0 {
            call.put(target, &text.as_bytes()[..taken])?;
        }
        bytes[at..at + 8].copy_from_slice(&(text.len() as u64).to_ne_bytes());
    }
    call.put(call.ioctl.argument, &bytes)
}

/// The one client: itself, authenticated.
fn get_client(call: &Call<'_>) -> Result<(), i32> {
    let identity = call.caller.identity().map_err(|_| libc::ESRCH)?;
    let mut bytes = [0u8; 40];
    bytes[4..8].copy_from_slice(&1u32.to_ne_bytes());
    bytes[8..16].copy_from_slice(&u64::from(identity.pid.host).to_ne_bytes());
    call.put(call.ioctl.argument, &bytes)
}

/// `struct drm_amdgpu_info`: where the answer goes, how long it may be, what is asked.
fn info(call: &Call<'_>, device: &Device) -> Result<(), i32> {
    let request: [u8; 32] = call.get(call.ioctl.argument)?;
    let target = u64_at(&request, 0);
    let room = u32_at(&request, 8) as usize;
    if room == 0 || target == 0 {
        return Err(libc::EINVAL);
    }
    let value = info_value(device, u32_at(&request, 12), &request[16..])?;
    call.put(target, &value[..value.len().min(room)])
}

fn info_value(device: &Device, query: u32, detail: &[u8]) -> Result<Vec<u8>, i32> {
    let vram = device.number("mem_info_vram_total").unwrap_or(0);
    let used = device.number("mem_info_vram_used").unwrap_or(0);
    let gtt = device.number("mem_info_gtt_total").unwrap_or(0);
    let gtt_used = device.number("mem_info_gtt_used").unwrap_or(0);
    Ok(match query {
        ACCEL_WORKING => 1u32.to_ne_bytes().to_vec(),
        FW_VERSION => vec![0; 8],
        VRAM_USAGE | VIS_VRAM_USAGE => used.to_ne_bytes().to_vec(),
        GTT_USAGE => gtt_used.to_ne_bytes().to_vec(),
        VRAM_GTT => words(&[vram, vram, gtt]),
        MEMORY => {
            let heap = |total: u64, used: u64| [total, total, used, total / 4 * 3];
            words(&[heap(vram, used), heap(vram, used), heap(gtt, gtt_used)].concat())
        }
        // As many registers as are asked for, all zero.
        READ_MMR_REG => vec![0; u32_at(detail, 4).min(128) as usize * 4],
        DEV_INFO => device_info(device),
        SENSOR => sensor(device, u32_at(detail, 0)).ok_or(libc::EINVAL)?.to_ne_bytes().to_vec(),
        _ => return Err(libc::EINVAL),
    })
}

/// MHz, m°C, percent, W: the units of `amdgpu_kms.c`.
fn sensor(device: &Device, sensor: u32) -> Option<u32> {
    let value = match sensor {
        SENSOR_GFX_SCLK => device.hwmon("freq1_input")? / 1_000_000,
        SENSOR_GFX_MCLK => device.hwmon("freq2_input")? / 1_000_000,
        SENSOR_GPU_TEMP => device.hwmon("temp1_input")?,
        SENSOR_GPU_LOAD => device.number("gpu_busy_percent")?,
        SENSOR_GPU_AVG_POWER => {
            device.hwmon("power1_average").or_else(|| device.hwmon("power1_input"))? / 1_000_000
        }
        _ => return None,
    };
    u32::try_from(value).ok()
}

/// `struct drm_amdgpu_info_device`, up to the type of memory.
fn device_info(device: &Device) -> Vec<u8> {
    let mut bytes = vec![0u8; 184];
    let mut put = |at: usize, value: u64, len: usize| {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    let property = |name: &str| device.property(name).unwrap_or(0);
    put(0, device.number("device").unwrap_or(0), 4);
    put(12, device.number("revision").unwrap_or(0), 4);
    put(16, family(property("gfx_target_version")), 4);
    let arrays = property("simd_arrays_per_engine").max(1);
    put(20, property("array_count") / arrays, 4);
    put(24, arrays, 4);
    put(28, 100_000, 4);
    put(32, property("max_engine_clk_fcompute") * 1000, 8);
    let per_cu = property("simd_per_cu").max(1);
    put(48, property("simd_count") / per_cu, 4);
    // The range that a process may map: 2 MiB up to 2^47.
    put(144, 0x20_0000, 8);
    put(152, 1 << 47, 8);
    put(160, 4096, 4);
    put(164, 2 << 20, 4);
    put(168, 4096, 4);
    bytes
}

/// `AMDGPU_FAMILY_*` of a gfx version such as 90402.
fn family(gfx_target: u64) -> u64 {
    match gfx_target / 10_000 {
        12 => 152,
        11 => 145,
        10 => 143,
        _ => 141,
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
