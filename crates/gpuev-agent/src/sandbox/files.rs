//! Files and ports, by Landlock: as much of it as the kernel knows.

use std::path::PathBuf;

use gpuev::{Error, ErrorKind, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Plan, Taken};

/// The newest whose meaning is known here; older kernels do what they can.
const NEWEST: ABI = ABI::V6;

/// The first that knows ports.
const WITH_PORTS: ABI = ABI::V4;

pub(super) fn restrict(plan: &Plan) -> Result<Taken> {
    let failed = |error: RulesetError| {
        Error::new(ErrorKind::Io, format!("restrict files by Landlock: {error}"))
    };
    let files = apply(plan).map_err(failed)?;
    Ok(Taken { files, ports: files && has_ports() })
}

fn apply(plan: &Plan) -> std::result::Result<bool, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        // No process outside gets a signal from here.
        .scope(Scope::Signal)?
        .create()?;
    let ruleset = allow(ruleset, &plan.read, AccessFs::ReadFile | AccessFs::ReadDir)?;
    let ruleset =
        allow(ruleset, &plan.execute, AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute)?;
    let everything = AccessFs::from_all(NEWEST) & !BitFlags::from(AccessFs::Execute);
    let mut ruleset = allow(ruleset, &plan.write, everything)?;
    for port in &plan.bind {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn allow(
    mut ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> std::result::Result<RulesetCreated, RulesetError> {
    for path in paths {
        // What does not exist cannot be allowed; who made the plan makes folders first.
        let Ok(fd) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
    }
    Ok(ruleset)
}

/// Whether this kernel's Landlock knows ports: it refuses a ruleset of them where not.
fn has_ports() -> bool {
    use landlock::{CompatLevel, Compatible};
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::from_all(WITH_PORTS))
        .and_then(Ruleset::create)
        .is_ok()
}
