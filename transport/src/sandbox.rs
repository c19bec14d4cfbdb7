//! What a host is kept from, layer by layer: words, settings and the report.
//!
//! Plain data. What a layer does to a process is under `sys/`; which layers go around a host, in which order and when, is
//! decided by `host/`.

pub(crate) mod filter;
mod isolation;
mod layer;
mod quotas;

use serde::{Deserialize, Serialize};

pub use isolation::{Isolation, LayerReport, LayerState};
pub(crate) use layer::PROTECTED_LANDLOCK_ABI;
pub use layer::{Layer, LayerSet};
pub use quotas::HostQuotas;
pub(crate) use quotas::MAX_THREADS;

/// Which kind of host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxProfile {
    /// Keeps a misbehaving component away from everything else. The program may be dynamically linked.
    #[default]
    Isolated,
    /// That, complete, for a static program that is executed from a sealed copy; or the host does not start.
    Protected,
}

impl SandboxProfile {
    /// Its name, as in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Protected => "protected",
        }
    }
}

/// What happens when this machine does not give a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxPolicy {
    /// The host does not start.
    #[default]
    Require,
    /// The host starts without it and reports so. Never of a protected host.
    BestEffort,
}

impl SandboxPolicy {
    /// Its name, as in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::BestEffort => "best_effort",
        }
    }
}

/// How a host is confined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Which kind of host.
    pub profile: SandboxProfile,
    /// What happens when a layer is not to be had. A protected host always requires.
    pub policy: SandboxPolicy,
    /// The layers that are asked for.
    pub layers: LayerSet,
    /// What the host may use up.
    pub quotas: HostQuotas,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::isolated(SandboxPolicy::default())
    }
}

impl Sandbox {
    /// An isolated host: every layer but the sealed image, whose program nobody verifies.
    pub fn isolated(policy: SandboxPolicy) -> Self {
        Self {
            profile: SandboxProfile::Isolated,
            policy,
            layers: LayerSet::ALL.without(Layer::SealedImage),
            quotas: HostQuotas::default(),
        }
    }

    /// A protected host.
    pub fn protected() -> Self {
        Self {
            profile: SandboxProfile::Protected,
            layers: LayerSet::ALL,
            ..Self::isolated(SandboxPolicy::Require)
        }
    }

    /// Whether a layer that was asked for and is not to be had ends the start.
    pub fn requires(&self, layer: Layer) -> bool {
        let strict =
            self.profile == SandboxProfile::Protected || self.policy == SandboxPolicy::Require;
        strict && self.layers.contains(layer) && layer.is_required(self.profile)
    }

    /// Whether nobody may look into the host from its first moment on.
    pub(crate) fn is_private(&self) -> bool {
        self.profile == SandboxProfile::Protected && self.requires(Layer::NotDumpable)
    }
}
