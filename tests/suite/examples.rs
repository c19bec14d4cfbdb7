//! Every example does what it says.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{example, media};

/// Runs an example with the clip and gives what it printed.
fn output(name: &str, arguments: &[&str]) -> String {
    let input = File::open(media::clip()).unwrap();
    // The example's own futures end by themselves; whoever hangs is ended by `timeout`.
    let output = Command::new("timeout")
        .arg("60")
        .arg(example(name))
        .args(arguments)
        .stdin(Stdio::from(input))
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{name}: {}\n{text}\n{errors}",
        output.status
    );
    text.into_owned()
}

fn clip() -> String {
    media::clip().display().to_string()
}

#[test]
fn file_to_samples_prints_every_picture() {
    let text = output("file_to_samples", &[&clip()]);
    assert_eq!(text.lines().count(), 90, "{text}");
    assert!(text.lines().last().unwrap().starts_with("90 "), "{text}");
}

#[test]
fn file_to_samples_has_ten_lines_of_its_user_at_most() {
    let source = include_str!("../../examples/file_to_samples.rs");
    let body = source
        .split_once("async fn run() -> anyhow::Result<()> {")
        .unwrap()
        .1;
    let lines = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && *line != "}")
        .count();
    assert!(lines <= 10, "{lines} lines");
}

#[test]
fn ping_pong_is_played_from_both_sides_of_the_wall() {
    let text = output("ping_pong", &[]);
    assert_eq!(text, "there here there here there here\n");
}

#[test]
fn upload_stream_decodes_what_comes() {
    let text = output("upload_stream", &[]);
    assert!(text.contains("stream 1: audio"), "{text}");
    assert!(
        text.lines().last().unwrap().contains(" samples, "),
        "{text}"
    );
}

#[test]
fn play_file_shows_the_events_of_a_whole_session() {
    let text = output("play_file", &[&clip()]);
    for event in [
        "SessionTopologySet",
        "SessionStarted",
        "EndOfPresentation",
        "SessionEnded",
    ] {
        assert!(text.contains(event), "{event} is missing in\n{text}");
    }
    assert!(text.contains("90 samples"), "{text}");
}

#[test]
fn source_in_app_keeps_its_source() {
    let text = output("source_in_app", &[&clip()]);
    assert!(text.contains("the source is remote: false"), "{text}");
    assert!(text.contains("the session is remote: true"), "{text}");
    assert!(text.contains("90 samples decoded in process"), "{text}");
}

#[test]
fn remote_source_makes_its_source_in_the_host() {
    let text = output("remote_source", &[&clip()]);
    assert!(text.contains("NotRemotable"), "{text}");
    assert!(text.contains("2 streams, remote: true"), "{text}");
    assert!(text.contains("90 samples"), "{text}");
}

#[test]
fn custom_source_writes_its_tone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tone.wav");
    output("custom_source", &[path.to_str().unwrap()]);
    let bytes = std::fs::read(path).unwrap();
    assert!(
        bytes.starts_with(b"RIFF") && bytes.len() > 2 * 48_000 * 2,
        "{} bytes",
        bytes.len()
    );
}

#[test]
fn custom_transform_turns_its_knob_on_the_way() {
    let text = output("custom_transform", &[&clip()]);
    assert!(text.contains("the factor was 1"), "{text}");
    let last = text.lines().last().unwrap();
    let numbers: Vec<u32> = last
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect();
    assert!(
        numbers[0] > 100 && numbers[1] > 0 && numbers[1] < numbers[0],
        "{text}"
    );
}

#[test]
fn custom_transform_has_25_lines_for_its_component_at_most() {
    let source = include_str!("../../examples/custom_transform.rs");
    let component = source
        .split_once("// The component.")
        .unwrap()
        .1
        .split_once("// Its message.")
        .unwrap()
        .0;
    let lines = component
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count();
    assert!(lines <= 25, "{lines} lines");
}

#[test]
fn custom_sink_writes_its_file_through_the_opener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("levels.csv");
    output("custom_sink", &[&clip(), path.to_str().unwrap()]);
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.lines().count() > 100, "{text}");
    assert!(
        text.lines()
            .any(|line| line.split_once(',').unwrap().1.parse::<u16>().unwrap() > 1000),
        "{text}"
    );
}
