//! Which crate may use which, and what every manifest declares.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Found;
use crate::Result;
use crate::process::output;

/// A crate of the workspace and what it may depend on.
struct Part {
    name: &'static str,
    /// Crates of this workspace.
    inside: &'static [&'static str],
    /// Crates from elsewhere, where the list is closed.
    outside: Option<&'static [&'static str]>,
}

/// The edges of the design. A crate that is not here has no place in it yet.
const PARTS: [Part; 8] = [
    Part { name: "gpuev-kfd", inside: &[], outside: Some(&["rustix"]) },
    Part { name: "gpuev", inside: &["gpuev-kfd"], outside: None },
    // The judge shares no code with the judged, and links no C library.
    Part { name: "gpuev-sim", inside: &[], outside: Some(&["libc", "rustix", "tempfile"]) },
    Part { name: "gpuev-store", inside: &["gpuev"], outside: None },
    Part { name: "gpuev-agent", inside: &["gpuev", "gpuev-store"], outside: None },
    Part {
        name: "gpuev-cli",
        inside: &["gpuev-kfd", "gpuev", "gpuev-sim", "gpuev-store", "gpuev-agent"],
        outside: None,
    },
    Part { name: "gpuev-python", inside: &["gpuev", "gpuev-store", "gpuev-sim"], outside: None },
    Part { name: "xtask", inside: &[], outside: None },
];

/// What tests may use besides: the simulated machine.
const FOR_TESTS: &str = "gpuev-sim";

pub(super) fn check(root: &Path, found: &mut Found) -> Result {
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(root);
    let metadata: Value =
        serde_json::from_str(&output(&mut metadata)?).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata tells no packages")?;
    for package in packages {
        let Some(name) = package["name"].as_str() else { continue };
        declares(name, package, found);
        match PARTS.iter().find(|part| part.name == name) {
            Some(part) => edges(part, package, found),
            None => found.findings.push(format!("{name}: not a part of the design (PARTS)")),
        }
    }
    Ok(())
}

fn edges(part: &Part, package: &Value, found: &mut Found) {
    let name = part.name;
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let Some(on) = dependency["name"].as_str() else { continue };
        let for_tests = dependency["kind"] == "dev";
        let allowed = if dependency["path"].is_string() {
            part.inside.contains(&on) || (for_tests && on == FOR_TESTS && name != FOR_TESTS)
        } else {
            for_tests || part.outside.is_none_or(|outside| outside.contains(&on))
        };
        if !allowed {
            found.findings.push(format!("{name}: the design has no edge from it to {on}"));
        }
    }
}

fn declares(name: &str, package: &Value, found: &mut Found) {
    for field in ["rust_version", "license", "description"] {
        if package[field].is_null() {
            found.findings.push(format!("{name}: its manifest declares no {field}"));
        }
    }
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let manifest = std::fs::read_to_string(manifest).unwrap_or_default();
    if !manifest.contains("[lints]\nworkspace = true") {
        found.findings.push(format!("{name}: its manifest lacks `[lints] workspace = true`"));
    }
}
