//! What a host is told of its sandbox through its environment: one line, read back strictly.

use std::time::Duration;

use crate::sandbox::{HostQuotas, LayerSet, Sandbox, SandboxPolicy, SandboxProfile};
use crate::sys::layers::{Layers, UserPlan};

/// How a host is confined, as it is told itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) profile: SandboxProfile,
    pub(super) policy: SandboxPolicy,
    pub(super) layers: LayerSet,
    /// Layers that the kernel refused when the process was made.
    pub(super) lost: LayerSet,
    pub(super) user: UserPlan,
    /// Whether the layers that last beyond `exec` were put on before it.
    pub(super) is_put: bool,
    pub(super) quotas: HostQuotas,
}

impl Plan {
    pub(super) fn encode(&self) -> String {
        let numbers = [
            u64::from(self.profile == SandboxProfile::Protected),
            u64::from(self.policy == SandboxPolicy::BestEffort),
            self.layers.bits().into(),
            self.lost.bits().into(),
            u64::from(self.user == UserPlan::Namespace),
            u64::from(self.is_put),
            self.quotas.memory,
            self.quotas.descriptors,
            self.quotas.cpu_seconds().unwrap_or(0),
        ];
        numbers.map(|number| number.to_string()).join(",")
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split(',').map(|number| number.parse().ok()).collect();
        let [
            profile @ 0..=1,
            policy @ 0..=1,
            layers,
            lost,
            user @ 0..=1,
            put @ 0..=1,
            memory,
            descriptors,
            cpu,
        ] = numbers?[..]
        else {
            return None;
        };
        Some(Self {
            profile: match profile {
                0 => SandboxProfile::Isolated,
                _ => SandboxProfile::Protected,
            },
            policy: match policy {
                0 => SandboxPolicy::Require,
                _ => SandboxPolicy::BestEffort,
            },
            layers: LayerSet::from_bits(layers.try_into().ok()?),
            lost: LayerSet::from_bits(lost.try_into().ok()?),
            user: match user {
                0 => UserPlan::OwnId,
                _ => UserPlan::Namespace,
            },
            is_put: put == 1,
            quotas: HostQuotas {
                memory,
                descriptors,
                cpu_time: (cpu > 0).then(|| Duration::from_secs(cpu)),
                // The application's to watch.
                wall_time: None,
            },
        })
    }

    pub(super) fn sandbox(&self) -> Sandbox {
        Sandbox {
            profile: self.profile,
            policy: self.policy,
            layers: self.layers,
            quotas: self.quotas,
        }
    }

    pub(super) fn prepare(&self) -> Layers {
        Layers::prepare(&self.sandbox(), self.user, self.lost, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_it_was_written_and_nothing_else_does() {
        let plan = Plan {
            profile: SandboxProfile::Protected,
            policy: SandboxPolicy::BestEffort,
            layers: LayerSet::ALL,
            lost: LayerSet::NAMESPACES,
            user: UserPlan::Namespace,
            is_put: true,
            quotas: HostQuotas {
                cpu_time: Some(Duration::from_secs(3)),
                ..HostQuotas::default()
            },
        };
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        for text in [
            "",
            "1,2",
            "2,0,0,0,0,0,0,0,0",
            "0,0,0,0,0,0,0,0,0,0",
            "a,0,0,0,0,0,0,0,0",
        ] {
            assert_eq!(Plan::decode(text), None);
        }
    }
}
