//! The `moov` box: what the whole file has in common, and its tracks.

use portcullis_engine::{ContentLimits, Error, Result};

use super::data::{Data, FourCc};
use super::edits::Edit;
use super::fragment::Defaults;
use super::protection::{self, IvSizes, KeyGroupRuns, KeyGroups};
use super::sample_entry::{self, SampleEntry};
use super::tables::{Cursor, Tables};

/// The content of `moov`.
#[derive(Debug, Default)]
pub(super) struct Movie {
    /// Units a second; 0 where the file does not say.
    pub(super) timescale: u32,
    /// Length by the movie header, in units of the movie.
    pub(super) duration: Option<u64>,
    pub(super) tracks: Vec<Track>,
    /// Whether fragments may follow.
    pub(super) is_fragmented: bool,
    /// Length with all fragments, in units of the movie.
    pub(super) fragment_duration: Option<u64>,
    /// The user data box, for tags.
    pub(super) user_data: Option<Data>,
}

/// One `trak` box.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) handler: FourCc,
    pub(super) timescale: u32,
    /// Length by the media header, in units of the track.
    pub(super) duration: Option<u64>,
    pub(super) language: Option<String>,
    /// Clockwise, in degrees.
    pub(super) rotation: u32,
    pub(super) entries: Vec<SampleEntry>,
    pub(super) tables: Tables,
    pub(super) edits: Vec<Edit>,
    pub(super) key_groups: Option<KeyGroups>,
    pub(super) fragment_defaults: Option<Defaults>,
    /// What is wrong with it, if something is: it then has no samples.
    pub(super) damage: Option<Error>,
}

/// Edits of one track; real lists have a handful.
const MOST_EDITS: u32 = 1 << 14;

impl Movie {
    /// Reads the content of a `moov` box; `len` is the input's length where it is known.
    pub(super) fn parse(mut moov: Data, limits: &ContentLimits, len: Option<u64>) -> Result<Self> {
        let at = moov.position();
        let mut movie = Self::default();
        let mut defaults = Vec::new();
        while let Some((kind, mut data)) = moov.child()? {
            match &kind {
                b"mvhd" => {
                    let (version, _) = data.version_and_flags()?;
                    data.skip(if version == 1 { 16 } else { 8 })?;
                    movie.timescale = data.u32()?;
                    movie.duration = duration(&mut data, version)?;
                }
                b"trak" => {
                    limits
                        .check_tracks(movie.tracks.len() as u64 + 1)
                        .map_err(|error| {
                            error.because(format!("a track at byte {}", data.position()))
                        })?;
                    movie.tracks.push(Track::parse(data, limits, len)?);
                }
                b"mvex" => {
                    movie.is_fragmented = true;
                    while let Some((kind, mut data)) = data.child()? {
                        match &kind {
                            b"mehd" => {
                                let (version, _) = data.version_and_flags()?;
                                let duration = data.unsigned(version == 1)?;
                                movie.fragment_duration = Some(duration).filter(|d| *d > 0);
                            }
                            b"trex" => {
                                limits.check_tracks(defaults.len() as u64 + 1)?;
                                defaults.push(track_defaults(data)?);
                            }
                            _ => {}
                        }
                    }
                }
                b"udta" => movie.user_data = Some(data),
                b"cmov" => {
                    let at = format!("compressed movie box at byte {}", data.position());
                    return Err(Error::unsupported_codec("cmov", at));
                }
                _ => {}
            }
        }
        if movie.tracks.is_empty() {
            return Err(Error::malformed(at, "a movie without tracks"));
        }
        movie.refuse_damage()?;
        for track in &mut movie.tracks {
            let found = defaults.iter().find(|(id, _)| *id == track.id);
            track.fragment_defaults = found.map(|(_, defaults)| *defaults);
        }
        Ok(movie)
    }
}

impl Movie {
    /// A damaged track is listed without samples, so that what is wrong with a track nobody plays does not keep the others from
    /// being played; the first track of pictures and the first of sound, and a file with nothing else, are what people play.
    fn refuse_damage(&mut self) -> Result<()> {
        let is_played = |track: &&Track| [*b"vide", *b"soun"].contains(&track.handler);
        let of = |handler: &FourCc| self.tracks.iter().position(|t| t.handler == *handler);
        let mut refused = [of(b"vide"), of(b"soun")].into_iter().flatten();
        let refused = refused
            .find(|index| self.tracks[*index].damage.is_some())
            .or_else(|| match self.tracks.iter().any(|t| is_played(&t)) {
                true => None,
                false => self.tracks.iter().position(|t| t.damage.is_some()),
            });
        match refused.and_then(|index| self.tracks[index].damage.take()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn track_defaults(mut data: Data) -> Result<(u32, Defaults)> {
    data.version_and_flags()?;
    let id = data.u32()?;
    let defaults = Defaults {
        description: data.u32()?,
        duration: data.u32()?,
        size: data.u32()?,
        flags: data.u32()?,
    };
    Ok((id, defaults))
}

impl Track {
    /// Damage is kept with the track; what is no fault of the content is an error.
    fn parse(trak: Data, limits: &ContentLimits, len: Option<u64>) -> Result<Self> {
        let mut track = Self {
            id: 0,
            handler: [0; 4],
            timescale: 0,
            duration: None,
            language: None,
            rotation: 0,
            entries: Vec::new(),
            tables: Tables::default(),
            edits: Vec::new(),
            key_groups: None,
            fragment_defaults: None,
            damage: None,
        };
        match track.read(trak, limits, len) {
            Err(error) if error.is_content() => {
                track.tables = Tables::default();
                track.edits = Vec::new();
                track.timescale = track.timescale.max(1);
                track.damage = Some(error);
            }
            other => other?,
        }
        Ok(track)
    }

    fn read(&mut self, mut trak: Data, limits: &ContentLimits, len: Option<u64>) -> Result<()> {
        let at = trak.position();
        while let Some((kind, mut data)) = trak.child()? {
            match &kind {
                b"tkhd" => self.read_header(data)?,
                b"edts" => {
                    while let Some((kind, data)) = data.child()? {
                        if kind == *b"elst" {
                            self.edits = edit_list(data)?;
                        }
                    }
                }
                b"mdia" => self.read_media(data, limits, len)?,
                _ => {}
            }
        }
        if self.timescale == 0 {
            return Err(Error::malformed(at, "a track without a media header"));
        }
        Ok(())
    }

    fn read_header(&mut self, mut data: Data) -> Result<()> {
        let (version, _) = data.version_and_flags()?;
        data.skip(if version == 1 { 16 } else { 8 })?;
        self.id = data.u32()?;
        data.skip(if version == 1 { 12 } else { 8 } + 16)?;
        let (a, b) = (data.i32()?, data.i32()?);
        // The matrix turns by the angle of (a, b); only quarter turns can be said in degrees.
        self.rotation = match (a.signum(), b.signum()) {
            (0, 1) => 90,
            (-1, 0) => 180,
            (0, -1) => 270,
            _ => 0,
        };
        Ok(())
    }

    fn read_media(&mut self, mdia: Data, limits: &ContentLimits, len: Option<u64>) -> Result<()> {
        // The handler decides how sample descriptions are read, wherever it stands.
        let mut header = None;
        let mut boxes = mdia.clone();
        while let Some((kind, mut data)) = boxes.child()? {
            match &kind {
                b"mdhd" => header = Some(data),
                b"hdlr" => {
                    data.skip(8)?;
                    self.handler = data.array()?;
                }
                _ => {}
            }
        }
        if let Some(header) = header {
            self.read_media_header(header)?;
        }
        let mut boxes = mdia;
        while let Some((kind, mut data)) = boxes.child()? {
            if kind != *b"minf" {
                continue;
            }
            while let Some((kind, data)) = data.child()? {
                if kind == *b"stbl" {
                    self.read_tables(data, limits, len)?;
                }
            }
        }
        Ok(())
    }

    fn read_media_header(&mut self, mut data: Data) -> Result<()> {
        let (version, _) = data.version_and_flags()?;
        data.skip(if version == 1 { 16 } else { 8 })?;
        let at = data.position();
        self.timescale = data.u32()?;
        if self.timescale == 0 {
            return Err(Error::malformed(at, "a track of 0 time units a second"));
        }
        self.duration = duration(&mut data, version)?;
        self.language = language(data.u16()?);
        Ok(())
    }

    fn read_tables(
        &mut self,
        mut stbl: Data,
        limits: &ContentLimits,
        len: Option<u64>,
    ) -> Result<()> {
        let at = stbl.position();
        let mut encryption = None;
        let mut key_group_runs = None;
        while let Some((kind, data)) = stbl.child()? {
            match &kind {
                b"stsd" => self.entries = sample_entry::parse_all(data, self.handler)?,
                b"sgpd" => self.key_groups = KeyGroups::parse(data)?.or(self.key_groups.take()),
                b"sbgp" => key_group_runs = KeyGroupRuns::parse(data)?.or(key_group_runs),
                b"senc" => encryption = Some(data),
                _ => self.tables.read(&kind, data)?,
            }
        }
        if self.handler == *b"soun" && self.tables.is_single_frames() {
            self.tables.unit = self.entries.first().and_then(|entry| entry.unit);
        }
        self.tables.check(at, limits, len)?;
        let protection = self.entries.first().and_then(|e| e.protection.as_ref());
        if let (Some(encryption), Some(protection)) = (encryption, protection) {
            let ivs = IvSizes {
                default: Some(protection.iv_size),
                track: self.key_groups.as_ref(),
                local: None,
                runs: key_group_runs,
            };
            let mut cursor = Cursor::default();
            let sizes = std::iter::from_fn(|| cursor.next(&self.tables).map(|entry| entry.size));
            let samples = u64::from(self.tables.count());
            protection::check_senc(encryption, &ivs, samples, sizes)?;
        }
        Ok(())
    }
}

/// A length in a header; all ones, or 0, where it is not known.
fn duration(data: &mut Data, version: u8) -> Result<Option<u64>> {
    let duration = data.unsigned(version == 1)?;
    let unknown = match version {
        1 => u64::MAX,
        _ => u64::from(u32::MAX),
    };
    Ok(Some(duration).filter(|duration| *duration != 0 && *duration != unknown))
}

fn edit_list(mut data: Data) -> Result<Vec<Edit>> {
    let (version, _) = data.version_and_flags()?;
    let at = data.position();
    let count = data.u32()?;
    let entry = if version == 1 { 20 } else { 12 };
    if (count as usize).saturating_mul(entry) > data.len() {
        return Err(Error::malformed(
            at,
            format!("{count} edits in {} bytes", data.len()),
        ));
    }
    if count > MOST_EDITS {
        return Err(Error::limit("edits", MOST_EDITS.into(), count.into())
            .because(format!("an edit list at byte {at}")));
    }
    let mut edits = Vec::new();
    for _ in 0..count {
        let duration = data.unsigned(version == 1)?;
        let media_time = if version == 1 {
            data.i64()?
        } else {
            data.i32()?.into()
        };
        data.skip(4)?;
        edits.push(Edit {
            duration,
            media_time,
        });
    }
    Ok(edits)
}

/// Three letters of 5 bits each; smaller values are QuickTime's own numbering, of which only English is common.
fn language(packed: u16) -> Option<String> {
    match packed {
        0 => Some("eng".to_owned()),
        0x400..0x7fff => {
            let letters = [packed >> 10 & 31, packed >> 5 & 31, packed & 31];
            let text: String = letters
                .iter()
                .filter_map(|letter| char::from_u32(u32::from(*letter) + 0x60))
                .collect();
            Some(text).filter(|text| text != "und" && text.bytes().all(|b| b.is_ascii_lowercase()))
        }
        _ => None,
    }
}
