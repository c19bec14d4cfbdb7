//! The report of what is in force around a host.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Layer, LayerSet, PROTECTED_LANDLOCK_ABI, SandboxPolicy, SandboxProfile};

/// What is in force around a host, as the host itself measured it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Isolation {
    /// The kind of host, or none when no sandbox was asked for.
    pub profile: Option<SandboxProfile>,
    /// What was to happen when a layer is missing.
    pub policy: SandboxPolicy,
    /// Each layer.
    pub layers: Vec<LayerReport>,
}

/// One layer's part of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// Whether it is in force.
    pub state: LayerState,
    /// The version of the kernel's interface, of a layer that is in force and denies more in later ones:
    /// [`Layer::Landlock`].
    #[serde(default)]
    pub abi: Option<u32>,
}

/// Whether a layer is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// It is.
    InForce,
    /// It was not asked for.
    NotAsked,
    /// It was asked for and is not there, and why.
    Missing(Cow<'static, str>),
}

impl Isolation {
    pub(crate) fn new(profile: Option<SandboxProfile>, policy: SandboxPolicy) -> Self {
        let layers = Layer::ALL.into_iter().map(|layer| LayerReport {
            layer,
            state: LayerState::NotAsked,
            abi: None,
        });
        Self {
            profile,
            policy,
            layers: layers.collect(),
        }
    }

    pub(crate) fn set(&mut self, layer: Layer, state: LayerState) {
        if let Some(report) = self.layers.iter_mut().find(|report| report.layer == layer) {
            report.state = state;
        }
    }

    pub(crate) fn set_abi(&mut self, layer: Layer, abi: Option<u32>) {
        if let Some(report) = self.layers.iter_mut().find(|report| report.layer == layer) {
            report.abi = abi;
        }
    }

    /// The state of one layer.
    pub fn state(&self, layer: Layer) -> &LayerState {
        self.layers
            .iter()
            .find(|report| report.layer == layer)
            .map_or(&LayerState::NotAsked, |report| &report.state)
    }

    /// Whether this layer is in force.
    pub fn has(&self, layer: Layer) -> bool {
        *self.state(layer) == LayerState::InForce
    }

    /// The layers in force.
    pub fn in_force(&self) -> LayerSet {
        let layers = self.layers.iter();
        layers
            .filter(|report| report.state == LayerState::InForce)
            .map(|report| report.layer)
            .collect()
    }

    /// The layers that were asked for and are not there, with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (Layer, &str)> {
        self.layers.iter().filter_map(|report| match &report.state {
            LayerState::Missing(why) => Some((report.layer, why.as_ref())),
            _ => None,
        })
    }

    /// Whether every layer is in force without which a host of this kind is incomplete.
    pub fn is_complete(&self, profile: SandboxProfile) -> bool {
        let is_full = |report: &LayerReport| match report.abi {
            Some(abi) => profile != SandboxProfile::Protected || abi >= PROTECTED_LANDLOCK_ABI,
            None => true,
        };
        Layer::ALL
            .into_iter()
            .all(|layer| self.has(layer) || !layer.is_required(profile))
            && self.layers.iter().all(is_full)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = self.profile.map_or("no sandbox", SandboxProfile::name);
        let in_force = self.in_force().iter().count();
        write!(f, "{profile}: {in_force} of {} layers", self.layers.len())?;
        let partly = self.layers.iter().filter_map(|report| {
            let abi = report.abi.filter(|abi| *abi < PROTECTED_LANDLOCK_ABI)?;
            Some((report.layer, abi))
        });
        for (layer, abi) in partly {
            write!(f, "; {layer} only of ABI {abi}")?;
        }
        for (layer, why) in self.missing() {
            write!(f, "; without {layer} ({why})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_landlock_is_told_and_is_not_enough_for_a_protected_host() {
        let mut isolation = Isolation::new(None, SandboxPolicy::BestEffort);
        for layer in Layer::ALL {
            isolation.set(layer, LayerState::InForce);
        }
        isolation.set_abi(Layer::Landlock, Some(PROTECTED_LANDLOCK_ABI - 1));
        assert!(isolation.is_complete(SandboxProfile::Isolated));
        assert!(!isolation.is_complete(SandboxProfile::Protected));
        let text = isolation.to_string();
        assert!(text.contains("landlock only of ABI 5"), "{text}");
        isolation.set_abi(Layer::Landlock, Some(PROTECTED_LANDLOCK_ABI));
        assert!(isolation.is_complete(SandboxProfile::Protected));
        assert!(!isolation.to_string().contains("ABI"));
    }
}
