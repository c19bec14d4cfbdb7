//! Opening: finds the movie box and makes the presentation from it.

use portcullis_engine::presentation::{Characteristics, stream_keys};
use portcullis_engine::{
    ByteSource, ContentLimits, Error, ErrorKind, MajorType, MediaTime, MediaType,
    PresentationDescriptor, Result, StreamDescriptor, StreamId, Subtype, TimeBase, Value, keys,
};

use super::codec;
use super::data::name;
use super::edits::{Timeline, fragment_shift, rescale};
use super::fragment::{TrackState, frame_rate};
use super::metadata::{Gapless, Metadata};
use super::movie::{Movie, Track};
use super::seek::composition_delay;
use super::source::Mp4Source;
use super::stream::{Place, Stream};
use super::top_level::{BoxHeader, TopLevel};
use crate::container::pictures;
use crate::container::reader::Reader;
use crate::video::describe::describe;

/// Frames a second of a rate that times of pictures are told in: more is the timescale's, not the pictures'.
const FASTEST_BASE: u32 = 240;
/// FFmpeg's short name of the format.
const FORMAT: &str = "mov,mp4,m4a,3gp,3g2,mj2";
/// Boxes before `moov` that are passed over: a flood of empty ones is an attack.
const MOST_BOXES: usize = 1 << 16;
/// Fragments of a seekable file that are looked through for the exact length of each stream, where the file says about how long it is,
const FEW_FRAGMENTS: usize = 64;
/// and where it does not.
const MANY_FRAGMENTS: usize = 1 << 14;

pub(super) fn open(input: Box<dyn ByteSource>, limits: ContentLimits) -> Result<Mp4Source> {
    let mut reader = Reader::new(input);
    let mut top_level = TopLevel::default();
    let header = find_movie(&mut reader, &mut top_level)?;
    let data = header.read(&mut reader, &limits)?;
    let mut movie = Movie::parse(data, &limits, reader.len())?;
    let metadata = movie.user_data.take().map(Metadata::parse);
    let metadata = metadata.unwrap_or_default();
    if header.end.is_none() {
        top_level = TopLevel::from(reader.position());
    }
    let mut descriptors = Vec::new();
    let mut streams = Vec::new();
    let mut states = Vec::new();
    for (index, track) in movie.tracks.iter().enumerate() {
        let (descriptor, stream) = stream(index as u32, track, &movie);
        descriptors.push(descriptor);
        streams.push(stream);
        states.push(TrackState {
            // No track has number 0: fragments of a damaged one are passed over.
            id: match track.damage {
                Some(_) => 0,
                None => track.id,
            },
            defaults: track.fragment_defaults,
            all_sync: track.handler == *b"soun",
            iv_sizes: track
                .entries
                .iter()
                .map(|entry| entry.protection.as_ref().map(|p| p.iv_size))
                .collect(),
            key_groups: track.key_groups.clone(),
            next_dts: track.tables.total_duration(),
            runs: std::collections::VecDeque::new(),
        });
    }
    if let Some(gapless) = metadata.gapless {
        trim(&mut streams, &descriptors, gapless);
    }
    let presentation = PresentationDescriptor {
        format: FORMAT.to_owned(),
        streams: descriptors,
        duration: None,
        characteristics: Characteristics {
            live: false,
            can_seek: reader.is_seekable(),
            can_pause: true,
        },
        attributes: portcullis_engine::Attributes::new(),
    };
    let mut source = Mp4Source::new(
        reader,
        limits,
        presentation,
        streams,
        states,
        movie.is_fragmented,
        top_level,
    );
    if movie.is_fragmented {
        find_fragments(&mut source, &movie)?;
    }
    set_duration(&mut source, &movie);
    set_starts(&mut source);
    add_metadata(&mut source, metadata);
    Ok(source)
}

/// Applies what iTunes says of the encoder's delay and padding to the only sound of a file without an edit list.
fn trim(streams: &mut [Stream], descriptors: &[StreamDescriptor], gapless: Gapless) {
    let sounds: Vec<usize> = (0..streams.len())
        .filter(|index| streams[*index].major == MajorType::Audio)
        .collect();
    let [only] = sounds[..] else {
        return;
    };
    let (stream, descriptor) = (&mut streams[only], &descriptors[only]);
    let is_aac = descriptor.media_type.subtype == Subtype::AAC;
    let end = i64::from(gapless.delay) + i64::from(gapless.frames);
    if let [segment] = &mut stream.timeline.segments[..]
        && segment.media_start == i64::MIN
        && is_aac
        && stream.sample_rate == stream.timescale
        && end <= stream.tables.total_duration()
    {
        stream.delay = gapless.delay.into();
        segment.media_end = end;
        stream.packet_duration = None;
    }
}

/// Walks to the `moov` box and answers its header; the reader stands at its content.
fn find_movie(reader: &mut Reader, top_level: &mut TopLevel) -> Result<BoxHeader> {
    let mut data_before = None;
    let mut first = None;
    for _ in 0..MOST_BOXES {
        let before = top_level.position();
        let header = match top_level.next(reader) {
            Ok(Some(header)) => header,
            Ok(None) => break,
            // Nothing but the start of the input says that it is of this format at all.
            Err(error) if first.is_none() && error.is_content() => {
                return Err(not_mp4("no box at its beginning").because(error.to_string()));
            }
            Err(error) if error.is_content() => {
                return Err(error.because("there is no movie box (moov) before"));
            }
            Err(error) => return Err(error),
        };
        if first.is_none() && !header.kind.iter().all(u8::is_ascii_graphic) {
            let kind = name(header.kind);
            return Err(not_mp4(format!("it begins with a box of type {kind}")));
        }
        first.get_or_insert(header.kind);
        match &header.kind {
            b"moov" => return Ok(header),
            b"moof" => {
                return Err(Error::malformed(
                    header.at,
                    "a fragment without an initialisation segment (moov) before it",
                ));
            }
            b"mdat" => {
                data_before = Some(before);
                if !reader.is_seekable() {
                    return Err(ErrorKind::NotSeekable {
                        what: "mp4 whose index (moov) lies behind its media data".into(),
                    }
                    .into());
                }
            }
            _ => {}
        }
    }
    let at = reader.len().unwrap_or(reader.position());
    Err(match (first, data_before) {
        (None, _) => not_mp4("the input is empty"),
        (_, Some(data)) => Error::truncated(
            at,
            format!("a file with media data at byte {data} and no movie box (moov)"),
        ),
        _ => Error::malformed(at, "no movie box (moov)"),
    })
}

fn not_mp4(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::UnsupportedByteStream { what: "mp4".into() }).because(why)
}

fn stream(index: u32, track: &Track, movie: &Movie) -> (StreamDescriptor, Stream) {
    let major = match &track.handler {
        b"vide" | b"pict" | b"auxv" => MajorType::Video,
        b"soun" => MajorType::Audio,
        b"sbtl" | b"subt" | b"text" | b"clcp" => MajorType::Subtitle,
        _ => MajorType::Data,
    };
    let mut media_type = match track.entries.first() {
        Some(entry) => entry.media_type.clone(),
        None => MediaType::new(major, Subtype::named("none")),
    };
    if track.entries.iter().any(|entry| entry.protection.is_some()) {
        media_type = media_type.with(&keys::PROTECTED, true);
    }
    if track.rotation != 0 && major == MajorType::Video {
        media_type = media_type.with(&keys::ROTATION, track.rotation);
    }
    let tables = &track.tables;
    let total = tables.total_duration();
    if major == MajorType::Video
        && let Some(rate) = frame_rate(tables.count(), track.timescale, total)
    {
        media_type = media_type.with(&keys::FRAME_RATE, rate);
    }
    // A timescale is never 0: the media header was refused then.
    let time_base = TimeBase::per_second(track.timescale).unwrap_or(TimeBase::TICKS);
    let (edits, timescale) = (&track.edits, track.timescale);
    let fragment_shift = fragment_shift(edits, timescale, movie.timescale);
    let timeline = if movie.is_fragmented {
        Timeline::shifted(tables, fragment_shift)
    } else {
        Timeline::resolve(edits, tables, major, timescale, movie.timescale)
    };
    let mut descriptor = StreamDescriptor::new(StreamId(index), media_type, time_base);
    describe(&mut descriptor);
    descriptor.language = track.language.clone();
    if let Some(damage) = &track.damage {
        descriptor.selected = false;
        let why = damage.to_string();
        descriptor.attributes.set(&stream_keys::DAMAGE, why);
    }
    descriptor.sample_count = Some(u64::from(tables.count())).filter(|count| *count > 0);
    descriptor
        .attributes
        .set_named("track_id", Value::Unsigned(track.id.into()));
    let protection = track.entries.iter().find_map(|e| e.protection.as_ref());
    if let Some(scheme) = protection.and_then(|protection| protection.scheme) {
        descriptor
            .attributes
            .set_named("protection_scheme", Value::Text(name(scheme).into()));
    }
    if let Some(key_id) = protection.and_then(|protection| protection.key_id) {
        let key_id = Value::Blob(key_id.to_vec().into());
        descriptor.attributes.set_named("default_kid", key_id);
    }
    // Samples may begin late, and what the media header says includes what an edit list cuts away.
    if major == MajorType::Video
        && let Some(units) = tables.common_duration()
        && let Some(rate) = frame_rate(1, timescale, units.into())
        && rate.0 / rate.1 <= FASTEST_BASE
        && descriptor.media_type.get(&keys::FRAME_RATE) != Some(rate)
    {
        descriptor
            .attributes
            .set(&stream_keys::BASE_FRAME_RATE, rate);
    }
    if let Some(rate) = bit_rate(&descriptor.media_type, track) {
        descriptor.media_type.attributes.set(&keys::BIT_RATE, rate);
    }
    let media = if total > 0 {
        Some(total)
    } else {
        track
            .duration
            .map(|units| i64::try_from(units).unwrap_or(i64::MAX))
    };
    let shown = match (media, timeline.duration) {
        (Some(media), Some(edited)) => Some(media.min(edited)),
        (media, edited) => media.or(edited),
    };
    if tables.count() > 0 {
        descriptor.duration = shown.map(|units| time_base.to_time(units));
    }
    let unit = track.entries.first().and_then(|entry| entry.unit);
    let subtype = descriptor.media_type.subtype;
    let stated = descriptor.media_type.sample_rate();
    let sample_rate = stated.filter(|rate| *rate > 0).unwrap_or(track.timescale);
    // Where no edit list says what the encoder put before the sound, the codec's own header may.
    let delay = match (subtype, descriptor.media_type.private_data()) {
        (Subtype::OPUS, Some(head)) if edits.is_empty() && track.timescale == 48_000 => {
            let pre_skip = head.get(10..).and_then(|rest| rest.first_chunk());
            pre_skip.map_or(0, |bytes| u16::from_le_bytes(*bytes).into())
        }
        _ => 0,
    };
    let stream = Stream {
        major,
        time_base,
        timescale: track.timescale,
        sample_rate,
        tables: tables.clone(),
        timeline,
        decode_shift: tables.decode_shift(),
        fragment_shift,
        composition_delay: 0,
        delay,
        pcm: unit.filter(|_| codec::pcm_bytes(subtype).is_some()),
        packet_duration: (codec::has_fixed_packets(subtype)
            && sample_rate == track.timescale
            && !movie.is_fragmented)
            .then(|| tables.usual_duration()),
        place: Place::default(),
        damage: track.damage.clone(),
    };
    (descriptor, stream)
}

/// Bits a second: what the samples have over the media's length. PCM has what it is; fragments have what their header says.
fn bit_rate(media_type: &MediaType, track: &Track) -> Option<u64> {
    if let Some(bytes) = codec::pcm_bytes(media_type.subtype) {
        let rate = u64::from(media_type.sample_rate()?);
        let channels = u64::from(media_type.channels()?);
        return rate
            .checked_mul(channels)?
            .checked_mul(u64::from(bytes) * 8);
    }
    let total = u64::try_from(track.tables.total_duration()).unwrap_or(0);
    let units = track.duration.unwrap_or(total);
    rate_of(track.tables.total_bytes(), units, track.timescale, 0)
}

/// Bits a second of so many bytes in `units` of `timescale` a second; `half` of the units rounds to the nearest.
fn rate_of(bytes: u64, units: u64, timescale: u32, half: u64) -> Option<u64> {
    let bits = u128::from(bytes) * 8;
    let scaled = bits * u128::from(timescale) + u128::from(half);
    let rate = scaled.checked_div(units.into())?;
    u64::try_from(rate).ok().filter(|rate| *rate > 0)
}

/// Reads the first fragment, so that a file whose fragments are broken from the start is refused, and finds the length.
fn find_fragments(source: &mut Mp4Source, movie: &Movie) -> Result<()> {
    let has_tables = source
        .streams
        .iter()
        .any(|stream| stream.tables.count() > 0);
    let first = if has_tables {
        false
    } else {
        source.next_fragment()?
    };
    for (stream, descriptor) in source
        .streams
        .iter_mut()
        .zip(&mut source.presentation.streams)
    {
        let track = &source.fragments[descriptor.id.0 as usize];
        if stream.major == MajorType::Video {
            stream.composition_delay = composition_delay(&track.runs);
        }
        if stream.major == MajorType::Video
            && let Some(rate) = track
                .runs
                .front()
                .and_then(|run| run.frame_rate(stream.timescale))
        {
            descriptor
                .media_type
                .attributes
                .set(&keys::FRAME_RATE, rate);
        }
        // The movie's length is a bound, not each stream's own.
        if let (Some(duration), None) = (movie.fragment_duration, descriptor.duration) {
            let units = rescale(duration, stream.timescale, movie.timescale);
            descriptor.duration = Some(stream.time_base.to_time(units));
        }
    }
    if !source.reader.is_seekable() || !(first || has_tables) {
        return Ok(());
    }
    let starts = source.first_decode_times();
    source.look_through(match movie.fragment_duration {
        Some(_) => FEW_FRAGMENTS,
        None => MANY_FRAGMENTS,
    })?;
    for (index, stream) in source.streams.iter_mut().enumerate() {
        if stream.major == MajorType::Video {
            let found = source.index.composition_delay(index);
            stream.composition_delay = stream.composition_delay.max(found);
        }
    }
    let streams = source.presentation.streams.iter_mut().enumerate();
    for (index, descriptor) in streams.filter(|_| source.index.ends().is_some()) {
        let stream = &source.streams[index];
        let (bytes, units) = source.index.totals(index);
        let bytes = bytes.saturating_add(stream.tables.total_bytes());
        let units = units.saturating_add(stream.tables.total_duration());
        let is_pcm = codec::pcm_bytes(descriptor.media_type.subtype).is_some();
        // Rounded here, but not for tables: so has FFmpeg it.
        let half = units.unsigned_abs() / 2;
        if !is_pcm && let Some(rate) = rate_of(bytes, units.unsigned_abs(), stream.timescale, half)
        {
            descriptor.media_type.attributes.set(&keys::BIT_RATE, rate);
        }
    }
    let ends = match source.index.ends() {
        Some(ends) => Some(ends.to_vec()),
        None if movie.fragment_duration.is_none() => source.ends_from_behind()?,
        None => None,
    };
    let Some(ends) = ends else {
        return Ok(());
    };
    for (index, descriptor) in source.presentation.streams.iter_mut().enumerate() {
        let stream = &source.streams[index];
        if let Some(start) = starts[index] {
            // Sound is trimmed at its beginning; pictures that are shown late are only decoded early.
            let start = match stream.major {
                MajorType::Audio => start.max(stream.fragment_shift.1),
                _ => start,
            };
            let shown = ends[index].saturating_sub(start);
            descriptor.duration = Some(stream.time_base.to_time(shown)).filter(|d| d.ticks() > 0);
        }
    }
    Ok(())
}

/// The length of the presentation: up to the end of the stream that ends last, or what the movie header says where that is near.
fn set_duration(source: &mut Mp4Source, movie: &Movie) {
    let firsts = source.first_times();
    let streams = firsts.into_iter().zip(&source.presentation.streams);
    let ends = streams.filter_map(|(first, descriptor)| {
        let start = descriptor.time_base.to_time(first.unwrap_or(0).max(0));
        descriptor.duration.map(|duration| start + duration)
    });
    let end = ends.max();
    source.presentation.duration = end;
    if let (Some(end), Some(units), Some(base), false) = (
        end,
        movie.duration,
        TimeBase::per_second(movie.timescale),
        movie.is_fragmented,
    ) {
        let stated = base.to_time(i64::try_from(units).unwrap_or(i64::MAX));
        let apart = (stated - end).ticks().unsigned_abs();
        if apart <= MediaTime::TICKS_PER_SECOND.unsigned_abs() {
            source.presentation.duration = Some(stated);
        }
    }
}

/// When each stream begins, where the tables or the first fragment say.
fn set_starts(source: &mut Mp4Source) {
    let firsts = source.first_times();
    for (first, descriptor) in firsts.into_iter().zip(&mut source.presentation.streams) {
        descriptor.start_time = first.map(|units| descriptor.time_base.to_time(units));
    }
}

/// Tags become attributes; cover pictures become streams of one sample, which are not selected.
fn add_metadata(source: &mut Mp4Source, metadata: Metadata) {
    for (tag, text) in metadata.tags {
        source
            .presentation
            .attributes
            .set_named(tag, Value::Text(text.into()));
    }
    for (descriptor, sample) in pictures::streams(&metadata.covers) {
        let count = source.presentation.streams.len() as u64;
        if source.limits.check_tracks(count + 1).is_err() {
            break;
        }
        source.add_picture(descriptor, sample);
    }
}
