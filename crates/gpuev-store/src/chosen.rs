//! Which GPUs of histories somebody means.

use gpuev::{Error, ErrorKind, GpuId, Result};

use crate::histories::Histories;

impl Histories {
    /// The GPUs of the histories that the selectors name: by index, PCI address (also with `/partition`) or unique id.
    /// None where there is no selector. An index may mean one of each machine.
    ///
    /// # Errors
    /// Where one names none, and where the file cannot be read.
    pub fn choose_gpus(&self, selectors: &[String]) -> Result<Vec<GpuId>> {
        if selectors.is_empty() {
            return Ok(Vec::new());
        }
        let sessions = self.sessions()?.into_iter();
        let gpus = sessions.flat_map(|recorded| recorded.session.gpus);
        let all: Vec<GpuId> = gpus.map(|(gpu, _)| gpu).collect();
        let mut chosen = Vec::new();
        for selector in selectors {
            let before = chosen.len();
            let wanted = selector.to_ascii_lowercase();
            chosen.extend(all.iter().filter(|gpu| is_named(gpu, &wanted)).copied());
            if chosen.len() == before {
                let what = format!("{selector}: the history has no such GPU");
                let error = Error::new(ErrorKind::InvalidInput, what);
                return Err(match self.files() {
                    [one] => error.with_path(one.path()),
                    _ => error,
                });
            }
        }
        Ok(chosen)
    }
}

fn is_named(gpu: &GpuId, name: &str) -> bool {
    let address = gpu.bdf.to_string();
    gpu.index.to_string() == name
        || address == name
        || format!("{address}/{}", gpu.partition) == name
        || gpu.unique_id.is_some_and(|id| id.to_string() == name)
}
