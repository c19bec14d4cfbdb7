//! H.264: `rusty_h264`, access unit by access unit, in presentation order.
//!
//! The library decodes one access unit and answers pictures in decoding order without saying how far a stream reorders
//! them; it trusts parameter sets with its memory, and after an error its reference pictures are not to be trusted.
//! So this file reads the heads itself: it refuses what the library cannot do by name, checks sizes before anything is
//! allocated, reorders, and after damage waits for a picture at which decoding can start.

mod facts;
mod nal;
mod reorder;
mod sps;

use std::collections::BTreeMap;

use portcullis_engine::{
    Component, ComponentInfo, ContentLimits, Error, ErrorKind, MediaTime, MediaType, Output,
    Payload, PixelFormat, Registry, Result, Sample, Subtype, Transform,
};
use rusty_h264::{DecodeError, Decoder, YuvFrame};
use serde::{Deserialize, Serialize};

pub(super) use self::facts::facts;
use self::nal::{
    Avcc, Framing, Pps, SliceHead, for_each_nal, has_recovery_point, payload, split_start_codes,
};
use self::reorder::Reorder;
use self::sps::Sps;
use super::guard::guarded;
use super::picture::{Extra, PictureWriter, Plane, Shape, accept};

const CODEC: &str = "h264";

/// Bytes of a slice that its head can take.
const HEAD_BYTES: usize = 64;

/// Macroblocks that the slices of one picture may cover together, beside those of the picture itself. A slice of ten
/// bytes can make the library walk a whole picture; honest streams do not come near this.
const SLICE_WORK: u64 = 16 << 20;

pub(crate) fn register(registry: &mut Registry) {
    registry.transform::<H264>();
}

/// There is nothing to set.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct H264Settings {}

/// Decodes progressive 8-bit 4:2:0 H.264 (Baseline without slice groups, Main, High).
///
/// Everything else in the standard is refused as `UnsupportedCodec` with the feature's name: interlaced coding, more bits,
/// other chroma formats, slice groups, data partitioning.
///
/// Known flaw of the library: pictures that consist of uncompressed (`I_PCM`) macroblocks come out wrong.
pub struct H264 {
    decoder: Decoder,
    framing: Framing,
    sps: ParameterSets<Sps>,
    pps: ParameterSets<Pps>,
    /// Whether the reference pictures are whole.
    sync: Sync,
    /// The library still holds an incomplete picture and will report it once more when the next one starts.
    displaces: bool,
    last_reference_frame_num: u32,
    incomplete: bool,
    reorder: Reorder<Decoded>,
    writer: PictureWriter,
    scratch: Vec<u8>,
}

/// Parameter sets by id, each with its NAL unit: a decoder that is made anew gets it again. One that asks for what no
/// decoder has is kept as the refusal: a stream may carry it without using it.
type ParameterSets<T> = BTreeMap<u32, (Result<T>, Vec<u8>)>;

/// Bytes of the largest parameter set: the standard's largest lists take less.
const MAX_PARAMETER_SET: usize = 4096;

/// Whether pictures can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// A picture at which decoding can start is needed; `fresh` right after the start, a seek or a flush.
    Waiting { fresh: bool },
    /// Decoding started at a picture that is no IDR: those before it in presentation order refer to what was not decoded.
    /// After a seek they are no loss, since they lie before the position.
    Since { start: MediaTime, fresh: bool },
    /// Everything is there.
    Whole,
}

struct Decoded {
    frame: YuvFrame,
    /// The display window: left, top, width, height.
    window: (u32, u32, u32, u32),
    extra: Extra,
    header: Sample,
}

/// What the heads of an access unit's NAL units say.
#[derive(Clone, Copy, Debug, Default)]
struct AccessUnit {
    sps: u32,
    macroblocks: u64,
    slices: u64,
    pictures: u32,
    idr: bool,
    reference: bool,
    all_intra: bool,
    recovery_point: bool,
    frame_num: u32,
}

impl Component for H264 {
    type Settings = H264Settings;
    const INFO: ComponentInfo =
        ComponentInfo::decoder("video.h264", "Decodes progressive 8-bit 4:2:0 H.264")
            .accepts(&[Subtype::H264])
            .produces(&[Subtype::RAW_VIDEO]);

    fn new(_: H264Settings) -> Result<Self> {
        Ok(Self {
            decoder: Decoder::new(),
            framing: Framing::StartCode,
            sps: BTreeMap::new(),
            pps: BTreeMap::new(),
            sync: Sync::Waiting { fresh: true },
            displaces: false,
            last_reference_frame_num: 0,
            incomplete: false,
            reorder: Reorder::default(),
            writer: PictureWriter::new(CODEC),
            scratch: Vec::new(),
        })
    }
}

impl std::fmt::Debug for H264 {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("H264")
            .field("framing", &self.framing)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

impl Transform for H264 {
    fn set_input(&mut self, input: &MediaType) -> Result<Vec<MediaType>> {
        accept(input, Subtype::H264)?;
        self.sps.clear();
        self.pps.clear();
        self.framing = Framing::StartCode;
        if let Some(private) = input.private_data().filter(|data| !data.is_empty()) {
            if private[0] == 1 {
                let avcc = Avcc::parse(&private)?;
                self.framing = avcc.framing;
                for set in avcc.sps.iter().chain(&avcc.pps) {
                    split_start_codes(set, &mut |set| self.take_parameter_set(set))?;
                }
            } else {
                for_each_nal(&private, Framing::StartCode, |set| {
                    self.take_parameter_set(set)
                })?;
            }
        }
        self.restart(true);
        let (shape, extra) = match self.sps.values().find_map(|(sps, _)| sps.as_ref().ok()) {
            Some(sps) => (shape(sps.width, sps.height), sps.extra),
            None => {
                let (width, height) = input.frame_size().unwrap_or_default();
                (shape(width, height), Extra::default())
            }
        };
        Ok(vec![self.writer.set_input(input, shape, &extra)])
    }

    fn set_output(&mut self, output: &MediaType) -> Result<()> {
        self.writer.set_output(output)
    }

    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let decoded = self.decode(input, output);
        // What is ready goes out even when this sample was damaged.
        self.put_out(output)?;
        decoded
    }

    fn drain(&mut self, output: &mut Output) -> Result<()> {
        self.reorder.end_epoch();
        self.put_out(output)
    }

    fn flush(&mut self) {
        self.reorder.clear();
        self.restart(true);
    }
}

impl H264 {
    fn decode(&mut self, input: Sample, output: &Output) -> Result<()> {
        output.limits().check_sample(input.len() as u64)?;
        let bytes = input.payload.to_bytes();
        let header = Sample {
            payload: Payload::default(),
            ..input
        };
        let undecodable = |what: String| Error::undecodable(CODEC, header.time, what);

        let mut unit = AccessUnit {
            all_intra: true,
            ..AccessUnit::default()
        };
        let damage = match self.read_heads(&bytes, &header, output.limits(), &mut unit) {
            Ok(damage) => damage,
            Err(error) => {
                // What nothing refers to costs nothing else.
                if unit.reference || unit.slices == 0 {
                    self.lose();
                }
                return Err(error);
            }
        };
        let damaged = || damage.map_or(Ok(()), |what| Err(undecodable(what.into())));
        if unit.slices == 0 {
            return damaged();
        }
        if !self.may_decode(&unit, &header) {
            return match self.sync {
                Sync::Since { fresh: true, .. } => Ok(()),
                _ => Err(undecodable(
                    "skipped: the picture refers to others that are missing".into(),
                )),
            };
        }
        if unit.idr {
            self.reorder.end_epoch();
        }
        let complete = self.references_complete(&unit);
        let picture = self.call();
        match picture {
            Ok(Some(frame)) => {
                let order = self.decoder.last_poc();
                let mut header = header.clone();
                header.flags.corrupt |= !complete;
                self.keep(frame, order, &unit, header);
                if unit.reference {
                    self.last_reference_frame_num = unit.frame_num;
                }
                damaged()
            }
            Ok(None) => {
                self.lose_picture(&unit);
                Err(undecodable("slices are missing".into()))
            }
            Err(Failure::Unsupported(what)) => {
                self.lose();
                Err(Error::unsupported_codec(CODEC, what))
            }
            Err(Failure::Damaged(what)) => {
                self.lose_picture(&unit);
                Err(undecodable(what))
            }
            Err(Failure::Panicked(what)) => {
                self.lose();
                Err(undecodable(what))
            }
        }
    }

    /// Reads the heads of all NAL units and copies those that the library needs into `scratch`.
    fn read_heads(
        &mut self,
        bytes: &[u8],
        header: &Sample,
        limits: &ContentLimits,
        unit: &mut AccessUnit,
    ) -> Result<Option<&'static str>> {
        let mut damaged = false;
        self.scratch.clear();
        let mut scratch = std::mem::take(&mut self.scratch);
        let whole = for_each_nal(bytes, self.framing, |nal| {
            let wanted = match nal[0] & 0x1f {
                1 | 5 => self.read_slice(nal, header, limits, unit)?,
                2..=4 => return Err(Error::unsupported_codec(CODEC, "data partitioning")),
                6 => {
                    unit.recovery_point |= has_recovery_point(&payload(nal, 1024));
                    false
                }
                7 | 8 => match self.take_parameter_set(nal) {
                    Ok(()) => true,
                    Err(error) => {
                        // A refusal is said with the first picture that needs the set.
                        damaged |= !is_refusal(&error);
                        false
                    }
                },
                // Delimiters, filler, auxiliary pictures and the layers of extensions.
                _ => false,
            };
            if wanted {
                scratch.extend_from_slice(&[0, 0, 1]);
                scratch.extend_from_slice(nal);
            }
            Ok(())
        });
        self.scratch = scratch;
        let damage = match whole? {
            false => Some("a NAL unit is longer than the sample"),
            true if damaged => Some("a parameter set is damaged"),
            true => None,
        };
        Ok(damage)
    }

    /// Whether the slice is for the library.
    fn read_slice(
        &self,
        nal: &[u8],
        header: &Sample,
        limits: &ContentLimits,
        unit: &mut AccessUnit,
    ) -> Result<bool> {
        let undecodable = |what: &'static str| Error::undecodable(CODEC, header.time, what);
        let rbsp = payload(nal, HEAD_BYTES);
        let idr = nal[0] & 0x1f == 5;
        unit.slices += 1;
        unit.reference |= nal[0] & 0x60 != 0;
        let pps_id = SliceHead::pps_id(&rbsp).ok_or_else(|| undecodable("a slice ends early"))?;
        let missing = || undecodable("a parameter set is missing");
        let pps = self.pps.get(&pps_id).ok_or_else(missing)?;
        let pps = pps.0.as_ref().map_err(Error::clone)?;
        let sps = self.sps.get(&pps.sps).ok_or_else(missing)?;
        let sps = sps.0.as_ref().map_err(Error::clone)?;
        let head = SliceHead::parse(&rbsp, idr, pps, sps)
            .ok_or_else(|| undecodable("a slice ends early"))?;
        if head.redundant {
            unit.slices -= 1;
            return Ok(false);
        }
        if head.first_mb == 0 {
            unit.pictures += 1;
            if unit.pictures > 1 {
                return Err(undecodable("a second picture in one sample"));
            }
            // The library allocates when it sees this slice.
            let (width, height) = sps.coded_size();
            limits.check_picture(width, height)?;
            unit.sps = sps.id;
            unit.macroblocks = sps.macroblocks();
            unit.idr = idr;
            unit.frame_num = head.frame_num;
        }
        if unit.pictures == 0 {
            return Err(undecodable("the picture's first slice is missing"));
        }
        unit.all_intra &= head.intra;
        if (unit.slices - 1).saturating_mul(unit.macroblocks.max(1)) > SLICE_WORK {
            return Err(undecodable("too many slices"));
        }
        Ok(true)
    }

    fn take_parameter_set(&mut self, nal: &[u8]) -> Result<()> {
        if nal.len() > MAX_PARAMETER_SET {
            return Err(Error::malformed(
                0,
                "a parameter set of more than 4096 bytes",
            ));
        }
        let rbsp = payload(nal, MAX_PARAMETER_SET);
        match nal.first().map(|head| head & 0x1f) {
            Some(7) => keep_set(&mut self.sps, Sps::id(&rbsp), Sps::parse(&rbsp), nal),
            Some(8) => keep_set(&mut self.pps, Pps::id(&rbsp), Pps::parse(&rbsp), nal),
            _ => Ok(()),
        }
    }

    /// Decides by what was lost before whether the access unit can be decoded, and where decoding starts again.
    fn may_decode(&mut self, unit: &AccessUnit, header: &Sample) -> bool {
        if unit.idr {
            self.resume(Sync::Whole);
            return true;
        }
        match self.sync {
            Sync::Whole => true,
            Sync::Since { start, .. } => header.time >= start,
            Sync::Waiting { fresh }
                if unit.all_intra && (unit.recovery_point || header.flags.key) =>
            {
                self.resume(Sync::Since {
                    start: header.time,
                    fresh,
                });
                true
            }
            Sync::Waiting { .. } => false,
        }
    }

    /// Whether no reference picture is missing since decoding started; a gap in the frame numbers tells of one that never
    /// arrived. The library takes others instead, so what follows up to the next start is marked as damaged.
    fn references_complete(&mut self, unit: &AccessUnit) -> bool {
        let Some(sps) = self.active_sps(unit) else {
            return false;
        };
        let next = (self.last_reference_frame_num + 1) % (1 << sps.log2_max_frame_num);
        // 0 and 1 also follow a marking operation that starts the count again.
        let follows = unit.frame_num <= 1
            || unit.frame_num == self.last_reference_frame_num
            || unit.frame_num == next;
        if unit.idr {
            self.incomplete = false;
        } else if self.sync == Sync::Whole && !follows && !sps.gaps_allowed {
            self.incomplete = true;
        }
        !self.incomplete
    }

    fn resume(&mut self, sync: Sync) {
        if matches!(self.sync, Sync::Waiting { .. }) {
            self.renew();
        }
        self.sync = sync;
    }

    fn call(&mut self) -> Result<Option<YuvFrame>, Failure> {
        let mut answer = self.call_once();
        if self.displaces && matches!(answer, Err(Failure::Damaged(_))) {
            // The library reports the incomplete picture before this one, and has forgotten it by now.
            answer = self.call_once();
        }
        self.displaces = false;
        answer
    }

    fn call_once(&mut self) -> Result<Option<YuvFrame>, Failure> {
        let (decoder, unit) = (&mut self.decoder, &self.scratch);
        match guarded(|| decoder.decode(unit)) {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(DecodeError::Unsupported(what))) if is_feature(what) => {
                Err(Failure::Unsupported(what))
            }
            Ok(Err(error)) => Err(Failure::Damaged(error.to_string())),
            Err(panic) => Err(Failure::Panicked(panic)),
        }
    }

    fn active_sps(&self, unit: &AccessUnit) -> Option<&Sps> {
        self.sps.get(&unit.sps)?.0.as_ref().ok()
    }

    fn keep(&mut self, frame: YuvFrame, order: i32, unit: &AccessUnit, header: Sample) {
        let Some(sps) = self.active_sps(unit) else {
            return;
        };
        let decoded = Decoded {
            frame,
            window: (sps.left, sps.top, sps.width, sps.height),
            extra: sps.extra,
            header,
        };
        let depth = sps.reorder_depth;
        self.reorder.push(order, decoded, depth);
    }

    /// A damaged picture that others may refer to makes everything up to the next start undecodable.
    fn lose_picture(&mut self, unit: &AccessUnit) {
        if unit.reference || unit.pictures == 0 {
            self.lose();
        } else {
            self.displaces = true;
        }
    }

    fn lose(&mut self) {
        self.reorder.end_epoch();
        self.sync = Sync::Waiting { fresh: false };
    }

    fn restart(&mut self, fresh: bool) {
        self.renew();
        self.sync = Sync::Waiting { fresh };
    }

    /// A decoder without pictures that knows the parameter sets.
    fn renew(&mut self) {
        self.decoder = Decoder::new();
        self.displaces = false;
        self.incomplete = false;
        let mut sets = Vec::new();
        for nal in good_sets(&self.sps).chain(good_sets(&self.pps)) {
            sets.extend_from_slice(&[0, 0, 1]);
            sets.extend_from_slice(nal);
        }
        // What the library refuses of them it refuses again, with the picture that needs it.
        let decoder = &mut self.decoder;
        let _ = guarded(|| decoder.decode(&sets));
    }

    fn put_out(&mut self, output: &mut Output) -> Result<()> {
        while let Some(picture) = self.reorder.pop() {
            let (left, top, width, height) = picture.window;
            let (left, top) = (left as usize, top as usize);
            let frame = &picture.frame;
            // The library crops on the right and at the bottom only.
            let plane = |bytes: &'_ [u8], stride: usize, skip: usize| -> Option<(usize, usize)> {
                (skip <= bytes.len()).then_some((skip, stride))
            };
            let chroma = frame.width / 2;
            let luma = plane(&frame.y, frame.width, top * frame.width + left);
            let blue = plane(&frame.u, chroma, top / 2 * chroma + left / 2);
            let (Some((luma_at, _)), Some((chroma_at, _))) = (luma, blue) else {
                return Err(Error::undecodable(
                    CODEC,
                    picture.header.time,
                    "the decoded picture is short",
                ));
            };
            let planes = [
                Plane {
                    bytes: &frame.y[luma_at..],
                    stride: frame.width,
                },
                Plane {
                    bytes: &frame.u[chroma_at..],
                    stride: chroma,
                },
                Plane {
                    bytes: frame.v.get(chroma_at..).unwrap_or_default(),
                    stride: chroma,
                },
            ];
            self.writer.push(
                picture.header,
                shape(width, height),
                &picture.extra,
                &planes,
                output,
            )?;
        }
        Ok(())
    }
}

/// Keeps a set that is good, and the refusal of one that no decoder can use. Damage leaves the set before in place.
fn keep_set<T>(
    sets: &mut ParameterSets<T>,
    id: Option<u32>,
    parsed: Result<T>,
    nal: &[u8],
) -> Result<()> {
    match (parsed, id) {
        (Ok(set), Some(id)) => {
            sets.insert(id, (Ok(set), nal.to_vec()));
            Ok(())
        }
        (Err(error), Some(id)) if is_refusal(&error) => {
            sets.insert(id, (Err(error.clone()), nal.to_vec()));
            Err(error)
        }
        (Err(error), _) => Err(error),
        (Ok(_), None) => Err(Error::malformed(0, "a parameter set without an id")),
    }
}

fn good_sets<T>(sets: &ParameterSets<T>) -> impl Iterator<Item = &Vec<u8>> {
    sets.values()
        .filter_map(|(set, nal)| set.is_ok().then_some(nal))
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnsupportedCodec { .. })
}

/// How a call into the library failed.
enum Failure {
    Unsupported(&'static str),
    Damaged(String),
    Panicked(String),
}

/// Whether the library's refusal names a coding tool; it uses the same variant for values out of range.
fn is_feature(what: &str) -> bool {
    ["interlace", "weighted prediction", "SP/SI", "lossless"]
        .iter()
        .any(|feature| what.contains(feature))
}

const fn shape(width: u32, height: u32) -> Shape {
    Shape {
        format: PixelFormat::I420,
        width,
        height,
    }
}
