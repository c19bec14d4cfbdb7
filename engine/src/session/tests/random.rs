//! Whatever comes in whatever order: no panic, one completion for each command, statuses that only go up.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{World, clip, outputs, seek, set, shared_sink, split_stream, start};
use crate::error::Error;
use crate::event::{CommandId, Event, EventKind, TopologyStatus};
use crate::media::MediaTime;
use crate::session::{Command, Epoch, Input, Report, SetTopologyFlags};
use crate::topology::{NodeId, Topology, TopologyId};

#[derive(Clone, Debug)]
enum Move {
    Command(u8),
    Answer(u8),
    End,
    Pass(u16),
    StartFails,
    ResolveFails(bool),
    Noise(u8, u8, u8, bool),
    Lost(u8),
    SinkFails(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0..16u8).prop_map(Move::Command),
        8 => (1..12u8).prop_map(Move::Answer),
        1 => Just(Move::End),
        1 => any::<u16>().prop_map(Move::Pass),
        1 => Just(Move::StartFails),
        1 => any::<bool>().prop_map(Move::ResolveFails),
        4 => (0..24u8, 0..8u8, 0..3u8, any::<bool>()).prop_map(|(k, n, s, old)| Move::Noise(k, n, s, old)),
        1 => (0..8u8).prop_map(Move::Lost),
        1 => (0..2u8).prop_map(Move::SinkFails),
    ];
    prop::collection::vec(one, 1..120)
}

/// A command; `kept` is a topology that is set again and again.
fn command(which: u8, kept: &Topology) -> Command {
    match which {
        0 | 1 => set(clip()),
        12 => set(kept.clone()),
        13 => Command::SetTopology {
            topology: Box::new(kept.clone()),
            flags: SetTopologyFlags {
                immediate: true,
                no_resolution: true,
            },
        },
        14 => set(shared_sink()),
        15 => set(split_stream()),
        2 => Command::SetTopology {
            topology: Box::new(clip()),
            flags: SetTopologyFlags {
                immediate: true,
                no_resolution: false,
            },
        },
        3 => Command::ClearTopologies,
        4 | 5 => start(None),
        6 => seek(3),
        7 => seek(30),
        8 | 9 => Command::Pause,
        10 => Command::Stop,
        _ => Command::Close,
    }
}

fn noise(kind: u8, node: u8, stream: u8) -> Report {
    use EventKind as K;
    let node = NodeId(u64::from(node));
    let position = Some(MediaTime::ZERO);
    let kinds = [
        K::Error,
        K::NonFatalError,
        K::SessionClosed,
        K::BufferingStarted,
        K::BufferingStopped,
        K::SourceStarted { position },
        K::StreamStarted { position },
        K::SourceStopped,
        K::StreamStopped,
        K::SourcePaused,
        K::StreamPaused,
        K::EndOfPresentation,
        K::EndOfStream,
        K::StreamSinkStarted,
        K::StreamSinkStopped,
        K::StreamSinkPaused,
        K::StreamSinkMarker,
        K::StreamSinkPrerolled,
        K::SinkInvalidated,
    ];
    match kinds.get(usize::from(kind)) {
        Some(kind) => {
            let mut event = match stream {
                2 => Event::of_node(kind.clone(), node),
                _ => Event::of_stream(kind.clone(), node, u32::from(stream)),
            };
            if *kind == K::Error {
                event = event.failed(Error::cancelled());
            }
            Report::Raised {
                event,
                epoch: Epoch::default(),
            }
        }
        None if kind < 21 => Report::Flushed {
            node,
            epoch: Epoch::default(),
        },
        None if kind < 23 => Report::Finalized {
            sink: node,
            result: Err(Error::cancelled()),
        },
        None => Report::TopologyResolved {
            set_by: CommandId(u64::from(stream)),
            result: Err(Error::cancelled()),
        },
    }
}

fn with_epoch(report: Report, now: Epoch) -> Report {
    match report {
        Report::Raised { event, .. } => Report::Raised { event, epoch: now },
        Report::Flushed { node, .. } => Report::Flushed { node, epoch: now },
        other => other,
    }
}

fn play(moves: Vec<Move>) -> (World, Vec<CommandId>) {
    let mut world = World::new();
    let mut commands = Vec::new();
    let kept = shared_sink();
    for one in moves {
        match one {
            Move::SinkFails(which) => world.sink_fails(usize::from(which)),
            Move::Command(which) => {
                if let Ok(id) = world.command(command(which, &kept)) {
                    commands.push(id);
                }
            }
            Move::Answer(count) => {
                for _ in 0..count {
                    world.step();
                }
            }
            Move::End => {
                for (node, stream) in outputs(&clip()) {
                    world.raise(Event::of_stream(EventKind::StreamSinkMarker, node, stream));
                }
            }
            Move::Pass(millis) => world.pass(MediaTime::from_millis(i64::from(millis))),
            Move::StartFails => world.start_fails = Some(Error::cancelled()),
            Move::ResolveFails(fails) => world.resolve_fails = fails.then(Error::cancelled),
            Move::Noise(kind, node, stream, is_old) => {
                let report = noise(kind, node, stream);
                let report = match is_old {
                    true => report,
                    false => with_epoch(report, world.session.epoch()),
                };
                world
                    .tell(Input::Report(report))
                    .expect("reports never fail");
            }
            Move::Lost(node) => {
                let report = Report::NodeLost {
                    node: NodeId(u64::from(node)),
                    error: Error::cancelled(),
                };
                world
                    .tell(Input::Report(report))
                    .expect("reports never fail");
            }
        }
    }
    world.settle();
    (world, commands)
}

/// Within one presentation statuses go up; after an end it starts from ready, which is not said again.
fn statuses_go_up(events: &[Event]) -> bool {
    let mut last: BTreeMap<TopologyId, TopologyStatus> = BTreeMap::new();
    events.iter().all(|event| {
        // Another presentation begins.
        if let EventKind::SessionNotifyPresentationTime { topology, .. } = &event.kind {
            last.remove(topology);
        }
        let EventKind::SessionTopologyStatus {
            topology,
            topology_status: status,
        } = &event.kind
        else {
            return true;
        };
        let before = last.insert(*topology, *status);
        before < Some(*status) || before == Some(TopologyStatus::Ended)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_completes_exactly_once(moves in moves()) {
        let (world, commands) = play(moves);
        for id in commands {
            let completions = world.events.iter().filter(|event| event.command == Some(id));
            prop_assert_eq!(completions.count(), 1, "command {}", id);
        }
        prop_assert!(statuses_go_up(&world.events));
        let replayed: Vec<_> = world.recording.replay().into_iter().flatten().collect();
        prop_assert_eq!(replayed, world.effects);
    }

    #[test]
    fn whatever_failed_what_is_left_ends(moves in moves()) {
        let (mut world, _) = play(moves);
        // Each of the presentations that wait ends too.
        for _ in 0..200 {
            world.end();
        }
        prop_assert!(!world.session.is_started(), "{:?}", world.session);
    }

    #[test]
    fn a_closed_session_says_nothing_more(moves in moves()) {
        let (world, _) = play(moves);
        let closed = world.events.iter().rposition(|e| e.kind == EventKind::SessionClosed);
        if let Some(at) = closed {
            prop_assert_eq!(at + 1, world.events.len());
        }
    }

    #[test]
    fn a_shutdown_leaves_no_command_open(moves in moves(), more in moves()) {
        let (mut world, mut commands) = play(moves);
        for one in more {
            if let Move::Command(which) = one
                && let Ok(id) = world.command(command(which, &clip()))
            {
                commands.push(id);
            }
        }
        world.tell(Input::Shutdown).expect("the first one");
        for id in commands {
            let completions = world.events.iter().filter(|event| event.command == Some(id));
            prop_assert_eq!(completions.count(), 1, "command {}", id);
        }
    }
}
