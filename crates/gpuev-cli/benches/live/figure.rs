//! What is measured, in the form that `cargo xtask bench` makes its table of.

/// Prints the median of what was measured: `figure`, what, who, value, unit, with tabs between.
pub(crate) fn print(what: &str, who: &str, measured: &[f64], unit: &str) {
    if let Some(value) = percentile(measured, 50) {
        println!("figure\t{what}\t{who}\t{value}\t{unit}");
    }
}

/// The value that so many percent of `measured` do not exceed.
pub(crate) fn percentile(measured: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = measured.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * percent / 100).copied()
}
