//! `examples/custom_host`: a crate of somebody else with a host program of its own, built, signed, verified and run as its
//! README says.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::cli::command::portcullis;
use crate::support::{media, root, target_directory};

/// Copies the crate, so that nothing is written into the repository, and builds it in the workspace's target directory.
fn build(into: &Path) {
    let from = root().join("examples/custom_host");
    fs::create_dir_all(into.join("src/bin")).unwrap();
    for file in ["src/lib.rs", "src/bin/my-host.rs", "src/bin/my-app.rs"] {
        fs::copy(from.join(file), into.join(file)).unwrap();
    }
    fs::copy(root().join("Cargo.lock"), into.join("Cargo.lock")).unwrap();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // The workspace's own profile and features, so that what is built already is built the same way.
    let profile = workspace.split_once("[profile.dev]").unwrap().1;
    let profile = profile.split_once("[profile.release]").unwrap().0;
    let members: String = ["", "-engine", "-derive", "-transport", "-codecs", "-actors"]
        .iter()
        .map(|member| format!("[profile.dev.package.portcullis{member}]\nopt-level = 0\n"))
        .collect();
    let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
    let dependency = "{ path = \"../..\", default-features = false }";
    assert!(manifest.contains(dependency));
    let manifest = manifest.replace(dependency, &format!("{{ path = {:?} }}", root()));
    let manifest = format!("{manifest}\n[profile.dev]{profile}{members}");
    fs::write(into.join("Cargo.toml"), manifest).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--config"])
        .arg(root().join(".cargo/config.toml"))
        .current_dir(into)
        .env("CARGO_TARGET_DIR", target_directory())
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{}\n{errors}", built.status);
}

#[test]
fn a_host_program_of_ones_own_is_built_signed_verified_and_run() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    // Beside this test program: .../debug/deps/suite-...
    let programs = std::env::current_exe().unwrap();
    let programs = programs.parent().unwrap().parent().unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let host = text(&programs.join("my-host"));
    let [key, public, manifest] = ["publisher.key", "publisher.key.pub", "my-host.manifest"]
        .map(|name| text(&folder.path().join(name)));

    let made = portcullis(["trust", "keygen", "-o", &key]).finish();
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let signed = portcullis(["trust", "sign", "--key", &key, "--host", &host])
        .args(&["--all-components", "-o", &manifest])
        .finish();
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
    // The program is static: no word of a loader.
    assert_eq!(signed.stderr, "");
    let verified = portcullis(["trust", "verify", "--json", &manifest, "--root", &public])
        .args(&["--host", &host, "--all-components"])
        .finish();
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let components = verified.json()["manifest"]["components"].clone();
    let own = json!({"class": "my.quieter", "version": 2});
    assert!(
        components.as_array().unwrap().contains(&own),
        "{components}"
    );

    let clip = text(&media::clip());
    let isolated = play(&programs.join("my-app"), &[&host, &clip]);
    assert!(isolated.contains("in an isolated host"), "{isolated}");
    let protected = play(
        &programs.join("my-app"),
        &[&host, &clip, &manifest, &public],
    );
    assert!(protected.contains("in a protected host"), "{protected}");
}

/// Runs the application of the example and gives what it printed.
fn play(program: &Path, arguments: &[&str]) -> String {
    let played = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(arguments)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&played.stdout).into_owned();
    let errors = String::from_utf8_lossy(&played.stderr);
    assert!(
        played.status.success(),
        "{}\n{out}\n{errors}",
        played.status
    );
    assert!(out.contains("my.quieter@2"), "{out}");
    assert!(out.contains("the loudest value is "), "{out}");
    out
}

#[test]
fn its_readme_has_ten_commands_at_most() {
    let readme = include_str!("../../examples/custom_host/README.md");
    let commands = readme.lines().filter(|line| line.starts_with("$ ")).count();
    assert!((1..=10).contains(&commands), "{commands} commands");
}
