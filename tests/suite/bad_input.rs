//! Damaged input: every file ends as its list says, in every placement, in time and in bounded memory.

mod mutants;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, stream};
use portcullis::host::HostConnection;
use portcullis::{Error, ErrorKind, StreamSelector};
use serde_json::Value;

use crate::support::outcome::{Outcome, read};
use crate::support::{Place, host, media, process, run_for};

/// All files of the list.
const DEADLINE: Duration = Duration::from_secs(600);
/// One file in one placement.
const ONE: Duration = Duration::from_secs(60);
/// Files under way at once.
const AT_ONCE: usize = 3;
/// What a host may need for the worst of the small files, in bytes: decoders, the pool, and what a header may claim.
const MEMORY: u64 = 256 << 20;

/// Where Portcullis does better than the list expects, and why.
const BETTER: [(&str, &str); 0] = [];

/// What became of a whole file: of each of its streams, or one refusal.
type Whole = Vec<Outcome>;

/// Reads every stream of a file.
async fn whole(place: Place, host: &HostConnection, path: &Path) -> Whole {
    let open = |path: &Path| match place.is_in_host() {
        true => place.open(path).host(host.clone()),
        false => place.open(path),
    };
    let reading = async {
        let reader = match open(path).open().await {
            Ok(reader) => reader,
            Err(error) => return vec![Outcome::refused(error)],
        };
        let mut outcomes = Vec::new();
        for stream in &reader.presentation().streams {
            outcomes.push(read(&reader, StreamSelector::Id(stream.id)).await);
        }
        outcomes
    };
    let late = |_| panic!("{} in {place:?}: not within {ONE:?}", path.display());
    tokio::time::timeout(ONE, reading)
        .await
        .unwrap_or_else(late)
}

fn errors(outcomes: &Whole) -> impl Iterator<Item = &Error> {
    outcomes.iter().flat_map(|outcome| &outcome.errors)
}

fn samples(outcomes: &Whole) -> usize {
    outcomes.iter().map(|outcome| outcome.samples.len()).sum()
}

/// Whether an error says what it must: the file, the place in it where its kind has one, and a cause that a user can read.
fn says_enough(error: &Error, path: &Path) -> Result<(), String> {
    if error.place().input.as_deref() != path.to_str() {
        return Err(format!("does not name its input: {error:?}"));
    }
    let blames_content =
        error.is_content() || matches!(error.kind(), ErrorKind::NotSeekable { .. });
    if !blames_content {
        return Err(format!("is not about the content: {error:?}"));
    }
    Ok(())
}

/// What is wrong with how a file ended.
fn judge(row: &Value, path: &Path, outcomes: &Whole) -> Vec<String> {
    let mut wrong: Vec<_> = errors(outcomes)
        .filter_map(|error| says_enough(error, path).err())
        .collect();
    let (count, first) = (errors(outcomes).count(), errors(outcomes).next());
    let got = || {
        format!(
            "{} samples, {count} errors, first {first:?}",
            samples(outcomes)
        )
    };
    match row["expect"].as_str().unwrap() {
        "error" if count == 0 || samples(outcomes) > 0 => {
            wrong.push(format!("an error and nothing else was expected: {}", got()))
        }
        "partial" if count == 0 => wrong.push(format!(
            "an error was expected behind what is intact: {}",
            got()
        )),
        _ => {}
    }
    wrong
}

/// The file of a row; some rows are about a good file and another key.
fn file_of(media: &Path, row: &Value) -> Option<PathBuf> {
    let path = media.join(row["file"].as_str().unwrap());
    path.is_file().then_some(path)
}

async fn row_failures(media: &Path, host: &HostConnection, row: &Value) -> Vec<String> {
    let Some(path) = file_of(media, row) else {
        return Vec::new();
    };
    let file = row["file"].as_str().unwrap();
    let here = whole(Place::InProcess, host, &path).await;
    let mut failures = judge(row, &path, &here);
    if BETTER.iter().any(|(known, _)| *known == file) {
        failures.clear();
    }
    for place in [Place::IsolatedSourceInHost, Place::IsolatedSourceInApp] {
        let there = whole(place, host, &path).await;
        if here.len() != there.len() {
            failures.push(format!(
                "{} streams in {place:?}, {} in process",
                there.len(),
                here.len()
            ));
        }
        let differences = here
            .iter()
            .zip(&there)
            .filter_map(|(here, there)| here.difference(there));
        failures.extend(differences.map(|difference| format!("in {place:?}: {difference}")));
    }
    failures
        .iter()
        .map(|text| format!("{file} ({}): {text}", row["what"].as_str().unwrap_or("")))
        .collect()
}

#[test]
fn every_damaged_file_ends_as_its_list_says_in_every_placement() {
    let media = media::corpus();
    let list = media::damaged(&media);
    let only = std::env::var("PORTCULLIS_ONLY").unwrap_or_default();
    let rows: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["file"].as_str().unwrap().contains(&only))
        .collect();
    let failures: Vec<String> = run_for(DEADLINE, async {
        let host = host().start().await.unwrap();
        let failures: Vec<Vec<String>> = stream::iter(&rows)
            .map(|row| row_failures(&media, &host, row))
            .buffered(AT_ONCE)
            .collect()
            .await;
        assert_eq!(
            host.lost().unwrap().now(),
            None,
            "one host has survived them all"
        );
        let memory = process::peak_memory(host.pid()).unwrap();
        assert!(memory <= MEMORY, "the host has had {} MiB", memory >> 20);
        println!(
            "{} damaged files; the host's memory was {} MiB at most",
            rows.len(),
            memory >> 20
        );
        failures.concat()
    });
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
