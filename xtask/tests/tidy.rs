//! `cargo xtask tidy` finds what breaks each rule, names its place, and passes what is in order.

#![allow(clippy::unwrap_used)] // a panic is how a test fails, in its helpers too

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const LIB: &str = "//! A part.\n\n#![forbid(unsafe_code)]\n";

/// A workspace of one crate, in order, and what `tidy` says of it after `change`.
fn tidy(change: impl FnOnce(&Path)) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let workspace =
        "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n\n[workspace.lints]\n";
    write(root, "Cargo.toml", workspace);
    add_crate(root, "gpuev-store", "", LIB);
    change(root);
    let git = Command::new("git").args(["init", "--quiet"]).current_dir(root).status().unwrap();
    assert!(git.success());
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_xtask")).arg("tidy").arg(root).output().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.success(), said.into_owned())
}

fn add_crate(root: &Path, name: &str, dependencies: &str, lib: &str) {
    let manifest = format!(
        "[package]\nname = \"{name}\"\ndescription = \"A part\"\nversion = \"0.1.0\"\n\
         edition = \"2024\"\nrust-version = \"1.89\"\nlicense = \"MIT\"\n\n\
         {dependencies}\n[lints]\nworkspace = true\n"
    );
    write(root, &format!("crates/{name}/Cargo.toml"), &manifest);
    write(root, &format!("crates/{name}/src/lib.rs"), lib);
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[track_caller]
fn finds(expected: &str, change: impl FnOnce(&Path)) {
    let (passed, said) = tidy(change);
    assert!(!passed && said.contains(expected), "{expected:?} is not in:\n{said}");
}

#[track_caller]
fn finds_in_source(expected: &str, source: &str) {
    finds(expected, |root| write(root, "crates/gpuev-store/src/lib.rs", &format!("{LIB}{source}")));
}

#[track_caller]
fn passes(source: &str) {
    let (passed, said) =
        tidy(|root| write(root, "crates/gpuev-store/src/lib.rs", &format!("{LIB}{source}")));
    assert!(passed, "{said}");
}

fn function_of(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
}

#[test]
fn a_workspace_in_order_passes() {
    passes("/// Adds.\npub fn add() {}\n");
}

#[test]
fn an_edge_that_the_design_does_not_have() {
    finds("gpuev-kfd: the design has no edge from it to gpuev-store", |root| {
        let dependency = "[dependencies]\ngpuev-store = { path = \"../gpuev-store\" }\n";
        add_crate(root, "gpuev-kfd", dependency, LIB);
    });
}

#[test]
fn the_simulator_may_serve_tests_and_nothing_else() {
    let with = |kind: &str| {
        let dependency = format!("[{kind}]\ngpuev-sim = {{ path = \"../gpuev-sim\" }}\n");
        tidy(|root| {
            add_crate(root, "gpuev-sim", "", LIB);
            add_crate(root, "gpuev", &dependency, LIB);
        })
    };
    let (passed, said) = with("dev-dependencies");
    assert!(passed, "{said}");
    let (passed, said) = with("dependencies");
    assert!(
        !passed && said.contains("gpuev: the design has no edge from it to gpuev-sim"),
        "{said}"
    );
}

#[test]
fn a_dependency_from_elsewhere_where_the_list_is_closed() {
    finds("gpuev-kfd: the design has no edge from it to serde", |root| {
        add_crate(root, "gpuev-kfd", "[dependencies]\nserde = \"1\"\n", LIB);
    });
}

#[test]
fn a_crate_without_a_place_in_the_design() {
    finds("gpuev-common: not a part of the design", |root| {
        add_crate(root, "gpuev-common", "", LIB);
    });
}

#[test]
fn a_manifest_without_its_declarations() {
    let manifest = "[package]\nname = \"gpuev\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    for expected in ["no rust_version", "no license", "lacks `[lints] workspace = true`"] {
        finds(expected, |root| {
            write(root, "crates/gpuev/Cargo.toml", manifest);
            write(root, "crates/gpuev/src/lib.rs", LIB);
        });
    }
}

#[test]
fn a_module_that_does_not_say_what_it_is() {
    finds("src/quiet.rs: the module has no `//!`", |root| {
        write(root, "crates/gpuev-store/src/quiet.rs", "fn f() {}\n");
    });
}

#[test]
fn a_function_of_101_lines() {
    finds_in_source("src/lib.rs:4: `long` has 101 lines", &function_of(101));
    let in_tests = format!("#[cfg(test)]\nmod tests {{\n#[test]\n{}}}\n", function_of(101));
    finds_in_source("`long` has 101 lines", &in_tests);
}

#[test]
fn functions_that_are_long_as_a_rule() {
    finds_in_source("one of ten functions is longer than 31 lines", &function_of(31));
    passes(&function_of(30));
    let in_tests = format!("#[cfg(test)]\nmod tests {{\n#[test]\n{}}}\n", function_of(31));
    passes(&in_tests);
}

#[test]
fn a_file_of_more_than_1000_lines_without_its_tests() {
    let lines = |count: usize| "const A: u8 = 1;\n".repeat(count);
    finds_in_source("1004 lines; no file may pass 1000", &lines(1001));
    passes(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(1001)));
    let (passed, said) = tidy(|root| {
        write(root, "crates/gpuev-store/src/lib.rs", &format!("{LIB}{}", lines(700)));
    });
    assert!(passed && said.contains("over 600 a file wants to be two"), "{said}");
}

#[test]
fn unwrap_outside_tests() {
    let function = "fn f(a: Option<u8>) -> u8 { a.unwrap() }\n";
    finds_in_source("src/lib.rs:4: `unwrap` outside tests", function);
    finds_in_source("`unwrap` outside tests", &format!("#[cfg(not(test))]\n{function}"));
    passes(&format!("#[cfg(test)]\nmod tests {{\n{function}}}\n"));
    passes(&format!("#[cfg(all(test, feature = \"tokio\"))]\nmod tests {{\n{function}}}\n"));
}

#[test]
fn unsafe_in_a_crate_that_may_not_hold_it() {
    let function = "fn f(a: *const u8) -> u8 { unsafe { *a } }\n";
    finds_in_source("src/lib.rs:4: `unsafe` may stand in the crates for it only", function);
    finds_in_source("`unsafe` may stand", "unsafe fn f() {}\n");
    finds_in_source("`unsafe` may stand", "struct S;\nunsafe impl Send for S {}\n");
    let (passed, said) = tidy(|root| {
        add_crate(root, "gpuev-kfd", "", &format!("//! The kernel.\n{function}"));
    });
    assert!(passed, "{said}");
}

#[test]
fn a_crate_that_does_not_forbid_unsafe() {
    finds("src/lib.rs: the crate lacks `#![forbid(unsafe_code)]`", |root| {
        write(root, "crates/gpuev-store/src/lib.rs", "//! A part.\n");
    });
}

#[test]
fn unfinished_code() {
    finds_in_source("src/lib.rs:4: `todo!` is unfinished", "fn f() { todo!() }\n");
    finds_in_source("`unimplemented!` is unfinished", "fn f() { unimplemented!() }\n");
}

#[test]
fn source_that_is_not_rust() {
    finds_in_source("src/lib.rs: cannot parse", "fn {\n");
}

#[test]
fn places_of_one_machine() {
    finds("README.md:2: `/work/` belongs to one machine", |root| {
        write(root, "README.md", "gpuev\nsee /work/notes\n");
    });
    finds("`pypi.org` belongs to one machine", |root| {
        write(root, "packaging/pip.conf", "index = https://pypi.org/simple\n");
    });
    let (passed, said) = tidy(|root| write(root, "README.md", "in ~/work/ and target/root/\n"));
    assert!(passed, "{said}");
}
