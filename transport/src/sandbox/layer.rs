//! The layers by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SandboxProfile;

/// One thing that keeps a host from something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Layer {
    /// The program is executed from a sealed copy in memory that nobody can change, of a known digest.
    ///
    /// It is made unreadable too, so that the kernel lets no process of the user look into the host from the first moment
    /// on. A process of the application's user can make it readable again by way of the application's descriptor: then a
    /// protected host does not start.
    SealedImage = 0,
    /// A user that nothing else runs as: a user id of its own, or a user namespace when the application has no privilege.
    OwnUser = 1,
    /// Sees and signals no other process.
    PidNamespace = 2,
    /// Has no network, not even a loopback.
    NetworkNamespace = 3,
    /// Mounts of its own.
    MountNamespace = 4,
    /// No System V or POSIX queues and segments of others.
    IpcNamespace = 5,
    /// Host name of its own.
    UtsNamespace = 6,
    /// Does not see where in the control groups it is.
    CgroupNamespace = 7,
    /// The file system is empty and read-only.
    EmptyRoot = 8,
    /// Only the descriptors meant for it are open.
    Descriptors = 9,
    /// Is killed when the application ends.
    DeathSignal = 10,
    /// Limits of the process: memory, processor time, descriptors; no core file.
    ResourceLimits = 11,
    /// Limits of memory and threads by a control group.
    ControlGroup = 12,
    /// No capability, and none to be had.
    Capabilities = 13,
    /// No program gives it a privilege.
    NoNewPrivileges = 14,
    /// No memory is writable and executable, or becomes executable.
    NoWritableCode = 15,
    /// Its memory is not readable by other processes of the user, and is not written to a core file.
    NotDumpable = 16,
    /// Landlock: may open no file, no port, and signal or connect to nothing outside.
    ///
    /// A host that is executed from its file, as a static isolated one is, may read and execute that one file, if it finds a
    /// path to it.
    ///
    /// As far as the kernel's version of it goes, which the report tells. Each leaves open what later ones deny: ABI 1
    /// (Linux 5.13) to move files between directories, 2 to truncate them, 3 TCP ports, 4 control calls of devices, 5
    /// abstract Unix sockets and signals to processes outside, 6 to 8 path names of Unix sockets. A protected host needs
    /// 6 (Linux 6.12); around an isolated one namespaces and filters deny the same.
    Landlock = 17,
    /// The filter of system calls while it starts.
    StartFilter = 18,
    /// The filter of system calls, on all threads, before any content comes.
    ServingFilter = 19,
}

/// The first version of Landlock that is whole enough for a protected host.
pub(crate) const PROTECTED_LANDLOCK_ABI: u32 = 6;

impl Layer {
    /// All, in the order in which they are numbered.
    pub const ALL: [Self; 20] = [
        Self::SealedImage,
        Self::OwnUser,
        Self::PidNamespace,
        Self::NetworkNamespace,
        Self::MountNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::EmptyRoot,
        Self::Descriptors,
        Self::DeathSignal,
        Self::ResourceLimits,
        Self::ControlGroup,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::NoWritableCode,
        Self::NotDumpable,
        Self::Landlock,
        Self::StartFilter,
        Self::ServingFilter,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SealedImage => "sealed image",
            Self::OwnUser => "own user",
            Self::PidNamespace => "pid namespace",
            Self::NetworkNamespace => "network namespace",
            Self::MountNamespace => "mount namespace",
            Self::IpcNamespace => "ipc namespace",
            Self::UtsNamespace => "uts namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::EmptyRoot => "empty root",
            Self::Descriptors => "descriptors",
            Self::DeathSignal => "death signal",
            Self::ResourceLimits => "resource limits",
            Self::ControlGroup => "control group",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::NoWritableCode => "no writable code",
            Self::NotDumpable => "not dumpable",
            Self::Landlock => "landlock",
            Self::StartFilter => "start filter",
            Self::ServingFilter => "serving filter",
        }
    }

    /// Whether a host of this kind is incomplete without it.
    ///
    /// Control groups are there only for root; an isolated host is executed from its file.
    pub fn is_required(self, profile: SandboxProfile) -> bool {
        match self {
            Self::ControlGroup => false,
            Self::SealedImage => profile == SandboxProfile::Protected,
            _ => true,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of layers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Layer>", into = "Vec<Layer>")]
pub struct LayerSet(u32);

impl LayerSet {
    /// No layer.
    pub const NONE: Self = Self(0);
    /// Every layer.
    pub const ALL: Self = Self((1 << Layer::ALL.len()) - 1);
    /// Those that need a namespace from the kernel.
    pub(crate) const NAMESPACES: Self = Self(0b1111_1100);

    /// Whether the layer is in it.
    pub const fn contains(self, layer: Layer) -> bool {
        self.0 & (1 << layer as u32) != 0
    }

    /// The set with this layer too.
    #[must_use]
    pub const fn with(self, layer: Layer) -> Self {
        Self(self.0 | 1 << layer as u32)
    }

    /// The set without this layer.
    #[must_use]
    pub const fn without(self, layer: Layer) -> Self {
        Self(self.0 & !(1 << layer as u32))
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The layers in it.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL
            .into_iter()
            .filter(move |layer| self.contains(*layer))
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl Default for LayerSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Debug for LayerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        layers.into_iter().fold(Self::NONE, Self::with)
    }
}

impl From<Vec<Layer>> for LayerSet {
    fn from(layers: Vec<Layer>) -> Self {
        layers.into_iter().collect()
    }
}

impl From<LayerSet> for Vec<Layer> {
    fn from(set: LayerSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbered_in_order() {
        for (number, layer) in Layer::ALL.into_iter().enumerate() {
            assert_eq!(layer as usize, number);
            assert_eq!(Layer::from_number(number as u8), Some(layer));
        }
        assert_eq!(LayerSet::ALL.iter().count(), Layer::ALL.len());
        let namespaces: Vec<_> = LayerSet::NAMESPACES.iter().map(Layer::name).collect();
        assert!(namespaces.iter().all(|name| name.ends_with("namespace")));
        assert_eq!(namespaces.len(), 6);
    }
}
