//! The form of a topology in files and on the wire.
//!
//! Both the wire's compact format, which does not describe itself, and files read it: so nothing is skipped when writing
//! and everything that a person would leave out has a default when reading.

use serde::Deserialize;

use super::{Connection, ResolutionStatus, Topology, TopologyId, TopologyNode};
use crate::error::{Error, Result, TopologyFault};
use crate::media::Attributes;

/// What is read; [`Topology`] is what passes the checks that its methods rely on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopologyData {
    #[serde(default = "TopologyId::next")]
    id: TopologyId,
    nodes: Vec<TopologyNode>,
    #[serde(default)]
    connections: Vec<Connection>,
    #[serde(default)]
    next_node: u64,
    #[serde(default)]
    enumerate_source_types: bool,
    #[serde(default)]
    resolution: Option<ResolutionStatus>,
    #[serde(default)]
    attributes: Attributes,
}

impl TryFrom<TopologyData> for Topology {
    type Error = Error;

    fn try_from(data: TopologyData) -> Result<Self> {
        if data.nodes.len() > Self::MAX_NODES {
            return Err(TopologyFault::TooManyNodes(data.nodes.len() as u64).into());
        }
        if data.connections.len() > Self::MAX_CONNECTIONS {
            return Err(TopologyFault::TooManyConnections(data.connections.len() as u64).into());
        }
        let mut topology = Self {
            id: data.id,
            nodes: Vec::with_capacity(data.nodes.len()),
            connections: Vec::new(),
            next_node: 0,
            enumerate_source_types: data.enumerate_source_types,
            resolution: data.resolution,
            attributes: data.attributes,
        };
        for node in data.nodes {
            topology.insert_node(node)?;
        }
        topology.next_node = topology
            .next_node
            .max(data.next_node.min(u64::from(u32::MAX)));
        for link in data.connections {
            if topology.downstream(link.from, link.output).is_some() {
                return Err(TopologyFault::InvalidIndex(link.from.0).into());
            }
            if topology.upstream(link.to, link.input).is_some() {
                return Err(TopologyFault::InvalidIndex(link.to.0).into());
            }
            topology.connect(link.from, link.output, link.to, link.input)?;
            if let Some(media_type) = link.media_type {
                topology.set_link_type(link.from, link.output, media_type)?;
            }
        }
        Ok(topology)
    }
}

/// Settings are JSON text; a file may also give them as a table.
pub(super) mod settings {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::component::Settings;

    pub(in crate::topology) fn serialize<S: Serializer>(
        settings: &Settings,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        settings.serialize(serializer)
    }

    pub(in crate::topology) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Settings, D::Error> {
        if !deserializer.is_human_readable() {
            return Settings::deserialize(deserializer);
        }
        Ok(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Settings::from_json(text),
            table => Settings::from_json(table.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{MediaType, PixelFormat};
    use crate::presentation::StreamId;
    use crate::topology::{ConnectMethod, NodeId, NodeKind, ObjectRef};

    const FILE: &str = r#"
        [[nodes]]
        id = 1
        kind.source-stream = { source.url = "clip.mp4", stream = 0 }

        [[nodes]]
        id = 2
        kind.transform.object.activation = { class = "audio.gain", settings = { factor = 0.5 } }

        [[nodes]]
        id = 7
        kind.output.object.activation.class = "sink.null"
        connect = "allow-converter"

        [[connections]]
        from = 1
        to = 2

        [[connections]]
        from = 2
        to = 7
    "#;

    #[test]
    fn a_file_says_only_what_matters() {
        let topology: Topology = toml::from_str(FILE).expect("reads");
        assert_eq!(topology.nodes().len(), 3);
        assert_eq!(topology.downstream(NodeId(2), 0), Some((NodeId(7), 0)));
        let sink = topology.node(NodeId(7)).expect("is there");
        assert_eq!(sink.connect, ConnectMethod::AllowConverter);
        let Some(ObjectRef::Activation(gain)) = topology.nodes()[1].kind.object() else {
            panic!("a transform by class");
        };
        assert_eq!(gain.settings.as_json(), r#"{"factor":0.5}"#);
    }

    #[test]
    fn every_form_reads_back_as_it_was() {
        let mut topology: Topology = toml::from_str(FILE).expect("reads");
        topology
            .node_mut(NodeId(7))
            .expect("is there")
            .prefer_input(0, MediaType::raw_video(PixelFormat::Rgba8, 640, 360))
            .expect("an output node has an input");
        let text = toml::to_string(&topology).expect("writes");
        assert_eq!(toml::from_str::<Topology>(&text).expect("reads"), topology);
        let json = serde_json::to_string(&topology).expect("writes");
        assert_eq!(
            serde_json::from_str::<Topology>(&json).expect("reads"),
            topology
        );
        let bytes = postcard::to_stdvec(&topology).expect("writes");
        assert_eq!(
            postcard::from_bytes::<Topology>(&bytes).expect("reads"),
            topology
        );
    }

    #[test]
    fn what_breaks_a_rule_is_not_read() {
        for (wrong, why) in [
            (
                "[[nodes]]\nid = 1\nkind = \"tee\"\ncolour = 1",
                "unknown field",
            ),
            ("[[nodes]]\nid = 0\nkind = \"tee\"", "counters from 1"),
            (
                "[[nodes]]\nid = 1\nkind = \"tee\"\n[[nodes]]\nid = 1\nkind = \"tee\"",
                "there twice",
            ),
            (
                "[[nodes]]\nid = 1\nkind = \"tee\"\n[[connections]]\nfrom = 1\nto = 2",
                "node 2 was not found",
            ),
            (
                "[[nodes]]\nid = 1\nkind = \"tee\"\n[[connections]]\nfrom = 1\nto = 1\ninput = 4",
                "no such input",
            ),
        ] {
            let error = toml::from_str::<Topology>(wrong).expect_err(wrong);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn ids_go_on_counting_after_a_round_trip() {
        let mut topology = Topology::new();
        topology.add_node(NodeKind::Tee);
        let last = topology.add_node(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        topology.remove_node(last).expect("is there");
        let bytes = postcard::to_stdvec(&topology).expect("writes");
        let mut back: Topology = postcard::from_bytes(&bytes).expect("reads");
        assert_eq!(back.add_node(NodeKind::Tee), NodeId(3));
    }
}
