//! Every refusal by its name, and nothing else verifies.

#![allow(clippy::unwrap_used, reason = "tests")]

mod tampering;

use super::*;
use crate::error::{Error, ErrorKind};

const ISSUED: UnixTime = UnixTime(1_800_000_000);
const EXPIRES: UnixTime = UnixTime(1_807_776_000);
const PROGRAM: &[u8] = b"\x7fELF a static program";

fn key() -> PrivateKey {
    PrivateKey::from_seed([7; 32])
}

fn roots() -> TrustRoots {
    TrustRoots::new([key().public()]).unwrap()
}

fn component(class: &str, version: u32) -> ClassVersion {
    ClassVersion {
        class: class.into(),
        version,
    }
}

fn manifest() -> Manifest {
    Manifest {
        name: "example-host".into(),
        version: 3,
        issued: ISSUED,
        expires: EXPIRES,
        host: HostEntry::new(ImageDigest::of(PROGRAM), "x86_64-linux"),
        components: vec![component("container.mp4", 1), component("audio.gain", 2)],
        development: false,
        min_revocation_version: None,
    }
}

fn signed(manifest: &Manifest) -> Vec<u8> {
    sealed(manifest.to_json().unwrap())
}

/// Any bytes with a good signature.
fn sealed(payload: impl Into<Vec<u8>>) -> Vec<u8> {
    Envelope::sign(MANIFEST_TYPE, payload.into(), &[&key()])
        .unwrap()
        .to_json()
}

fn refusal(envelope: &[u8]) -> TrustError {
    verify(envelope, &roots(), ISSUED).unwrap_err()
}

/// A signed manifest's JSON with one replacement.
fn refusal_of_changed(from: &str, to: &str) -> TrustError {
    let text = String::from_utf8(manifest().to_json().unwrap()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    refusal(&sealed(text.replacen(from, to, 1)))
}

#[test]
fn what_is_signed_comes_out() {
    let verified = verify(&signed(&manifest()), &roots(), ISSUED).unwrap();
    assert_eq!(verified.manifest(), &manifest());
    assert_eq!(verified.signers(), [key().public().id()]);
    assert!(!verified.is_development());
}

#[test]
fn the_form_is_the_one_of_the_golden_file() {
    let golden = include_bytes!("tests/manifest.golden.json");
    let key = PrivateKey::development();
    let envelope = Envelope::sign(MANIFEST_TYPE, manifest().to_json().unwrap(), &[&key]).unwrap();
    let text = String::from_utf8(envelope.to_json()).unwrap();
    assert_eq!(text, String::from_utf8_lossy(golden).trim_end());
    let verified = verify(golden, &TrustRoots::development(), ISSUED).unwrap();
    assert_eq!(verified.manifest(), &manifest());
    assert!(verified.is_development());
}

#[test]
fn it_is_valid_from_issue_to_expiry() {
    let envelope = signed(&manifest());
    let at = |seconds| verify(&envelope, &roots(), UnixTime(seconds));
    assert!(at(ISSUED.0).is_ok());
    assert!(at(EXPIRES.0 - 1).is_ok());
    for now in [EXPIRES.0, u64::MAX] {
        let now = UnixTime(now);
        let expected = TrustError::Expired { at: EXPIRES, now };
        assert_eq!(at(now.0), Err(expected));
    }
    for now in [0, ISSUED.0 - 1] {
        let now = UnixTime(now);
        let expected = TrustError::NotYetValid { from: ISSUED, now };
        assert_eq!(at(now.0), Err(expected));
    }
}

#[test]
fn only_the_listed_program_passes() {
    let verified = verify(&signed(&manifest()), &roots(), ISSUED).unwrap();
    let expected = ImageDigest::of(PROGRAM);
    assert_eq!(verified.check_image(&expected), Ok(()));
    let mut other = PROGRAM.to_vec();
    other[9] ^= 1;
    let found = ImageDigest::of(&other);
    assert_eq!(
        verified.check_image(&found),
        Err(TrustError::ImageMismatch { expected, found })
    );
    other.push(0);
    assert_eq!(
        verified.check_image(&ImageDigest::of(&other)),
        Err(TrustError::SizeMismatch {
            expected: PROGRAM.len() as u64,
            found: PROGRAM.len() as u64 + 1
        })
    );
}

#[test]
fn only_listed_components_pass_in_their_version() {
    let verified = verify(&signed(&manifest()), &roots(), ISSUED).unwrap();
    assert_eq!(
        verified.check_components(&[component("audio.gain", 2)]),
        Ok(())
    );
    assert_eq!(verified.check_components(&manifest().components), Ok(()));
    assert_eq!(
        verified.check_components(&[component("audio.gain", 1)]),
        Err(TrustError::ComponentVersion {
            class: "audio.gain".into(),
            listed: 2,
            found: 1
        })
    );
    assert_eq!(
        component("evil.decoder", 1).check_listed(&manifest().components),
        Err(TrustError::ComponentNotListed {
            class: "evil.decoder".into()
        })
    );
    let many = vec![component("audio.gain", 2); MAX_COMPONENTS + 1];
    assert!(matches!(
        verified.check_components(&many),
        Err(TrustError::Oversize { .. })
    ));
}

#[test]
fn an_unsigned_document_is_refused() {
    let payload = manifest().to_json().unwrap();
    let envelope = Envelope::sign(MANIFEST_TYPE, payload.clone(), &[]).unwrap();
    assert_eq!(refusal(&envelope.to_json()), TrustError::Unsigned);
    // The bare manifest is no envelope at all.
    assert_eq!(
        refusal(&payload),
        TrustError::UnknownField {
            what: "envelope".into(),
            field: "schema".into()
        }
    );
}

#[test]
fn a_stranger_is_refused_and_a_known_one_beside_him_is_not() {
    let stranger = PrivateKey::from_seed([8; 32]);
    let payload = manifest().to_json().unwrap();
    let sign = |keys: &[&PrivateKey]| {
        Envelope::sign(MANIFEST_TYPE, payload.clone(), keys)
            .unwrap()
            .to_json()
    };
    assert_eq!(
        refusal(&sign(&[&stranger])),
        TrustError::UnknownSigner {
            signers: vec![stranger.public().id()]
        }
    );
    let verified = verify(&sign(&[&stranger, &key()]), &roots(), ISSUED).unwrap();
    assert_eq!(verified.signers(), [key().public().id()]);
}

#[test]
fn a_signature_of_another_key_is_wrong_even_beside_a_good_one() {
    let id = |key: &PrivateKey| key.public().id().to_string();
    let stranger = PrivateKey::from_seed([8; 32]);
    let other = PrivateKey::from_seed([9; 32]);
    let payload = manifest().to_json().unwrap();
    let envelope = Envelope::sign(MANIFEST_TYPE, payload, &[&stranger, &key()]).unwrap();
    let text = String::from_utf8(envelope.to_json()).unwrap();
    let forged = text.replace(&id(&stranger), &id(&other));
    let roots = TrustRoots::new([key().public(), other.public()]).unwrap();
    assert_eq!(
        verify(forged.as_bytes(), &roots, ISSUED),
        Err(TrustError::BadSignature {
            signer: other.public().id()
        })
    );
}

#[test]
fn a_changed_payload_is_tampered_with_or_badly_signed() {
    let envelope = Envelope::parse(&signed(&manifest())).unwrap();
    let mut newer = manifest();
    newer.version += 1;
    let newer = Envelope::sign(MANIFEST_TYPE, newer.to_json().unwrap(), &[]).unwrap();
    let text = |envelope: &Envelope| -> serde_json::Value {
        serde_json::from_slice(&envelope.to_json()).unwrap()
    };
    let mut changed = text(&envelope);
    changed["payload"] = text(&newer)["payload"].clone();
    assert!(matches!(
        refusal(changed.to_string().as_bytes()),
        TrustError::Tampered { .. }
    ));
    // Whoever brings the digest up to date meets the signature.
    changed["payloadSha256"] = text(&newer)["payloadSha256"].clone();
    let signer = key().public().id();
    assert_eq!(
        refusal(changed.to_string().as_bytes()),
        TrustError::BadSignature { signer }
    );
}

#[test]
fn a_signature_holds_for_one_type_of_document() {
    let other = "application/vnd.portcullis.revocation+json";
    let envelope = Envelope::sign(other, manifest().to_json().unwrap(), &[&key()]).unwrap();
    assert_eq!(
        refusal(&envelope.to_json()),
        TrustError::WrongType {
            expected: MANIFEST_TYPE.into(),
            found: other.into()
        }
    );
    let text = String::from_utf8(envelope.to_json()).unwrap();
    let signer = key().public().id();
    assert_eq!(
        refusal(text.replace(other, MANIFEST_TYPE).as_bytes()),
        TrustError::BadSignature { signer }
    );
}

#[test]
fn a_key_signs_once() {
    let signer = key().public().id();
    let payload = manifest().to_json().unwrap();
    let twice = Envelope::sign(MANIFEST_TYPE, payload, &[&key(), &key()]);
    assert_eq!(twice, Err(TrustError::DuplicateSigner { signer }));
    let mut text: serde_json::Value = serde_json::from_slice(&signed(&manifest())).unwrap();
    let signature = text["signatures"][0].clone();
    text["signatures"].as_array_mut().unwrap().push(signature);
    assert_eq!(
        refusal(text.to_string().as_bytes()),
        TrustError::DuplicateSigner { signer }
    );
}

#[test]
fn unknown_fields_are_refused_wherever_they_are() {
    let unknown = |what: &'static str| TrustError::UnknownField {
        what: what.into(),
        field: "colour".into(),
    };
    for (from, to) in [
        ("{\"schema\"", "{\"colour\":1,\"schema\""),
        ("{\"sha256\"", "{\"colour\":1,\"sha256\""),
        ("{\"class\"", "{\"colour\":1,\"class\""),
    ] {
        assert_eq!(refusal_of_changed(from, to), unknown("manifest"));
    }
    let text = String::from_utf8(signed(&manifest())).unwrap();
    for (from, to) in [
        ("{\"payloadType\"", "{\"colour\":1,\"payloadType\""),
        ("{\"keyid\"", "{\"colour\":1,\"keyid\""),
    ] {
        assert!(text.contains(from));
        assert_eq!(
            refusal(text.replace(from, to).as_bytes()),
            unknown("envelope")
        );
    }
}

#[test]
fn other_schemas_and_what_they_may_ask_for_are_refused() {
    assert_eq!(
        refusal_of_changed("\"schema\":1", "\"schema\":2,\"roles\":[]"),
        TrustError::UnsupportedSchema { found: 2, known: 1 }
    );
    let mut manifest = manifest();
    manifest.min_revocation_version = Some(4);
    assert_eq!(
        refusal(&signed(&manifest)),
        TrustError::RevocationListMissing { version: 4 }
    );
}

#[test]
fn malformed_manifests_are_refused_though_they_are_signed() {
    for (from, to, why) in [
        ("example-host", "example host", "without spaces"),
        ("example-host", "", "without spaces"),
        ("example-host", "ex\\u0000", "without spaces"),
        ("container.mp4", "\u{441}ontainer.mp4", "without spaces"),
        ("\"version\":3", "\"version\":-3", "invalid value"),
        (
            "\"version\":3",
            "\"version\":3,\"version\":4",
            "duplicate field",
        ),
        (
            "\"issued\":1800000000",
            "\"issued\":1900000000",
            "expires before",
        ),
        ("\"sha256\":\"", "\"sha256\":\"A", "64 lower-case"),
    ] {
        let error = refusal_of_changed(from, to);
        assert!(matches!(error, TrustError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(
        refusal_of_changed("container.mp4", "audio.gain"),
        TrustError::DuplicateComponent {
            class: "audio.gain".into()
        }
    );
    for payload in ["", "null", "[]", "{}", "{\"schema\":1}", "{\"schema\":1}x"] {
        let error = refusal(&sealed(payload));
        assert!(matches!(error, TrustError::Malformed { .. }), "{error:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(
        refusal(&sealed(deep)),
        TrustError::Malformed { .. }
    ));
}

#[test]
fn everything_has_a_limit() {
    let oversize = |result: Result<Vec<u8>, TrustError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, TrustError::Oversize { .. }), "{error:?}");
    };
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        manifest.to_json()
    };
    oversize(with(&|m| m.name = "n".repeat(MAX_NAME + 1)));
    oversize(with(&|m| m.host.target = "n".repeat(MAX_NAME + 1)));
    oversize(with(&|m| m.components[0].class = "n".repeat(MAX_NAME + 1)));
    oversize(with(&|m| {
        m.components = (0..=MAX_COMPONENTS)
            .map(|index| component(&format!("c{index}"), 1))
            .collect();
    }));
    let sign = |payload: Vec<u8>, keys: &[PrivateKey]| {
        let keys: Vec<_> = keys.iter().collect();
        Envelope::sign(MANIFEST_TYPE, payload, &keys).map(|envelope| envelope.to_json())
    };
    oversize(sign(vec![b' '; MAX_PAYLOAD + 1], &[]));
    let keys: Vec<_> = (0..=MAX_SIGNATURES)
        .map(|index| PrivateKey::from_seed([u8::try_from(index).unwrap(); 32]))
        .collect();
    oversize(sign(Vec::new(), &keys));
    assert!(matches!(
        refusal(&vec![b' '; MAX_ENVELOPE + 1]),
        TrustError::Oversize { .. }
    ));
    let many =
        (0..=MAX_ROOTS).map(|index| PublicKey::from_bytes([u8::try_from(index).unwrap(); 32]));
    assert!(matches!(
        TrustRoots::new(many),
        Err(TrustError::Oversize { .. })
    ));
    // The largest there may be fits its envelope.
    let largest = Manifest {
        name: "n".repeat(MAX_NAME),
        components: (0..MAX_COMPONENTS)
            .map(|index| component(&format!("{index:0>128}"), u32::MAX))
            .collect(),
        ..manifest()
    };
    let envelope = sign(largest.to_json().unwrap(), &keys[..MAX_SIGNATURES]).unwrap();
    assert!(verify(&envelope, &roots(), ISSUED).is_ok());
}

#[test]
fn what_is_quoted_is_shortened() {
    let field = "x".repeat(100_000);
    let error = refusal(format!("{{\"{field}\":1}}").as_bytes());
    assert!(matches!(error, TrustError::UnknownField { .. }));
    assert!(error.to_string().len() < 500);
}

#[test]
fn there_is_no_trust_without_roots() {
    assert_eq!(TrustRoots::new([]), Err(TrustError::NoRoots));
    let twice = TrustRoots::new([key().public(), key().public().for_development()]).unwrap();
    assert_eq!(twice.keys().len(), 1);
    assert!(twice.keys()[0].is_development());
}

#[test]
fn one_key_that_is_not_for_development_is_enough_for_protection() {
    let development = PrivateKey::from_seed([9; 32]).for_development();
    let payload = manifest().to_json().unwrap();
    let both = [&development, &key()];
    let envelope = Envelope::sign(MANIFEST_TYPE, payload, &both)
        .unwrap()
        .to_json();
    let check =
        |keys: Vec<PublicKey>| verify(&envelope, &TrustRoots::new(keys).unwrap(), ISSUED).unwrap();
    assert!(check(vec![development.public()]).is_development());
    assert!(!check(vec![development.public(), key().public()]).is_development());
    // The manifest's own mark cannot be taken away.
    let marked = Manifest {
        development: true,
        ..manifest()
    };
    let verified = verify(&signed(&marked), &roots(), ISSUED).unwrap();
    assert!(verified.is_development() && verified.manifest().development);
}

#[test]
fn refusals_cross_the_wall_intact() {
    let refusals = [
        TrustError::Unsigned,
        refusal(b""),
        TrustError::ImageMismatch {
            expected: ImageDigest::of(b"a"),
            found: ImageDigest::of(b"b"),
        },
        TrustError::UnknownSigner {
            signers: vec![key().public().id()],
        },
        TrustError::Expired {
            at: ISSUED,
            now: EXPIRES,
        },
    ];
    for refusal in refusals {
        let error = Error::from(refusal.clone());
        let bytes = postcard::to_stdvec(&error).unwrap();
        let back: Error = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, error);
        assert_eq!(back.kind(), &ErrorKind::NotTrusted(refusal));
        let json = serde_json::to_value(error.kind()).unwrap();
        assert!(json["NotTrusted"].is_string() || json["NotTrusted"].is_object());
    }
}
