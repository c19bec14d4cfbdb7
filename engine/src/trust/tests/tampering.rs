//! An envelope with one change: never verified, never a panic.

use proptest::prelude::*;

use super::*;

/// One kind of change at one place.
#[derive(Clone, Debug)]
enum Change {
    Byte(u8),
    Insert(u8),
    Remove,
    Truncate,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Byte),
        any::<u8>().prop_map(Change::Insert),
        Just(Change::Remove),
        Just(Change::Truncate),
    ]
}

#[test]
fn no_flipped_bit_verifies() {
    let envelope = signed(&manifest());
    let roots = roots();
    for at in 0..envelope.len() {
        for bit in 0..8 {
            let mut flipped = envelope.clone();
            flipped[at] ^= 1 << bit;
            assert!(
                verify(&flipped, &roots, ISSUED).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn no_flipped_bit_of_the_payload_or_signature_verifies() {
    let envelope = Envelope::parse(&signed(&manifest())).unwrap();
    let fields: serde_json::Value = serde_json::from_slice(&envelope.to_json()).unwrap();
    let roots = roots();
    let refused = |fields: &serde_json::Value| {
        verify(fields.to_string().as_bytes(), &roots, ISSUED).unwrap_err()
    };
    for at in 0..envelope.payload().len() {
        for bit in 0..8 {
            let mut payload = envelope.payload().to_vec();
            payload[at] ^= 1 << bit;
            // With a digest that fits, so that only the signature stands against it.
            let mut changed = fields.clone();
            changed["payloadSha256"] = Sha256::of(&payload).to_string().into();
            changed["payload"] = data_encoding::BASE64.encode(&payload).into();
            assert!(matches!(refused(&changed), TrustError::BadSignature { .. }));
        }
    }
    let signature = &envelope.signatures()[0].bytes;
    for at in 0..signature.len() {
        for bit in 0..8 {
            let mut signature = signature.clone();
            signature[at] ^= 1 << bit;
            let mut changed = fields.clone();
            changed["signatures"][0]["sig"] = data_encoding::BASE64.encode(&signature).into();
            assert!(matches!(refused(&changed), TrustError::BadSignature { .. }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_changed_byte_verifies(at in any::<prop::sample::Index>(), change in change()) {
        let envelope = signed(&manifest());
        let at = at.index(envelope.len());
        let mut changed = envelope.clone();
        match change {
            Change::Byte(byte) => changed[at] = byte,
            // White space between the parts of JSON is the one thing that may be added.
            Change::Insert(byte) if !byte.is_ascii_whitespace() => changed.insert(at, byte),
            Change::Insert(_) => {}
            Change::Remove => drop(changed.remove(at)),
            Change::Truncate => changed.truncate(at),
        }
        prop_assume!(changed != envelope);
        prop_assert!(verify(&changed, &roots(), ISSUED).is_err());
    }

    #[test]
    fn any_manifest_comes_out_as_it_went_in(
        name in "[!-~]{1,40}",
        version in any::<u64>(),
        times in (0..u64::MAX / 2, 1..u64::MAX / 2),
        size in any::<u64>(),
        components in prop::collection::btree_map("[a-z.]{1,20}", any::<u32>(), 0..20),
    ) {
        let manifest = Manifest {
            name,
            version,
            issued: UnixTime(times.0),
            expires: UnixTime(times.0 + times.1),
            host: HostEntry { size, ..manifest().host },
            components: components
                .into_iter()
                .map(|(class, version)| ClassVersion { class, version })
                .collect(),
            development: false,
            min_revocation_version: None,
        };
        let verified = verify(&signed(&manifest), &roots(), manifest.issued).unwrap();
        prop_assert_eq!(verified.manifest(), &manifest);
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(verify(&bytes, &roots(), ISSUED).is_err());
        prop_assert!(verify(&sealed(bytes.clone()), &roots(), ISSUED).is_err());
        prop_assert!(PublicKey::parse(&bytes).is_err());
    }
}
