//! Every clip of the corpus, in every placement, against what other programs make of it.
//!
//! What is expected of a row comes from the manifest alone ([`expect`]): formats that Portcullis promises must decode, others
//! must be refused by a typed error that names what is missing. In the application's process the outcome is compared with
//! the oracle; in the other placements it must be the same to the last bit, error for error.

mod expect;
mod sound;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, stream};
use portcullis::host::HostConnection;
use portcullis::{Error, Result, StreamSelector};
use serde_json::Value;

use self::expect::{differs, expectation};
use crate::support::outcome::{Outcome, read};
use crate::support::{Place, host, media, run_for};

/// The whole corpus on two busy cores.
const DEADLINE: Duration = Duration::from_secs(900);
/// One stream in one placement.
const ONE: Duration = Duration::from_secs(60);
/// Rows under way at once.
const AT_ONCE: usize = 3;

/// What became of one stream.
struct Verdict {
    text: String,
    failures: Vec<String>,
}

/// Opens a row's file in a placement and reads one stream.
async fn outcome(
    place: Place,
    host: Option<&HostConnection>,
    path: &Path,
    selector: StreamSelector,
) -> Outcome {
    let mut builder = place.open(path);
    if let Some(host) = host.filter(|_| place.is_in_host()) {
        builder = builder.host(host.clone());
    }
    let reading = async {
        match builder.open().await {
            Ok(reader) => read(&reader, selector).await,
            Err(error) => Outcome::refused(error),
        }
    };
    let late = |_| {
        panic!(
            "{} {selector} in {place:?}: not within {ONE:?}",
            path.display()
        )
    };
    tokio::time::timeout(ONE, reading)
        .await
        .unwrap_or_else(late)
}

async fn stream_verdict(
    media: &Path,
    host: &HostConnection,
    row: &Value,
    selector: StreamSelector,
) -> Verdict {
    let file = row["file"].as_str().unwrap();
    let path = media.join(file);
    let expect = expectation(media, row, selector);
    let here = outcome(Place::InProcess, None, &path, selector).await;
    let mut failures = Vec::new();
    let text = match (expect.check(media, row, &here).await, differs(file)) {
        (Ok(text), None) => text,
        (Ok(text), Some(_)) => {
            failures.push(format!(
                "{file} {selector} is known to differ and does not: {text}"
            ));
            text
        }
        (Err(text), Some(why)) => format!("differs: {text} (known: {why})"),
        (Err(text), None) => {
            failures.push(format!("{file} {selector}: {text}"));
            format!("**wrong**: {text}")
        }
    };
    if let Some(error) = here
        .errors
        .iter()
        .find(|error| error.place().input.as_deref() != path.to_str())
    {
        failures.push(format!(
            "{file} {selector}: an error that does not name its input: {error:?}"
        ));
    }
    for place in [Place::IsolatedSourceInHost, Place::IsolatedSourceInApp] {
        let there = outcome(place, Some(host), &path, selector).await;
        if let Some(difference) = here.difference(&there) {
            failures.push(format!("{file} {selector} in {place:?}: {difference}"));
        }
    }
    Verdict { text, failures }
}

/// The streams of pictures and sound that the manifest lists; one of each kind where it lists none.
fn selectors(row: &Value) -> Vec<StreamSelector> {
    let count = |kind: &str| {
        let streams = row["streams"].as_array();
        streams.map_or(0, |streams| {
            streams
                .iter()
                .filter(|stream| stream["codec_type"] == kind)
                .count()
        })
    };
    let (video, audio) = (count("video"), count("audio"));
    if video + audio == 0 {
        return vec![StreamSelector::FIRST_VIDEO];
    }
    (0..video)
        .map(StreamSelector::Video)
        .chain((0..audio).map(StreamSelector::Audio))
        .collect()
}

async fn row_verdict(media: &Path, host: &HostConnection, row: &Value) -> Verdict {
    let mut whole = Verdict {
        text: String::new(),
        failures: Vec::new(),
    };
    for selector in selectors(row) {
        let mut one = stream_verdict(media, host, row, selector).await;
        writeln!(
            whole.text,
            "| {} | {selector} | {} |",
            row["file"].as_str().unwrap(),
            one.text.replace('|', "/")
        )
        .unwrap();
        whole.failures.append(&mut one.failures);
    }
    whole
}

#[test]
fn every_clip_is_what_other_programs_make_of_it_in_every_placement() {
    let media = media::corpus();
    let manifest = media::manifest(&media);
    let only = std::env::var("PORTCULLIS_ONLY").unwrap_or_default();
    let rows: Vec<_> = manifest["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["file"].as_str().unwrap().contains(&only))
        .collect();
    let verdicts: Vec<Verdict> = run_for(DEADLINE, async {
        let host = host().start().await.unwrap();
        let verdicts = stream::iter(&rows)
            .map(|row| row_verdict(&media, &host, row))
            .buffered(AT_ONCE)
            .collect()
            .await;
        assert_eq!(
            host.lost().unwrap().now(),
            None,
            "one host has served them all"
        );
        verdicts
    });
    let mut table = format!(
        "{} files of {}\n\n| file | stream | outcome in all placements |\n|---|---|---|\n",
        rows.len(),
        media.display()
    );
    let mut failures = Vec::new();
    for verdict in verdicts {
        table += &verdict.text;
        failures.extend(verdict.failures);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("corpus-table.md");
    std::fs::write(&path, table).unwrap();
    println!("{} files; the table is {}", rows.len(), path.display());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The sound of a reference, as floats.
async fn reference(path: &Path) -> Result<Vec<f32>> {
    let reader = Place::InProcess.open(path).open().await?;
    let outcome = read(&reader, StreamSelector::FIRST_AUDIO).await;
    match outcome.errors.first() {
        None => outcome
            .floats()
            .ok_or_else(|| Error::invalid_argument("a reference that is not 16-bit sound")),
        Some(error) => Err(error.clone()),
    }
}
