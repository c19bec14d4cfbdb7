//! Failures: sources that go away, nodes that fail, events that are stale or false.

use super::world::{World, clip, outputs, seek, set, shared_sink, start};
use crate::clock::ClockState;
use crate::error::{Error, ErrorKind, HostExit};
use crate::event::{Event, EventKind};
use crate::media::MediaTime;
use crate::session::{Command, Input, Report};
use crate::topology::NodeId;

fn lost(world: &mut World, node: u64) {
    let error = Error::new(ErrorKind::HostLost(HostExit::default()));
    let node = NodeId(node);
    world
        .tell(Input::Report(Report::NodeLost { node, error }))
        .expect("reports never fail");
    world.settle();
}

#[test]
fn d17_a_source_lost_while_starting_fails_the_start_and_only_it() {
    let mut world = World::ready();
    world.command(start(None)).expect("is taken");
    world.command(Command::Pause).expect("is taken");
    world.answers.clear();
    lost(&mut world, 1);
    let said = world.said();
    assert!(
        said[0].starts_with("Started on: invalid request: the source of node 1 is gone; host lost"),
        "{said:?}"
    );
    assert_eq!(
        said[1..],
        [
            "Paused: invalid request: the source of the presentation is gone",
            "CapabilitiesChanged 0x0"
        ]
    );
    world.set(clip());
    world.run(start(None));
    assert_eq!(world.said().last().map(String::as_str), Some("Started on"));
}

#[test]
fn d17_a_source_lost_at_other_times_is_an_error_and_completes_what_waits() {
    let mut world = World::playing();
    lost(&mut world, 1);
    let errors: Vec<_> = world
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Error)
        .collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].error().expect("failed").host_exit().is_some());
    assert!(world.session.full_topology().is_err());

    let mut world = World::playing();
    world.command(Command::Stop).expect("is taken");
    world.answers.clear();
    lost(&mut world, 1);
    assert!(world.said()[0].starts_with("Stopped: invalid request"));

    let mut world = World::playing();
    world.command(Command::Close).expect("is taken");
    world.answers.clear();
    lost(&mut world, 1);
    assert!(world.calls.contains(&"finalize 5".to_owned()));
    assert_eq!(world.said().last().map(String::as_str), Some("Closed"));
}

#[test]
fn a_failed_node_counts_as_ended() {
    let mut world = World::playing();
    let failed = Event::of_node(EventKind::Error, NodeId(4)).failed(Error::malformed(1, "x"));
    world.raise(failed);
    world.settle();
    assert!(world.said().is_empty(), "the other branch goes on");
    for node in [1, 2] {
        world.raise(Event::of_stream(
            EventKind::EndOfStream,
            NodeId(node),
            node as u32 - 1,
        ));
    }
    world.raise(Event::of_stream(EventKind::StreamSinkMarker, NodeId(5), 0));
    world.settle();
    assert_eq!(world.said().last().map(String::as_str), Some("Ended"));
}

#[test]
fn a_sink_that_fails_or_is_lost_ends_all_of_its_streams() {
    for is_lost in [false, true] {
        let mut world = World::new();
        world.set(shared_sink());
        world.run(start(None));
        world.said();
        if is_lost {
            lost(&mut world, 4);
        } else {
            world.raise(Event::of_node(EventKind::Error, NodeId(4)).failed(Error::cancelled()));
            world.settle();
        }
        assert_eq!(world.said().last().map(String::as_str), Some("Ended"));
    }
}

#[test]
fn a_sink_that_fails_while_it_prerolls_gives_the_same_events_in_either_order() {
    let mut traces = Vec::new();
    for error_first in [true, false] {
        let mut world = World::ready();
        world.command(start(None)).expect("is taken");
        while !world
            .calls
            .iter()
            .any(|call| call.starts_with("sinks preroll"))
        {
            assert!(world.step());
        }
        let epoch = world.session.epoch();
        let event = Event::of_node(EventKind::Error, NodeId(4)).failed(Error::cancelled());
        let error = Report::Raised { event, epoch };
        let event = Event::of_stream(EventKind::StreamSinkPrerolled, NodeId(4), 0);
        let answer = Report::Raised {
            event: event.failed(Error::cancelled()),
            epoch,
        };
        world.answers.pop_front();
        match error_first {
            true => world.answers.extend([error, answer]),
            false => world.answers.extend([answer, error]),
        }
        world.settle();
        traces.push(crate::event::normalise(&world.events));
        let said = world.said();
        assert_eq!(
            said.last().map(String::as_str),
            Some("Started on"),
            "{said:?}"
        );
    }
    assert_eq!(traces[0], traces[1]);
}

#[test]
fn a_stop_or_close_does_not_wait_for_what_waits_for_data() {
    for (command, last) in [(Command::Stop, "Stopped"), (Command::Close, "Closed")] {
        // A resolution.
        let mut world = World::ready();
        world.command(set(clip())).expect("is taken");
        world.command(start(None)).expect("is taken");
        let unanswered = std::mem::take(&mut world.answers);
        world.command(command.clone()).expect("is taken");
        assert_eq!(world.calls.last().map(String::as_str), last_call(last));
        world.settle();
        let said = world.said();
        assert_eq!(
            said[..2],
            ["TopologySet: cancelled", "Started on: cancelled"]
        );
        assert_eq!(said.last().map(String::as_str), Some(last));
        // Its answer was on its way.
        world.answers = unanswered;
        world.settle();
        assert!(world.said().is_empty());

        // A start from stopped, one from paused, and a seek.
        for paused in [None, Some(start(None)), Some(seek(2))] {
            let mut world = World::ready();
            let begin = match paused {
                Some(begin) => {
                    world.run(start(None));
                    world.run(Command::Pause);
                    world.said();
                    begin
                }
                None => start(None),
            };
            world.command(begin).expect("is taken");
            world.answers.clear();
            world.command(command.clone()).expect("is taken");
            world.settle();
            let said = world.said();
            assert!(
                said.contains(&"Started on: cancelled".to_owned()),
                "{said:?}"
            );
            assert_eq!(said.last().map(String::as_str), Some(last));
        }
    }
}

fn last_call(last: &str) -> Option<&str> {
    match last {
        "Closed" => Some("finalize 5"),
        _ => Some("cancel"),
    }
}

#[test]
fn a_lost_transform_is_an_error_and_is_not_waited_for() {
    let mut world = World::playing();
    lost(&mut world, 3);
    assert_eq!(world.events.len(), 1);
    world.command(Command::Stop).expect("is taken");
    world
        .answers
        .retain(|report| !matches!(report, Report::Flushed { .. }));
    while world.step() {
        world
            .answers
            .retain(|report| !matches!(report, Report::Flushed { .. }));
    }
    assert_eq!(world.said().last().map(String::as_str), Some("Stopped"));
}

#[test]
fn what_a_source_reads_ahead_shows_only_after_the_start() {
    let mut world = World::ready();
    world.command(start(None)).expect("is taken");
    for _ in 0..6 {
        world.step();
    }
    assert!(!world.answers.is_empty(), "the start is under way");
    for node in [1, 2] {
        world.raise(Event::of_stream(
            EventKind::EndOfStream,
            NodeId(node),
            node as u32 - 1,
        ));
    }
    world.settle();
    let names: Vec<_> = world.events.iter().map(Event::name).collect();
    let at = |name| names.iter().position(|n| *n == name).expect("is there");
    assert!(at("SessionStarted") < at("EndOfStream"));
    assert!(at("EndOfStream") < at("EndOfPresentation"));
}

#[test]
fn an_empty_stream_ends_while_it_prerolls() {
    let mut world = World::ready();
    world.command(start(None)).expect("is taken");
    while !world
        .calls
        .iter()
        .any(|call| call.starts_with("sinks preroll"))
    {
        assert!(world.step());
    }
    // Instead of prerolling, both outputs find the end.
    world.answers.clear();
    for (node, stream) in outputs(&clip()) {
        world.raise(Event::of_stream(EventKind::StreamSinkMarker, node, stream));
    }
    world.settle();
    // The sources, which may be in another process, have yet to say so.
    assert_eq!(world.said()[2..], ["Started on"]);
    for node in [1, 2] {
        world.raise(Event::of_stream(
            EventKind::EndOfStream,
            NodeId(node),
            node as u32 - 1,
        ));
    }
    world.settle();
    let said = world.said();
    assert_eq!(
        said,
        [
            "EndOfPresentation",
            "TopologyStatus ended",
            "CapabilitiesChanged 0x3",
            "Ended"
        ]
    );
}

#[test]
fn stale_and_false_reports_change_nothing() {
    let mut world = World::playing();
    let stale = world.session.epoch();
    world.run(seek(1));
    world.events.clear();
    for (node, stream) in outputs(&clip()) {
        let event = Event::of_stream(EventKind::StreamSinkMarker, node, stream);
        let report = Report::Raised {
            event,
            epoch: stale,
        };
        world
            .tell(Input::Report(report))
            .expect("reports never fail");
    }
    world.raise(Event::of_stream(EventKind::EndOfStream, NodeId(99), 0));
    world.raise(Event::of_stream(EventKind::StreamSinkMarker, NodeId(4), 7));
    world.raise(Event::new(EventKind::SessionClosed));
    world.raise(Event::of_node(EventKind::SessionClosed, NodeId(1)));
    world.settle();
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn d18_while_a_source_lacks_data_the_clock_stands() {
    let mut world = World::playing();
    world.pass(MediaTime::from_secs(1));
    world.raise(Event::of_node(EventKind::BufferingStarted, NodeId(1)));
    world.settle();
    world.pass(MediaTime::from_secs(1));
    world.raise(Event::of_node(EventKind::BufferingStopped, NodeId(1)));
    world.settle();
    world.pass(MediaTime::from_secs(1));
    assert_eq!(world.calls, ["clock Paused", "clock Running"]);
    let clock = world.session.clock().expect("is open");
    assert_eq!(clock.state, ClockState::Running);
    assert_eq!(clock.time_at(world.now), MediaTime::from_secs(2));
    let names: Vec<_> = world.events.iter().map(Event::name).collect();
    assert_eq!(names, ["BufferingStarted", "BufferingStopped"]);
}

#[test]
fn d18_data_that_is_back_before_the_start_is_complete_lets_the_clock_run() {
    let mut world = World::ready();
    world.command(start(None)).expect("is taken");
    world.raise(Event::of_node(EventKind::BufferingStarted, NodeId(1)));
    while !world
        .calls
        .iter()
        .any(|call| call.starts_with("sinks start"))
    {
        assert!(world.step());
    }
    let clock = world.session.clock().expect("is open");
    assert_eq!(clock.state, ClockState::Paused);
    let stopped = Event::of_node(EventKind::BufferingStopped, NodeId(1));
    let report = Report::Raised {
        event: stopped,
        epoch: world.session.epoch(),
    };
    world
        .tell(Input::Report(report))
        .expect("reports never fail");
    world.settle();
    let clock = world.session.clock().expect("is open");
    assert_eq!(clock.state, ClockState::Running);
}
