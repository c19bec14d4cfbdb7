//! Conformance cases D27 to D32 and what the search promises besides, with a negotiator that answers from a table.

use std::cell::RefCell;

use futures::FutureExt;
use futures::executor::block_on;

use super::*;
use crate::error::ErrorKind;
use crate::media::{PixelFormat, Subtype, TimeBase, keys};
use crate::presentation::{StreamDescriptor, StreamId};
use crate::topology::{ConnectMethod, ObjectId};

type Answer = fn(&MediaType) -> Result<Vec<MediaType>>;

struct Class {
    name: &'static str,
    role: Role,
    answer: Answer,
}

struct Table {
    classes: Vec<Class>,
    sink: fn(&MediaType) -> bool,
    sinks_exist: bool,
    asked_of_sinks: RefCell<usize>,
}

impl Table {
    fn new(sink: fn(&MediaType) -> bool) -> Self {
        Self {
            classes: Vec::new(),
            sink,
            sinks_exist: true,
            asked_of_sinks: RefCell::new(0),
        }
    }

    fn with(mut self, role: Role, name: &'static str, answer: Answer) -> Self {
        self.classes.push(Class { name, role, answer });
        self
    }

    fn answer(&self, object: &ObjectRef, input: &MediaType) -> Result<Vec<MediaType>> {
        let class = object.class().expect("an activation");
        let entry = self.classes.iter().find(|entry| entry.name == class);
        (entry.expect("a known class").answer)(input)
    }
}

impl Negotiate for Table {
    fn candidates(&self, role: Role, _: &MediaType) -> Vec<String> {
        self.classes
            .iter()
            .filter(|entry| entry.role == role)
            .map(|entry| entry.name.to_owned())
            .collect()
    }

    fn try_transform<'a>(
        &'a self,
        _: NodeId,
        object: &'a ObjectRef,
        input: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<Vec<MediaType>>> {
        async { self.answer(object, input) }.boxed_local()
    }

    fn try_transform_output<'a>(
        &'a self,
        _: NodeId,
        _: &'a ObjectRef,
        output: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            match output.frame_size() {
                Some((width, _)) if width > 1000 => Err(Error::invalid_type(output, "too wide")),
                _ => Ok(()),
            }
        }
        .boxed_local()
    }

    fn try_output<'a>(
        &'a self,
        node: NodeId,
        _: &'a ObjectRef,
        _: u32,
        media_type: &'a MediaType,
    ) -> LocalBoxFuture<'a, Result<()>> {
        async move {
            *self.asked_of_sinks.borrow_mut() += 1;
            if !self.sinks_exist {
                return Err(TopologyFault::SinkActivation(node.0).into());
            }
            if (self.sink)(media_type) {
                return Ok(());
            }
            Err(Error::invalid_type(media_type, "the sink does not take it"))
        }
        .boxed_local()
    }
}

fn pcm(rate: u32) -> MediaType {
    MediaType::audio(Subtype::PCM_S16, rate, 2)
}

fn aac() -> MediaType {
    MediaType::audio(Subtype::AAC, 48_000, 2)
}

fn h264() -> MediaType {
    MediaType::video(Subtype::H264, 320, 180)
}

fn picture(format: PixelFormat) -> MediaType {
    MediaType::new(crate::media::MajorType::Video, Subtype::RAW_VIDEO)
        .with(&keys::PIXEL_FORMAT, format)
}

fn source(types: &[MediaType]) -> NodeKind {
    let mut stream = StreamDescriptor::new(StreamId(0), types[0].clone(), TimeBase::TICKS);
    stream.alternatives = types[1..].to_vec();
    let descriptor = PresentationDescriptor {
        streams: vec![stream],
        ..PresentationDescriptor::default()
    };
    NodeKind::described(ObjectRef::Object(ObjectId(1)), StreamId(0), descriptor)
}

/// A source, transforms of these classes, and a sink, in a row.
fn row(types: &[MediaType], classes: &[&str], connect: ConnectMethod) -> Topology {
    let mut topology = Topology::new();
    let mut last = topology.add_node(source(types));
    for class in classes {
        let next = topology.add_node(NodeKind::transform(ObjectRef::activation(*class)));
        topology.connect(last, 0, next, 0).expect("connects");
        last = next;
    }
    let sink = topology.add_node(NodeKind::output(ObjectRef::activation("sink"), 0));
    topology.node_mut(sink).expect("is there").connect = connect;
    topology.connect(last, 0, sink, 0).expect("connects");
    topology
}

fn run(topology: &Topology, table: &Table) -> Result<Resolved> {
    block_on(load(topology, &BTreeMap::new(), table))
}

/// Classes of the nodes along the first branch, with the types of the links.
fn path(topology: &Topology) -> String {
    let mut node = topology.nodes()[0].id;
    let mut path = String::new();
    while let Some(link) = topology.link_from(node, 0) {
        let media_type = link.media_type.as_ref().expect("has a type");
        let to = topology.node(link.to).expect("is there");
        path.push_str(&format!(
            "-{media_type}-> {} ",
            to.kind.object().map_or("tee".into(), ToString::to_string)
        ));
        node = link.to;
    }
    path.trim_end().to_owned()
}

fn resample(input: &MediaType) -> Result<Vec<MediaType>> {
    if input.subtype != Subtype::PCM_S16 {
        return Err(Error::invalid_type(input, "not PCM"));
    }
    Ok(vec![MediaType::new(input.major, Subtype::PCM_S16)])
}

fn decode_aac(input: &MediaType) -> Result<Vec<MediaType>> {
    if input.subtype != Subtype::AAC {
        return Err(Error::invalid_type(input, "not AAC"));
    }
    Ok(vec![MediaType::new(input.major, Subtype::PCM_S16)])
}

fn kind(result: Result<Resolved>) -> ErrorKind {
    result.expect_err("is refused").kind().clone()
}

#[test]
fn d27_without_a_branch_or_a_sink_nothing_is_resolved() {
    let table = Table::new(|_| true);
    assert_eq!(
        kind(run(&Topology::new(), &table)),
        ErrorKind::Topology(TopologyFault::Empty)
    );
    let no_branch = ErrorKind::Topology(TopologyFault::NoBranch);
    let mut topology = Topology::new();
    topology.add_node(source(&[pcm(48_000)]));
    assert_eq!(kind(run(&topology, &table)), no_branch);
    topology.add_node(NodeKind::output(ObjectRef::activation("sink"), 0));
    assert_eq!(kind(run(&topology, &table)), no_branch);
    let whole = row(&[pcm(48_000)], &[], ConnectMethod::Direct);
    let absent = Table {
        sinks_exist: false,
        ..Table::new(|_| true)
    };
    assert_eq!(
        kind(run(&whole, &absent)),
        ErrorKind::Topology(TopologyFault::SinkActivation(2))
    );
    let mut loose = whole;
    let tee = loose.add_node(NodeKind::Tee);
    assert_eq!(
        kind(run(&loose, &table)),
        ErrorKind::Topology(TopologyFault::NotConnected(tee.0))
    );
}

#[test]
fn d28_what_fits_is_left_as_it_is_and_resolves_to_itself() {
    let mut topology = row(&[pcm(48_000)], &[], ConnectMethod::AllowDecoder);
    topology.attributes.set(&keys::BITS, 3);
    topology
        .node_mut(NodeId(2))
        .expect("is there")
        .attributes
        .set(&keys::BITS, 4);
    let before = topology.clone();
    let table = Table::new(|_| true).with(Role::Converter, "resample", resample);
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(topology, before);
    assert_eq!(full.id(), topology.id());
    assert_eq!(full.nodes(), topology.nodes());
    assert_eq!(full.resolution, Some(ResolutionStatus::default()));
    assert_eq!(full.link_type(NodeId(1), 0), Some(&pcm(48_000)));
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
}

#[test]
fn d29_the_sinks_method_decides_about_converters() {
    let mut topology = row(&[pcm(48_000)], &[], ConnectMethod::Direct);
    topology
        .node_mut(NodeId(2))
        .expect("is there")
        .prefer_input(0, pcm(44_100))
        .expect("an output node has an input");
    let table =
        Table::new(|t| t.sample_rate() == Some(44_100)).with(Role::Converter, "resample", resample);
    let refused = |topology: &Topology| {
        matches!(
            kind(run(topology, &table)),
            ErrorKind::InvalidMediaType { .. }
        )
    };
    assert!(refused(&topology));
    topology.node_mut(NodeId(1)).expect("is there").connect = ConnectMethod::AllowConverter;
    assert!(refused(&topology));
    for method in [ConnectMethod::AllowConverter, ConnectMethod::AllowDecoder] {
        topology.node_mut(NodeId(2)).expect("is there").connect = method;
        let full = run(&topology, &table).expect("resolves").topology;
        assert_eq!(
            path(&full),
            "-audio/pcm_s16le 48000 Hz 2 ch-> resample -audio/pcm_s16le 44100 Hz 2 ch-> sink"
        );
        assert_eq!(
            full.node(NodeId(3)).expect("is there").inserted,
            Some(Role::Converter)
        );
        assert_eq!(run(&full, &table).expect("resolves").topology, full);
    }
}

#[test]
fn d30_a_decoder_goes_in_and_a_converter_behind_it_where_one_is_needed() {
    let table = Table::new(|t| t.subtype == Subtype::PCM_S16)
        .with(Role::Decoder, "aac", decode_aac)
        .with(Role::Converter, "resample", resample);
    let direct = row(&[aac()], &[], ConnectMethod::Direct);
    assert!(matches!(
        kind(run(&direct, &table)),
        ErrorKind::InvalidMediaType { .. }
    ));
    let mut topology = row(&[aac()], &[], ConnectMethod::AllowDecoder);
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(
        path(&full),
        "-audio/aac 48000 Hz 2 ch-> aac -audio/pcm_s16le 48000 Hz 2 ch-> sink"
    );
    assert_eq!(
        full.node(NodeId(3)).expect("is there").inserted,
        Some(Role::Decoder)
    );
    topology
        .node_mut(NodeId(2))
        .expect("is there")
        .prefer_input(
            0,
            MediaType::new(aac().major, Subtype::PCM_S16).with(&keys::SAMPLE_RATE, 44_100),
        )
        .expect("an output node has an input");
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(
        path(&full),
        "-audio/aac 48000 Hz 2 ch-> aac -audio/pcm_s16le 48000 Hz 2 ch-> resample -audio/pcm_s16le 44100 Hz 2 ch-> sink"
    );
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
}

#[test]
fn d31_other_types_of_a_source_are_tried_only_where_that_is_allowed() {
    // The current type is always one of those that are listed, so the original's case of an unlisted one cannot arise.
    let mut topology = row(
        &[aac(), pcm(44_100), pcm(48_000)],
        &[],
        ConnectMethod::AllowDecoder,
    );
    let table = Table::new(|t| t.sample_rate() == Some(48_000) && t.subtype == Subtype::PCM_S16);
    assert!(run(&topology, &table).is_err());
    topology.enumerate_source_types = true;
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(full.link_type(NodeId(1), 0), Some(&pcm(48_000)));
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
    let deaf = Table::new(|_| false);
    assert!(run(&topology, &deaf).is_err());
}

#[test]
fn d31_a_direct_way_with_a_later_type_beats_a_decoder_for_the_first() {
    let mut topology = row(&[aac(), pcm(48_000)], &[], ConnectMethod::AllowDecoder);
    topology.enumerate_source_types = true;
    let table =
        Table::new(|t| t.subtype == Subtype::PCM_S16).with(Role::Decoder, "aac", decode_aac);
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(full.nodes().len(), 2);
}

#[test]
fn d32_an_optional_node_that_fits_nowhere_is_dropped() {
    let refuses: Answer = |input| Err(Error::invalid_type(input, "the effect wants colour"));
    let table = Table::new(|_| true).with(Role::Transform, "effect", refuses);
    let mut topology = row(&[pcm(48_000)], &["effect"], ConnectMethod::AllowDecoder);
    let error = run(&topology, &table).expect_err("is refused");
    assert_eq!(error.place().node.as_deref(), Some("2 effect"));
    assert!(
        error.to_string().contains("the effect wants colour"),
        "{error}"
    );
    topology.node_mut(NodeId(2)).expect("is there").optional = true;
    let found = run(&topology, &table).expect("resolves");
    assert_eq!(found.dropped, [NodeId(2)]);
    assert!(
        found
            .topology
            .resolution
            .expect("is resolved")
            .rejected_media_type
    );
    assert_eq!(
        path(&found.topology),
        "-audio/pcm_s16le 48000 Hz 2 ch-> sink"
    );
    assert_eq!(
        run(&found.topology, &table).expect("resolves").topology,
        found.topology
    );
}

#[test]
fn g7_choices_that_lead_nowhere_are_taken_back() {
    // The first decoder offers only what the effect refuses; the second offers two types, of which the sink takes the second.
    let table = Table::new(|t| t.pixel_format() == Some(PixelFormat::Nv12))
        .with(Role::Decoder, "first", |_| {
            Ok(vec![picture(PixelFormat::Gray8)])
        })
        .with(Role::Decoder, "second", |_| {
            Ok(vec![picture(PixelFormat::I420), picture(PixelFormat::Nv12)])
        })
        .with(Role::Transform, "effect", |input| {
            match input.pixel_format() {
                Some(PixelFormat::I420 | PixelFormat::Nv12) => Ok(vec![input.clone()]),
                _ => Err(Error::invalid_type(input, "no colour")),
            }
        });
    let topology = row(&[h264()], &["effect"], ConnectMethod::Direct);
    let found = run(&topology, &table).expect("resolves");
    assert_eq!(
        path(&found.topology),
        "-video/h264 320x180-> second -video/rawvideo nv12 320x180-> effect -video/rawvideo nv12 320x180-> sink"
    );
    assert_eq!(found.topology.nodes().len(), 4);
    assert!(
        found
            .attempts
            .iter()
            .any(|attempt| attempt.asked == "first")
    );
    assert_eq!(
        run(&found.topology, &table).expect("resolves").topology,
        found.topology
    );
}

#[test]
fn g13_a_converter_is_asked_for_what_the_sink_names_and_keeps_the_rest() {
    let table = Table::new(|_| true)
        .with(Role::Decoder, "h264", |_| {
            Ok(vec![picture(PixelFormat::I420)])
        })
        .with(Role::Converter, "scale", |_| {
            Ok(vec![
                picture(PixelFormat::I420),
                picture(PixelFormat::Rgba8),
            ])
        });
    let mut topology = row(
        &[h264().with(&keys::FRAME_RATE, (25, 1))],
        &[],
        ConnectMethod::AllowDecoder,
    );
    let wanted = picture(PixelFormat::Rgba8).with(&keys::FRAME_SIZE, (640, 360));
    let sink = topology.node_mut(NodeId(2)).expect("is there");
    sink.prefer_input(0, wanted.clone())
        .expect("an output node has an input");
    let full = run(&topology, &table).expect("resolves").topology;
    let last = full
        .link_to(NodeId(2), 0)
        .expect("is linked")
        .media_type
        .clone()
        .expect("has a type");
    assert!(satisfies(&last, &wanted));
    assert_eq!(last.get(&keys::FRAME_RATE), Some((25, 1)));
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
    let sink = topology.node_mut(NodeId(2)).expect("is there");
    sink.prefer_input(
        0,
        picture(PixelFormat::Rgba8).with(&keys::FRAME_SIZE, (2000, 10)),
    )
    .expect("an output node has an input");
    let error = run(&topology, &table).expect_err("is refused");
    assert!(error.to_string().contains("too wide"), "{error}");
}

#[test]
fn two_converters_are_put_behind_each_other_where_one_does_not_do() {
    let table = Table::new(|t| t.subtype == Subtype::PCM_F32 && t.sample_rate() == Some(44_100))
        .with(Role::Converter, "rate", |t| {
            Ok(vec![MediaType::audio(t.subtype, 44_100, 2)])
        })
        .with(Role::Converter, "format", |t| {
            Ok(vec![MediaType::new(t.major, Subtype::PCM_F32)])
        });
    let full = run(
        &row(&[pcm(48_000)], &[], ConnectMethod::AllowConverter),
        &table,
    )
    .expect("resolves")
    .topology;
    assert_eq!(full.nodes().len(), 4);
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
}

#[test]
fn a_tee_feeds_each_branch_in_its_own_way() {
    let table = Table::new(|_| true).with(Role::Decoder, "aac", decode_aac);
    let mut topology = Topology::new();
    let source = topology.add_node(source(&[aac()]));
    let tee = topology.add_node(NodeKind::Tee);
    let coded = topology.add_node(NodeKind::output(ObjectRef::activation("archive"), 0));
    let raw = topology.add_node(NodeKind::output(ObjectRef::activation("sink"), 0));
    topology
        .node_mut(raw)
        .expect("is there")
        .prefer_input(0, MediaType::new(aac().major, Subtype::PCM_S16))
        .expect("an output node has an input");
    topology.connect(source, 0, tee, 0).expect("connects");
    topology.connect(tee, 0, coded, 0).expect("connects");
    topology.connect(tee, 1, raw, 0).expect("connects");
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(full.upstream(coded, 0), Some((tee, 0)));
    assert_eq!(full.upstream(raw, 0), Some((NodeId(5), 0)));
    assert_eq!(full.upstream(NodeId(5), 0), Some((tee, 1)));
    assert_eq!(run(&full, &table).expect("resolves").topology, full);
}

#[test]
fn failures_name_what_is_missing_and_what_was_tried() {
    let none = Table::new(|t| t.subtype.is_raw());
    let topology = row(&[h264()], &[], ConnectMethod::AllowDecoder);
    let error = run(&topology, &none).expect_err("no decoder");
    assert_eq!(error.kind(), &ErrorKind::NoComponent(h264()));
    assert_eq!(error.place().node.as_deref(), Some("2 sink"));

    let picky = Table::new(|t| t.subtype.is_raw()).with(Role::Decoder, "h264", |_| {
        Err(Error::unsupported_codec("h264", "profile 244"))
    });
    let error = run(&topology, &picky).expect_err("refused by the decoder");
    assert_eq!(
        error.to_string(),
        "codec h264 is not supported: profile 244 (node 2 sink); \
         direct 2 sink: video/h264 320x180 refused: video/h264 320x180 is refused: the sink does not take it; \
         decoder h264: video/h264 320x180 refused: codec h264 is not supported: profile 244"
    );

    let mut secret = row(
        &[h264().with(&keys::PROTECTED, true)],
        &[],
        ConnectMethod::AllowDecoder,
    );
    if let NodeKind::SourceStream {
        descriptor: Some(descriptor),
        ..
    } = &mut secret.node_mut(NodeId(1)).expect("is there").kind
    {
        let scheme = crate::media::Value::Text("cbcs".into());
        descriptor.streams[0]
            .attributes
            .set_named("protection_scheme", scheme);
    }
    assert_eq!(
        kind(run(&secret, &picky)),
        ErrorKind::Protected {
            scheme: "cbcs".into()
        }
    );

    let gone =
        Table::new(|t| t.subtype.is_raw()).with(Role::Decoder, "h264", |_| Err(Error::cancelled()));
    assert_eq!(kind(run(&topology, &gone)), ErrorKind::Cancelled);
}

#[test]
fn a_search_that_multiplies_gives_up() {
    let many: Answer = |t| {
        Ok((0..40)
            .map(|bits| t.clone().with(&keys::BITS, bits))
            .collect())
    };
    let table =
        Table::new(|_| false)
            .with(Role::Converter, "a", many)
            .with(Role::Converter, "b", many);
    let topology = row(
        &[pcm(48_000)],
        &["a", "b", "a", "b"],
        ConnectMethod::AllowConverter,
    );
    let error = run(&topology, &table).expect_err("gives up");
    assert!(error.to_string().contains("gave up"), "{error}");
}

#[test]
fn the_longest_branch_with_a_converter_everywhere_fits_the_stack() {
    // Each effect takes one format and gives the other, so a converter goes in front of each.
    let table = Table::new(|t| t.subtype == Subtype::PCM_S16)
        .with(Role::Transform, "effect", |t| match t.subtype {
            Subtype::PCM_F32 => Ok(vec![MediaType::audio(Subtype::PCM_S16, 48_000, 2)]),
            _ => Err(Error::invalid_type(t, "not float")),
        })
        .with(Role::Converter, "format", |t| {
            Ok(vec![MediaType::new(t.major, Subtype::PCM_F32)])
        });
    let topology = row(&[pcm(48_000)], &["effect"; 30], ConnectMethod::Direct);
    let full = run(&topology, &table).expect("resolves").topology;
    assert_eq!(full.nodes().len(), 62);
    assert_eq!(run(&full, &table).expect("resolves").topology, full);

    let table = Table::new(|_| true).with(Role::Transform, "same", |t| Ok(vec![t.clone()]));
    let mut longest = row(&[pcm(48_000)], &["same"; 126], ConnectMethod::Direct);
    assert!(run(&longest, &table).is_err());
    for id in 2..128 {
        let node = longest.node_mut(NodeId(id)).expect("is there");
        node.inserted = Some(Role::Converter);
    }
    run(&longest, &table).expect("resolves");
}
