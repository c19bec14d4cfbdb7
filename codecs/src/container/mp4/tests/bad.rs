//! Damaged files: each ends as it should, in bounded time.

use std::time::Instant;

use serde_json::Value;

use super::{media, open, read_all};

#[test]
fn every_damaged_file_ends_as_expected() {
    let Some(root) = media() else { return };
    let list = std::fs::read(root.join("bad/BAD.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let mut wrong = Vec::new();
    for row in list.as_array().unwrap() {
        let file = row["file"].as_str().unwrap();
        let expect = row["expect"].as_str().unwrap();
        if !file.ends_with(".mp4") {
            continue;
        }
        let bytes = std::fs::read(root.join(file)).unwrap();
        for seekable in [true, false] {
            let begin = Instant::now();
            let (delivered, errors) = match open(bytes.clone(), seekable) {
                Ok(mut source) => {
                    let (samples, errors) = read_all(source.as_mut(), None);
                    (samples.len(), errors)
                }
                Err(error) => (0, vec![error]),
            };
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            println!(
                "{file} {seekable} {expect}: {delivered} samples, {texts:?} {:?}",
                begin.elapsed()
            );
            // Not the container's to find: lengths inside of samples, and keys.
            let elsewhere = ["bad/avcc_nal_len_lie.mp4", "bad/kid_mismatch.mp4"].contains(&file);
            let fine = match expect {
                _ if elsewhere => true,
                "error" => delivered == 0 && !errors.is_empty(),
                "partial" => !errors.is_empty(),
                _ => true,
            };
            if !fine {
                wrong.push(format!(
                    "{file} (seekable {seekable}), {expect}: {delivered} samples, {texts:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
