//! A whole link of the bridge, its actors and its application against a peer that follows any script.

/// The input is the script.
pub(crate) fn run(data: &[u8]) {
    portcullis_actors::bridge::fuzzing::run(data);
}
