//! Sample descriptions: `stsd` entries to media types.

use bytes::Bytes;
use portcullis_engine::{Error, MajorType, MediaType, Result, Subtype, keys};

use super::codec;
use super::data::{Data, FourCc, name};
use super::esds::{AudioConfig, ElementaryStream};
use super::protection::Protection;
use super::tables::Unit;

/// One entry of `stsd`.
#[derive(Clone, Debug)]
pub(super) struct SampleEntry {
    pub(super) media_type: MediaType,
    /// Set where the samples are encrypted.
    pub(super) protection: Option<Protection>,
    /// Set for sound whose samples may be single frames.
    pub(super) unit: Option<Unit>,
}

/// Sample descriptions of one track; real files have one to three.
const MOST_ENTRIES: u32 = 256;

/// Reads all entries of an `stsd` box for a track with this handler type.
pub(super) fn parse_all(mut stsd: Data, handler: FourCc) -> Result<Vec<SampleEntry>> {
    let (version, _) = stsd.version_and_flags()?;
    let at = stsd.position();
    let count = stsd.u32()?;
    if count > MOST_ENTRIES {
        return Err(
            Error::limit("sample descriptions", MOST_ENTRIES.into(), count.into())
                .because(format!("a list at byte {at}")),
        );
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let Some((kind, data)) = stsd.child()? else {
            return Err(Error::malformed(
                at,
                format!("{count} sample descriptions, {} are there", entries.len()),
            ));
        };
        entries.push(parse(kind, data, handler, version)?);
    }
    Ok(entries)
}

fn parse(kind: FourCc, mut data: Data, handler: FourCc, version: u8) -> Result<SampleEntry> {
    // Reserved, and the data reference index.
    data.skip(8)?;
    match &handler {
        b"vide" | b"pict" | b"auxv" => video(kind, data),
        b"soun" => audio(kind, data, version),
        b"sbtl" | b"subt" | b"text" | b"clcp" => Ok(plain(kind, data, MajorType::Subtitle)),
        _ => Ok(plain(kind, data, MajorType::Data)),
    }
}

fn plain(kind: FourCc, data: Data, major: MajorType) -> SampleEntry {
    let mut media_type =
        MediaType::new(major, codec::of_text(kind)).with(&keys::CODEC_TAG, name(kind));
    if kind == *b"tx3g" {
        media_type = media_type.with(&keys::PRIVATE_DATA, data.to_owned_bytes());
    }
    SampleEntry {
        media_type,
        protection: None,
        unit: None,
    }
}

fn video(kind: FourCc, mut data: Data) -> Result<SampleEntry> {
    data.skip(16)?;
    let (width, height) = (data.u16()?, data.u16()?);
    data.skip(14 + 32)?;
    let depth = data.u16()?;
    data.skip(2)?;
    let mut media_type = MediaType::video(codec::of_video(kind), width.into(), height.into())
        .with(&keys::CODEC_TAG, name(kind));
    if media_type.subtype == Subtype::RAW_VIDEO {
        media_type = media_type.with(&keys::BITS, u32::from(depth));
    }
    let mut protection = None;
    let mut boxes = data.clone();
    if kind == *b"encv" {
        (protection, media_type.subtype) = unprotect(&mut boxes, codec::of_video)?;
    }
    while let Some((kind, mut data)) = data.child()? {
        match &kind {
            b"avcC" => {
                codec::check_avcc(data.clone())?;
                media_type = with_profile(media_type, codec::h264_profile(data.bytes()))
                    .with(&keys::PRIVATE_DATA, data.to_owned_bytes());
            }
            b"hvcC" => {
                codec::check_hvcc(data.clone())?;
                media_type = with_profile(media_type, codec::hevc_profile(data.bytes()))
                    .with(&keys::PRIVATE_DATA, data.to_owned_bytes());
            }
            b"av1C" => {
                let profile = data.bytes().get(1).map(|byte| byte >> 5);
                media_type = with_profile(media_type, codec::av1_profile(profile))
                    .with(&keys::PRIVATE_DATA, data.to_owned_bytes());
            }
            b"vpcC" => {
                data.version_and_flags()?;
                let profile = data.u8()?;
                media_type = media_type
                    .with(&keys::PROFILE, format!("Profile {profile}"))
                    .with(&keys::PRIVATE_DATA, data.to_owned_bytes());
            }
            b"esds" => {
                let stream = ElementaryStream::parse(data)?;
                media_type = with_stream(media_type, &stream);
            }
            // Where these are too short the pictures are still there; what they say is left unsaid.
            b"pasp" => {
                if let (Ok(x @ 1..), Ok(y @ 1..)) = (data.u32(), data.u32()) {
                    media_type = media_type.with(&keys::PIXEL_ASPECT, (x, y));
                }
            }
            b"colr" => {
                if let Some([b'n', b'c', b'l', b'x', _, _, _, _, _, _, range]) =
                    data.bytes().first_chunk()
                    && range & 0x80 != 0
                {
                    media_type = media_type.with(&keys::FULL_RANGE, true);
                }
            }
            b"btrt" => media_type = with_average(media_type, data),
            _ => {}
        }
    }
    Ok(finish(media_type, protection, None))
}

/// What the fixed fields of a sound description say.
struct Sound {
    channels: u32,
    bits: u32,
    rate: u32,
    unit: Option<Unit>,
    /// `lpcm` flags of version 2.
    flags: Option<u32>,
}

fn sound(data: &mut Data, stsd_version: u8) -> Result<Sound> {
    let version = data.u16()?;
    data.skip(6)?;
    let (channels, bits) = (data.u16()?, data.u16()?);
    data.skip(4)?;
    let rate = data.u32()? >> 16;
    let mut sound = Sound {
        channels: channels.into(),
        bits: bits.into(),
        rate,
        unit: None,
        flags: None,
    };
    // ISO's own version 1 sits in a version 1 `stsd` and adds no fields; QuickTime's do.
    match version {
        1 if stsd_version == 0 => {
            let frames = data.u32()?;
            data.skip(4)?;
            let bytes = data.u32()?;
            data.skip(4)?;
            if frames > 0 && bytes > 0 {
                sound.unit = Some(Unit { frames, bytes });
            }
        }
        2 if stsd_version == 0 => {
            data.skip(4)?;
            let rate = f64::from_bits(data.u64()?);
            // `as` saturates; not-a-number gives 0.
            sound.rate = rate as u32;
            sound.channels = data.u32()?;
            data.skip(4)?;
            sound.bits = data.u32()?;
            sound.flags = Some(data.u32()?);
            let (bytes, frames) = (data.u32()?, data.u32()?);
            if frames > 0 && bytes > 0 {
                sound.unit = Some(Unit { frames, bytes });
            }
        }
        _ => {}
    }
    Ok(sound)
}

fn audio(kind: FourCc, mut data: Data, stsd_version: u8) -> Result<SampleEntry> {
    let at = data.position();
    let sound = sound(&mut data, stsd_version)?;
    if sound.channels > 1 << 16 {
        return Err(Error::malformed(at, format!("{} channels", sound.channels)));
    }
    let subtype = codec::of_audio(kind, sound.bits, sound.flags);
    let mut media_type =
        MediaType::audio(subtype, sound.rate, sound.channels).with(&keys::CODEC_TAG, name(kind));
    let mut protection = None;
    if kind == *b"enca" {
        let of_audio = |kind| codec::of_audio(kind, sound.bits, sound.flags);
        (protection, media_type.subtype) = unprotect(&mut data.clone(), of_audio)?;
    }
    // QuickTime keeps the boxes of a codec in a `wave` box, one level down; there is no deeper one.
    let mut inner = None;
    while let Some((kind, child)) = data.child()? {
        if kind == *b"wave" {
            inner.get_or_insert(child);
            continue;
        }
        media_type = audio_box(media_type, kind, child)?;
    }
    if let Some(mut wave) = inner {
        while let Some((kind, child)) = wave.child()? {
            // The terminator of `wave` is a box of type 0.
            if kind == [0; 4] {
                break;
            }
            media_type = audio_box(media_type, kind, child)?;
        }
    }
    let unit = match codec::pcm_bytes(media_type.subtype) {
        Some(bytes) => sound
            .channels
            .checked_mul(bytes)
            .filter(|bytes| *bytes > 0)
            .map(|bytes| Unit { frames: 1, bytes }),
        None => sound.unit,
    };
    Ok(finish(media_type, protection, unit))
}

/// Takes over what one box of a sound description says.
fn audio_box(media_type: MediaType, kind: FourCc, mut data: Data) -> Result<MediaType> {
    Ok(match &kind {
        b"esds" => {
            let stream = ElementaryStream::parse(data)?;
            let config = AudioConfig::parse(&stream.specific);
            let media_type = with_stream(media_type, &stream);
            match config.filter(|_| media_type.subtype == Subtype::AAC) {
                Some(config) => with_config(media_type, &config),
                None => media_type,
            }
        }
        b"dOps" => {
            let head = codec::opus_head(data.clone())?;
            let channels = u32::from(head[9]);
            media_type
                .with(&keys::CHANNELS, channels)
                .with(&keys::SAMPLE_RATE, 48_000_u32)
                .with(&keys::PRIVATE_DATA, head)
        }
        b"dfLa" => {
            let info = codec::flac_info(data)?;
            let word = u32::from_be_bytes([info[10], info[11], info[12], info[13]]);
            media_type
                .with(&keys::SAMPLE_RATE, word >> 12)
                .with(&keys::CHANNELS, (word >> 9 & 7) + 1)
                .with(&keys::BITS, (word >> 4 & 31) + 1)
                .with(&keys::PRIVATE_DATA, info)
        }
        b"alac" if media_type.subtype == Subtype::ALAC => {
            data.version_and_flags()?;
            let cookie = data.take(24)?.to_owned_bytes();
            media_type
                .with(&keys::BITS, u32::from(cookie[5]))
                .with(&keys::CHANNELS, u32::from(cookie[9]))
                .with(
                    &keys::SAMPLE_RATE,
                    u32::from_be_bytes([cookie[20], cookie[21], cookie[22], cookie[23]]),
                )
                .with(&keys::PRIVATE_DATA, cookie)
        }
        b"dac3" => {
            let [a, b, c] = data.array()?;
            let word = u32::from_be_bytes([0, a, b, c]);
            let channels = [2, 1, 2, 3, 3, 4, 4, 5][(word >> 11 & 7) as usize] + (word >> 10 & 1);
            media_type.with(&keys::CHANNELS, channels)
        }
        b"enda" => {
            let little = data.u16()? != 0;
            MediaType {
                subtype: codec::with_byte_order(media_type.subtype, little),
                ..media_type
            }
        }
        b"pcmC" => {
            data.version_and_flags()?;
            let (flags, bits) = (data.u8()?, data.u8()?);
            let is_float = media_type.subtype == codec::FLOAT_PCM;
            MediaType {
                subtype: codec::pcm(bits.into(), is_float, flags & 1 == 0, true),
                ..media_type
            }
        }
        b"btrt" => with_average(media_type, data),
        _ => media_type,
    })
}

/// Finds the `sinf` box of a protected entry: the protection and what the samples are without it.
fn unprotect(
    boxes: &mut Data,
    subtype: impl Fn(FourCc) -> Subtype,
) -> Result<(Option<Protection>, Subtype)> {
    while let Some((kind, data)) = boxes.child()? {
        if kind == *b"sinf" {
            let protection = Protection::parse(data)?;
            let original = protection
                .original
                .map_or(Subtype::named("encrypted"), subtype);
            return Ok((Some(protection), original));
        }
    }
    Err(boxes.malformed("an encrypted sample description without protection information"))
}

fn finish(
    mut media_type: MediaType,
    protection: Option<Protection>,
    unit: Option<Unit>,
) -> SampleEntry {
    if let Some(protection) = &protection {
        media_type = media_type.with(&keys::PROTECTED, true);
        if let Some(original) = protection.original {
            media_type = media_type.with(&keys::CODEC_TAG, name(original));
        }
    }
    SampleEntry {
        media_type,
        protection,
        unit,
    }
}

fn with_profile(media_type: MediaType, profile: Option<&str>) -> MediaType {
    match profile {
        Some(profile) => media_type.with(&keys::PROFILE, profile.to_owned()),
        None => media_type,
    }
}

/// Takes over the average of a `btrt` box.
fn with_average(media_type: MediaType, mut data: Data) -> MediaType {
    match data.skip(8).and_then(|()| data.u32()) {
        Ok(rate) => with_bit_rate(media_type, rate),
        Err(_) => media_type,
    }
}

fn with_bit_rate(media_type: MediaType, rate: u32) -> MediaType {
    if rate == 0 || media_type.get(&keys::BIT_RATE).is_some() {
        return media_type;
    }
    media_type.with(&keys::BIT_RATE, u64::from(rate))
}

fn with_stream(mut media_type: MediaType, stream: &ElementaryStream) -> MediaType {
    if let Some(subtype) = stream.subtype() {
        media_type.subtype = subtype;
    }
    if !stream.specific.is_empty() {
        media_type = media_type.with(&keys::PRIVATE_DATA, Bytes::clone(&stream.specific));
    }
    with_bit_rate(media_type, stream.bit_rate)
}

fn with_config(mut media_type: MediaType, config: &AudioConfig) -> MediaType {
    if let Some(rate) = config.sample_rate.filter(|rate| *rate > 0) {
        media_type = media_type.with(&keys::SAMPLE_RATE, rate);
    }
    if let Some(channels) = config.channels {
        media_type = media_type.with(&keys::CHANNELS, channels);
    }
    with_profile(media_type, config.profile())
}
