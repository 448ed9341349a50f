//! Licences, banned crates and sources of the dependencies, as `deny.toml` has them.

use crate::Result;
use crate::process::run;
use crate::report::Outcome;
use crate::tools::cargo_tool;
use crate::workspace::cargo;

pub(crate) fn step() -> Result<Outcome> {
    if let Err(why) = cargo_tool("deny") {
        return Ok(Outcome::LeftOut(why));
    }
    // Advisories are a database of elsewhere, and a new one is no fault of the change that is tested.
    let arguments = ["deny", "--all-features", "check", "bans", "licenses", "sources"];
    run(&mut cargo(&arguments)).map(Outcome::Ran)
}
