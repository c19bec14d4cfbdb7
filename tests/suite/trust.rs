//! Keys, signed manifests and their checks, as the users of `portcullis trust` see them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use portcullis::engine::trust::{
    Envelope, HostEntry, ImageDigest, MANIFEST_TYPE, Manifest, PrivateKey, PublicKey, TrustError,
    TrustRoots, UnixTime, verify,
};
use portcullis::host::{DescribeHost, Host};
use portcullis::{Error, ErrorKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::command::{Finished, portcullis};
use crate::support::run;

/// Exit codes of the command.
const OTHER_FAILURE: Option<i32> = Some(1);
const WRONG_USAGE: Option<i32> = Some(2);
const NOT_READ: Option<i32> = Some(3);
const NOT_TRUSTED: Option<i32> = Some(7);

/// Where a test signs: a key, a program and its manifest.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// With a key and a signed program.
    fn signed() -> Self {
        let desk = Self::new();
        desk.keygen("key", &[]);
        desk.copy_host("host");
        desk.sign(&["--component", "container.mp4@1"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn keygen(&self, name: &str, more: &[&str]) -> Value {
        let made = portcullis(["trust", "keygen", "--json", "-o", &self.text(name)])
            .args(more)
            .finish();
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        made.json()
    }

    /// A program that can be a host.
    fn copy_host(&self, name: &str) {
        fs::copy(env!("CARGO_BIN_EXE_portcullis-host"), self.path(name)).unwrap();
    }

    fn try_sign(&self, more: &[&str]) -> Finished {
        portcullis(["trust", "sign", "--json"])
            .args(&["--key", &self.text("key"), "--host", &self.text("host")])
            .args(&["-o", &self.text("manifest")])
            .args(more)
            .finish()
    }

    fn sign(&self, more: &[&str]) -> Value {
        let signed = self.try_sign(more);
        assert_eq!(signed.code, Some(0), "{}", signed.stderr);
        signed.json()
    }

    fn try_verify(&self, more: &[&str]) -> Finished {
        portcullis(["trust", "verify", "--json", &self.text("manifest")])
            .args(&["--root", &self.text("key.pub")])
            .args(more)
            .finish()
    }

    /// The kind of the refusal, and what belongs to it.
    fn refusal(&self, more: &[&str]) -> Value {
        let verify = self.try_verify(more);
        assert_eq!(verify.code, NOT_TRUSTED, "{}", verify.stderr);
        assert!(verify.stderr.contains("not trusted: "), "{}", verify.stderr);
        let error = verify.json()["error"].clone();
        assert_eq!(error["code"], 7);
        assert_eq!(error["kind"], "NotTrusted");
        error["detail"].clone()
    }

    fn key(&self) -> PrivateKey {
        PrivateKey::parse(&fs::read(self.path("key")).unwrap()).unwrap()
    }

    /// Changes what was signed and signs it again.
    fn sign_changed(&self, change: impl FnOnce(&mut Manifest)) {
        let envelope = Envelope::parse(&fs::read(self.path("manifest")).unwrap()).unwrap();
        let mut manifest = Manifest::parse(envelope.payload()).unwrap();
        change(&mut manifest);
        let payload = manifest.to_json().unwrap();
        let envelope = Envelope::sign(MANIFEST_TYPE, payload, &[&self.key()]).unwrap();
        fs::write(self.path("manifest"), envelope.to_json()).unwrap();
    }
}

fn change_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_program_is_signed_and_verified() {
    let desk = Desk::new();
    let key = desk.keygen("key", &[]);
    desk.copy_host("host");
    let signed = desk.sign(&[
        "--component",
        "container.mp4@1",
        "--component",
        "audio.aac@3",
    ]);
    let manifest = &signed["manifest"];
    assert_eq!(manifest["name"], "host");
    let image = ImageDigest::of(&fs::read(desk.path("host")).unwrap());
    assert_eq!(manifest["host"]["sha256"], json!(image.sha256));
    assert_eq!(manifest["host"]["size"], json!(image.size));
    let target = format!("{}-linux", std::env::consts::ARCH);
    assert_eq!(manifest["host"]["target"], target);
    assert_eq!(
        manifest["components"],
        json!([{"class": "audio.aac", "version": 3}, {"class": "container.mp4", "version": 1}])
    );

    let verified = desk.try_verify(&["--host", &desk.text("host")]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert_eq!(verified.stderr, "");
    let verified = verified.json();
    assert_eq!(verified["verified"], true);
    assert_eq!(verified["development"], false);
    assert_eq!(verified["signers"], json!([key["key_id"]]));
    assert_eq!(verified["checked"], json!(["host"]));
    assert_eq!(&verified["manifest"], manifest);

    let text = portcullis(["trust", "verify", &desk.text("manifest")])
        .args(&["--root", &desk.text("key.pub")])
        .finish();
    assert!(text.stdout.starts_with("verified: "), "{}", text.stdout);
    assert!(text.stdout.contains("was not checked"), "{}", text.stdout);
}

#[test]
fn a_private_key_is_its_owners_and_is_not_written_over() {
    let desk = Desk::new();
    let first = desk.keygen("key", &[]);
    let mode = |name: &str| fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key"), 0o600);
    assert_eq!(mode("key.pub") & 0o600, 0o600);
    let again = portcullis(["trust", "keygen", "-o", &desk.text("key")]).finish();
    assert_eq!(again.code, OTHER_FAILURE);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(json!(desk.key().public().id()), first["key_id"]);

    fs::set_permissions(desk.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let second = desk.keygen("key", &["--force"]);
    assert_ne!(first["key_id"], second["key_id"]);
    assert_eq!(json!(desk.key().public().id()), second["key_id"]);
    assert_eq!(mode("key"), 0o600);
    let public = PublicKey::parse(&fs::read(desk.path("key.pub")).unwrap()).unwrap();
    assert_eq!(public, desk.key().public());
}

#[test]
fn half_a_pair_is_never_made() {
    let desk = Desk::new();
    fs::write(desk.path("key.pub"), "somebody's").unwrap();
    let made = portcullis(["trust", "keygen", "-o", &desk.text("key")]).finish();
    assert_eq!(made.code, OTHER_FAILURE, "{}", made.stderr);
    assert!(!desk.path("key").exists());
}

#[test]
fn a_changed_program_is_refused() {
    let desk = Desk::signed();
    let host = desk.text("host");
    change_byte(&desk.path("host"), 4096);
    let refusal = desk.refusal(&["--host", &host]);
    let found = ImageDigest::of(&fs::read(desk.path("host")).unwrap());
    assert_eq!(refusal["ImageMismatch"]["found"], json!(found));
    let mut bytes = fs::read(desk.path("host")).unwrap();
    bytes.push(0);
    fs::write(desk.path("host"), bytes).unwrap();
    let refusal = desk.refusal(&["--host", &host]);
    assert_eq!(refusal["SizeMismatch"]["found"], found.size + 1);
}

#[test]
fn a_changed_manifest_is_refused() {
    let desk = Desk::signed();
    let path = desk.path("manifest");
    let original = fs::read_to_string(&path).unwrap();
    let payload = original.find("\"payload\":\"").unwrap() + 40;
    let signature = original.find("\"sig\":\"").unwrap() + 20;
    for (at, names) in [(payload, ["Tampered"]), (signature, ["BadSignature"])] {
        // The letter after it, so that it stays Base64.
        let mut bytes = original.clone().into_bytes();
        bytes[at] = if bytes[at] == b'b' { b'c' } else { b'b' };
        fs::write(&path, bytes).unwrap();
        let refusal = desk.refusal(&[]);
        assert!(
            names.iter().all(|name| !refusal[name].is_null()),
            "{refusal}"
        );
    }
    fs::write(&path, &original[..original.len() / 2]).unwrap();
    assert_eq!(desk.refusal(&[])["Malformed"]["what"], "envelope");
    fs::write(&path, vec![b' '; 1 << 20]).unwrap();
    assert!(desk.refusal(&[])["Oversize"].is_object());
}

#[test]
fn a_stranger_is_refused() {
    let desk = Desk::signed();
    let stranger = desk.keygen("stranger", &[]);
    let verify = portcullis(["trust", "verify", "--json", &desk.text("manifest")])
        .args(&["--root", &desk.text("stranger.pub")])
        .finish();
    assert_eq!(verify.code, NOT_TRUSTED, "{}", verify.stderr);
    let signers = &verify.json()["error"]["detail"]["UnknownSigner"]["signers"];
    assert_eq!(*signers, json!([desk.key().public().id()]));
    assert_ne!(*signers, json!([stranger["key_id"]]));
    // Beside the right one he does no harm.
    let both = desk.try_verify(&["--root", &desk.text("stranger.pub")]);
    assert_eq!(both.code, Some(0), "{}", both.stderr);
}

#[test]
fn what_is_expired_or_of_the_future_is_refused() {
    let desk = Desk::signed();
    desk.sign_changed(|manifest| {
        manifest.issued = UnixTime(1);
        manifest.expires = UnixTime(1_000_000_000);
    });
    assert_eq!(desk.refusal(&[])["Expired"]["at"], 1_000_000_000);
    desk.sign_changed(|manifest| {
        manifest.issued = UnixTime(4_000_000_000);
        manifest.expires = UnixTime(5_000_000_000);
    });
    assert_eq!(desk.refusal(&[])["NotYetValid"]["from"], 4_000_000_000u64);
    desk.sign_changed(|manifest| {
        manifest.issued = UnixTime(1);
        manifest.min_revocation_version = Some(2);
    });
    assert_eq!(desk.refusal(&[])["RevocationListMissing"]["version"], 2);
}

#[test]
fn the_programs_own_components_are_signed_and_checked() {
    let desk = Desk::signed();
    let signed = desk.sign(&["--all-components"]);
    let components = signed["manifest"]["components"].as_array().unwrap();
    let expected = portcullis::builtin().components().class_versions();
    assert_eq!(json!(components), json!(expected));
    let check = ["--host", &desk.text("host"), "--all-components"];
    let verified = desk.try_verify(&check);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    assert_eq!(verified.json()["checked"], json!(["host", "components"]));

    // What was signed in another version, or not at all.
    desk.sign_changed(|manifest| manifest.components[0].version = 9);
    let refusal = desk.refusal(&check);
    assert_eq!(refusal["ComponentVersion"]["listed"], 9);
    desk.sign_changed(|manifest| drop(manifest.components.remove(0)));
    let refusal = desk.refusal(&check);
    assert_eq!(
        refusal["ComponentNotListed"]["class"],
        json!(expected[0].class)
    );
}

#[test]
fn a_program_that_is_no_host_cannot_be_asked() {
    let desk = Desk::new();
    desk.keygen("key", &[]);
    fs::copy("/bin/true", desk.path("host")).unwrap();
    let signed = desk.try_sign(&["--all-components"]);
    assert!(
        matches!(signed.code, Some(5 | 6)),
        "{:?} {}",
        signed.code,
        signed.stderr
    );
    assert!(!desk.path("manifest").exists());
    fs::write(desk.path("host"), "#!/bin/sh\n").unwrap();
    let signed = desk.try_sign(&["--component", "a@1"]);
    assert_eq!(signed.code, WRONG_USAGE, "{}", signed.stderr);
    assert!(signed.stderr.contains("ELF"), "{}", signed.stderr);
    // What has no end, or nobody to write it, is not waited for.
    for endless in ["/dev/zero", "pipe"] {
        let path = desk.path(endless);
        if endless == "pipe" {
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        }
        let host = path.to_str().unwrap();
        let signed = portcullis(["trust", "sign", "--development-key", "--host", host])
            .args(&["--component", "a@1", "-o", &desk.text("manifest")])
            .finish();
        assert_eq!(signed.code, WRONG_USAGE, "{host}: {}", signed.stderr);
    }
}

#[test]
fn development_keys_work_and_are_marked_wherever_they_are_seen() {
    const MARK: &str = "development key: no protection";
    let is_marked = |finished: &Finished| {
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains(MARK), "{}", finished.stderr);
    };
    let desk = Desk::new();
    desk.copy_host("host");
    let made = portcullis(["trust", "keygen", "--development", "-o", &desk.text("key")]).finish();
    is_marked(&made);
    is_marked(&desk.try_sign(&["--component", "a@1"]));
    let verified = desk.try_verify(&[]);
    is_marked(&verified);
    assert_eq!(verified.json()["development"], true);
    // The mark of the manifest is signed: a root without it does not help.
    let unmarked = PublicKey::from_bytes(*desk.key().public().as_bytes());
    fs::write(desk.path("key.pub"), unmarked.to_json()).unwrap();
    is_marked(&desk.try_verify(&[]));

    // The one that everybody has needs no file.
    let manifest = desk.text("manifest");
    let signed = portcullis(["trust", "sign", "--development-key", "--component", "a@1"])
        .args(&["--host", &desk.text("host"), "-o", &manifest])
        .finish();
    is_marked(&signed);
    let verified = portcullis(["trust", "verify", "--development-root", &manifest]).finish();
    is_marked(&verified);
    assert!(verified.stdout.contains(MARK), "{}", verified.stdout);
    let inspected = portcullis(["trust", "inspect", &manifest]).finish();
    is_marked(&inspected);
    assert!(inspected.stdout.contains(MARK), "{}", inspected.stdout);
    is_marked(&portcullis(["trust", "inspect", &desk.text("key")]).finish());
}

#[test]
fn inspect_shows_and_believes_nothing() {
    let desk = Desk::signed();
    let inspect =
        |name: &str| portcullis(["trust", "inspect", "--json", &desk.text(name)]).finish();
    // Another signature: whatever it is, it is shown.
    let text = fs::read_to_string(desk.path("manifest")).unwrap();
    let id = desk.key().public().id().to_string();
    fs::write(desk.path("manifest"), text.replace(&id, &"0".repeat(64))).unwrap();
    let shown = inspect("manifest");
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let shown = shown.json();
    assert_eq!(shown["verified"], false);
    assert_eq!(shown["signers"], json!(["0".repeat(64)]));
    assert_eq!(shown["manifest"]["components"][0]["class"], "container.mp4");
    let human = portcullis(["trust", "inspect", &desk.text("manifest")]).finish();
    assert!(human.stdout.starts_with("NOT VERIFIED"), "{}", human.stdout);

    let public = inspect("key.pub").json();
    assert_eq!(public["key_id"], json!(id));
    let private = inspect("key");
    assert_eq!(private.json()["key_id"], json!(id));
    let file: Value = serde_json::from_slice(&fs::read(desk.path("key")).unwrap()).unwrap();
    let secret = file["seed"].as_str().unwrap();
    assert!(!private.stdout.contains(secret));
    assert_eq!(inspect("host").code, NOT_TRUSTED);
}

#[test]
fn wrong_usage_and_missing_files_have_their_codes() {
    let desk = Desk::signed();
    let code = |arguments: &[&str]| portcullis(["trust"]).args(arguments).finish().code;
    let manifest = desk.text("manifest");
    assert_eq!(code(&["verify", &manifest]), WRONG_USAGE);
    assert_eq!(
        code(&["sign", "--host", "x", "-o", "y", "--component", "a@1"]),
        WRONG_USAGE
    );
    assert_eq!(desk.try_sign(&[]).code, WRONG_USAGE);
    assert_eq!(desk.try_sign(&["--component", "a"]).code, WRONG_USAGE);
    assert_eq!(
        desk.try_sign(&["--component", "a@1", "--expires", "soon"])
            .code,
        WRONG_USAGE
    );
    assert_eq!(
        desk.try_sign(&["--component", "a@1", "--component", "a@2"])
            .code,
        WRONG_USAGE
    );
    let missing = desk.text("missing");
    assert_eq!(code(&["inspect", &missing]), NOT_READ);
    assert_eq!(code(&["verify", &manifest, "--root", &missing]), NOT_READ);
    // A private key is no root, by mistake or not.
    assert_eq!(
        code(&["verify", &manifest, "--root", &desk.text("key")]),
        NOT_TRUSTED
    );
    let help = portcullis(["--help"]).finish().stdout;
    assert!(help.contains("not trusted"), "{help}");
}

#[test]
fn a_library_user_verifies_what_the_command_signed() {
    let desk = Desk::signed();
    desk.sign(&["--all-components"]);
    let envelope = fs::read(desk.path("manifest")).unwrap();
    let roots = TrustRoots::new([desk.key().public()]).unwrap();
    let now = UnixTime(
        std::time::UNIX_EPOCH
            .elapsed()
            .map(|since| since.as_secs())
            .unwrap(),
    );
    let verified = verify(&envelope, &roots, now).unwrap();
    run(async {
        let host = Host::program(desk.path("host")).start().await.unwrap();
        let facts = host.pmp_host().send(DescribeHost).await.unwrap();
        verified.check_components(&facts.components).unwrap();
    });
    let other = HostEntry::new(ImageDigest::of(b"another"), "x86_64-linux");
    let error = Error::from(verified.check_image(&other.image()).unwrap_err());
    assert!(
        matches!(
            error.kind(),
            ErrorKind::NotTrusted(TrustError::SizeMismatch { .. })
        ),
        "{error}"
    );
    assert!(!error.is_content() && !error.is_retryable());
}
