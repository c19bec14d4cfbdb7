//! Hosts: the process on the other side of the wall, and the actor in it that creates everything else.

mod connection;
mod init;
mod pmp_host;

pub use connection::{Host, HostConnection};
pub use init::init;
pub use pmp_host::{
    CreateObject, CreateSession, CreatedObject, DescribeHost, HostFacts, PmpHost, SOURCE_RESOLVER,
};
pub(crate) use pmp_host::{PmpHostActor, create_object};
