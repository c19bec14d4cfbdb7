//! The sample tables of a track, kept as they are in the file, and a cursor that walks them.
//!
//! Run-length tables stay run-length and every table is a slice of what the box really holds, so a table never costs more
//! memory than its bytes in the file, whatever count it claims.

use bytes::Bytes;
use portcullis_engine::{ContentLimits, Error, Result};

use super::data::Data;

/// A table of fixed-size entries as the file has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    bytes: Bytes,
    entry: usize,
}

impl Table {
    /// Reads an entry count and that many entries of `entry` bytes.
    pub(super) fn parse(data: &mut Data, entry: usize) -> Result<Self> {
        let count = data.u32()?;
        Self::counted(data, count, entry)
    }

    /// Reads `count` entries of `entry` bytes.
    pub(super) fn counted(data: &mut Data, count: u32, entry: usize) -> Result<Self> {
        let at = data.position();
        let have = data.len();
        let Some(len) = (count as usize).checked_mul(entry).filter(|n| *n <= have) else {
            return Err(Error::malformed(
                at,
                format!("a table of {count} entries of {entry} bytes in {have} bytes"),
            ));
        };
        Ok(Self {
            bytes: data.take(len)?.to_owned_bytes(),
            entry,
        })
    }

    pub(super) fn len(&self) -> u32 {
        (self.bytes.len().checked_div(self.entry).unwrap_or(0)) as u32
    }

    /// The 32-bit word at byte `offset` of an entry.
    pub(super) fn word(&self, index: u32, offset: usize) -> Option<u32> {
        let at = (index as usize)
            .checked_mul(self.entry)?
            .checked_add(offset)?;
        let word = self.bytes.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*word))
    }

    fn byte(&self, index: usize) -> Option<u8> {
        self.bytes.get(index).copied()
    }
}

/// Sample sizes.
#[derive(Clone, Debug)]
enum Sizes {
    /// All alike.
    Fixed { size: u32, count: u32 },
    /// 32 bits each.
    Words(Table),
    /// `stz2`: 4, 8 or 16 bits each.
    Compact { bits: u8, table: Table, count: u32 },
}

impl Default for Sizes {
    fn default() -> Self {
        Self::Fixed { size: 0, count: 0 }
    }
}

impl Sizes {
    fn count(&self) -> u32 {
        match self {
            Self::Fixed { count, .. } | Self::Compact { count, .. } => *count,
            Self::Words(table) => table.len(),
        }
    }

    fn get(&self, index: u32) -> u32 {
        let at = index as usize;
        match self {
            Self::Fixed { size, .. } => *size,
            Self::Words(table) => table.word(index, 0).unwrap_or(0),
            Self::Compact { bits, table, .. } => u32::from(match bits {
                4 if at.is_multiple_of(2) => u16::from(table.byte(at / 2).unwrap_or(0) >> 4),
                4 => u16::from(table.byte(at / 2).unwrap_or(0) & 15),
                8 => u16::from(table.byte(at).unwrap_or(0)),
                _ => u16::from_be_bytes([
                    table.byte(at * 2).unwrap_or(0),
                    table.byte(at * 2 + 1).unwrap_or(0),
                ]),
            }),
        }
    }
}

/// How uncompressed sound, whose samples are single frames, is delivered: in packets of whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Frames of a unit: 1 for PCM.
    pub(super) frames: u32,
    /// Bytes of a unit, all channels.
    pub(super) bytes: u32,
}

/// Frames that a packet of uncompressed sound has at most.
const PACKET_FRAMES: u32 = 1024;

/// The sample tables of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    durations: Table,
    composition: Option<Table>,
    chunks: Table,
    offsets: Table,
    sizes: Sizes,
    sync: Option<Table>,
    /// Set where the samples are single frames of sound.
    pub(super) unit: Option<Unit>,
}

impl Tables {
    /// Reads one child of `stbl`; other boxes are left alone.
    pub(super) fn read(&mut self, kind: &[u8; 4], mut data: Data) -> Result<()> {
        match kind {
            b"stts" | b"ctts" | b"stsc" | b"stco" | b"co64" | b"stss" => {
                data.version_and_flags()?;
            }
            b"stsz" | b"stz2" => return self.read_sizes(kind, data),
            _ => return Ok(()),
        }
        match kind {
            b"stts" => self.durations = Table::parse(&mut data, 8)?,
            b"ctts" => self.composition = Some(Table::parse(&mut data, 8)?),
            b"stsc" => {
                let at = data.position();
                self.chunks = Table::parse(&mut data, 12)?;
                self.check_chunks(at)?;
            }
            b"stco" => self.offsets = Table::parse(&mut data, 4)?,
            b"co64" => self.offsets = Table::parse(&mut data, 8)?,
            _ => self.sync = Some(Table::parse(&mut data, 4)?),
        }
        Ok(())
    }

    fn read_sizes(&mut self, kind: &[u8; 4], mut data: Data) -> Result<()> {
        data.version_and_flags()?;
        let size = data.u32()?;
        let at = data.position();
        let count = data.u32()?;
        self.sizes = if kind == b"stz2" {
            let bits = (size & 0xff) as u8;
            let bytes = match bits {
                4 => count.div_ceil(2),
                8 => count,
                16 => count
                    .checked_mul(2)
                    .ok_or_else(|| Error::malformed(at, format!("{count} sample sizes")))?,
                _ => {
                    return Err(Error::malformed(
                        at - 1,
                        format!("sample sizes of {bits} bits"),
                    ));
                }
            };
            Sizes::Compact {
                bits,
                table: Table::counted(&mut data, bytes, 1)?,
                count,
            }
        } else if size == 0 {
            Sizes::Words(Table::counted(&mut data, count, 4)?)
        } else {
            Sizes::Fixed { size, count }
        };
        Ok(())
    }

    /// The runs of chunks must begin at the first chunk and go forward.
    fn check_chunks(&self, at: u64) -> Result<()> {
        let mut before = 0;
        for run in 0..self.chunks.len() {
            let first = self.chunks.word(run, 0).unwrap_or(0);
            let samples = self.chunks.word(run, 4).unwrap_or(0);
            let here = at + 4 + u64::from(run) * 12;
            if first <= before || (run == 0 && first != 1) {
                return Err(Error::malformed(
                    here,
                    format!("chunk run {run} begins with chunk {first}"),
                ));
            }
            if samples == 0 {
                return Err(Error::malformed(here + 4, "chunks of no samples"));
            }
            before = first;
        }
        Ok(())
    }

    /// What can only be checked once all tables are read: `at` is the position of the `stbl` box.
    pub(super) fn check(
        &mut self,
        at: u64,
        limits: &ContentLimits,
        len: Option<u64>,
    ) -> Result<()> {
        let count = self.sizes.count();
        if count == 0 {
            return Ok(());
        }
        let chunks = self.offsets.len();
        if let Some(last) = self.chunks.len().checked_sub(1)
            && let Some(first) = self.chunks.word(last, 0)
            && first > chunks
        {
            return Err(Error::malformed(
                at,
                format!("a run of chunks begins with chunk {first} of {chunks}"),
            ));
        }
        if self.chunks.len() == 0 || chunks == 0 || self.durations.len() == 0 {
            return Err(Error::malformed(
                at,
                format!("{count} samples without a table of chunks or times"),
            ));
        }
        if let Sizes::Fixed { size, count } = &mut self.sizes {
            limits
                .check_sample(u64::from(*size))
                .map_err(|error| error.because(format!("in the tables at byte {at}")))?;
            if let Some(len) = len {
                let most = len / u64::from(*size);
                if most == 0 {
                    return Err(Error::malformed(
                        at,
                        format!("samples of {size} bytes in an input of {len}"),
                    ));
                }
                // What lies behind the end is not walked sample by sample; one more than fits, so that the loss shows.
                *count = (*count).min(u32::try_from(most + 1).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }

    /// How many samples there are.
    pub(super) fn count(&self) -> u32 {
        self.sizes.count()
    }

    /// Whether all sizes are alike, so that nothing in the file bounds how many there are.
    pub(super) fn is_uniform(&self) -> bool {
        matches!(self.sizes, Sizes::Fixed { .. })
    }

    /// The length that most samples have.
    pub(super) fn usual_duration(&self) -> u32 {
        let runs = (0..self.durations.len()).filter_map(|run| {
            let count = self.durations.word(run, 0)?;
            Some((count, self.durations.word(run, 4)?))
        });
        runs.max_by_key(|(count, _)| *count)
            .map_or(0, |(_, duration)| duration)
    }

    /// Whether all samples are one time unit long: single frames of sound.
    pub(super) fn is_single_frames(&self) -> bool {
        let mut runs = (0..self.durations.len()).map(|run| self.durations.word(run, 4));
        self.durations.len() > 0 && runs.all(|duration| duration == Some(1))
    }

    /// The sum of all sample durations.
    pub(super) fn total_duration(&self) -> i64 {
        let mut left = u64::from(self.count());
        let mut total = 0_i64;
        for run in 0..self.durations.len() {
            let samples = u64::from(self.durations.word(run, 0).unwrap_or(0)).min(left);
            let each = i64::from(self.durations.word(run, 4).unwrap_or(0));
            total = total.saturating_add(each.saturating_mul(samples as i64));
            left -= samples;
        }
        total
    }

    /// The greatest length of which every sample's is a multiple; the last one's, which says how long it is shown, does not count.
    pub(super) fn common_duration(&self) -> Option<u32> {
        let last = self.durations.len().checked_sub(1)?;
        let runs = (0..=last).filter(|run| {
            *run == 0 || *run != last || self.durations.word(*run, 0).is_some_and(|n| n > 1)
        });
        let units = runs.fold(0, |units, run| {
            let (mut a, mut b) = (units, self.durations.word(run, 4).unwrap_or(0));
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        });
        (units > 0).then_some(units)
    }

    /// The sum of all sample sizes.
    pub(super) fn total_bytes(&self) -> u64 {
        if let Some(unit) = self.unit {
            let units = u64::from(self.count() / unit.frames.max(1));
            return units.saturating_mul(unit.bytes.into());
        }
        match &self.sizes {
            Sizes::Fixed { size, count } => u64::from(*size) * u64::from(*count),
            sizes => (0..sizes.count()).map(|i| u64::from(sizes.get(i))).sum(),
        }
    }

    /// How far decode times must lie before what `stts` says so that none is later than its presentation time.
    pub(super) fn decode_shift(&self) -> i64 {
        let Some(table) = &self.composition else {
            return 0;
        };
        (0..table.len())
            .filter_map(|run| table.word(run, 4))
            .map(|offset| -i64::from(offset as i32))
            // An offset of more than 2^28 units is a damaged entry, not reordering.
            .filter(|shift| *shift < 1 << 28)
            .max()
            .unwrap_or(0)
            .max(0)
    }

    /// Whether composition offsets are there: samples may be reordered.
    pub(super) fn has_composition(&self) -> bool {
        self.composition.is_some()
    }

    fn offset(&self, chunk: u32) -> Option<u64> {
        let high = self.offsets.word(chunk, 0)?;
        if self.offsets.entry == 4 {
            return Some(u64::from(high));
        }
        let low = self.offsets.word(chunk, 4)?;
        Some(u64::from(high) << 32 | u64::from(low))
    }
}

/// One sample (or packet of single frames) as the tables describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Number of the (first) sample, from 0.
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Decode time in units of the track.
    pub(super) dts: i64,
    /// Presentation time in units of the track, before any edit list.
    pub(super) cts: i64,
    pub(super) duration: i64,
    pub(super) key: bool,
    /// Number of the sample description, from 1.
    pub(super) description: u32,
}

/// A place in the sample tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    index: u32,
    dts: i64,
    durations: (u32, u32),
    composition: (u32, u32),
    chunk_run: u32,
    /// Number of the chunk, from 0, and how many of its samples were passed.
    chunk: u32,
    in_chunk: u32,
    in_chunk_bytes: u64,
    sync: u32,
}

impl Cursor {
    /// Number of the sample that comes next.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The next sample, or `None` at the end of the tables.
    pub(super) fn next(&mut self, tables: &Tables) -> Option<Entry> {
        if self.index >= tables.count() {
            return None;
        }
        let per_chunk = self.enter_chunk(tables)?;
        let index = self.index;
        let offset = tables
            .offset(self.chunk)?
            .saturating_add(self.in_chunk_bytes);
        let description = tables.chunks.word(self.chunk_run, 8).unwrap_or(1);
        let dts = self.dts;

        if let Some(unit) = tables.unit {
            let left = (per_chunk - self.in_chunk).min(tables.count() - index);
            let frames = (PACKET_FRAMES / unit.frames.max(1) * unit.frames)
                .max(unit.frames)
                .min(left);
            let bytes = u64::from(frames.div_ceil(unit.frames.max(1))) * u64::from(unit.bytes);
            self.index += frames;
            self.in_chunk += frames;
            self.in_chunk_bytes = self.in_chunk_bytes.saturating_add(bytes);
            self.dts = self.dts.saturating_add(i64::from(frames));
            return Some(Entry {
                index,
                offset,
                size: bytes,
                dts,
                cts: dts,
                duration: i64::from(frames),
                key: true,
                description,
            });
        }

        let size = u64::from(tables.sizes.get(index));
        let duration = i64::from(run_value(&tables.durations, &mut self.durations, true));
        let shift = match &tables.composition {
            Some(table) => i64::from(run_value(table, &mut self.composition, false) as i32),
            None => 0,
        };
        let key = self.is_sync(tables, index);
        self.index += 1;
        self.in_chunk += 1;
        self.in_chunk_bytes = self.in_chunk_bytes.saturating_add(size);
        self.dts = self.dts.saturating_add(duration);
        Some(Entry {
            index,
            offset,
            size,
            dts,
            cts: dts.saturating_add(shift),
            duration,
            key,
            description,
        })
    }

    /// Goes to the chunk of the next sample and answers how many samples it has.
    fn enter_chunk(&mut self, tables: &Tables) -> Option<u32> {
        loop {
            let next_run = tables.chunks.word(self.chunk_run + 1, 0);
            if next_run.is_some_and(|first| self.chunk + 1 >= first) {
                self.chunk_run += 1;
                continue;
            }
            let per_chunk = tables.chunks.word(self.chunk_run, 4)?;
            if self.in_chunk < per_chunk {
                return Some(per_chunk);
            }
            self.chunk = self.chunk.checked_add(1)?;
            self.in_chunk = 0;
            self.in_chunk_bytes = 0;
            if self.chunk >= tables.offsets.len() {
                return None;
            }
        }
    }

    fn is_sync(&mut self, tables: &Tables, index: u32) -> bool {
        let Some(table) = &tables.sync else {
            return true;
        };
        while let Some(sample) = table.word(self.sync, 0) {
            if sample > index {
                return sample == index + 1;
            }
            self.sync += 1;
        }
        false
    }
}

/// The value of the run that `place` (run, samples passed of it) is in; goes one sample forward. Behind the table's end the
/// last value stays where `sticky`, else it is 0.
fn run_value(table: &Table, place: &mut (u32, u32), sticky: bool) -> u32 {
    while let Some(count) = table.word(place.0, 0) {
        if place.1 < count {
            place.1 += 1;
            return table.word(place.0, 4).unwrap_or(0);
        }
        *place = (place.0 + 1, 0);
    }
    match table.len().checked_sub(1) {
        Some(last) if sticky => table.word(last, 4).unwrap_or(0),
        _ => 0,
    }
}
