//! Signed manifests and key files: any bytes are refused by name, and what is accepted is what was signed.

use portcullis_engine::trust::{
    Envelope, ImageDigest, MANIFEST_TYPE, Manifest, PrivateKey, PublicKey, TrustRoots, UnixTime,
    verify,
};

/// The first byte says what the rest is.
pub(crate) fn run(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    match what % 4 {
        0 => envelope(bytes),
        1 => manifest(bytes),
        2 => {
            if let Ok(key) = PublicKey::parse(bytes) {
                assert_eq!(PublicKey::parse(&key.to_json()), Ok(key));
            }
        }
        _ => {
            if let Ok(key) = PrivateKey::parse(bytes) {
                assert!(PrivateKey::parse(&key.to_json()).is_ok());
            }
        }
    }
}

/// An envelope of a stranger: what verifies nonetheless has a payload that the development key signed.
fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(Envelope::parse(&envelope.to_json()), Ok(envelope));
    }
    let Ok(verified) = verify(bytes, &TrustRoots::development(), UnixTime(1_800_000_000)) else {
        return;
    };
    // The only payload that the key's owner has ever signed here is the seed's.
    assert_eq!(verified.manifest().name, "example-host");
    assert_eq!(verified.manifest().version, 3);
}

/// A manifest behind a good signature, so that its own parser is reached.
fn manifest(bytes: &[u8]) {
    let key = PrivateKey::from_seed([7; 32]);
    let Ok(envelope) = Envelope::sign(MANIFEST_TYPE, bytes.to_vec(), &[&key]) else {
        return;
    };
    let roots = TrustRoots::new([key.public()]).expect("one key");
    let parsed = Manifest::parse(bytes);
    let now = parsed
        .as_ref()
        .map_or(UnixTime(0), |manifest| manifest.issued);
    if let Ok(verified) = verify(&envelope.to_json(), &roots, now) {
        assert_eq!(Ok(verified.manifest()), parsed.as_ref());
        let written = verified
            .manifest()
            .to_json()
            .expect("what was read can be written");
        assert_eq!(Manifest::parse(&written).as_ref(), Ok(verified.manifest()));
        let components = &verified.manifest().components;
        assert_eq!(verified.check_components(components), Ok(()));
        let found = ImageDigest::of(bytes);
        assert_eq!(
            verified.check_image(&found).is_ok(),
            verified.manifest().host.image() == found
        );
    }
}
