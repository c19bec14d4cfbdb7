//! Conformance cases of the session (reference 3A), against a scripted world.

mod random;
mod trouble;
mod world;

use super::*;
use crate::clock::ClockState;
use crate::topology::{NodeId, TopologyId};
use world::{World, clip, seek, set, start};

const NO_TOPOLOGY: &str = "invalid request: the session has no topology";

fn ms(millis: i64) -> MediaTime {
    MediaTime::from_millis(millis)
}

#[test]
fn d01_a_start_without_a_topology_fails_and_the_session_goes_on() {
    let mut world = World::new();
    world.run(start(None));
    assert_eq!(world.said(), [format!("Started on: {NO_TOPOLOGY}")]);
    for (command, name) in [(Command::Pause, "Paused"), (Command::Stop, "Stopped")] {
        world.run(command);
        assert_eq!(world.said(), [format!("{name}: {NO_TOPOLOGY}")]);
    }
    world.set(clip());
    world.run(start(None));
    assert_eq!(world.said().last().map(String::as_str), Some("Started on"));
}

#[test]
fn d02_after_a_shutdown_everything_says_so_at_once() {
    let mut world = World::playing();
    world.tell(Input::Shutdown).expect("the first one");
    assert!(world.is_shut_down);
    let is_shutdown = |error: Error| matches!(error.kind(), ErrorKind::Shutdown { .. });
    for command in [
        start(None),
        Command::Pause,
        Command::Stop,
        Command::Close,
        Command::ClearTopologies,
        set(clip()),
    ] {
        assert!(is_shutdown(world.command(command).expect_err("shut down")));
    }
    assert!(is_shutdown(
        world.tell(Input::Shutdown).expect_err("the second")
    ));
    assert!(is_shutdown(world.session.clock().expect_err("shut down")));
    assert!(is_shutdown(
        world.session.capabilities().expect_err("shut down")
    ));
    assert!(is_shutdown(
        world.session.full_topology().expect_err("shut down")
    ));
    world.events.clear();
    let report = Report::Flushed {
        node: NodeId(3),
        epoch: world.session.epoch(),
    };
    world
        .tell(Input::Report(report))
        .expect("reports never fail");
    assert!(world.said().is_empty());
}

#[test]
fn a_shutdown_completes_what_waits() {
    let mut world = World::ready();
    world.command(start(None)).expect("is taken");
    world.command(Command::Pause).expect("is taken");
    world.events.clear();
    world.tell(Input::Shutdown).expect("the first one");
    assert_eq!(
        world.said(),
        [
            "Started on: the session is shut down",
            "Paused: the session is shut down"
        ]
    );
}

#[test]
fn d03_clearing_is_always_possible_until_the_end() {
    let mut world = World::new();
    world.run(Command::ClearTopologies);
    world.run(Command::ClearTopologies);
    assert_eq!(world.said(), ["TopologiesCleared", "TopologiesCleared"]);
    world.run(Command::Close);
    assert_eq!(world.said(), ["Closed"]);
    let error = world.command(Command::ClearTopologies);
    assert_eq!(error.expect_err("closed"), is_closed());
}

#[test]
fn d04_d05_a_topology_with_a_fault_is_refused_at_once() {
    let mut world = World::new();
    let error = world.command(set(Topology::new())).expect_err("empty");
    assert!(matches!(error.kind(), ErrorKind::Topology(_)));
    assert!(world.events.is_empty());
}

#[test]
fn d06_a_full_topology_is_taken_as_it_is() {
    for (no_resolution, is_the_same) in [(true, true), (false, false)] {
        let mut world = World::new();
        let topology = clip();
        let flags = SetTopologyFlags {
            no_resolution,
            ..SetTopologyFlags::default()
        };
        world.run(Command::SetTopology {
            topology: Box::new(topology.clone()),
            flags,
        });
        assert_eq!(world.calls, [format!("resolve {}", !no_resolution)]);
        let EventKind::SessionTopologySet {
            topology: id,
            full: Some(full),
        } = &world.events[0].kind
        else {
            panic!("the first event is the topology's");
        };
        assert_eq!(*id, topology.id());
        assert_eq!(**full == topology, is_the_same);
        assert_eq!(world.session.full_topology().expect("is there"), &**full);
    }
}

#[test]
fn d07_a_topology_is_set_without_a_start() {
    let mut world = World::new();
    world.set(clip());
    assert_eq!(
        world.said(),
        [
            "TopologySet",
            "NotifyPresentationTime",
            "CapabilitiesChanged 0x3",
            "TopologyStatus ready"
        ]
    );
    world.resolve_fails = Some(Error::invalid_argument("no"));
    world.set(clip());
    assert_eq!(world.said(), ["TopologySet: invalid argument: no"]);
}

#[test]
fn d08_start_announces_its_sources_before_itself() {
    let mut world = World::ready();
    world.calls.clear();
    world.run(start(None));
    assert_eq!(
        world.said(),
        [
            "TopologyStatus started",
            "CapabilitiesChanged 0x7",
            "Started on"
        ]
    );
    assert_eq!(
        world.calls,
        ["sources start on", "sinks preroll 0", "sinks start 0"]
    );
    world.run(Command::Pause);
    assert_eq!(world.said(), ["CapabilitiesChanged 0x3", "Paused"]);
    world.run(start(None));
    assert_eq!(world.said(), ["CapabilitiesChanged 0x7", "Started on"]);
    world.run(Command::Stop);
    assert_eq!(world.said(), ["CapabilitiesChanged 0x3", "Stopped"]);
    world.run(start(None));
    assert_eq!(world.said(), ["CapabilitiesChanged 0x7", "Started on"]);
    world.end();
    assert_eq!(
        world.said(),
        [
            "EndOfPresentation",
            "TopologyStatus ended",
            "CapabilitiesChanged 0x3",
            "Ended"
        ]
    );
}

#[test]
fn d10_a_source_that_does_not_start_fails_the_start() {
    let mut world = World::ready();
    world.calls.clear();
    world.start_fails = Some(Error::malformed(3, "no"));
    world.run(start(None));
    assert_eq!(world.said(), ["Started on: malformed input at byte 3: no"]);
    assert_eq!(
        world.calls,
        ["sources start on", "sources stop", "transforms flush"]
    );
    world.run(start(None));
    assert_eq!(world.said().last().map(String::as_str), Some("Started on"));
}

#[test]
fn d11_a_seek_stops_flushes_and_starts_in_this_order() {
    for pause_first in [false, true] {
        let mut world = World::playing();
        if pause_first {
            world.run(Command::Pause);
            world.said();
            world.calls.clear();
        }
        let before = world.session.epoch();
        world.run(seek(1));
        assert_eq!(
            world.calls,
            [
                "sources stop",
                "transforms flush",
                "sources start 1",
                "sinks preroll 1",
                "sinks start 1"
            ]
        );
        assert_eq!(world.said().last().map(String::as_str), Some("Started 1"));
        assert!(world.session.epoch() > before);
        world.pass(ms(100));
        let clock = world.session.clock().expect("is open");
        assert_eq!(clock.time_at(world.now), ms(1100));
    }
}

#[test]
fn d12_a_seek_past_the_end_changes_nothing() {
    let mut world = World::playing();
    world.pass(ms(500));
    world.run(seek(11));
    assert_eq!(
        world.said(),
        ["Started on: position 11.0000000s is outside of the presentation (10.0000000s)"]
    );
    assert!(world.calls.is_empty());
    world.pass(ms(100));
    let clock = world.session.clock().expect("is open");
    assert_eq!(clock.time_at(world.now), ms(600));
}

#[test]
fn d13_pause_goes_from_sinks_to_sources_and_only_while_running() {
    let mut world = World::ready();
    world.run(Command::Pause);
    assert_eq!(
        world.said(),
        ["Paused: the session is stopped and cannot pause"]
    );
    let mut world = World::playing();
    world.run(Command::Pause);
    assert_eq!(world.calls, ["sinks pause", "sources pause"]);
    assert_eq!(world.said().last().map(String::as_str), Some("Paused"));
    world.run(Command::Pause);
    assert_eq!(
        world.said(),
        ["Paused: invalid request: the session is paused"]
    );
}

#[test]
fn d14_after_pause_and_start_the_clock_runs() {
    let mut world = World::playing();
    world.pass(ms(300));
    world.run(Command::Pause);
    world.pass(ms(5000));
    let clock = world.session.clock().expect("is open");
    assert_eq!(
        (clock.state, clock.time_at(world.now)),
        (ClockState::Paused, ms(300))
    );
    let epoch = world.session.epoch();
    world.run(start(None));
    assert_eq!(world.session.epoch(), epoch, "what was read is still good");
    world.pass(ms(100));
    let clock = world.session.clock().expect("is open");
    assert_eq!(clock.time_at(world.now), ms(400));
    world.run(Command::Pause);
    world.run(seek(1));
    world.pass(ms(100));
    let clock = world.session.clock().expect("is open");
    assert!(clock.time_at(world.now) > ms(1000));
}

#[test]
fn d15_an_end_is_said_once_and_a_start_replays() {
    let mut world = World::ready();
    world.run(start(None));
    world.end();
    let first = crate::event::normalise(&world.events);
    let said = world.said();
    assert_eq!(
        said,
        [
            "TopologyStatus started",
            "CapabilitiesChanged 0x7",
            "Started on",
            "EndOfPresentation",
            "TopologyStatus ended",
            "CapabilitiesChanged 0x3",
            "Ended"
        ]
    );
    world.run(start(None));
    world.end();
    let again = crate::event::normalise(&world.events);
    assert_eq!(world.said(), said);
    assert_eq!(first.len(), again.len());
    assert_eq!(
        world.session.clock().expect("is open").state,
        ClockState::Stopped
    );
}

#[test]
fn d16_close_finalises_every_sink_and_is_the_last_word() {
    let mut world = World::playing();
    world.run(Command::Close);
    assert_eq!(
        world.calls,
        [
            "sinks stop",
            "sources stop",
            "transforms flush",
            "finalize 4",
            "finalize 5"
        ]
    );
    assert_eq!(
        world.said(),
        [
            "CapabilitiesChanged 0x3",
            "CapabilitiesChanged 0x0",
            "Closed"
        ]
    );
    for command in [start(None), Command::Close, Command::Stop, set(clip())] {
        assert_eq!(world.command(command).expect_err("closed"), is_closed());
    }
    world.raise(Event::of_node(EventKind::NonFatalError, NodeId(4)).failed(Error::cancelled()));
    let error = Error::cancelled();
    let lost = Report::NodeLost {
        node: NodeId(1),
        error,
    };
    world.answers.push_back(lost);
    world.settle();
    assert!(world.said().is_empty());
    assert!(world.events.is_empty(), "that was the last event");

    let mut world = World::playing();
    world.command(Command::Close).expect("is taken");
    world.command(Command::Pause).expect("is taken");
    world.settle();
    let said = world.said();
    assert_eq!(
        said[said.len() - 2..],
        ["Paused: invalid request: the session is closed", "Closed"]
    );
    let mut world = World::ready();
    world.finalize_fails = Some(Error::invalid_argument("disk full"));
    world.run(Command::Close);
    assert_eq!(
        world.said().last().map(String::as_str),
        Some("Closed: invalid argument: disk full")
    );
}

#[test]
fn commands_wait_for_each_other() {
    let mut world = World::ready();
    for command in [start(None), Command::Pause, seek(2), Command::Pause] {
        world.command(command).expect("is taken");
    }
    world.settle();
    let said = world.said();
    let said: Vec<_> = said
        .iter()
        .filter(|said| !said.contains("Capabilities") && !said.contains("Status"))
        .collect();
    assert_eq!(said, ["Started on", "Paused", "Started 2", "Paused"]);
}

#[test]
fn the_same_topology_is_set_and_played_again() {
    let topology = clip();
    for immediate in [false, true] {
        let again = || Command::SetTopology {
            topology: Box::new(topology.clone()),
            flags: SetTopologyFlags {
                immediate,
                ..SetTopologyFlags::default()
            },
        };
        let mut world = World::new();
        world.run(again());
        world.run(start(None));
        world.end();
        world.said();
        world.run(again());
        world.run(start(None));
        assert_eq!(world.said().last().map(String::as_str), Some("Started on"));
        // While it plays.
        world.run(again());
        world.end();
        if !immediate {
            let said = world.said();
            assert!(
                said.contains(&"TopologyStatus ready".to_owned()),
                "{said:?}"
            );
            world.end();
        }
        assert_eq!(world.said().last().map(String::as_str), Some("Ended"));
    }
}

#[test]
fn a_queued_topology_follows_when_the_first_ends() {
    let mut world = World::playing();
    let next = clip();
    let id = next.id();
    world.set(next);
    assert_eq!(world.said(), ["TopologySet"]);
    world.calls.clear();
    world.end();
    assert_eq!(
        world.said(),
        [
            "EndOfPresentation",
            "TopologyStatus ended",
            "CapabilitiesChanged 0x3",
            "NotifyPresentationTime",
            "TopologyStatus ready",
            "TopologyStatus started",
            "CapabilitiesChanged 0x7"
        ]
    );
    assert_eq!(world.session.full_topology().expect("is there").id(), id);
    world.end();
    assert_eq!(world.said().last().map(String::as_str), Some("Ended"));
}

#[test]
fn an_immediate_topology_takes_over() {
    let mut world = World::playing();
    let queued = clip();
    world.set(queued);
    world.said();
    let next = clip();
    let id = next.id();
    world.run(Command::SetTopology {
        topology: Box::new(next),
        flags: SetTopologyFlags {
            immediate: true,
            ..SetTopologyFlags::default()
        },
    });
    assert_eq!(
        world.said(),
        [
            "TopologySet",
            "TopologyStatus ended",
            "CapabilitiesChanged 0x3",
            "NotifyPresentationTime",
            "TopologyStatus ready",
            "TopologyStatus started",
            "CapabilitiesChanged 0x7"
        ]
    );
    assert_eq!(world.session.full_topology().expect("is there").id(), id);
    assert_ne!(id, TopologyId(0));
}

#[test]
fn a_recording_replays_to_the_same_effects() {
    let mut world = World::ready();
    world.run(start(None));
    world.run(seek(3));
    world.end();
    world.run(Command::Close);
    let replayed: Vec<_> = world
        .recording
        .replay()
        .into_iter()
        .map(|effects| effects.expect("was taken"))
        .collect();
    assert_eq!(replayed, world.effects);
    let text = serde_json::to_string(&world.recording).expect("writes");
    let back: Recording = serde_json::from_str(&text).expect("reads");
    assert_eq!(back, world.recording);
}

impl SessionMachine {
    /// Whether the presentation runs.
    fn is_started(&self) -> bool {
        self.state == State::Started
    }
}
