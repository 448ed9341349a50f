//! Capabilities, and the ways to get them back.

use gpuev::{Error, Result};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Gives up every capability of this thread and of those it will start but `CAP_SYS_ADMIN`, and the ways to
/// get others back. Without it nothing is left, which is no error: then the driver shows less.
///
/// # Errors
/// Where the kernel refuses.
pub fn keep_only_sys_admin() -> Result<()> {
    keep(CapabilitySet::SYS_ADMIN)
}

pub(super) fn keep_none() -> Result<()> {
    keep(CapabilitySet::empty())
}

fn keep(kept: CapabilitySet) -> Result<()> {
    let failed = |call: &'static str| move |error: Errno| Error::io(call, error.into());
    let has = capabilities(None).map_err(failed("capget"))?;
    // Only who has SETPCAP may shrink the bounding set; for others no_new_privs stands guard alone.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            // EINVAL: a capability that this kernel does not have.
            let _unknown = rustix::thread::remove_capability_from_bounding_set(capability);
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(failed("prctl(PR_CAP_AMBIENT)"))?;
    let left = CapabilitySets {
        effective: has.effective & kept,
        permitted: has.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    // A service manager may have left only these, and forbidden the call. What is merely inheritable does
    // nothing without privileged programs to inherit it, and no_new_privs keeps those away.
    if !kept.contains(has.effective | has.permitted) {
        set_capabilities(None, left).map_err(failed("capset"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(failed("prctl(PR_SET_NO_NEW_PRIVS)"))
}
