//! The rules that keep the crates apart and the files small.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::root;

/// The only edges between members that a build may have.
const EDGES: [(&str, &str); 10] = [
    ("portcullis", "portcullis-actors"),
    ("portcullis", "portcullis-codecs"),
    ("portcullis", "portcullis-engine"),
    ("portcullis", "portcullis-derive"),
    ("portcullis-actors", "portcullis-engine"),
    ("portcullis-actors", "portcullis-transport"),
    ("portcullis-actors", "portcullis-derive"),
    ("portcullis-codecs", "portcullis-engine"),
    // Tests and benches of a member may use what they like of the others, upwards never: these are what there is.
    ("dev: portcullis", "portcullis-transport"),
    ("dev: portcullis-engine", "portcullis-codecs"),
];

/// Lines that a file may have.
const LONGEST: usize = 600;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// Dependencies of the members: crate, dependency, and whether only its tests use it.
fn dependencies(metadata: &Value) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let dev = dependency["kind"].as_str() == Some("dev");
            found.push((
                text(package, "name").to_owned(),
                text(dependency, "name").to_owned(),
                dev,
            ));
        }
    }
    found
}

#[test]
fn members_depend_on_each_other_only_as_the_design_says() {
    let metadata = metadata();
    let members: BTreeSet<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| text(p, "name"))
        .collect();
    assert!(members.contains("portcullis-transport"), "{members:?}");
    let forbidden: Vec<_> = dependencies(&metadata)
        .into_iter()
        .filter(|(_, to, _)| members.contains(to.as_str()))
        .filter(|(from, to, dev)| {
            let allowed = |from: &str| EDGES.iter().any(|(f, t)| *f == from && t == to);
            !(allowed(from) || (*dev && allowed(&format!("dev: {from}"))))
        })
        .collect();
    assert!(
        forbidden.is_empty(),
        "edges that the design does not have: {forbidden:?}"
    );
}

#[test]
fn engine_and_codecs_know_no_actors_and_no_executor() {
    let refused: Vec<_> = dependencies(&metadata())
        .into_iter()
        .filter(|(from, to, dev)| {
            ["portcullis-engine", "portcullis-codecs"].contains(&from.as_str())
                && !dev
                && ["actix", "actix-rt", "tokio"].contains(&to.as_str())
        })
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Every Rust file of the repository, without what is built.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "{} files", found.len());
    found
}

fn is_of(path: &Path, folder: &str) -> bool {
    path.strip_prefix(root()).unwrap().starts_with(folder)
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    assert!(
        long.is_empty(),
        "files of more than {LONGEST} lines: {long:#?}"
    );
}

#[test]
fn unsafe_code_is_only_where_it_may_be() {
    // Spelled apart, so that this file does not find itself.
    let words = ["block", "fn", "impl", "extern", "trait"].map(|what| match what {
        "block" => concat!("uns", "afe {").to_owned(),
        other => format!("{} {other}", concat!("uns", "afe")),
    });
    let attribute = concat!("#[", "unsafe(");
    let mut found = Vec::new();
    for path in sources() {
        // The attacks of `attack_matrix` are raw system calls by nature.
        let may = is_of(&path, "transport/src/sys")
            || is_of(&path, "transport/tests/attack_matrix")
            || path.components().any(|part| part.as_os_str() == "ffi");
        if may {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word.as_str())) || code.contains(attribute) {
                found.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_crate_but_transport_forbids_unsafe_code() {
    for member in ["engine", "derive", "codecs", "actors", "."] {
        let lib = fs::read_to_string(root().join(member).join("src/lib.rs")).unwrap();
        let forbids = lib.contains(concat!("#![forbid(", "unsafe_code)]"));
        assert!(forbids, "{member}");
    }
}

#[test]
fn cargo_run_is_the_command_as_the_readme_says() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("default-run = \"portcullis\""));
}
