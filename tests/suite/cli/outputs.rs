//! Files that the command writes, and limits and forms that it is asked for.

use std::fs;
use std::io::Write;

use rustix::process::Signal;

use super::command::{portcullis, read_rest, read_to_event};
use super::{clip, path};
use crate::support::media;

/// The clip's sound as a .wav.
fn wav(directory: &tempfile::TempDir) -> String {
    let wav = directory.path().join("in.wav");
    let decode = portcullis(["decode", "--stream", "a:0", "-o", path(&wav), &clip()]).finish();
    assert_eq!(decode.code, Some(0), "{}", decode.stderr);
    path(&wav).to_owned()
}

#[test]
fn an_input_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let wav = wav(&directory);
    let before = fs::read(&wav).unwrap();
    let link = directory.path().join("link.wav");
    std::os::unix::fs::symlink(&wav, &link).unwrap();
    for output in [["-o", &wav], ["-o", path(&link)], ["--framemd5", &wav]] {
        let decode = portcullis(["decode", &wav]).args(&output).finish();
        assert_eq!(decode.code, Some(2), "{}", decode.stderr);
        assert!(fs::read(&wav).unwrap() == before, "{output:?}");
    }
    let standard = portcullis(["decode", "-", "-o", &wav])
        .stdin_file(wav.as_ref())
        .finish();
    assert_eq!(standard.code, Some(2), "{}", standard.stderr);
    let topology = directory.path().join("topology.toml");
    let text = format!(
        "[[nodes]]\nid = 1\nkind.source-stream = {{ source.url = '{wav}', stream = 0 }}\n\
         [[nodes]]\nid = 2\nkind.output = {{ object.activation = \
         {{ class = 'sink.wav', settings = {{ url = '{wav}' }} }}, stream = 0 }}\n\
         [[connections]]\nfrom = 1\nto = 2\n"
    );
    fs::write(&topology, text).unwrap();
    let run = portcullis(["run", path(&topology)]).finish();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("it is an input"), "{}", run.stderr);
    assert!(fs::read(&wav).unwrap() == before, "run");
}

#[test]
fn a_command_that_fails_leaves_no_file_and_empties_none() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text.mp4");
    fs::write(&text, "not a clip").unwrap();
    for name in ["out.y4m", "out.wav", "out.png"] {
        let out = directory.path().join(name);
        let arguments = ["decode", path(&text), "-o", path(&out)];
        let decode = portcullis(arguments).finish();
        assert_eq!(decode.code, Some(4), "{}", decode.stderr);
        assert!(!out.exists(), "{name}");
        fs::write(&out, "of before").unwrap();
        assert_eq!(portcullis(arguments).finish().code, Some(4));
        assert_eq!(fs::read_to_string(&out).unwrap(), "of before");
    }
}

#[test]
fn limits_hold_for_what_needs_no_decoder() {
    let directory = tempfile::tempdir().unwrap();
    let wav = wav(&directory);
    for (limit, value, says) in [
        ("--max-samples", "10", "content limit samples"),
        ("--max-output-bytes", "10000", "content limit output bytes"),
    ] {
        let decode = portcullis(["decode", &wav, limit, value]).finish();
        assert_eq!(decode.code, Some(4), "{}", decode.stderr);
        assert!(decode.stderr.contains(says), "{}", decode.stderr);
    }
}

#[test]
fn a_form_that_the_stream_cannot_have_is_wrong_usage() {
    for arguments in [
        &["--stream", "a:0", "--size", "16x16"][..],
        &["--sample-format", "s16"],
        &[
            "--stream",
            "v:0",
            "--sample-format",
            "f32",
            "--framemd5",
            "-",
        ],
        &["--stream", "a:0", "--size", "16x16", "--frames", "1"],
    ] {
        let ended = portcullis(["decode", &clip()]).args(arguments).finish();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_signal_ends_a_start_that_waits_for_data() {
    let whole = fs::read(media::clip()).unwrap();
    let at = whole.windows(4).position(|four| four == b"mdat").unwrap();
    let mut play = portcullis(["play", "--json", "-"]).stdin_open().start();
    let mut stdin = play.stdin();
    // All that says what it is, and nothing to play.
    stdin.write_all(&whole[..at + 8]).unwrap();
    let mut out = play.stdout();
    read_to_event(&mut out, "SessionTopologySet");
    play.signal(Signal::INT);
    let events = read_rest(out);
    let closed = events
        .iter()
        .find(|event| event["event"] == "SessionClosed");
    assert_eq!(closed.unwrap()["status"], "ok");
    assert_eq!(play.finish().code, Some(130));
    drop(stdin);
}

/// A short input ends before the command has looked at the answer that it began.
#[test]
fn a_short_input_says_each_time_what_was_decoded() {
    let directory = tempfile::tempdir().unwrap();
    let wav = directory.path().join("short.wav");
    let samples = 480_u32;
    let mut bytes = Vec::from(*b"RIFF");
    bytes.extend((36 + samples * 2).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(48_000_u32.to_le_bytes());
    bytes.extend(96_000_u32.to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend((samples * 2).to_le_bytes());
    bytes.resize(bytes.len() + samples as usize * 2, 0);
    fs::write(&wav, bytes).unwrap();
    for round in 0..20 {
        let decode = portcullis(["decode", "--json", path(&wav)])
            .args(&["--placement", "in-process"])
            .finish();
        assert_eq!(decode.code, Some(0), "{}", decode.stderr);
        assert!(!decode.stdout.is_empty(), "round {round}");
    }
}
