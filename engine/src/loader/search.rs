//! The search itself: depth first, with every choice taken back that leads nowhere.

mod draft;
mod insert;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::attempt::{Attempt, Stage};
use super::types::{complete, inherit, satisfies};
use super::{Negotiate, not_connected};
use crate::error::{Error, ErrorKind, Result};
use crate::media::MediaType;
use crate::topology::{ConnectMethod, NodeId, NodeKind, ObjectRef, Topology, TopologyNode};
pub(super) use draft::Draft;

/// Questions asked before the search gives up: candidates multiply along a branch.
const MAX_ATTEMPTS: usize = 2048;
/// Attempts that are named in an error.
const MAX_CAUSES: usize = 40;

pub(super) struct Search<'a> {
    topology: &'a Topology,
    negotiate: &'a dyn Negotiate,
    draft: Draft,
    attempts: Vec<Attempt>,
}

/// Why a way leads nowhere.
enum Stop {
    /// Another way may do; the failure that came furthest explains best.
    Refused(Refusal),
    /// No other way will do either.
    Fatal(Error),
}

struct Refusal {
    /// How many nodes of the topology lie before the one that refused.
    depth: usize,
    error: Error,
}

type Way<T = ()> = Result<T, Stop>;

/// Where a link begins and which node of the topology it is to reach.
#[derive(Clone)]
struct Goal<'a> {
    from: NodeId,
    output: u32,
    media_type: MediaType,
    to: &'a TopologyNode,
    depth: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(topology: &'a Topology, negotiate: &'a dyn Negotiate) -> Self {
        Self {
            topology,
            negotiate,
            draft: Draft::new(topology.next_id()),
            attempts: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Draft, Vec<Attempt>) {
        (self.draft, self.attempts)
    }

    /// Finds a way from a source node to all outputs that it feeds.
    pub(super) async fn source(&mut self, node: &'a TopologyNode) -> Result<()> {
        let Some(stream) = node.stream_descriptor() else {
            return Err(not_connected(node.id));
        };
        let mut types = vec![stream.media_type.clone()];
        if self.topology.enumerate_source_types {
            types.extend(stream.alternatives.iter().cloned());
        }
        if let Some(wanted) = node.preferred_output(0) {
            types.retain(|offered| satisfies(offered, wanted));
            if types.is_empty() {
                let why = format!("the topology wants {wanted} of it");
                return Err(Error::invalid_type(&stream.media_type, why).at_node(node.label()));
            }
        }
        let caps = match types.len() {
            1 => vec![ConnectMethod::AllowDecoder],
            // All types directly before any with a converter, and so on.
            _ => vec![
                ConnectMethod::Direct,
                ConnectMethod::AllowConverter,
                ConnectMethod::AllowDecoder,
            ],
        };
        let mut furthest = None;
        for cap in caps {
            for media_type in &types {
                let goal = self.goal(node.id, 0, media_type.clone(), 1)?;
                match self.link(goal, cap).await {
                    Ok(()) => return Ok(()),
                    Err(Stop::Fatal(error)) => return Err(error),
                    Err(Stop::Refused(refusal)) => furthest = further(furthest, refusal),
                }
            }
        }
        Err(furthest.map_or_else(|| not_connected(node.id), |refusal| refusal.error))
    }

    fn goal(
        &self,
        from: NodeId,
        output: u32,
        media_type: MediaType,
        depth: usize,
    ) -> Result<Goal<'a>> {
        let topology = self.topology;
        let to = topology
            .downstream(from, output)
            .and_then(|(to, _)| topology.node(to))
            .ok_or_else(|| not_connected(from))?;
        Ok(Goal {
            from,
            output,
            media_type,
            to,
            depth,
        })
    }

    /// Makes one link of the topology, and all behind it.
    fn link<'s>(&'s mut self, goal: Goal<'a>, cap: ConnectMethod) -> LocalBoxFuture<'s, Way>
    where
        'a: 's,
    {
        async move {
            let method = goal.to.connect.min(cap);
            let asked = self.attempts.len();
            let mut failure = match self.enter(goal.clone()).await {
                Err(Stop::Refused(refusal)) => refusal,
                other => return other,
            };
            if method >= ConnectMethod::AllowConverter {
                match self.convert(&goal).await {
                    Err(Stop::Refused(refusal)) => failure = furthest(failure, refusal),
                    other => return other,
                }
            }
            let mut no_decoder = false;
            if method >= ConnectMethod::AllowDecoder {
                match self.decode(&goal).await {
                    Err(Stop::Refused(refusal)) => failure = furthest(failure, refusal),
                    Ok(false) => no_decoder = true,
                    Ok(true) => return Ok(()),
                    Err(fatal) => return Err(fatal),
                }
            }
            if goal.to.optional {
                match self.without(&goal, cap).await {
                    Err(Stop::Refused(refusal)) => failure = furthest(failure, refusal),
                    other => return other,
                }
            }
            if failure.depth == goal.depth {
                failure.error = self.explain(&goal, method, no_decoder, failure.error, asked);
            }
            Err(Stop::Refused(failure))
        }
        .boxed_local()
    }

    /// Offers the type to the node itself and goes on behind it.
    fn enter<'s>(&'s mut self, goal: Goal<'a>) -> LocalBoxFuture<'s, Way>
    where
        'a: 's,
    {
        async move {
            let mark = self.draft.mark();
            let result = self.enter_marked(goal).await;
            if result.is_err() {
                self.draft.take_back(mark);
            }
            result
        }
        .boxed_local()
    }

    async fn enter_marked(&mut self, goal: Goal<'a>) -> Way {
        let node = goal.to;
        if let Some(wanted) = node.preferred_input(0)
            && !satisfies(&goal.media_type, wanted)
        {
            let error =
                Error::invalid_type(&goal.media_type, format!("the topology wants {wanted}"));
            return self.answer(
                &goal,
                Stage::Direct,
                node.label(),
                &goal.media_type,
                Err(error),
            );
        }
        self.draft
            .link(goal.from, goal.output, node.id, goal.media_type.clone());
        match &node.kind {
            NodeKind::Output { object, stream } => {
                let result = self
                    .negotiate
                    .try_output(node.id, object, *stream, &goal.media_type)
                    .await;
                self.answer(&goal, Stage::Direct, node.label(), &goal.media_type, result)
            }
            NodeKind::Transform { object } => self.through(&goal, object).await,
            NodeKind::Tee => {
                for link in self.topology.outputs(node.id) {
                    let next = self
                        .goal(
                            node.id,
                            link.output,
                            goal.media_type.clone(),
                            goal.depth + 1,
                        )
                        .map_err(Stop::Fatal)?;
                    self.link(next, ConnectMethod::AllowDecoder).await?;
                }
                Ok(())
            }
            NodeKind::SourceStream { .. } => Err(Stop::Fatal(not_connected(node.id))),
        }
    }

    /// Through a transform of the topology, with each of the types that it offers.
    async fn through(&mut self, goal: &Goal<'a>, object: &ObjectRef) -> Way {
        let node = goal.to;
        let result = self
            .negotiate
            .try_transform(node.id, object, &goal.media_type)
            .await;
        let offered = self.answer(goal, Stage::Direct, node.label(), &goal.media_type, result)?;
        let wanted = node.preferred_output(0);
        let choices = offered.iter().filter_map(|offered| {
            let offered = inherit(offered, &goal.media_type);
            match wanted {
                Some(wanted) => complete(wanted, &offered),
                None => Some(offered),
            }
        });
        let mut failure = None;
        for choice in choices {
            let mark = self.draft.mark();
            let way = async {
                let result = self
                    .negotiate
                    .try_transform_output(node.id, object, &choice)
                    .await;
                self.answer(goal, Stage::Direct, node.label(), &choice, result)?;
                let next = self
                    .goal(node.id, 0, choice.clone(), goal.depth + 1)
                    .map_err(Stop::Fatal)?;
                self.link(next, ConnectMethod::AllowDecoder).await
            }
            .await;
            match way {
                Err(Stop::Refused(refusal)) => failure = further(failure, refusal),
                other => return other,
            }
            self.draft.take_back(mark);
        }
        Err(Stop::Refused(failure.unwrap_or_else(|| Refusal {
            depth: goal.depth,
            error: Error::invalid_type(
                &goal.media_type,
                "nothing that is wanted can be made of it",
            ),
        })))
    }

    /// Past an optional node, to the one behind it.
    async fn without(&mut self, goal: &Goal<'a>, cap: ConnectMethod) -> Way {
        let behind = self
            .goal(goal.to.id, 0, goal.media_type.clone(), goal.depth)
            .map_err(Stop::Fatal)?;
        let mark = self.draft.mark();
        self.draft.dropped.push(goal.to.id);
        let past = Goal {
            from: goal.from,
            output: goal.output,
            ..behind
        };
        let way = self.link(past, cap).await;
        if way.is_err() {
            self.draft.take_back(mark);
        }
        way
    }

    /// Records an answer and says whether the search can go on.
    fn answer<T>(
        &mut self,
        goal: &Goal<'a>,
        stage: Stage,
        asked: String,
        media_type: &MediaType,
        result: Result<T>,
    ) -> Way<T> {
        self.attempts.push(Attempt {
            node: goal.to.id,
            stage,
            asked,
            media_type: media_type.clone(),
            refusal: result.as_ref().err().cloned(),
        });
        if self.attempts.len() > MAX_ATTEMPTS {
            let why = format!("gave up after {MAX_ATTEMPTS} attempts");
            return Err(Stop::Fatal(Error::new(ErrorKind::CannotConnect(
                why.into(),
            ))));
        }
        result.map_err(|error| {
            if ends_the_search(&error) {
                return Stop::Fatal(error.at_node(goal.to.label()));
            }
            Stop::Refused(Refusal {
                depth: goal.depth,
                error,
            })
        })
    }

    /// The error of a link that no way led along.
    fn explain(
        &self,
        goal: &Goal<'a>,
        method: ConnectMethod,
        no_decoder: bool,
        last: Error,
        asked: usize,
    ) -> Error {
        let attempts = &self.attempts[asked..];
        let is_coded = !goal.media_type.subtype.is_raw();
        let from_decoder = attempts
            .iter()
            .filter(|attempt| attempt.stage == Stage::Decoder)
            .find_map(|attempt| attempt.refusal.as_ref())
            .and_then(|refusal| of_content(refusal, &goal.media_type));
        let error = if method == ConnectMethod::Direct {
            match last.kind() {
                ErrorKind::InvalidMediaType { .. } => last,
                _ => Error::invalid_type(&goal.media_type, last.to_string()),
            }
        } else if no_decoder && is_coded {
            Error::new(ErrorKind::NoComponent(goal.media_type.clone()))
        } else if let Some(own) = from_decoder {
            own
        } else {
            let what = format!("{} with node {}", goal.media_type, goal.to.label());
            Error::new(ErrorKind::CannotConnect(what.into()))
        };
        attempts
            .iter()
            .filter(|attempt| attempt.refusal.is_some())
            .take(MAX_CAUSES)
            .fold(error.at_node(goal.to.label()), |error, attempt| {
                error.because(attempt.to_string())
            })
    }
}

/// What a decoder's refusal says of the content. One that takes a codec and not this type of it found damage in its headers.
fn of_content(refusal: &Error, media_type: &MediaType) -> Option<Error> {
    match refusal.kind() {
        ErrorKind::InvalidMediaType { why, .. } => Some(Error::unsupported_codec(
            media_type.subtype.name().to_owned(),
            why.clone(),
        )),
        _ => Some(refusal.clone()).filter(Error::is_content),
    }
}

fn further(before: Option<Refusal>, new: Refusal) -> Option<Refusal> {
    Some(match before {
        Some(before) => furthest(before, new),
        None => new,
    })
}

/// The refusal that came further; of equals the earlier one.
fn furthest(before: Refusal, new: Refusal) -> Refusal {
    if new.depth > before.depth {
        new
    } else {
        before
    }
}

/// Whether the error means that nobody can be asked any more, or that asking was wrong.
fn ends_the_search(error: &Error) -> bool {
    error.ends_every_try()
        || matches!(
            error.kind(),
            ErrorKind::ClassNotInHost { .. }
                | ErrorKind::InvalidSettings { .. }
                | ErrorKind::Topology(_)
        )
}
