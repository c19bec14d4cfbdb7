//! A session's events and its summary on standard output.

use std::collections::BTreeMap;

use portcullis_engine::clock::SystemTime100ns;
use portcullis_engine::event::Event;
use portcullis_engine::topology::{NodeId, NodeKind, Topology};
use serde_json::{Map, Value, json};

use crate::cli::failure::{Failure, describe, one_line};
use crate::cli::output;
use crate::cli::playback::Played;
use crate::system_time;

/// What a summary says of an output node.
#[derive(Clone, Debug, Default)]
struct NodeName {
    /// The source's stream that ends there.
    stream: Option<u32>,
    /// The type of that stream.
    media_type: Option<String>,
    /// The sink's class.
    class: String,
}

/// Prints events as they come.
#[derive(Debug)]
pub(in crate::cli) struct EventPrinter {
    json: bool,
    began: SystemTime100ns,
    host_pid: Option<u32>,
    outputs: BTreeMap<NodeId, NodeName>,
}

impl EventPrinter {
    pub(in crate::cli) fn new(json: bool) -> Self {
        Self {
            json,
            began: system_time::now(),
            host_pid: None,
            outputs: BTreeMap::new(),
        }
    }

    pub(in crate::cli) fn host(&mut self, pid: u32) {
        self.host_pid = Some(pid);
    }

    /// Learns the output nodes of a topology and the streams that lead to them.
    pub(in crate::cli) fn name_outputs(&mut self, topology: &Topology) {
        for node in topology.nodes() {
            let NodeKind::Output { object, .. } = &node.kind else {
                continue;
            };
            let mut name = NodeName {
                class: object.to_string(),
                ..NodeName::default()
            };
            let mut before = node.id;
            // A topology has no loops once it is resolved; before that its nodes bound the way.
            for _ in topology.nodes() {
                let Some((up, _)) = topology.upstream(before, 0) else {
                    break;
                };
                before = up;
            }
            if let Some(NodeKind::SourceStream { stream, .. }) =
                topology.node(before).map(|node| &node.kind)
            {
                name.stream = Some(stream.0);
            }
            let described = topology
                .node(before)
                .and_then(|node| node.stream_descriptor());
            name.media_type = described.map(|stream| stream.media_type.to_string());
            self.outputs.insert(node.id, name);
        }
    }

    pub(in crate::cli) fn event(&self, event: &Event) -> Result<(), Failure> {
        let since = event
            .time
            .map_or(0, |time| time.ticks() - self.began.ticks());
        if !self.json {
            return output::line(&one_line(&format!("{:>12.6} {event}", since as f64 / 1e7)));
        }
        let mut object = event.to_json();
        object["t"] = json!(since);
        output::line(&object.to_string())
    }

    /// The last line of a session that has played.
    pub(in crate::cli) fn summary(&mut self, played: &Played) -> Result<(), Failure> {
        if let Some(full) = &played.full {
            self.name_outputs(full);
        }
        let mut streams = Vec::new();
        let mut lines = Vec::new();
        let (mut samples, mut late, mut dropped) = (0, 0, 0);
        for (node, name) in &self.outputs {
            let counts = played
                .statistics
                .iter()
                .find(|output| output.node == *node)
                .map(|output| output.counts);
            let counts = counts.unwrap_or_default();
            samples += counts.samples;
            late += counts.late;
            dropped += counts.dropped;
            streams.push(json!({
                "node": node,
                "class": name.class,
                "stream": name.stream,
                "media_type": name.media_type,
                "samples": counts.samples,
                "bytes": counts.bytes,
                "late": counts.late,
                "dropped": counts.dropped,
                "faults": counts.faults,
            }));
            lines.push(format!(
                "  {} {}: {} samples, {} bytes, {} late, {} dropped",
                name.class,
                name.media_type.as_deref().unwrap_or("stream"),
                counts.samples,
                counts.bytes,
                counts.late,
                counts.dropped
            ));
        }
        let code = played.code();
        if self.json {
            let mut object = self.head(played.failure.as_ref(), code);
            object.insert("streams".into(), json!(streams));
            object.insert("samples".into(), json!(samples));
            object.insert("late".into(), json!(late));
            object.insert("dropped".into(), json!(dropped));
            object.insert("faults".into(), json!(played.faults.count()));
            return output::line(&Value::Object(object).to_string());
        }
        let wall = (system_time::now().ticks() - self.began.ticks()) as f64 / 1e7;
        let host = self.host_pid.filter(|pid| *pid != std::process::id());
        let place = host.map_or_else(
            || "in this process".to_owned(),
            |pid| format!("in host process {pid}"),
        );
        let faults = played.faults.count();
        lines.insert(0, format!("{samples} samples in {wall:.3} s {place}, {late} late, {dropped} dropped, {faults} faults"));
        output::line(&lines.join("\n"))
    }

    /// The last line where there was no session that could play; for people standard error says it all.
    pub(in crate::cli) fn summary_of_failure(&self, failure: &Failure) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let mut object = self.head(Some(failure), failure.code());
        object.insert("streams".into(), json!([]));
        for count in ["samples", "late", "dropped", "faults"] {
            object.insert(count.into(), json!(0));
        }
        output::line(&Value::Object(object).to_string())
    }

    fn head(&self, failure: Option<&Failure>, code: u8) -> Map<String, Value> {
        let since = system_time::now().ticks() - self.began.ticks();
        let mut object = Map::new();
        object.insert("t".into(), json!(since));
        object.insert("event".into(), json!("summary"));
        object.insert("wall_time".into(), json!(since));
        object.insert("host_pid".into(), json!(self.host_pid));
        object.insert("exit_code".into(), json!(code));
        let status = match failure {
            None if code == 0 => "ok".to_owned(),
            None => "faults in the input".to_owned(),
            Some(Failure::Media(error)) => {
                object.insert("error".into(), Value::Object(describe(error)));
                error.to_string()
            }
            Some(failure) => failure.to_string(),
        };
        object.insert("status".into(), json!(status));
        object
    }
}
