//! H.264: `rusty_h264`, access unit by access unit, in presentation order.
//!
//! The library decodes one access unit and answers pictures in decoding order without saying how far a stream reorders
//! them; it trusts parameter sets with its memory, and after an error its reference pictures are not to be trusted.
//! So this file reads the heads itself: it refuses what the library cannot do by name, checks sizes before anything is
//! allocated, reorders, and after damage waits for a picture at which decoding can start.

mod nal;
mod reorder;
mod sps;

use std::collections::BTreeMap;

use portcullis_engine::{
    Component, ComponentInfo, ContentLimits, Error, MediaTime, MediaType, Output, Payload,
    PixelFormat, Registry, Result, Sample, Subtype, Transform,
};
use rusty_h264::{DecodeError, Decoder, YuvFrame};
use serde::{Deserialize, Serialize};

use self::nal::{
    Avcc, Framing, Pps, SliceHead, for_each_nal, has_recovery_point, payload, split_start_codes,
};
use self::reorder::Reorder;
use self::sps::Sps;
use super::guard::guarded;
use super::picture::{Extra, PictureWriter, Plane, Shape};

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
pub struct H264 {
    decoder: Decoder,
    framing: Framing,
    /// Parameter sets with their NAL units: a decoder that is made anew gets them again.
    sps: BTreeMap<u32, (Sps, Vec<u8>)>,
    pps: BTreeMap<u32, (Pps, Vec<u8>)>,
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
        if input.subtype != Subtype::H264 {
            return Err(Error::invalid_type(input, "not H.264"));
        }
        self.sps.clear();
        self.pps.clear();
        self.framing = Framing::StartCode;
        // The limits of the session are not known yet; they are checked before the first picture.
        let limits = ContentLimits {
            max_pixels: u64::MAX,
            ..ContentLimits::default()
        };
        if let Some(private) = input.private_data().filter(|data| !data.is_empty()) {
            if private[0] == 1 {
                let avcc = Avcc::parse(&private)?;
                self.framing = avcc.framing;
                for set in avcc.sps.iter().chain(&avcc.pps) {
                    split_start_codes(set, &mut |set| self.take_parameter_set(set, &limits))?;
                }
            } else {
                for_each_nal(&private, Framing::StartCode, |set| {
                    self.take_parameter_set(set, &limits)
                })?;
            }
        }
        self.restart(true);
        let (shape, extra) = match self.sps.values().next() {
            Some((sps, _)) => (shape(sps.width, sps.height), sps.extra),
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

        let unit = self.read_heads(&bytes, &header, output.limits());
        let (unit, whole) = match unit {
            Ok(found) => found,
            Err(error) => {
                self.lose();
                return Err(error);
            }
        };
        if unit.pictures == 0 && unit.slices == 0 {
            return if whole {
                Ok(())
            } else {
                Err(undecodable("a NAL unit is longer than the sample".into()))
            };
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
                if whole {
                    Ok(())
                } else {
                    Err(undecodable("a NAL unit is longer than the sample".into()))
                }
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
    ) -> Result<(AccessUnit, bool)> {
        let mut unit = AccessUnit {
            all_intra: true,
            ..AccessUnit::default()
        };
        self.scratch.clear();
        let mut scratch = std::mem::take(&mut self.scratch);
        let whole = for_each_nal(bytes, self.framing, |nal| {
            let wanted = match nal[0] & 0x1f {
                1 | 5 => self.read_slice(nal, header, &mut unit)?,
                2..=4 => return Err(Error::unsupported_codec(CODEC, "data partitioning")),
                6 => {
                    unit.recovery_point |= has_recovery_point(&payload(nal, 1024));
                    false
                }
                7 | 8 => {
                    self.take_parameter_set(nal, limits)?;
                    true
                }
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
        if let Some((sps, _)) = self.sps.get(&unit.sps)
            && unit.slices > 0
        {
            let (width, height) = sps.coded_size();
            limits.check_picture(width, height)?;
        }
        Ok((unit, whole?))
    }

    /// Whether the slice is for the library.
    fn read_slice(&self, nal: &[u8], header: &Sample, unit: &mut AccessUnit) -> Result<bool> {
        let undecodable = |what: &'static str| Error::undecodable(CODEC, header.time, what);
        let rbsp = payload(nal, HEAD_BYTES);
        let idr = nal[0] & 0x1f == 5;
        let pps_id = SliceHead::pps_id(&rbsp).ok_or_else(|| undecodable("a slice ends early"))?;
        let (pps, sps) = self
            .pps
            .get(&pps_id)
            .and_then(|(pps, _)| Some((pps, &self.sps.get(&pps.sps)?.0)))
            .ok_or_else(|| undecodable("a parameter set is missing"))?;
        let head = SliceHead::parse(&rbsp, idr, pps, sps)
            .ok_or_else(|| undecodable("a slice ends early"))?;
        if head.redundant {
            return Ok(false);
        }
        if head.first_mb == 0 {
            unit.pictures += 1;
            if unit.pictures > 1 {
                return Err(undecodable("a second picture in one sample"));
            }
            unit.sps = sps.id;
            unit.macroblocks = sps.macroblocks();
            unit.idr = idr;
            unit.reference = nal[0] & 0x60 != 0;
            unit.frame_num = head.frame_num;
        }
        unit.all_intra &= head.intra;
        unit.slices += 1;
        if (unit.slices - 1).saturating_mul(unit.macroblocks.max(1)) > SLICE_WORK {
            return Err(undecodable("too many slices"));
        }
        Ok(true)
    }

    fn take_parameter_set(&mut self, nal: &[u8], limits: &ContentLimits) -> Result<()> {
        match nal.first().map(|head| head & 0x1f) {
            Some(7) => {
                let sps = Sps::parse(&payload(nal, usize::MAX))?;
                let (width, height) = sps.coded_size();
                limits.check_picture(width, height)?;
                self.sps.insert(sps.id, (sps, nal.to_vec()));
            }
            Some(8) => {
                let pps = Pps::parse(&payload(nal, usize::MAX))?;
                self.pps.insert(pps.id, (pps, nal.to_vec()));
            }
            _ => {}
        }
        Ok(())
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
        let Some((sps, _)) = self.sps.get(&unit.sps) else {
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

    fn keep(&mut self, frame: YuvFrame, order: i32, unit: &AccessUnit, header: Sample) {
        let Some((sps, _)) = self.sps.get(&unit.sps) else {
            return;
        };
        let decoded = Decoded {
            frame,
            window: (sps.left, sps.top, sps.width, sps.height),
            extra: sps.extra,
            header,
        };
        self.reorder.push(order, decoded, sps.reorder_depth);
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
        let known = self
            .sps
            .values()
            .map(|(_, nal)| nal)
            .chain(self.pps.values().map(|(_, nal)| nal));
        for nal in known {
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
