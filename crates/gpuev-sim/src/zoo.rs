//! Machines as people found them: what the files of real machines with AMD GPUs say.
//!
//! Each is a text in the folder `machines`, with the address of the public source that its facts
//! come from. Beside it stand, for tests, the right answers about it.

pub(crate) mod text;

use std::fmt;
use std::io;

use crate::kernel::Kernel;

/// A machine that somebody has, or had.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FoundMachine {
    name: &'static str,
    text: &'static str,
}

/// The machines, by name.
macro_rules! machines {
    ($($name:literal)*) => {
        &[$(FoundMachine {
            name: $name,
            text: include_str!(concat!("../machines/", $name, ".tree")),
        }),*]
    };
}

impl FoundMachine {
    /// Every machine, in order of name.
    pub const ALL: &'static [FoundMachine] = machines! {
        "cezanne-5700g"
        "cezanne-nvidia-laptop"
        "hawkpoint-780m"
        "k8s-mi210x8-xgmi"
        "k8s-mi25-oldkfd"
        "k8s-mi308x-cpx"
        "lact-hd7870"
        "lact-phoenix"
        "lact-r7-240"
        "lact-r9-280"
        "lact-rx5500xt"
        "lact-rx5700xt"
        "lact-rx580"
        "lact-rx6600"
        "lact-rx6600xt"
        "lact-rx6900xt"
        "lact-rx7600s"
        "lact-rx7700s"
        "lact-rx7800xt"
        "lact-rx7900xtx"
        "lact-rx9070"
        "lact-rx9070xt"
        "lact-strixpoint"
        "lact-vangogh"
        "lact-vega56"
        "laptop-dgpu-garbage"
        "mi100-rocmi"
        "mi250x4-8dies"
        "mi300a-spx-4"
        "mi300x-cpx"
        "mi300x-cpx-nps4"
        "mi300x-dpx"
        "mi300x-qpx"
        "mi300x-spx"
        "mi350x-spx"
        "mi50-renoir"
        "phoenix-table-only"
        "raven-fiji-old"
        "renoir-4500u"
        "rx6600-raphael"
        "rx7900xt-lact563"
        "rx7900xt-ollama"
        "strix-halo"
        "tuf505dy-hybrid"
        "v620x2-fixedcap"
        "vangogh-docked"
    };

    /// The machine with this name.
    ///
    /// # Errors
    /// None has it; the error lists those there are.
    pub fn by_name(name: &str) -> Result<Self, UnknownMachine> {
        let found = Self::ALL.iter().find(|machine| machine.name == name);
        found.copied().ok_or_else(|| UnknownMachine(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// What it is, in a line.
    #[must_use]
    pub fn about(self) -> &'static str {
        text::head(self.text, "about").next().unwrap_or_default()
    }

    /// Where its facts come from.
    pub fn sources(self) -> impl Iterator<Item = &'static str> {
        text::head(self.text, "source")
    }

    /// The driver that is the likest to its own.
    #[must_use]
    pub fn kernel(self) -> Kernel {
        let named = text::head(self.text, "kernel").next();
        named.and_then(|name| name.parse().ok()).unwrap_or_default()
    }

    /// How many GPUs KFD lists on it, partitions counted.
    #[must_use]
    pub fn gpu_count(self) -> usize {
        text::head(self.text, "gpu").count()
    }

    pub(crate) fn gpus(self) -> io::Result<Vec<text::Gpu>> {
        text::gpus(self.text)
    }

    pub(crate) fn entries(self) -> io::Result<Vec<text::Entry>> {
        text::entries(self.text)
    }
}

impl fmt::Debug for FoundMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FoundMachine").field(&self.name).finish()
    }
}

/// A name that no machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMachine(String);

impl fmt::Display for UnknownMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no machine '{}'; there are:", self.0)?;
        FoundMachine::ALL.iter().try_for_each(|machine| write!(f, " {}", machine.name))
    }
}

impl std::error::Error for UnknownMachine {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_can_be_read_and_says_what_it_is() {
        for machine in FoundMachine::ALL {
            assert!(!machine.about().is_empty() && machine.about().len() <= 100, "{machine:?}");
            assert!(machine.sources().count() > 0, "{machine:?}");
            assert!(!machine.entries().unwrap().is_empty());
            assert_eq!(machine.gpus().unwrap().len(), machine.gpu_count());
            assert_eq!(FoundMachine::by_name(machine.name()), Ok(*machine));
        }
        assert!(FoundMachine::ALL.is_sorted_by_key(|machine| machine.name));
        let error = FoundMachine::by_name("nothing").unwrap_err().to_string();
        assert!(error.contains("lact-phoenix"), "{error}");
    }

    #[test]
    fn every_text_of_the_folder_is_a_machine() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/machines");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".tree").map(str::to_owned))
            .collect();
        names.sort_unstable();
        assert!(names.iter().eq(FoundMachine::ALL.iter().map(|machine| machine.name)));
    }
}
