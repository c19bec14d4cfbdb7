//! One question of the loader and its answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::media::MediaType;
use crate::topology::NodeId;

/// How a link was being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A node of the topology was offered a type.
    Direct,
    /// A converter was offered a type, or asked for one.
    Converter,
    /// A decoder was offered a type, or asked for one.
    Decoder,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Direct => "direct",
            Self::Converter => "converter",
            Self::Decoder => "decoder",
        })
    }
}

/// One question of the loader and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The node of the topology that the link leads to.
    pub node: NodeId,
    /// How.
    pub stage: Stage,
    /// Who was asked: a class, or the node itself.
    pub asked: String,
    /// The type in question.
    pub media_type: MediaType,
    /// Why it was refused; `None` where it was accepted.
    pub refusal: Option<Error>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {} ", self.stage, self.asked, self.media_type)?;
        match &self.refusal {
            Some(error) => write!(out, "refused: {error}"),
            None => write!(out, "accepted"),
        }
    }
}
