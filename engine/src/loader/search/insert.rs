//! Converters and decoders that the topology does not name.

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::{Goal, Refusal, Search, Stop, Way, further};
use crate::component::Role;
use crate::error::{Error, ErrorKind};
use crate::loader::attempt::Stage;
use crate::loader::types::{complete, inherit};
use crate::media::MediaType;
use crate::presentation::StreamDescriptor;
use crate::topology::{ObjectRef, TopologyNode};

/// Converters behind each other.
const MAX_CONVERTERS: u8 = 2;

impl<'a> Search<'a> {
    /// One converter in front of the node, or two.
    pub(super) async fn convert(&mut self, goal: &Goal<'a>) -> Way {
        let mut failure = None;
        for converters in 1..=MAX_CONVERTERS {
            match self.insert_converters(goal.clone(), converters, None).await {
                Err(Stop::Refused(refusal)) => failure = further(failure, refusal),
                other => return other,
            }
        }
        Err(Stop::Refused(failure.unwrap_or_else(|| nothing(goal))))
    }

    fn insert_converters<'s>(
        &'s mut self,
        goal: Goal<'a>,
        count: u8,
        before: Option<String>,
    ) -> LocalBoxFuture<'s, Way>
    where
        'a: 's,
    {
        async move {
            let mut failure = None;
            for class in self.negotiate.candidates(Role::Converter, &goal.media_type) {
                if before.as_ref() == Some(&class) {
                    continue;
                }
                let choices = match self.offer(&goal, Role::Converter, &class).await {
                    Ok(offered) => converter_choices(&goal, &offered, count == 1),
                    Err(Stop::Refused(refusal)) => {
                        failure = further(failure, refusal);
                        continue;
                    }
                    Err(fatal) => return Err(fatal),
                };
                for choice in choices {
                    let mark = self.draft.mark();
                    let way = match self.insert(&goal, Role::Converter, &class, choice).await {
                        Ok(next) if count == 1 => self.enter(next).await,
                        Ok(next) => {
                            self.insert_converters(next, count - 1, Some(class.clone()))
                                .await
                        }
                        Err(stop) => Err(stop),
                    };
                    match way {
                        Err(Stop::Refused(refusal)) => failure = further(failure, refusal),
                        other => return other,
                    }
                    self.draft.take_back(mark);
                }
            }
            Err(Stop::Refused(failure.unwrap_or_else(|| nothing(&goal))))
        }
        .boxed_local()
    }

    /// Protected samples are decoded only behind a decrypter, which stands behind its source before the loader comes.
    fn protected(&self, goal: &Goal<'a>) -> Error {
        let mut node = goal.from;
        while let Some((before, _)) = self.topology.upstream(node, 0) {
            node = before;
        }
        let descriptor = self
            .topology
            .node(node)
            .and_then(TopologyNode::stream_descriptor);
        let scheme = descriptor.map_or_else(
            || "unknown scheme".into(),
            StreamDescriptor::protection_scheme,
        );
        Error::new(ErrorKind::Protected { scheme }).at_node(goal.to.label())
    }

    /// A decoder in front of the node, with converters where they are needed; false if there is no decoder at all.
    pub(super) async fn decode(&mut self, goal: &Goal<'a>) -> Way<bool> {
        let classes = self.negotiate.candidates(Role::Decoder, &goal.media_type);
        if classes.is_empty() {
            return Ok(false);
        }
        if goal.media_type.is_protected() {
            return Err(Stop::Fatal(self.protected(goal)));
        }
        let mut failure = None;
        for class in classes {
            let offered = match self.offer(goal, Role::Decoder, &class).await {
                Ok(offered) => offered,
                Err(Stop::Refused(refusal)) => {
                    failure = further(failure, refusal);
                    continue;
                }
                Err(fatal) => return Err(fatal),
            };
            // Each of its types directly before any of them with a converter.
            for converters in [false, true] {
                for choice in &offered {
                    let mark = self.draft.mark();
                    let choice = inherit(choice, &goal.media_type);
                    let way = match self.insert(goal, Role::Decoder, &class, choice).await {
                        Ok(next) if converters => self.convert(&next).await,
                        Ok(next) => self.enter(next).await,
                        Err(stop) => Err(stop),
                    };
                    match way {
                        Ok(()) => return Ok(true),
                        Err(Stop::Refused(refusal)) => failure = further(failure, refusal),
                        Err(fatal) => return Err(fatal),
                    }
                    self.draft.take_back(mark);
                }
            }
        }
        Err(Stop::Refused(failure.unwrap_or_else(|| nothing(goal))))
    }

    /// Offers the type to a class that is to be put in.
    async fn offer(&mut self, goal: &Goal<'a>, role: Role, class: &str) -> Way<Vec<MediaType>> {
        let object = ObjectRef::activation(class);
        let result = self
            .negotiate
            .try_transform(self.draft.next_id(), &object, &goal.media_type)
            .await;
        self.answer(
            goal,
            stage(role),
            class.to_owned(),
            &goal.media_type,
            result,
        )
    }

    /// Puts in a class that accepted the type, with this output type; the goal is then reached from there.
    async fn insert(
        &mut self,
        goal: &Goal<'a>,
        role: Role,
        class: &str,
        output: MediaType,
    ) -> Way<Goal<'a>> {
        let object = ObjectRef::activation(class);
        let node = self.draft.next_id();
        let result = self
            .negotiate
            .try_transform_output(node, &object, &output)
            .await;
        self.answer(goal, stage(role), class.to_owned(), &output, result)?;
        self.draft
            .link(goal.from, goal.output, node, goal.media_type.clone());
        self.draft.insert(node, object, role, output.clone());
        Ok(Goal {
            from: node,
            output: 0,
            media_type: output,
            ..goal.clone()
        })
    }
}

/// What a converter should put out: what the node wants first, then, if more converters follow, whatever it offers.
fn converter_choices(goal: &Goal<'_>, offered: &[MediaType], is_last: bool) -> Vec<MediaType> {
    let offered: Vec<_> = offered
        .iter()
        .map(|offered| inherit(offered, &goal.media_type))
        .collect();
    let Some(wanted) = goal.to.preferred_input(0) else {
        return offered;
    };
    let mut choices: Vec<_> = offered
        .iter()
        .filter_map(|offered| complete(wanted, offered))
        .collect();
    choices.dedup();
    if !is_last {
        choices.extend(offered);
    }
    choices
}

fn stage(role: Role) -> Stage {
    match role {
        Role::Decoder => Stage::Decoder,
        _ => Stage::Converter,
    }
}

fn nothing(goal: &Goal<'_>) -> Refusal {
    Refusal {
        depth: goal.depth,
        error: Error::invalid_type(&goal.media_type, "no class takes it"),
    }
}
