//! Links between nodes.

use super::{Connection, NodeId, Topology, not_found};
use crate::error::{Error, Result, TopologyFault};
use crate::media::MediaType;

impl Topology {
    /// Connects an output with an input; what either was connected with before is disconnected.
    ///
    /// # Errors
    /// `NodeNotFound`, or `InvalidIndex` where a node's kind cannot have that input or output.
    pub fn connect(&mut self, from: NodeId, output: u32, to: NodeId, input: u32) -> Result<()> {
        let upstream = self.node(from).ok_or_else(|| not_found(from))?;
        let downstream = self.node(to).ok_or_else(|| not_found(to))?;
        if !upstream.kind.has_output(output) {
            return Err(no_port(from));
        }
        if !downstream.kind.has_input(input) {
            return Err(no_port(to));
        }
        self.connections.retain(|link| {
            (link.from, link.output) != (from, output) && (link.to, link.input) != (to, input)
        });
        self.connections.push(Connection {
            from,
            output,
            to,
            input,
            media_type: None,
        });
        Ok(())
    }

    /// Takes away what is connected with an output.
    ///
    /// # Errors
    /// `NodeNotFound`, or `InvalidIndex` where nothing is.
    pub fn disconnect(&mut self, from: NodeId, output: u32) -> Result<()> {
        self.require(from)?;
        let before = self.connections.len();
        self.connections
            .retain(|link| (link.from, link.output) != (from, output));
        if self.connections.len() == before {
            return Err(no_port(from));
        }
        Ok(())
    }

    /// All links in the order in which they were made.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// Where an output leads.
    pub fn downstream(&self, from: NodeId, output: u32) -> Option<(NodeId, u32)> {
        self.link_from(from, output)
            .map(|link| (link.to, link.input))
    }

    /// Where an input comes from.
    pub fn upstream(&self, to: NodeId, input: u32) -> Option<(NodeId, u32)> {
        self.link_to(to, input).map(|link| (link.from, link.output))
    }

    /// The link at an output.
    pub fn link_from(&self, from: NodeId, output: u32) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|link| (link.from, link.output) == (from, output))
    }

    /// The link at an input.
    pub fn link_to(&self, to: NodeId, input: u32) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|link| (link.to, link.input) == (to, input))
    }

    /// Links that leave a node, by output.
    pub fn outputs(&self, node: NodeId) -> Vec<&Connection> {
        let mut links: Vec<_> = self
            .connections
            .iter()
            .filter(|link| link.from == node)
            .collect();
        links.sort_by_key(|link| link.output);
        links
    }

    /// Links that enter a node, by input.
    pub fn inputs(&self, node: NodeId) -> Vec<&Connection> {
        let mut links: Vec<_> = self
            .connections
            .iter()
            .filter(|link| link.to == node)
            .collect();
        links.sort_by_key(|link| link.input);
        links
    }

    /// How many inputs a node has: one more than the highest that is connected; those between may be free.
    pub fn input_count(&self, node: NodeId) -> u32 {
        self.inputs(node)
            .last()
            .map_or(0, |link| link.input.saturating_add(1))
    }

    /// How many outputs a node has: one more than the highest that is connected; those between may be free.
    pub fn output_count(&self, node: NodeId) -> u32 {
        self.outputs(node)
            .last()
            .map_or(0, |link| link.output.saturating_add(1))
    }

    /// The type that flows through an output, once the topology is resolved.
    pub fn link_type(&self, from: NodeId, output: u32) -> Option<&MediaType> {
        self.link_from(from, output)?.media_type.as_ref()
    }

    /// Records the type that flows through an output.
    ///
    /// # Errors
    /// `InvalidIndex` where nothing is connected.
    pub fn set_link_type(
        &mut self,
        from: NodeId,
        output: u32,
        media_type: MediaType,
    ) -> Result<()> {
        let link = self
            .connections
            .iter_mut()
            .find(|link| (link.from, link.output) == (from, output))
            .ok_or_else(|| no_port(from))?;
        link.media_type = Some(media_type);
        Ok(())
    }
}

fn no_port(node: NodeId) -> Error {
    TopologyFault::InvalidIndex(node.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::presentation::StreamId;
    use crate::topology::{NodeKind, ObjectRef, TopologyNode};

    fn transform(topology: &mut Topology) -> NodeId {
        topology.add_node(NodeKind::transform(ObjectRef::activation("t")))
    }

    fn fault(error: &Error) -> &TopologyFault {
        match error.kind() {
            ErrorKind::Topology(fault) => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn d24_ids_are_unique_and_unknown_ones_are_not_found() {
        let mut topology = Topology::new();
        let first = transform(&mut topology);
        let again = topology.node(first).expect("is there").clone();
        let error = topology.insert_node(again).expect_err("the same node");
        assert_eq!(fault(&error), &TopologyFault::DuplicateNode(1));
        let other = TopologyNode::new(first, NodeKind::Tee);
        assert!(topology.insert_node(other).is_err());
        let error = topology.require(NodeId(9)).expect_err("unknown");
        assert_eq!(fault(&error), &TopologyFault::NodeNotFound(9));
        assert!(topology.node_at(1).is_err());
        topology.clear();
        topology.clear();
        assert!(topology.node_at(0).is_err());
        assert!(Topology::new().id() > topology.id());
    }

    #[test]
    fn d25_links_follow_connect_replace_and_remove() {
        let mut topology = Topology::new();
        let (a, b) = (transform(&mut topology), transform(&mut topology));
        topology.connect(a, 0, b, 1).expect("connects");
        assert_eq!((topology.input_count(b), topology.output_count(a)), (2, 1));
        assert_eq!(topology.upstream(b, 0), None);
        topology.connect(a, 0, b, 0).expect("replaces");
        assert_eq!(topology.upstream(b, 1), None);
        assert_eq!(topology.upstream(b, 0), Some((a, 0)));
        let copy = topology.clone();
        topology.remove_node(b).expect("is there");
        assert_eq!(topology.downstream(a, 0), None);
        let mut topology = copy;
        topology.remove_node(a).expect("is there");
        assert_eq!(topology.upstream(b, 0), None);
        let error = topology.disconnect(a, 0).expect_err("is gone");
        assert_eq!(fault(&error), &TopologyFault::NodeNotFound(a.0));
        let error = topology.connect(b, 0, NodeId(77), 0).expect_err("unknown");
        assert_eq!(fault(&error), &TopologyFault::NodeNotFound(77));
        assert_eq!(topology.nodes().len(), 1);
    }

    #[test]
    fn d26_preferred_types_need_a_slot_and_survive_a_copy() {
        let mut topology = Topology::new();
        let sound = MediaType::audio(crate::media::Subtype::PCM_S16, 48_000, 2);
        let source = topology.add_node(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        let sink = topology.add_node(NodeKind::output(ObjectRef::activation("s"), 0));
        let tee = topology.add_node(NodeKind::Tee);
        let node = |topology: &mut Topology, id| topology.node_mut(id).expect("is there").clone();
        let mut source = node(&mut topology, source);
        let mut sink = node(&mut topology, sink);
        let mut tee = node(&mut topology, tee);
        let unsupported = |result: Result<()>| {
            matches!(
                result.expect_err("no slot").kind(),
                ErrorKind::Unsupported { .. }
            )
        };
        assert!(unsupported(source.prefer_input(0, sound.clone())));
        assert!(unsupported(sink.prefer_output(0, sound.clone())));
        assert!(tee.prefer_input(1, sound.clone()).is_err());
        assert!(tee.prefer_output(0, sound.clone()).is_err());
        tee.prefer_input(0, sound.clone()).expect("input 0");
        let plain = TopologyNode::new(NodeId(40), NodeKind::Tee);
        tee.copy_from(&plain).expect("the same kind");
        assert_eq!(tee.preferred_input(0), Some(&sound));
        assert_eq!(tee.id, NodeId(40));
        assert!(matches!(
            tee.copy_from(&sink).expect_err("another kind").kind(),
            ErrorKind::InvalidRequest(_)
        ));
    }

    #[test]
    fn a_kind_has_only_its_ports() {
        let mut topology = Topology::new();
        let source = topology.add_node(NodeKind::source(ObjectRef::url("a"), StreamId(0)));
        let sink = topology.add_node(NodeKind::output(ObjectRef::activation("s"), 0));
        for (from, output, to, input) in [
            (source, 1, sink, 0),
            (source, 0, sink, 1),
            (source, 0, source, 0),
            (sink, 0, sink, 0),
        ] {
            assert!(topology.connect(from, output, to, input).is_err());
        }
    }
}
