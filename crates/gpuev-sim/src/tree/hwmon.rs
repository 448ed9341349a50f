//! `hwmon/hwmonN` of a GPU (`amdgpu_pm.c`): millidegrees, microwatts, millivolts, hertz.

use std::io;

use super::{Tree, write_all};
use crate::board::Board;
use crate::health::Health;
use crate::metrics::millivolts;

const LABELS: [&str; 3] = ["edge", "junction", "mem"];

/// What never changes.
pub(crate) fn write_limits(tree: &Tree, dir: &str, board: &Board) -> io::Result<()> {
    tree.write(format!("{dir}/name"), "amdgpu\n")?;
    for (number, (label, critical)) in (1..).zip(LABELS.iter().zip(board.critical_mc)) {
        tree.write(format!("{dir}/temp{number}_label"), format!("{label}\n"))?;
        tree.write(format!("{dir}/temp{number}_crit"), format!("{critical}\n"))?;
        tree.write(format!("{dir}/temp{number}_crit_hyst"), "-273150\n")?;
        let emergency = critical + 5_000;
        tree.write(format!("{dir}/temp{number}_emergency"), format!("{emergency}\n"))?;
    }
    let power = [
        ("power1_label", "PPT\n".to_owned()),
        ("power1_cap", format!("{}\n", board.power_cap_uw)),
        ("power1_cap_default", format!("{}\n", board.power_cap_uw)),
        ("power1_cap_max", format!("{}\n", board.power_cap_max_uw)),
        ("power1_cap_min", "0\n".to_owned()),
        ("in0_label", "vddgfx\n".to_owned()),
        ("freq1_label", "sclk\n".to_owned()),
        ("freq2_label", "mclk\n".to_owned()),
    ];
    write_all(tree, dir, power)?;
    if board.fan_max_rpm == 0 {
        return Ok(());
    }
    let fan = [
        ("fan1_min", "0\n".to_owned()),
        ("fan1_max", format!("{}\n", board.fan_max_rpm)),
        ("fan1_enable", "0\n".to_owned()),
        ("pwm1_enable", "2\n".to_owned()),
        ("pwm1_min", "0\n".to_owned()),
        ("pwm1_max", "255\n".to_owned()),
    ];
    write_all(tree, dir, fan)
}

/// What moves.
pub(crate) fn write_readings(
    tree: &Tree,
    dir: &str,
    board: &Board,
    health: &Health,
) -> io::Result<()> {
    for (number, temperature) in (1..).zip(health.temperatures_mc) {
        tree.write(format!("{dir}/temp{number}_input"), format!("{temperature}\n"))?;
    }
    let hertz = |mhz: u32| format!("{}\n", u64::from(mhz) * 1_000_000);
    let readings = [
        ("power1_average", format!("{}\n", health.power_uw)),
        ("in0_input", format!("{}\n", millivolts(health))),
        ("freq1_input", hertz(board.sclk_mhz[health.level(board.sclk_mhz.len())])),
        ("freq2_input", hertz(board.mclk_mhz[health.level(board.mclk_mhz.len())])),
    ];
    write_all(tree, dir, readings)?;
    if board.fan_max_rpm == 0 {
        return Ok(());
    }
    let percent = health.fan_percent();
    tree.write(format!("{dir}/fan1_input"), format!("{}\n", board.fan_max_rpm * percent / 100))?;
    tree.write(format!("{dir}/pwm1"), format!("{}\n", 255 * percent / 100))
}
