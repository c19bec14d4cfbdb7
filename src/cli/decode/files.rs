//! A session whose sink writes a file, or only counts: the samples stay where they are decoded.

use std::path::Path;
use std::time::Instant;

use portcullis_engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis_engine::{Error, ErrorKind, Settings};
use serde_json::json;

use super::{Decode, FileKind, Summary};
use crate::cli::arguments;
use crate::cli::failure::Failure;
use crate::cli::outputs::OutputFile;
use crate::cli::play::decoded;
use crate::cli::playback::{self, Program};
use crate::cli::progress::Progress;
use crate::cli::signals::Interrupt;
use crate::{MediaSession, MediaSessionBuilder, NodeObject, OpenPolicy, Pacing};

/// Decodes into the file of this kind; without one into a sink that counts.
pub(super) async fn write(
    decode: &Decode,
    kind: Option<FileKind>,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let since = Instant::now();
    let input = arguments::input(&decode.file)?;
    let name = input.name();
    let mut policy = OpenPolicy::new();
    let url = policy.grant(input);
    let out = decode.output.as_deref().map(target).transpose()?;
    let mut file = None;
    if let Some(out) = &out {
        file = Some(OutputFile::claim(Path::new(out), &decode.file)?);
        policy.grant_output(out.as_str());
    }
    let builder = MediaSessionBuilder::new(crate::registry(), decode.place.placement()?)
        .pacing(Pacing::Free)
        .limits(decode.place.limits())
        .policy(policy);
    let prepare = async {
        let session = builder.start().await?;
        let program = program(decode, kind, &session, (&url, &name), out.as_deref()).await?;
        Ok((session, program))
    };
    let (session, (program, stream)) = interrupt
        .or(prepare)
        .await
        .map_err(|failure| failure.of_input(&name))?;
    let mut events = session.events();
    let progress = Progress::new(program.topology.nodes().iter().find_map(
        |node| match &node.kind {
            NodeKind::SourceStream { descriptor, .. } => descriptor.as_ref()?.duration,
            _ => None,
        },
    ));
    let played = playback::play(&session, &mut events, program, interrupt, &progress, |_| {
        Ok(())
    })
    .await;
    drop(progress);
    let counts = played
        .statistics
        .first()
        .map(|output| output.counts)
        .unwrap_or_default();
    let full = played.full.as_ref();
    let media_type = full
        .and_then(|full| {
            full.link_to(full.sinks().first()?.node, 0)?
                .media_type
                .as_ref()
        })
        .map(ToString::to_string);
    let summary = Summary {
        stream,
        media_type: media_type.unwrap_or_default(),
        samples: counts.samples,
        bytes: counts.bytes,
        faults: played.faults.count(),
        host_pid: session.host().pid(),
        since,
    };
    if let Some(file) = file
        .as_mut()
        .filter(|_| played.code() == 0 || counts.samples > 0)
    {
        file.keep();
    }
    if played.full.is_some() {
        summary.print(decode.json)?;
    }
    played.outcome().map_err(|failure| failure.of_input(&name))
}

async fn program(
    decode: &Decode,
    kind: Option<FileKind>,
    session: &MediaSession,
    (url, name): (&str, &str),
    out: Option<&str>,
) -> Result<(Program, String), Failure> {
    let source = session.resolve(url, decode.source.side()).await?;
    let mut presentation = source.presentation.clone();
    let selector = decode.selector(kind, &presentation)?;
    let Some(descriptor) = selector.find(&presentation).cloned() else {
        return Err(Failure::usage(format!("there is no stream {selector}")));
    };
    if descriptor.media_type.is_protected() {
        let scheme = descriptor.protection_scheme();
        return Err(Error::new(ErrorKind::Protected { scheme }).into());
    }
    decode.check_stream(selector, descriptor.major())?;
    presentation.select_only(&[descriptor.id]);
    let settings = out
        .map(|url| Settings::of(&json!({ "url": url })))
        .transpose()?;
    let sink = match (kind, settings) {
        (Some(FileKind::Wav), Some(settings)) => ObjectRef::with_settings("sink.wav", settings),
        (Some(FileKind::Y4m), Some(settings)) => ObjectRef::with_settings("sink.y4m", settings),
        _ => ObjectRef::with_settings("sink.null", Settings::of(&json!({ "rateless": true }))?),
    };
    let mut topology = Topology::new();
    let from = topology.add_node(NodeKind::described(
        ObjectRef::Object(ObjectId(0)),
        descriptor.id,
        presentation,
    ));
    let to = topology.add_node(NodeKind::output(sink, 0));
    topology.connect(from, 0, to, 0)?;
    let wanted = match decode
        .output_format(descriptor.major())
        .wanted(&descriptor.media_type)
    {
        None if kind.is_none() => decoded(&descriptor.media_type),
        wanted => wanted,
    };
    if let (Some(node), Some(wanted)) = (topology.node_mut(to), wanted) {
        node.prefer_input(0, wanted)?;
    }
    let program = Program {
        input: Some(name.to_owned()),
        topology,
        objects: vec![(ObjectId(0), NodeObject::Source(source))],
        start: decode.at,
    };
    Ok((program, selector.to_string()))
}

/// The path as the sink asks the opener for it.
fn target(path: &Path) -> Result<String, Failure> {
    // Absolute: a name with a colon must not be taken for a URL.
    let whole = std::path::absolute(path)
        .map_err(|error| Failure::output(path.display().to_string(), error))?;
    let text = whole.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::usage(format!(
            "{}: the name of an output must be UTF-8",
            path.display()
        ))
    })
}
