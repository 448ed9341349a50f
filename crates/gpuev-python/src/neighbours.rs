//! Whether another package has overwritten `gpuev-amdsmi`, which installs files of the same names.
//!
//! pip lets both in and says nothing. `import amdsmi` may fail before any of our code runs, so `import gpuev` looks:
//! one `stat` where `gpuev-amdsmi` is not installed, one small file where it is.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;

/// As `__init__.py` of `gpuev-amdsmi` begins.
const MARK: &[u8] = b"gpuev";
const LOOKED_AT: u64 = 512;

/// Warns where the package `amdsmi` beside this one should be ours and is not.
pub(crate) fn check(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let Ok(file) = module.filename() else { return Ok(()) };
    let Ok(file) = file.extract::<std::path::PathBuf>() else { return Ok(()) };
    let Some(packages) = file.parent().and_then(Path::parent) else { return Ok(()) };
    let Some(problem) = problem(packages) else { return Ok(()) };
    let text = format!(
        "{problem}. To use gpuev's amdsmi: pip uninstall amdsmi, then pip install --force-reinstall --no-deps \
         gpuev-amdsmi. To keep the vendor's: pip uninstall gpuev-amdsmi, and run programs with python -m gpuev.amdsmi \
         PROGRAM. docs/coming-from-amdsmi.md says how to satisfy a requirement on amdsmi"
    );
    let text = CString::new(text)?;
    PyErr::warn(module.py(), &module.py().get_type::<PyUserWarning>(), &text, 1)
}

fn problem(packages: &Path) -> Option<String> {
    let record = format!("gpuev_amdsmi-{}.dist-info", env!("CARGO_PKG_VERSION"));
    if !packages.join(record).is_dir() {
        return None;
    }
    let path = packages.join("amdsmi/__init__.py");
    let mut begin = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut begin));
    match read {
        // Where the packages are installed in place the files are elsewhere.
        Err(_) if !packages.join("amdsmi").exists() && in_place(packages) => None,
        Err(_) => Some(format!("gpuev-amdsmi is installed and {} is gone", path.display())),
        Ok(_) if begin.windows(MARK.len()).any(|part| part == MARK) => None,
        Ok(_) => {
            Some(format!("another package has overwritten {} of gpuev-amdsmi", path.display()))
        }
    }
}

/// Whether a `.pth` file stands for the packages, as after `pip install --editable`.
fn in_place(packages: &Path) -> bool {
    let record = format!("gpuev_amdsmi-{}.dist-info/RECORD", env!("CARGO_PKG_VERSION"));
    std::fs::read_to_string(packages.join(record)).is_ok_and(|record| record.contains(".pth"))
}
