//! When two event traces are the same, wherever their sessions ran.

use super::{Event, EventKind};
use crate::error::{Error, ErrorKind, HostExit};
use crate::topology::TopologyId;

/// A trace without what may differ between runs and placements: two runs behaved the same if their normal forms are equal.
///
/// The session's own events stay in order. Component events between two of them are sorted by node, stream and sequence;
/// `EndOfPresentation`, which says how far sources have read and not what the session does, stands behind them.
/// Times, process ids, presentation times at which something was noticed, and counts of late and dropped samples are left
/// out; topologies are named by the order of their appearance.
pub fn normalise(events: &[Event]) -> Vec<Event> {
    let mut topologies = Vec::new();
    let mut trace: Vec<Event> = Vec::with_capacity(events.len());
    let mut run = 0;
    for event in events {
        if matches!(event.kind, EventKind::QualityNotify { .. }) {
            continue;
        }
        if event.is_session() && event.kind != EventKind::EndOfPresentation {
            sort(&mut trace[run..]);
            run = trace.len() + 1;
        }
        trace.push(plain(event, &mut topologies));
    }
    let run = run.min(trace.len());
    sort(&mut trace[run..]);
    trace
}

fn sort(run: &mut [Event]) {
    run.sort_by_key(|event| (event.is_session(), event.source));
}

fn plain(event: &Event, topologies: &mut Vec<TopologyId>) -> Event {
    let mut event = event.clone();
    event.time = None;
    event.pid = None;
    event.status = event.status.map_err(|error| without_process(&error));
    match &mut event.kind {
        EventKind::SessionTopologySet { topology, full } => {
            *topology = by_appearance(*topology, topologies);
            *full = None;
        }
        EventKind::SessionTopologyStatus { topology, .. }
        | EventKind::SessionNotifyPresentationTime { topology, .. } => {
            *topology = by_appearance(*topology, topologies);
        }
        EventKind::SessionStopped { at } | EventKind::SessionEnded { at } => *at = None,
        _ => {}
    }
    event
}

fn by_appearance(topology: TopologyId, seen: &mut Vec<TopologyId>) -> TopologyId {
    let at = seen
        .iter()
        .position(|known| *known == topology)
        .unwrap_or_else(|| {
            seen.push(topology);
            seen.len() - 1
        });
    TopologyId(at as u64 + 1)
}

fn without_process(error: &Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::HostLost(exit) => ErrorKind::HostLost(HostExit {
            code: exit.code,
            signal: exit.signal,
            ..HostExit::default()
        }),
        kind => kind.clone(),
    };
    let mut plain = Error::new(kind);
    if let Some(node) = &error.place().node {
        plain = plain.at_node(node.clone());
    }
    if let Some(input) = &error.place().input {
        plain = plain.of_input(input.clone());
    }
    error
        .causes()
        .iter()
        .fold(plain, |plain, cause| plain.because(cause.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemTime100ns;
    use crate::media::MediaTime;
    use crate::topology::NodeId;

    fn stream(node: u64, sequence: u64) -> Event {
        let mut event = Event::of_stream(EventKind::EndOfStream, NodeId(node), 0);
        if let Some(source) = &mut event.source {
            source.sequence = sequence;
        }
        event
    }

    fn ended(at: i64, pid: u32) -> Event {
        let mut event = Event::new(EventKind::SessionEnded {
            at: Some(MediaTime::from_millis(at)),
        })
        .in_process(pid);
        event.time = Some(SystemTime100ns::from_ticks(at));
        event
    }

    #[test]
    fn only_the_order_between_streams_is_free() {
        let quality = Event::new(EventKind::QualityNotify {
            rendered: 1,
            late: 1,
            dropped: 0,
        });
        let one = [stream(1, 0), stream(2, 0), ended(3, 10), stream(1, 1)];
        let two = [
            stream(2, 0),
            quality,
            stream(1, 0),
            ended(4, 11),
            stream(1, 1),
        ];
        assert_eq!(normalise(&one), normalise(&two));
        let other = [stream(1, 0), ended(3, 10), stream(2, 0), stream(1, 1)];
        assert_ne!(normalise(&one), normalise(&other));
    }

    #[test]
    fn how_far_a_source_read_ahead_does_not_matter() {
        let end = || Event::new(EventKind::EndOfPresentation);
        let one = [end(), stream(1, 0), ended(1, 1)];
        let two = [stream(1, 0), end(), ended(1, 1)];
        assert_eq!(normalise(&one), normalise(&two));
    }

    #[test]
    fn topologies_and_processes_have_no_name_of_their_own() {
        let set = |id, pid| {
            Event::new(EventKind::SessionTopologySet {
                topology: TopologyId(id),
                full: None,
            })
            .failed(Error::malformed(1, "x").at_node("1 mp4"))
            .in_process(pid)
        };
        assert_eq!(
            normalise(&[set(8, 1), set(9, 1)]),
            normalise(&[set(1, 2), set(2, 2)])
        );
        assert_ne!(
            normalise(&[set(8, 1), set(8, 1)]),
            normalise(&[set(1, 2), set(2, 2)])
        );
    }
}
