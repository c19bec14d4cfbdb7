//! The columns of the matrix, and how it is written.

use std::fmt::Write;

use portcullis_transport::{HostQuotas, Layer, LayerSet, Sandbox, SandboxPolicy, SandboxProfile};

pub(crate) const HEAD: &str = "\
# Attacks and layers\n\n\
Written by `PORTCULLIS_ATTACKS=all cargo test -p portcullis-transport --test attack_matrix`. Each cell is one attack in a \
host of its own. **OK**: the attack succeeded. Otherwise what refused it: an error, `call`: the filter of system calls \
ended the host at that call, or the quota that ended it. A column `a+b` has the layer `a` and the layer `b` without which \
it cannot be had here. *Users* are those of the application; an unprivileged one gets any namespace only with one of the user.\n";

/// A way to confine the host.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `None` is without any sandbox.
    pub(crate) sandbox: Option<Sandbox>,
    /// Whether everything is in force, so that every attack must be refused.
    pub(crate) is_full: bool,
}

impl Column {
    fn new(name: impl Into<String>, sandbox: Option<Sandbox>) -> Self {
        Self {
            name: name.into(),
            sandbox,
            is_full: false,
        }
    }

    /// None, each alone if `each`, all.
    pub(crate) fn all(each: bool, profile: SandboxProfile, is_root: bool) -> Vec<Self> {
        let of = |layers| Sandbox {
            profile,
            // A protected host requires what it is asked for anyway.
            policy: SandboxPolicy::BestEffort,
            layers,
            quotas: quotas(),
        };
        let mut columns = Vec::new();
        if profile == SandboxProfile::Isolated {
            columns.push(Self::new("none", None));
        }
        if each {
            for layer in Layer::ALL {
                let needs: &[Layer] = match layer {
                    Layer::EmptyRoot => &[Layer::MountNamespace],
                    Layer::Landlock => &[Layer::NoNewPrivileges],
                    // To give up what others may give back takes a capability too.
                    Layer::Capabilities if !is_root => &[Layer::OwnUser],
                    // A protected host that was readable when it began is refused. To root everything is readable.
                    Layer::NotDumpable if profile == SandboxProfile::Protected => match is_root {
                        true => &[Layer::SealedImage, Layer::Capabilities],
                        false => &[Layer::SealedImage],
                    },
                    _ => &[],
                };
                let mut layers = LayerSet::NONE.with(layer);
                let mut name = layer.name().to_owned();
                for needed in needs {
                    layers = layers.with(*needed);
                    name = format!("{name}+{needed}");
                }
                columns.push(Self::new(name, Some(of(layers))));
            }
            let without_filters = LayerSet::ALL
                .without(Layer::StartFilter)
                .without(Layer::ServingFilter);
            columns.push(Self::new("all but filters", Some(of(without_filters))));
        }
        let full = match profile {
            SandboxProfile::Isolated => Sandbox {
                quotas: quotas(),
                ..Sandbox::isolated(SandboxPolicy::Require)
            },
            SandboxProfile::Protected => Sandbox {
                quotas: quotas(),
                ..Sandbox::protected()
            },
        };
        columns.push(Self {
            is_full: true,
            ..Self::new(format!("ALL, {}", profile.name()), Some(full))
        });
        columns
    }
}

/// Small ones, so that going beyond them takes little.
fn quotas() -> HostQuotas {
    HostQuotas {
        memory: 256 << 20,
        ..HostQuotas::default()
    }
}

/// What came of one attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    /// And by what.
    Refused(String),
    /// Neither: the test itself is wrong.
    Unclear(String),
}

impl Verdict {
    fn cell(&self) -> String {
        match self {
            Self::Succeeded => "**OK**".into(),
            Self::Refused(by) => by.clone(),
            Self::Unclear(what) => format!("?? {what}"),
        }
    }
}

/// A row for each attack, a column for each sandbox.
pub(crate) fn markdown(title: &str, columns: &[Column], rows: &[(&str, Vec<Verdict>)]) -> String {
    let mut text = format!("\n## {title}\n\n| attack |");
    for column in columns {
        write!(text, " {} |", column.name).unwrap();
    }
    text += "\n|---|";
    text += &"---|".repeat(columns.len());
    text.push('\n');
    for (name, verdicts) in rows {
        write!(text, "| {name} |").unwrap();
        for verdict in verdicts {
            write!(text, " {} |", verdict.cell()).unwrap();
        }
        text.push('\n');
    }
    let successes = |index: usize| {
        let succeeded = rows
            .iter()
            .filter(|(_, row)| row.get(index) == Some(&Verdict::Succeeded));
        succeeded.count()
    };
    text += "| *succeeded* |";
    for index in 0..columns.len() {
        write!(text, " {} of {} |", successes(index), rows.len()).unwrap();
    }
    text.push('\n');
    text
}
