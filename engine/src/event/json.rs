//! Events as one flat JSON object: `t`, `event`, `id`, `status`, `pid`, then what belongs to the kind.

use serde_json::{Map, Value, json};

use super::{Event, EventKind};

impl Event {
    /// The documented JSON form.
    ///
    /// `t` is system time in 100 ns (whoever prints it may make it relative), `event` and `id` name the kind, `status` is
    /// `"ok"` or the error's text, `pid` is the process that raised the event. Then `node`, `stream` and `sequence` of the component and
    /// `command`, where there are any, and the kind's own fields. Times are in 100 ns; a full topology is named by its id only.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("t".to_owned(), json!(self.time));
        object.insert("event".to_owned(), json!(self.name()));
        object.insert("id".to_owned(), json!(self.kind.id()));
        let status = match &self.status {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        object.insert("status".to_owned(), json!(status));
        object.insert("pid".to_owned(), json!(self.pid));
        if let Some(source) = &self.source {
            object.insert("node".to_owned(), json!(source.node));
            if let Some(stream) = source.stream {
                object.insert("stream".to_owned(), json!(stream));
            }
            object.insert("sequence".to_owned(), json!(source.sequence));
        }
        if let Some(command) = self.command {
            object.insert("command".to_owned(), json!(command));
        }
        for (name, value) in fields(&self.kind) {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
}

fn fields(kind: &EventKind) -> Vec<(&'static str, Value)> {
    match kind {
        EventKind::SessionTopologySet { topology, full } => {
            let mut fields = vec![("topology", json!(topology))];
            if let Some(full) = full {
                fields.push(("nodes", json!(full.nodes().len())));
            }
            fields
        }
        EventKind::SessionStarted { position }
        | EventKind::SourceStarted { position }
        | EventKind::StreamStarted { position } => vec![("position", json!(position))],
        EventKind::SourceSeeked { position } | EventKind::StreamSeeked { position } => {
            vec![("position", json!(position))]
        }
        EventKind::SessionStopped { at } | EventKind::SessionEnded { at } => {
            vec![("at", json!(at))]
        }
        EventKind::SessionCapabilitiesChanged {
            capabilities,
            delta,
        } => vec![
            ("capabilities", json!(capabilities)),
            ("delta", json!(delta)),
        ],
        EventKind::SessionTopologyStatus {
            topology,
            topology_status,
        } => vec![
            ("topology", json!(topology)),
            ("topology_status", json!(topology_status)),
        ],
        EventKind::SessionNotifyPresentationTime {
            topology,
            start,
            offset,
            start_at_output,
        } => vec![
            ("topology", json!(topology)),
            ("start", json!(start)),
            ("offset", json!(offset)),
            ("start_at_output", json!(start_at_output)),
        ],
        EventKind::StreamTick { time, duration } => {
            vec![("time", json!(time)), ("duration", json!(duration))]
        }
        EventKind::StreamFormatChanged { media_type }
        | EventKind::StreamSinkFormatChanged { media_type } => {
            vec![("media_type", json!(media_type.to_string()))]
        }
        EventKind::QualityNotify {
            rendered,
            late,
            dropped,
        } => vec![
            ("rendered", json!(rendered)),
            ("late", json!(late)),
            ("dropped", json!(dropped)),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemTime100ns;
    use crate::error::Error;
    use crate::event::{CommandId, TopologyStatus};
    use crate::media::MediaTime;
    use crate::topology::{NodeId, TopologyId};

    #[test]
    fn the_documented_form() {
        let mut event = Event::new(EventKind::SessionStarted {
            position: Some(MediaTime::from_millis(1)),
        })
        .completing(CommandId(4))
        .failed(Error::cancelled())
        .in_process(7);
        event.time = Some(SystemTime100ns::from_ticks(5));
        assert_eq!(
            event.to_json().to_string(),
            r#"{"command":4,"event":"SessionStarted","id":103,"pid":7,"position":10000,"status":"cancelled (process 7)","t":5}"#
        );
        let status = Event::new(EventKind::SessionTopologyStatus {
            topology: TopologyId(3),
            topology_status: TopologyStatus::StartedSource,
        });
        assert_eq!(status.to_json()["topology_status"], "started-source");
        let stream = Event::of_stream(EventKind::EndOfStream, NodeId(2), 1);
        assert_eq!(stream.to_json()["stream"], 1);
    }

    #[test]
    fn numbers_and_names_are_unique() {
        let mut ids: Vec<_> = EventKind::ALL.iter().map(|(_, id)| id).collect();
        ids.dedup();
        assert_eq!(ids.len(), EventKind::ALL.len());
        assert!(ids.is_sorted());
    }

    #[test]
    fn events_cross_the_wall_whole() {
        let event = Event::of_stream(EventKind::StreamSinkMarker, NodeId(2), 1)
            .failed(Error::malformed(3, "x"))
            .in_process(9);
        let bytes = postcard::to_stdvec(&event).expect("writes");
        assert_eq!(postcard::from_bytes::<Event>(&bytes).expect("reads"), event);
    }
}
