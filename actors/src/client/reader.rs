//! From an input to a stream of samples in a few lines.

mod output;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_engine::session::SetTopologyFlags;
use portcullis_engine::topology::{ConnectMethod, NodeKind, ObjectId, ObjectRef, Topology};
use portcullis_engine::{
    ContentLimits, Error, ErrorKind, MediaTime, PresentationDescriptor, Result,
};

pub use output::{Output, OutputFormat, PictureFormat, SoundFormat, StreamSelector};
pub use stream::SampleStream;

use super::session::{MediaSession, MediaSessionBuilder, Placement, SourceSide};
use crate::host::HostConnection;
use crate::pipeline::byte_stream::Input;
use crate::pipeline::opener::OpenPolicy;
use crate::pipeline::session::{NodeObject, Pacing};
use crate::pipeline::sink::{Grabber, ReadAhead, SampleGrabber};
use crate::pipeline::source::SourceObject;
use crate::registry::Registry;
use crate::runtime;

/// Makes a reader.
#[derive(Debug)]
pub struct SourceReaderBuilder {
    session: MediaSessionBuilder,
    input: Input,
    side: SourceSide,
    shared_views: bool,
}

impl SourceReaderBuilder {
    /// A reader of this input in this placement; `registry` is what the application's own process can create.
    pub fn new(registry: Arc<Registry>, placement: Placement, input: impl Into<Input>) -> Self {
        Self {
            session: MediaSessionBuilder::new(registry, placement).pacing(Pacing::Free),
            input: input.into(),
            side: SourceSide::default(),
            shared_views: false,
        }
    }

    /// Reads in this placement; in an isolated host of this very program by default.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.session = self.session.placement(placement);
        self
    }

    /// Reads in a host that is there already.
    #[must_use]
    pub fn host(mut self, host: HostConnection) -> Self {
        self.session = self.session.host(host);
        self
    }

    /// On which side of the wall the container is parsed. In the host by default.
    #[must_use]
    pub fn source_side(mut self, side: SourceSide) -> Self {
        self.side = side;
        self
    }

    /// What the content may ask for.
    #[must_use]
    pub fn limits(mut self, limits: ContentLimits) -> Self {
        self.session = self.session.limits(limits);
        self
    }

    /// Gives samples as views of the host's memory instead of copying them out. Each view that is kept holds a slot of the
    /// host's pool; when all are held, decoding waits.
    #[must_use]
    pub fn shared_views(mut self) -> Self {
        self.shared_views = true;
        self
    }

    /// Opens the input. Dropping the future gives up.
    ///
    /// # Errors
    /// What opening and resolving find, naming the input; `HostStart`, `HostLost`.
    pub async fn open(self) -> Result<SourceReader> {
        let mut policy = OpenPolicy::new();
        let name = self.input.name();
        let url = policy.grant(self.input);
        let session = self.session.policy(policy).start().await?;
        let source = session
            .resolve(&url, self.side)
            .await
            .map_err(|error| error.of_input(name.clone()))?;
        Ok(SourceReader {
            session,
            source,
            name,
            shared_views: self.shared_views,
            was_asked: AtomicBool::new(false),
            was_read: AtomicBool::new(false),
        })
    }
}

/// An opened input whose streams can be read.
///
/// Dropping the reader and its sample streams stops everything: the session ends, and with it the host.
#[derive(Debug)]
pub struct SourceReader {
    session: MediaSession,
    source: SourceObject,
    name: String,
    shared_views: bool,
    /// Whether streams were asked for: that may be under way still.
    was_asked: AtomicBool,
    /// Whether the source was started.
    was_read: AtomicBool,
}

impl SourceReader {
    /// What the input offers.
    pub fn presentation(&self) -> &PresentationDescriptor {
        &self.source.presentation
    }

    /// The session underneath.
    pub fn session(&self) -> &MediaSession {
        &self.session
    }

    /// Reads one stream from its beginning: decoded, unless the output says otherwise.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such stream; `NoComponent`, `UnsupportedCodec`, `Protected`.
    pub async fn samples(&self, output: impl Into<Output>) -> Result<SampleStream> {
        self.samples_from(output, None).await
    }

    /// Reads one stream from a position on.
    ///
    /// # Errors
    /// As [`SourceReader::samples`]; `InvalidPosition`, `NotSeekable`.
    pub async fn samples_from(
        &self,
        output: impl Into<Output>,
        position: Option<MediaTime>,
    ) -> Result<SampleStream> {
        let mut streams = self.streams(vec![output.into()], position).await?;
        streams.pop().ok_or_else(Error::cancelled)
    }

    /// Reads several streams at once, each with its own pace. What one stream does not take, up to the interleave limit, is
    /// held back for it while another goes on. Streams that were read before end.
    ///
    /// # Errors
    /// As [`SourceReader::samples_from`].
    pub async fn streams(
        &self,
        outputs: Vec<Output>,
        position: Option<MediaTime>,
    ) -> Result<Vec<SampleStream>> {
        let mut topology = Topology::new();
        let mut objects = vec![(ObjectId(0), NodeObject::Source(self.source.clone()))];
        let mut streams = Vec::new();
        let mut presentation = self.presentation().clone();
        let chosen: Vec<_> = outputs
            .iter()
            .filter_map(|o| o.selector.find(&presentation))
            .map(|s| s.id)
            .collect();
        presentation.select_only(&chosen);
        for output in outputs {
            let descriptor = output.selector.find(self.presentation()).ok_or_else(|| {
                Error::invalid_argument(format!("there is no stream {}", output.selector))
                    .of_input(self.name.clone())
            })?;
            if descriptor.media_type.is_protected() && output.format != OutputFormat::Compressed {
                let scheme = descriptor.protection_scheme();
                return Err(Error::new(ErrorKind::Protected { scheme }).of_input(self.name.clone()));
            }
            let accept = output.format.accept(descriptor.major());
            let Grabber { sink, items, epoch } = runtime::run(move || async move {
                Ok(SampleGrabber::start(ReadAhead::default(), accept))
            })
            .await?;
            let object = ObjectId(objects.len() as u64);
            objects.push((object, NodeObject::Sink(sink)));
            let from = topology.add_node(NodeKind::described(
                ObjectRef::Object(ObjectId(0)),
                descriptor.id,
                presentation.clone(),
            ));
            let to = topology.add_node(NodeKind::output(ObjectRef::Object(object), 0));
            topology.connect(from, 0, to, 0)?;
            if let Some(node) = topology.node_mut(to) {
                if output.format == OutputFormat::Compressed {
                    node.connect = ConnectMethod::Direct;
                }
                if let Some(wanted) = output.format.wanted(&descriptor.media_type) {
                    node.prefer_input(0, wanted)?;
                }
            }
            streams.push((descriptor.clone(), items, epoch));
        }
        let (full, position) = self
            .prepare(topology, objects, position)
            .await
            .map_err(|error| error.of_input(self.name.clone()))?;
        let mut readers = Vec::new();
        for (index, (descriptor, items, epoch)) in streams.into_iter().enumerate() {
            let media_type = full
                .sinks()
                .get(index)
                .and_then(|sink| full.link_to(sink.node, 0))
                .and_then(|link| link.media_type.clone())
                .unwrap_or_else(|| descriptor.media_type.clone());
            readers.push(SampleStream::new(
                self.session.clone(),
                descriptor,
                media_type,
                items,
                epoch,
                self.name.clone(),
                self.shared_views,
            ));
        }
        self.session
            .start(position)
            .await
            .map_err(|error| error.of_input(self.name.clone()))?;
        Ok(readers)
    }

    /// Puts a topology in place of the one that was read before; answers the full one and where to start.
    async fn prepare(
        &self,
        topology: Topology,
        objects: Vec<(ObjectId, NodeObject)>,
        position: Option<MediaTime>,
    ) -> Result<(Topology, Option<MediaTime>)> {
        let was_read = self.was_read.load(Ordering::Relaxed);
        if self.was_asked.swap(true, Ordering::Relaxed) {
            match self.session.stop().await {
                // A sink whose samples nobody takes any more says so.
                Err(error) if error.is_cancelled() => {}
                // Whoever asked has given up before there was anything to stop.
                Err(error) if !was_read && matches!(error.kind(), ErrorKind::InvalidRequest(_)) => {
                }
                stopped => stopped?,
            }
        }
        // Whatever was asked before and given up: this takes its place.
        let flags = SetTopologyFlags {
            immediate: true,
            ..SetTopologyFlags::default()
        };
        let full = self
            .session
            .set_topology_with(topology, objects, flags)
            .await?;
        self.was_read.store(true, Ordering::Relaxed);
        // A source goes on where it is: the beginning must be said. An input that comes once then says that it cannot.
        let position = position.or(was_read.then_some(MediaTime::ZERO));
        Ok((full, position))
    }
}
