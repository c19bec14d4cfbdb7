//! How the command ends when something is wrong: codes, lines on standard error, and what is left behind.

use std::fs;
use std::io::Read;

use rustix::process::Signal;
use serde_json::json;

use super::command::{portcullis, read_rest, read_to_event};
use super::{clip, is_one_line, oracle, path};
use crate::support::{media, process, run, until};

#[test]
fn wrong_usage_is_code_2() {
    let clip = clip();
    for arguments in [
        &["probe"][..],
        &["decode", "--at", "soon", &clip],
        &["decode", "-o", "out.mp3", &clip],
        &["decode", "--stream", "a:7", &clip],
        &["decode", "--stream", "a:0", "-o", "out.png", &clip],
        &["decode", "--framemd5", "-", "--json", &clip],
        &["play", "--placement", "elsewhere", &clip],
        &["decode", "--manifest", "m", "--root", "k", &clip],
        &[
            "probe",
            "--placement",
            "in-process",
            "--host-program",
            "/bin/true",
            &clip,
        ],
    ] {
        let ended = portcullis(arguments.iter().copied()).finish();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn what_cannot_be_opened_is_code_3() {
    for file in ["no/such/file.mp4", "src", "http://localhost/clip.mp4"] {
        for command in ["probe", "decode", "play"] {
            let ended = portcullis([command, file]).finish();
            assert_eq!(ended.code, Some(3), "{command} {file}: {}", ended.stderr);
            assert!(is_one_line(&ended), "{}", ended.stderr);
        }
    }
    let probe = portcullis(["probe", "--json", "no/such/file.mp4"]).finish();
    let error = &probe.json()["error"];
    assert_eq!(
        (&error["code"], &error["kind"]),
        (&json!(3), &json!("NotFound"))
    );
}

#[test]
fn an_output_that_cannot_be_written_is_code_1() {
    for arguments in [
        ["-o", "no/such/out.y4m"],
        ["-o", "no/such/out.png"],
        ["--framemd5", "no/such/out"],
    ] {
        let ended = portcullis(["decode", &clip()]).args(&arguments).finish();
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("no/such/out"), "{}", ended.stderr);
    }
}

#[test]
fn damaged_content_is_code_4_after_what_is_intact() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(media::clip()).unwrap();
    let cut = directory.path().join("cut.mp4");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let position = format!("byte {}", whole.len() / 2);

    let decode = portcullis(["decode", "--framemd5", "-", path(&cut)]).finish();
    assert_eq!(decode.code, Some(4), "{}", decode.stderr);
    assert!(decode.stderr.contains(&position), "{}", decode.stderr);
    assert!(oracle().starts_with(&decode.stdout), "{}", decode.stdout);
    assert!(decode.stdout.lines().count() > 20, "{}", decode.stdout);

    let play = portcullis(["play", "--json", "--clock", "free", path(&cut)]).finish();
    assert_eq!(play.code, Some(4), "{}", play.stderr);
    let lines = play.json_lines();
    assert!(lines.iter().any(|event| {
        event["status"]
            .as_str()
            .is_some_and(|status| status.contains(&position))
    }));
    assert_eq!(lines.last().unwrap()["exit_code"], 4);

    let text = directory.path().join("text.mp4");
    fs::write(&text, "not a clip").unwrap();
    let probe = portcullis(["probe", path(&text)]).finish();
    assert_eq!(probe.code, Some(4), "{}", probe.stderr);
    assert!(is_one_line(&probe), "{}", probe.stderr);
}

#[test]
fn content_beyond_a_limit_is_code_4() {
    let ended = portcullis(["decode", "--max-samples", "10", &clip()]).finish();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("content limit samples"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_killed_host_is_an_error_event_with_its_signal_and_code_5() {
    let mut play = portcullis(["play", "--json", &clip()]).start();
    let mut out = play.stdout();
    let started = read_to_event(&mut out, "SessionStarted");
    let host = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
    assert_ne!(host, play.pid());
    process::kill(host);
    let events = read_rest(out);
    let error = events
        .iter()
        .find(|event| event["event"] == "Error")
        .unwrap();
    assert!(
        error["status"].as_str().unwrap().contains("signal 9"),
        "{error}"
    );
    let summary = events.last().unwrap();
    assert_eq!(
        (&summary["event"], &summary["exit_code"]),
        (&json!("summary"), &json!(5))
    );
    assert_eq!(summary["error"]["detail"]["signal"], 9, "{summary}");
    let play = play.finish();
    assert_eq!(play.code, Some(5));
    assert!(
        play.stderr.contains("host lost") && is_one_line(&play),
        "{}",
        play.stderr
    );
    assert!(!process::exists(host), "a zombie is left");
}

#[test]
fn a_signal_ends_play_cleanly() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut play = portcullis(["play", "--json", &clip()]).start();
        let mut out = play.stdout();
        let started = read_to_event(&mut out, "SessionStarted");
        play.signal(signal);
        let events = read_rest(out);
        let names: Vec<_> = events
            .iter()
            .map(|event| event["event"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"SessionClosed"), "{names:?}");
        assert_eq!(events.last().unwrap()["exit_code"], code);
        let play = play.finish();
        assert_eq!((play.code, play.stderr.as_str()), (Some(code), ""));
        let host = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
        run(until("the host is gone", || !process::exists(host)));
    }
}

#[test]
fn a_killed_command_leaves_no_host() {
    let mut play = portcullis(["play", "--json", &clip()]).start();
    let mut out = play.stdout();
    let started = read_to_event(&mut out, "SessionStarted");
    play.signal(Signal::KILL);
    assert_eq!(play.finish().code, None);
    let host = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
    run(until("the host is gone", || !process::exists(host)));
}

#[test]
fn a_reader_that_goes_ends_the_command_quietly() {
    for arguments in [&["play", "--json"][..], &["decode", "--framemd5", "-"]] {
        let clip = clip();
        let mut started = portcullis(arguments.iter().copied().chain([clip.as_str()])).start();
        let mut out = started.stdout();
        let mut first = [0];
        out.read_exact(&mut first).unwrap();
        drop(out);
        let ended = started.finish();
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}
