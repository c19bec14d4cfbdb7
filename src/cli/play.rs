//! `portcullis play`: a session with a presentation clock whose sinks show nothing.

mod events;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use portcullis_engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis_engine::{
    MajorType, MediaTime, MediaType, PresentationDescriptor, Result, StreamId, Subtype,
};

pub(super) use self::events::EventPrinter;
use super::arguments;
use super::failure::Failure;
use super::placement::{PlacementArgs, SourceArgs};
use super::playback::{self, Program};
use super::progress::Progress;
use super::signals::Interrupt;
use crate::pipeline::source::SourceObject;
use crate::{MediaSessionBuilder, NodeObject, OpenPolicy, Pacing, StreamSelector};

/// Plays a file by a clock into sinks that only count, and shows the session's events.
#[derive(Debug, Args)]
pub(super) struct Play {
    /// A path, a file: URL, or - for standard input
    file: PathBuf,
    #[command(flatten)]
    place: PlacementArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// When samples are rendered
    #[arg(long, value_name = "CLOCK", value_enum, default_value_t)]
    clock: Clock,
    /// Which streams: v:0, a:0 or an index, several with commas. The first picture and the first sound stream if nothing is said
    #[arg(long, value_name = "STREAMS", value_delimiter = ',')]
    streams: Vec<StreamSelector>,
    /// Begins here, such as 2s
    #[arg(long, value_name = "TIME", value_parser = arguments::time)]
    start: Option<MediaTime>,
    /// Prints one JSON object a line: each event with `t` (100 ns since the command began), `event`, `status` and `pid`; last a `summary`
    #[arg(long)]
    json: bool,
}

/// When samples are rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Clock {
    /// At their time, by a presentation clock
    #[default]
    Presentation,
    /// As fast as they come
    Free,
}

impl Clock {
    pub(super) fn pacing(self) -> Pacing {
        match self {
            Self::Presentation => Pacing::Presentation,
            Self::Free => Pacing::Free,
        }
    }
}

impl Play {
    pub(super) async fn run(self, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let mut printer = EventPrinter::new(self.json);
        match self.play(&mut printer, interrupt).await {
            Ok(outcome) => outcome,
            // There is no session, or none with a topology: the summary says what there is to say.
            Err(failure) => {
                printer.summary_of_failure(&failure)?;
                Err(failure)
            }
        }
    }

    /// The inner result is that of a session that has played.
    async fn play(
        &self,
        printer: &mut EventPrinter,
        interrupt: &mut Interrupt,
    ) -> Result<Result<(), Failure>, Failure> {
        let input = arguments::input(&self.file)?;
        let name = input.name();
        let mut policy = OpenPolicy::new();
        let url = policy.grant(input);
        let builder = MediaSessionBuilder::new(crate::registry(), self.place.placement()?)
            .pacing(self.clock.pacing())
            .limits(self.place.limits())
            .policy(policy);
        let open = async {
            let session = builder.start().await?;
            let events = session.events();
            let source = session
                .resolve(&url, self.source.side())
                .await
                .map_err(|error| error.of_input(name.clone()))?;
            Ok((session, events, source))
        };
        let (session, mut events, source) = interrupt.or(open).await?;
        printer.host(session.host().pid());
        let streams = self.chosen(&source.presentation)?;
        let program = program(&name, source, &streams, self.start)
            .map_err(|error| error.of_input(name.clone()))?;
        printer.name_outputs(&program.topology);
        let length = match (&program.topology, self.clock) {
            (topology, Clock::Presentation) => duration(topology),
            _ => None,
        };
        let progress = Progress::new(length);
        let mut played = playback::play(
            &session,
            &mut events,
            program,
            interrupt,
            &progress,
            |event| printer.event(event),
        )
        .await;
        drop(progress);
        played.failure = played.failure.map(|failure| failure.of_input(&name));
        printer.summary(&played)?;
        Ok(played.outcome())
    }

    fn chosen(&self, presentation: &PresentationDescriptor) -> Result<Vec<StreamId>, Failure> {
        let file = self.file.display();
        let mut chosen = Vec::new();
        for selector in &self.streams {
            match selector.find(presentation) {
                Some(stream) if !chosen.contains(&stream.id) => chosen.push(stream.id),
                Some(_) => {}
                None => {
                    return Err(Failure::usage(format!(
                        "{file}: there is no stream {selector}"
                    )));
                }
            }
        }
        if self.streams.is_empty() {
            let firsts =
                [MajorType::Video, MajorType::Audio].map(|major| presentation.first_played(major));
            chosen.extend(firsts.into_iter().flatten().map(|stream| stream.id));
        }
        if chosen.is_empty() {
            return Err(Failure::Content(format!(
                "{file}: it has neither pictures nor sound"
            )));
        }
        Ok(chosen)
    }
}

fn duration(topology: &Topology) -> Option<MediaTime> {
    topology.nodes().iter().find_map(|node| match &node.kind {
        NodeKind::SourceStream { descriptor, .. } => descriptor.as_ref()?.duration,
        _ => None,
    })
}

/// Each stream decoded into a stream of one null sink.
fn program(
    input: &str,
    source: SourceObject,
    streams: &[StreamId],
    start: Option<MediaTime>,
) -> Result<Program> {
    let mut presentation = source.presentation.clone();
    presentation.select_only(streams);
    let mut topology = Topology::new();
    for (index, id) in streams.iter().enumerate() {
        let object = ObjectRef::Object(ObjectId(0));
        let from = topology.add_node(NodeKind::described(object, *id, presentation.clone()));
        let output = u32::try_from(index).unwrap_or(u32::MAX);
        let to = topology.add_node(NodeKind::output(ObjectRef::activation("sink.null"), output));
        topology.connect(from, 0, to, 0)?;
        let stream = presentation.stream(*id).map(|stream| &stream.media_type);
        if let (Some(node), Some(decoded)) = (topology.node_mut(to), stream.and_then(decoded)) {
            node.prefer_input(0, decoded)?;
        }
    }
    let objects = vec![(ObjectId(0), NodeObject::Source(source))];
    Ok(Program {
        input: Some(input.to_owned()),
        topology,
        objects,
        start,
    })
}

/// What a sink that takes everything has to ask for to get decoded samples.
pub(super) fn decoded(stream: &MediaType) -> Option<MediaType> {
    if stream.subtype.is_raw() {
        return None;
    }
    match stream.major {
        MajorType::Video => Some(MediaType::new(MajorType::Video, Subtype::RAW_VIDEO)),
        MajorType::Audio => Some(MediaType::new(MajorType::Audio, Subtype::PCM_F32)),
        _ => None,
    }
}
