//! A simulated machine in words: what `--source sim:` and `gpuev sim run` take.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::Args;
use gpuev_sim::{FoundMachine, Kernel, MAX_RATE, Scenario, SimMachine};

use crate::args::{duration, no_such};
use crate::exit::Failure;

use super::no_sim;

/// A simulated machine, and what happens on it.
#[derive(Debug, PartialEq)]
pub(crate) struct SimSpec {
    pub(crate) scenario: Scenario,
    machine: Option<FoundMachine>,
    visible: Option<Vec<usize>>,
    gpus: Option<usize>,
    partitions: Option<u32>,
    denied: Option<usize>,
    kernel: Option<Kernel>,
    exact: bool,
}

/// The settings as options of a command; `--source sim:` takes the same after commas.
#[derive(Debug, Args)]
pub(crate) struct SimOptions {
    /// A machine as somebody found it; see gpuev sim machines
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Which GPUs of that machine may be used, as in a container: 0 or 0+3
    #[arg(long, value_name = "GPUS")]
    visible: Option<String>,
    /// How many GPUs, 1 if not given
    #[arg(long, value_name = "N")]
    gpus: Option<String>,
    /// Partitions of each GPU; with more than one they are MI300X
    #[arg(long, value_name = "N")]
    partitions: Option<String>,
    /// How many more GPUs that the program may not use, as in a container
    #[arg(long, value_name = "N")]
    denied: Option<String>,
    /// Which kernel's driver; see gpuev sim scenarios
    #[arg(long)]
    kernel: Option<String>,
    /// What happens on it; see gpuev sim scenarios
    #[arg(long, default_value = DEFAULT_SCENARIO)]
    scenario: String,
    /// Events a second; the scenario's own pace if not given
    #[arg(long)]
    rate: Option<String>,
    /// How many events; no end if not given
    #[arg(long)]
    count: Option<String>,
    /// How long; no end if not given
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    /// Another seed tells the same kind of story otherwise
    #[arg(long)]
    seed: Option<String>,
    /// Raise so many events at once, then none until it is the turn of the next
    #[arg(long, value_name = "EVENTS")]
    burst: Option<String>,
    /// Refuse opens of /dev/kfd while a GPU is being reset, as the driver does
    #[arg(long, value_name = "yes|no")]
    locks: Option<String>,
    /// Event files by FUSE, which differ less from the driver's
    #[arg(long, value_name = "yes|no")]
    exact: Option<String>,
}

const DEFAULT_SCENARIO: &str = "mixed";

/// Every setting.
const KEYS: [&str; 13] = [
    "machine",
    "visible",
    "gpus",
    "partitions",
    "denied",
    "kernel",
    "rate",
    "seed",
    "count",
    "for",
    "burst",
    "locks",
    "exact",
];

impl SimOptions {
    /// The machine that they describe.
    pub(crate) fn spec(&self) -> Result<SimSpec, String> {
        let mut spec = SimSpec::of(&self.scenario)?;
        let given = [
            &self.machine,
            &self.visible,
            &self.gpus,
            &self.partitions,
            &self.denied,
            &self.kernel,
            &self.rate,
            &self.seed,
            &self.count,
            &self.lasts,
            &self.burst,
            &self.locks,
            &self.exact,
        ];
        for (key, value) in KEYS.iter().zip(given) {
            value.as_ref().map_or(Ok(()), |value| spec.set(key, value))?;
        }
        spec.checked()
    }
}

impl SimSpec {
    /// The words behind `sim:` or `sim`: `[SCENARIO][,KEY=VALUE]...`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let scenario = words.next().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCENARIO);
        let (scenario, first) = match scenario.split_once('=') {
            Some(setting) => (DEFAULT_SCENARIO, Some(setting)),
            None => (scenario, None),
        };
        let mut spec = Self::of(scenario)?;
        let rest = words.map(|word| word.split_once('=').unwrap_or((word, "")));
        first.into_iter().chain(rest).try_for_each(|(key, value)| spec.set(key, value))?;
        spec.checked()
    }

    fn of(scenario: &str) -> Result<Self, String> {
        let names: Vec<_> = Scenario::names().collect();
        let scenario =
            Scenario::by_name(scenario).map_err(|_| no_such("scenario", scenario, &names))?;
        Ok(Self {
            scenario,
            machine: None,
            visible: None,
            gpus: None,
            partitions: None,
            denied: None,
            kernel: None,
            exact: false,
        })
    }

    /// Settings that do not go together are told.
    fn checked(self) -> Result<Self, String> {
        let made = self.gpus.is_some() || self.partitions.is_some() || self.denied.is_some();
        match self.machine {
            Some(machine) if made => Err(format!(
                "machine {} has the GPUs that it was found with: leave gpus, partitions and denied out",
                machine.name()
            )),
            None if self.visible.is_some() => {
                Err("visible says which GPUs of a machine may be used: give machine, too"
                    .to_owned())
            }
            _ => Ok(self),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "machine" => self.machine = Some(machine(value)?),
            "visible" => self.visible = Some(visible(value)?),
            "gpus" => self.gpus = Some(number(key, value, 0..=64)?),
            "partitions" => self.partitions = Some(number(key, value, 1..=63)?),
            "denied" => self.denied = Some(number(key, value, 0..=64)?),
            "kernel" => self.kernel = Some(kernel(value)?),
            "rate" => self.scenario = self.scenario.rate(number(key, value, 1..=MAX_RATE)?),
            "seed" => self.scenario = self.scenario.seed(number(key, value, 0..=u64::MAX)?),
            "count" => self.scenario = self.scenario.count(number(key, value, 0..=u64::MAX)?),
            "for" => self.scenario = self.scenario.duration(duration(value)?),
            "burst" => self.scenario = self.scenario.burst(number(key, value, 1..=MAX_RATE)?),
            "locks" => self.scenario = self.scenario.locks(switch(key, value)?),
            "exact" => self.exact = switch(key, value)?,
            _ => return Err(no_such("setting", key, &KEYS)),
        }
        Ok(())
    }

    /// The machine.
    pub(crate) fn build(&self) -> Result<SimMachine, Failure> {
        let mut builder = SimMachine::builder()
            .gpus(self.gpus.unwrap_or(1))
            .partitions(self.partitions.unwrap_or(1))
            .denied(self.denied.unwrap_or(0))
            .exact_files(self.exact);
        if let Some(kernel) = self.kernel {
            builder = builder.kernel(kernel);
        }
        if let Some(machine) = self.machine {
            builder = builder.found(machine);
        }
        if let Some(visible) = &self.visible {
            builder = builder.visible(visible.iter().copied());
        }
        builder.build().map_err(no_sim)
    }
}

/// The driver profile with this name.
pub(super) fn kernel(name: &str) -> Result<Kernel, String> {
    let names = Kernel::ALL.map(Kernel::name);
    Kernel::from_str(name).map_err(|_| no_such("kernel", name, &names))
}

fn machine(name: &str) -> Result<FoundMachine, String> {
    let names: Vec<_> = FoundMachine::ALL.iter().map(|machine| machine.name()).collect();
    FoundMachine::by_name(name).map_err(|_| no_such("machine", name, &names))
}

/// Places of GPUs, as `0+3`; each counts once.
fn visible(text: &str) -> Result<Vec<usize>, String> {
    let places: Result<BTreeSet<usize>, _> = text.split('+').map(str::parse).collect();
    let odd = |_| format!("visible must be places of GPUs such as 0 or 0+3, not {text:?}");
    places.map(|places| places.into_iter().collect()).map_err(odd)
}

fn number<N>(key: &str, value: &str, range: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let (least, most) = range.into_inner();
            Err(format!("{key} must be a number from {least} to {most}, not {value:?}"))
        }
    }
}

/// A word alone switches on.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" | "" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{key} must be yes or no, not {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_machine_is_told_in_words() {
        let spec = SimSpec::parse("reset,gpus=8,kernel=6.1,seed=7,partitions=2,locks").unwrap();
        assert_eq!(
            (spec.gpus, spec.partitions, spec.kernel),
            (Some(8), Some(2), Some(Kernel::V6_1))
        );
        assert_eq!(spec.scenario, Scenario::by_name("reset").unwrap().seed(7).locks(true));
        assert_eq!(SimSpec::parse("").unwrap().scenario, Scenario::by_name("mixed").unwrap());
        assert_eq!(SimSpec::parse("gpus=3").unwrap(), SimSpec::parse("mixed,gpus=3").unwrap());
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        let told = |text: &str| SimSpec::parse(text).unwrap_err();
        assert!(told("resett").contains("did you mean reset?"));
        assert!(told("reset,gpu=1").contains("did you mean gpus?"));
        assert!(told("reset,gpus=65").contains("from 0 to 64"));
        assert!(told("reset,kernel=6.13").contains("no such kernel"));
        assert!(told("reset,locks=maybe").contains("yes or no"));
        assert!(told("machine=mi300x-cpu").contains("did you mean mi300x-cpx?"));
        assert!(told("machine=mi300x-cpx,gpus=2").contains("found with"));
        assert!(told("mixed,visible=0").contains("give machine"));
        assert!(told("machine=mi300x-cpx,visible=a").contains("0+3"));
    }

    #[test]
    fn a_machine_that_was_found_is_told_by_name() {
        let spec = SimSpec::parse("machine=mi300x-cpx,visible=0+3").unwrap();
        assert_eq!(spec, SimSpec::parse("mixed,visible=3+0,machine=mi300x-cpx").unwrap());
        assert_eq!(spec.build().unwrap().gpus().len(), 2);
        let nothing = SimSpec::parse("machine=mi300x-cpx,visible=99").unwrap();
        assert!(nothing.build().is_err());
    }
}
