//! The items of an answer on the wire: small samples in runs, everything else one by one.
//!
//! Field by field a small sample costs more to write and read than to copy, and each payload an allocation of its own where
//! it arrives. A run is one string of bytes: for each sample a record of fixed size and its payload. On arrival the run
//! is copied once into private memory, of which the payloads are slices; a run is small, so that a single sample that
//! somebody keeps holds little else.

use std::fmt;

use bytes::Bytes;
use portcullis_engine::media::{Attributes, SampleFlags};
use portcullis_engine::{MediaTime, Payload, Sample};
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserializer, Serialize, Serializer};

use super::FlowItem;

/// Payload bytes of a sample that may go into a run. Larger ones are not dominated by what they cost besides their bytes.
const SMALL: usize = 1 << 10;
/// Bytes of a run at most.
const RUN: usize = 16 << 10;
/// Bytes of a sample's record: presentation time, duration, decode time (each eight bytes), payload length, marks.
const RECORD: usize = 32;

const KEY: u32 = 1;
const DISCONTINUITY: u32 = 1 << 1;
const PREROLL: u32 = 1 << 2;
const CORRUPT: u32 = 1 << 3;
const HAS_DECODE_TIME: u32 = 1 << 4;

/// Samples of a run, or one item of any kind.
enum Part<'a> {
    Run(&'a [FlowItem]),
    Item(&'a FlowItem),
}

pub(super) fn serialize<S: Serializer>(
    items: &[FlowItem],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let parts = parts(items);
    let mut list = serializer.serialize_seq(Some(parts.len()))?;
    for part in parts {
        list.serialize_element(&part)?;
    }
    list.end()
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<FlowItem>, D::Error> {
    struct Parts;
    impl<'de> Visitor<'de> for Parts {
        type Value = Vec<FlowItem>;
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("runs of samples and other items")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while list.next_element_seed(PartInto(&mut items))?.is_some() {}
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Parts)
}

fn parts(items: &[FlowItem]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = items;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |item: &&FlowItem| match packed_len(item) {
            Some(len) => {
                bytes += len;
                bytes <= RUN
            }
            None => false,
        };
        let run = rest.iter().take_while(fits).count();
        if run == 0 {
            parts.push(Part::Item(first));
            rest = &rest[1..];
        } else {
            parts.push(Part::Run(&rest[..run]));
            rest = &rest[run..];
        }
    }
    parts
}

/// Bytes that an item takes in a run, if it may be in one.
fn packed_len(item: &FlowItem) -> Option<usize> {
    match item {
        FlowItem::Sample(Sample {
            payload: Payload::Bytes(bytes),
            attributes,
            ..
        }) if attributes.is_empty() && bytes.len() <= SMALL => Some(RECORD + bytes.len()),
        _ => None,
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Run(items) => (true, Run(items)).serialize(serializer),
            Self::Item(item) => (false, item).serialize(serializer),
        }
    }
}

struct Run<'a>(&'a [FlowItem]);

impl Serialize for Run<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut run = Vec::with_capacity(RUN);
        for item in self.0 {
            if let FlowItem::Sample(sample) = item {
                pack(sample, &mut run);
            }
        }
        serializer.serialize_bytes(&run)
    }
}

fn pack(sample: &Sample, run: &mut Vec<u8>) {
    let Sample {
        time,
        decode_time,
        duration,
        flags:
            SampleFlags {
                key,
                discontinuity,
                preroll,
                corrupt,
            },
        payload: Payload::Bytes(payload),
        // None: else it would not be here.
        attributes: _,
    } = sample
    else {
        return;
    };
    let mark = |is_set: bool, mark| if is_set { mark } else { 0 };
    let marks = mark(*key, KEY)
        | mark(*discontinuity, DISCONTINUITY)
        | mark(*preroll, PREROLL)
        | mark(*corrupt, CORRUPT)
        | mark(decode_time.is_some(), HAS_DECODE_TIME);
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&time.ticks().to_le_bytes());
    record[8..16].copy_from_slice(&duration.ticks().to_le_bytes());
    let decode_time = decode_time.unwrap_or_default();
    record[16..24].copy_from_slice(&decode_time.ticks().to_le_bytes());
    record[24..28].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    record[28..].copy_from_slice(&marks.to_le_bytes());
    run.extend_from_slice(&record);
    run.extend_from_slice(payload);
}

/// Reads a part and appends what it holds.
struct PartInto<'a>(&'a mut Vec<FlowItem>);

impl<'de> DeserializeSeed<'de> for PartInto<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for PartInto<'_> {
    type Value = ();
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a run of samples or an item")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut part: A) -> Result<(), A::Error> {
        let missing = || A::Error::custom("a part that ends early");
        if part.next_element()?.ok_or_else(missing)? {
            return part.next_element_seed(RunInto(self.0))?.ok_or_else(missing);
        }
        self.0.push(part.next_element()?.ok_or_else(missing)?);
        Ok(())
    }
}

/// Reads a run and appends its samples.
struct RunInto<'a>(&'a mut Vec<FlowItem>);

impl<'de> DeserializeSeed<'de> for RunInto<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for RunInto<'_> {
    type Value = ();
    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a run of samples")
    }
    fn visit_bytes<E: Error>(self, run: &[u8]) -> Result<(), E> {
        unpack(run, self.0).map_err(E::custom)
    }
}

fn unpack(run: &[u8], items: &mut Vec<FlowItem>) -> Result<(), String> {
    if run.len() > RUN {
        return Err(format!("a run of {} bytes", run.len()));
    }
    let run = Bytes::copy_from_slice(run);
    let mut at = 0;
    while at < run.len() {
        let Some(record) = run[at..].first_chunk::<RECORD>() else {
            return Err("a run that ends inside a sample".into());
        };
        let ticks = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&record[from..from + 8]);
            MediaTime::from_ticks(i64::from_le_bytes(word))
        };
        let half = |from: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&record[from..from + 4]);
            u32::from_le_bytes(word)
        };
        let (len, marks) = (half(24) as usize, half(28));
        if marks > (HAS_DECODE_TIME << 1) - 1 {
            return Err(format!("a sample with marks {marks:#x}"));
        }
        at += RECORD;
        let payload = match at.checked_add(len) {
            Some(end) if end <= run.len() => run.slice(at..end),
            _ => return Err("a run that ends inside a payload".into()),
        };
        at += len;
        let is = |mark| marks & mark != 0;
        items.push(FlowItem::Sample(Sample {
            time: ticks(0),
            decode_time: is(HAS_DECODE_TIME).then(|| ticks(16)),
            duration: ticks(8),
            flags: SampleFlags {
                key: is(KEY),
                discontinuity: is(DISCONTINUITY),
                preroll: is(PREROLL),
                corrupt: is(CORRUPT),
            },
            payload: Payload::Bytes(payload),
            attributes: Attributes::new(),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_engine::Error;
    use portcullis_engine::media::{Key, Value};

    use super::super::{Epoch, Pulled};
    use super::*;

    fn sample(number: i64, len: usize) -> Sample {
        let time = MediaTime::from_ticks(number);
        let mut sample = Sample::new(time, MediaTime::from_ticks(7), vec![number as u8; len]);
        sample.decode_time = (number % 3 == 0).then(|| MediaTime::from_ticks(-number));
        sample.flags = SampleFlags {
            key: number % 2 == 0,
            discontinuity: number % 5 == 0,
            preroll: number % 7 == 0,
            corrupt: number % 11 == 0,
        };
        sample
    }

    fn crossed(items: Vec<FlowItem>) -> Vec<FlowItem> {
        let epoch = Epoch(3);
        let body = postcard::to_allocvec(&Pulled { items, epoch }).expect("is written");
        let pulled: Pulled = postcard::from_bytes(&body).expect("is read");
        assert_eq!(pulled.epoch, epoch);
        pulled.items
    }

    #[test]
    fn whatever_is_between_them_items_arrive_as_they_were_and_in_order() {
        let mut tagged = sample(2, 10);
        tagged.attributes.set(&Key::<u64>::new("trim_start"), 9);
        tagged.attributes.set_named("text", Value::Text("a".into()));
        let mut items: Vec<_> = (0..300).map(|n| FlowItem::Sample(sample(n, 188))).collect();
        items.insert(40, FlowItem::Sample(tagged));
        items.insert(90, FlowItem::Sample(sample(1, SMALL + 1)));
        items.insert(91, FlowItem::Error(Error::cancelled()));
        items.insert(95, FlowItem::Sample(sample(1, SMALL)));
        items.insert(200, FlowItem::Sample(sample(1, 0)));
        items.push(FlowItem::End);
        assert_eq!(crossed(items.clone()), items);
        assert_eq!(crossed(Vec::new()), []);
    }

    #[test]
    fn a_run_is_held_to_its_length() {
        let mut run = Vec::new();
        pack(&sample(1, 20), &mut run);
        pack(&sample(2, 30), &mut run);
        let mut items = Vec::new();
        unpack(&run, &mut items).expect("is whole");
        assert_eq!(items.len(), 2);
        for len in (1..run.len()).filter(|len| *len != RECORD + 20) {
            assert!(unpack(&run[..len], &mut items).is_err(), "{len}");
        }
        assert!(unpack(&[0; RUN + RECORD], &mut items).is_err());
        let mut long = run.clone();
        long[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&long, &mut items).is_err());
        run[28] = 1 << 5;
        assert!(unpack(&run, &mut items).is_err());
    }
}
