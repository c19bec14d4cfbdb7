//! The `portcullis` command as its users see it: what it prints, which files it writes, and its exit codes.

mod bench;
pub(crate) mod command;
mod ends;
mod outputs;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use self::command::{Finished, portcullis};
use super::support::media;

/// The words of each placement.
const PLACEMENTS: [&[&str]; 4] = [
    &["--placement", "in-process"],
    &["--placement", "isolated"],
    &["--placement", "protected"],
    &["--placement", "isolated", "--source", "app"],
];

fn clip() -> String {
    media::clip().display().to_string()
}

fn oracle() -> String {
    fs::read_to_string(media::clip().with_extension("mp4.v0.framemd5")).unwrap()
}

#[test]
fn help_tells_exit_codes_and_what_the_placements_give() {
    let help = portcullis(["--help"]).finish();
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("Exit codes:"), "{}", help.stdout);
    for command in ["probe", "decode", "play", "run"] {
        let help = portcullis([command, "--help"]).finish().stdout;
        assert!(
            help.contains("sandboxed process of its own"),
            "{command}: {help}"
        );
    }
}

#[test]
fn probe_speaks_ffprobes_language() {
    for placement in &PLACEMENTS[..3] {
        let probe = portcullis(["probe", "--json", &clip()])
            .args(placement)
            .finish();
        assert_eq!(probe.code, Some(0), "{}", probe.stderr);
        let probe = probe.json();
        for (pointer, value) in [
            ("/format/filename", json!(clip())),
            ("/format/format_name", json!("mov,mp4,m4a,3gp,3g2,mj2")),
            ("/format/nb_streams", json!(2)),
            ("/format/duration", json!("3.000000")),
            ("/format/size", json!("82619")),
            ("/format/bit_rate", json!("220317")),
            ("/streams/0/index", json!(0)),
            ("/streams/0/codec_name", json!("h264")),
            ("/streams/0/codec_type", json!("video")),
            ("/streams/0/codec_tag_string", json!("avc1")),
            ("/streams/0/profile", json!("Main")),
            ("/streams/0/width", json!(320)),
            ("/streams/0/height", json!(180)),
            ("/streams/0/time_base", json!("1/15360")),
            ("/streams/0/duration_ts", json!(46_080)),
            ("/streams/0/avg_frame_rate", json!("30/1")),
            ("/streams/0/nb_frames", json!("90")),
            ("/streams/1/codec_name", json!("aac")),
            ("/streams/1/sample_rate", json!("48000")),
            ("/streams/1/channels", json!(2)),
            ("/streams/1/r_frame_rate", json!("0/0")),
        ] {
            assert_eq!(probe.pointer(pointer), Some(&value), "{pointer}");
        }
    }
}

#[test]
fn framemd5_is_ffmpegs_to_the_byte_in_every_placement() {
    for placement in PLACEMENTS {
        let decode = portcullis(["decode", "--framemd5", "-", &clip()])
            .args(placement)
            .finish();
        assert_eq!(decode.code, Some(0), "{placement:?}: {}", decode.stderr);
        assert!(
            decode.stdout == oracle(),
            "{placement:?}: {}",
            decode.stdout
        );
        let is_unverified = placement.contains(&"protected");
        let warning =
            "portcullis: protected host without a manifest: development key: no protection\n";
        let expected = if is_unverified { warning } else { "" };
        assert_eq!(decode.stderr, expected, "{placement:?}");
    }
}

#[test]
fn sound_has_checksums_of_the_form_that_is_asked_for() {
    for (format, codec, bytes) in [("s16", "pcm_s16le", 4096), ("f32", "pcm_f32le", 8192)] {
        let arguments = [
            "--stream",
            "a:0",
            "--sample-format",
            format,
            "--frames",
            "1",
        ];
        let decode = portcullis(["decode", "--framemd5", "-", &clip()])
            .args(&arguments)
            .finish();
        assert_eq!(decode.code, Some(0), "{}", decode.stderr);
        assert!(
            decode.stdout.contains(&format!("#codec_id 0: {codec}\n")),
            "{}",
            decode.stdout
        );
        assert!(decode.stdout.contains("#tb 0: 1/48000\n"));
        let last = decode.stdout.lines().last().unwrap();
        let row = format!("0,          0,          0,     1024, {bytes:>8}, ");
        assert!(last.starts_with(&row), "{last}");
    }
}

#[test]
fn decoded_streams_become_files_in_every_placement() {
    let directory = tempfile::tempdir().unwrap();
    for (index, placement) in PLACEMENTS.into_iter().enumerate() {
        let file = |extension: &str| {
            directory
                .path()
                .join(format!("{index}.{extension}"))
                .display()
                .to_string()
        };

        let wav = portcullis([
            "decode",
            "-o",
            &file("wav"),
            "--sample-format",
            "s16",
            &clip(),
        ])
        .args(placement)
        .finish();
        assert_eq!(wav.code, Some(0), "{}", wav.stderr);
        let wav = fs::read(file("wav")).unwrap();
        assert!(wav.starts_with(b"RIFF") && &wav[8..12] == b"WAVE");
        // 3 seconds of 48 kHz stereo, with the head.
        assert!((576_000..577_000).contains(&wav.len()), "{}", wav.len());

        let y4m = portcullis(["decode", "-o", &file("y4m"), &clip()])
            .args(placement)
            .finish();
        assert_eq!(y4m.code, Some(0), "{}", y4m.stderr);
        let y4m = fs::read(file("y4m")).unwrap();
        assert!(y4m.starts_with(b"YUV4MPEG2 W320 H180 F30:1"));
        let head = y4m.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(y4m.len(), head + 90 * ("FRAME\n".len() + 320 * 180 * 3 / 2));

        let arguments = ["--at", "1s", "--size", "64x36", "-o", &file("png")];
        let png = portcullis(["decode", &clip()])
            .args(&arguments)
            .args(placement)
            .finish();
        assert_eq!(png.code, Some(0), "{}", png.stderr);
        let png = fs::read(file("png")).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(
            (&png[16..20], &png[20..24]),
            (&64u32.to_be_bytes()[..], &36u32.to_be_bytes()[..])
        );
    }
    let bytes =
        |index, extension| fs::read(directory.path().join(format!("{index}.{extension}"))).unwrap();
    for extension in ["wav", "y4m", "png"] {
        assert!(bytes(0, extension) == bytes(1, extension), "{extension}");
        assert!(bytes(0, extension) == bytes(2, extension), "{extension}");
    }
}

#[test]
fn standard_input_is_an_input() {
    let probe = portcullis(["probe", "--json", "-"])
        .stdin_file(&media::clip())
        .finish();
    assert_eq!(
        probe.json()["streams"][0]["codec_name"],
        "h264",
        "{}",
        probe.stderr
    );
    // Through a pipe it cannot seek; the clip's index lies in front.
    let decode = portcullis(["decode", "--framemd5", "-", "-"])
        .stdin_bytes(fs::read(media::clip()).unwrap())
        .finish();
    assert_eq!(decode.code, Some(0), "{}", decode.stderr);
    assert!(decode.stdout == oracle());
}

#[test]
fn play_prints_its_events_and_a_summary() {
    let mut traces = Vec::new();
    for placement in PLACEMENTS {
        let mut play = portcullis(["play", "--json", "--clock", "free", &clip()]).args(placement);
        let own = play.pid();
        let play = play.finish();
        assert_eq!(play.code, Some(0), "{placement:?}: {}", play.stderr);
        let mut lines = play.json_lines();
        let summary = lines.pop().unwrap();
        assert_eq!(summary["event"], "summary");
        assert_eq!(summary["status"], "ok");
        assert_eq!(summary["streams"][0]["samples"], 90);
        assert!(summary["streams"][1]["samples"].as_u64().unwrap() > 100);
        assert_eq!(
            (&summary["late"], &summary["dropped"]),
            (&json!(0), &json!(0))
        );
        assert!(summary["wall_time"].as_i64().unwrap() > 0);
        assert_eq!(
            summary["host_pid"] == own,
            placement[1] == "in-process",
            "{summary}"
        );
        for event in &lines {
            assert!(event["t"].is_i64() && event["status"] == "ok", "{event}");
            assert_eq!(event["pid"], summary["host_pid"], "{event}");
        }
        traces.push(session_events(&lines));
    }
    assert_eq!(traces[0], traces[1]);
    assert_eq!(traces[0], traces[2]);
    assert_eq!(traces[0].first().unwrap(), "SessionTopologySet");
    assert_eq!(traces[0].last().unwrap(), "SessionClosed");
}

/// The names of the session's own events in order.
fn session_events(lines: &[Value]) -> Vec<String> {
    let own = lines
        .iter()
        .filter(|event| event.get("node").is_none() && event["event"] != "EndOfPresentation");
    own.map(|event| event["event"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_presentation_takes_its_time() {
    let play = portcullis(["play", "--json", "--start", "2s", &clip()]).finish();
    assert_eq!(play.code, Some(0), "{}", play.stderr);
    let summary = play.json_lines().pop().unwrap();
    assert_eq!(summary["streams"][0]["samples"], 30);
    // One second is left. A paced sink can be slow, but not fast.
    assert!(
        summary["wall_time"].as_i64().unwrap() > 9_500_000,
        "{summary}"
    );
}

#[test]
fn a_topology_runs_from_a_file() {
    for placement in &PLACEMENTS[..3] {
        let run = portcullis(["run", "--json", "--clock", "free", "examples/topology.toml"])
            .args(placement)
            .finish();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let summary = run.json_lines().pop().unwrap();
        assert_eq!(summary["streams"][0]["samples"], 90, "{summary}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    fs::write(&file, "colour = 1").unwrap();
    let run = portcullis(["run", file.to_str().unwrap()]).finish();
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("unknown field `colour`"),
        "{}",
        run.stderr
    );
}

#[test]
fn components_are_listed() {
    let list = portcullis(["components", "--json"]).finish().json();
    let classes: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|info| info["class"].as_str().unwrap())
        .collect();
    for class in ["container.mp4", "video.h264", "sink.null", "sink.wav"] {
        assert!(classes.contains(&class), "{classes:?}");
    }
    assert!(
        portcullis(["components"])
            .finish()
            .stdout
            .contains("container.mp4")
    );
}

fn is_one_line(finished: &Finished) -> bool {
    finished.stderr.starts_with("portcullis: ") && finished.stderr.lines().count() == 1
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
