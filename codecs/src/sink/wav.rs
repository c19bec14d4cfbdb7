//! Writes PCM into a WAV file.
//!
//! The head reserves a `JUNK` chunk; a file that grows past 4 GiB becomes RF64 by turning it into `ds64`, so nothing has
//! to move. Sizes are patched when the session closes: a file of a session that died says 4 GiB, which readers take as
//! "to the end".

use portcullis_engine::component::ByteSink;
use portcullis_engine::{
    Component, ComponentInfo, Error, MediaSink, MediaType, Registry, Result, Sample, Subtype,
};
use serde::{Deserialize, Serialize};

use super::file::OutputFile;

pub(crate) fn register(registry: &mut Registry) {
    registry.sink::<WavSink>();
}

/// Where the file goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WavSettings {
    /// The URL or path of the file.
    pub url: String,
}

/// Writes one stream of 16, 24 or 32-bit integer or 32-bit float PCM.
#[derive(Debug)]
pub struct WavSink {
    file: OutputFile,
    format: Option<Format>,
    data: u64,
    finalized: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    float: bool,
    bits: u16,
    channels: u16,
    rate: u32,
}

/// Where the head's parts lie.
const DS64_AT: u64 = 12;
const DS64_SIZE: u32 = 28;

impl Component for WavSink {
    type Settings = WavSettings;
    const INFO: ComponentInfo = ComponentInfo::sink("sink.wav", "Writes PCM into a WAV file")
        .accepts(&[
            Subtype::PCM_S16,
            Subtype::PCM_S24,
            Subtype::PCM_S32,
            Subtype::PCM_F32,
        ]);

    fn new(settings: WavSettings) -> Result<Self> {
        Ok(Self {
            file: OutputFile::new(settings.url)?,
            format: None,
            data: 0,
            finalized: false,
        })
    }
}

impl MediaSink for WavSink {
    fn set_type(&mut self, stream: u32, media_type: &MediaType) -> Result<()> {
        if stream != 0 {
            return Err(Error::invalid_type(
                media_type,
                "a WAV file holds one stream",
            ));
        }
        let format = Format::of(media_type)?;
        match self.format {
            None => self.format = Some(format),
            Some(known) if known == format => {}
            Some(_) => {
                return Err(Error::invalid_type(
                    media_type,
                    "a WAV file cannot change its format; convert.sound keeps it",
                ));
            }
        }
        Ok(())
    }

    fn render(&mut self, _: u32, sample: Sample) -> Result<()> {
        let Some(format) = self.format else {
            return Err(Error::invalid_request("the stream has no type"));
        };
        if self.file.written() == 0 {
            self.file.write(&format.head())?;
        }
        let cut = sample.len() % usize::from(format.frame_bytes());
        self.file.write_payload(&sample.payload, cut)?;
        self.data = self.data.saturating_add((sample.len() - cut) as u64);
        Ok(())
    }

    fn finalize(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.finalized, true) {
            return Ok(());
        }
        let Some(format) = self.format else {
            return Ok(());
        };
        if self.file.written() == 0 {
            self.file.write(&format.head())?;
        }
        if self.data % 2 == 1 {
            self.file.write(&[0])?;
        }
        let frames = self.data / u64::from(format.frame_bytes());
        for (at, bytes) in sizes(&format, self.file.written(), self.data, frames) {
            self.file.patch(at, &bytes)?;
        }
        self.file.flush()
    }

    fn is_rateless(&self) -> bool {
        true
    }

    fn output_url(&self) -> Option<&str> {
        Some(self.file.url())
    }

    fn attach(&mut self, output: Box<dyn ByteSink>) -> Result<()> {
        self.file.attach(output)
    }
}

/// What is written over the head at the end.
fn sizes(format: &Format, total: u64, data: u64, frames: u64) -> Vec<(u64, Vec<u8>)> {
    let riff = total - 8;
    let data_at = format.head().len() as u64 - 4;
    match (u32::try_from(riff), u32::try_from(data)) {
        // The largest value is kept for "unknown" and RF64.
        (Ok(riff), Ok(data)) if riff < u32::MAX => vec![
            (4, riff.to_le_bytes().into()),
            (data_at, data.to_le_bytes().into()),
        ],
        _ => {
            let mut ds64 = b"ds64".to_vec();
            ds64.extend(DS64_SIZE.to_le_bytes());
            ds64.extend(riff.to_le_bytes());
            ds64.extend(data.to_le_bytes());
            ds64.extend(frames.to_le_bytes());
            ds64.extend(0u32.to_le_bytes());
            vec![(0, b"RF64".to_vec()), (DS64_AT, ds64)]
        }
    }
}

impl Format {
    fn of(media_type: &MediaType) -> Result<Self> {
        let refuse = |why: &'static str| Error::invalid_type(media_type, why);
        let (float, bits) = match media_type.subtype {
            Subtype::PCM_S16 => (false, 16),
            Subtype::PCM_S24 => (false, 24),
            Subtype::PCM_S32 => (false, 32),
            Subtype::PCM_F32 => (true, 32),
            _ => {
                return Err(refuse(
                    "sink.wav writes pcm_s16le, pcm_s24le, pcm_s32le and pcm_f32le",
                ));
            }
        };
        let channels = media_type
            .channels()
            .and_then(|channels| u16::try_from(channels).ok())
            .filter(|channels| (1..=256).contains(channels))
            .ok_or_else(|| refuse("1 to 256 channels are needed"))?;
        let rate = media_type
            .sample_rate()
            .filter(|rate| *rate > 0)
            .ok_or_else(|| refuse("a sample rate is needed"))?;
        Ok(Self {
            float,
            bits,
            channels,
            rate,
        })
    }

    fn frame_bytes(&self) -> u16 {
        self.bits / 8 * self.channels
    }

    /// Everything before the samples, with sizes that mean "to the end".
    fn head(&self) -> Vec<u8> {
        // WAVE_FORMAT_EXTENSIBLE is asked for where there are more bits or channels than the plain tags define.
        let extensible = self.channels > 2 || self.bits == 24 || (!self.float && self.bits == 32);
        let code: u16 = if self.float { 3 } else { 1 };
        let mut head = b"RIFF\xff\xff\xff\xffWAVEJUNK".to_vec();
        head.extend(DS64_SIZE.to_le_bytes());
        head.extend([0; DS64_SIZE as usize]);
        head.extend(b"fmt ");
        head.extend(if extensible { 40u32 } else { 16 }.to_le_bytes());
        head.extend(if extensible { 0xfffe } else { code }.to_le_bytes());
        head.extend(self.channels.to_le_bytes());
        head.extend(self.rate.to_le_bytes());
        let bytes_per_second = self.rate.saturating_mul(u32::from(self.frame_bytes()));
        head.extend(bytes_per_second.to_le_bytes());
        head.extend(self.frame_bytes().to_le_bytes());
        head.extend(self.bits.to_le_bytes());
        if extensible {
            head.extend(22u16.to_le_bytes());
            head.extend(self.bits.to_le_bytes());
            head.extend(speakers(self.channels).to_le_bytes());
            head.extend(code.to_le_bytes());
            head.extend(b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71");
        }
        head.extend(b"data\xff\xff\xff\xff");
        head
    }
}

/// The usual speaker positions of so many channels; 0 says nothing.
const fn speakers(channels: u16) -> u32 {
    match channels {
        1 => 0x4,
        2 => 0x3,
        3 => 0x7,
        4 => 0x33,
        5 => 0x37,
        6 => 0x3f,
        7 => 0x70f,
        8 => 0x63f,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use portcullis_engine::MediaTime;

    use super::super::file::testing::SharedFile;
    use super::*;

    fn write(media_type: &MediaType, payloads: &[&[u8]]) -> Vec<u8> {
        let file = SharedFile::default();
        let mut sink = WavSink::new(WavSettings {
            url: "out.wav".into(),
        })
        .expect("new");
        sink.attach(Box::new(file.clone())).expect("attached");
        sink.set_type(0, media_type).expect("PCM");
        for payload in payloads {
            let sample = Sample::new(MediaTime::ZERO, MediaTime::ZERO, payload.to_vec());
            sink.render(0, sample).expect("written");
        }
        sink.finalize().expect("finalized");
        sink.finalize().expect("twice is once");
        file.bytes()
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
    }

    #[test]
    fn sizes_are_patched_and_partial_frames_dropped() {
        let stereo = MediaType::audio(Subtype::PCM_S16, 44_100, 2);
        let file = write(&stereo, &[&[1, 2, 3, 4], &[5, 6, 7, 8, 9]]);
        assert_eq!(&file[..4], b"RIFF");
        assert_eq!(word(&file, 4) as usize, file.len() - 8);
        let data = file
            .windows(4)
            .position(|window| window == b"data")
            .expect("a data chunk");
        assert_eq!(word(&file, data + 4), 8);
        assert_eq!(file[data + 8..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn an_empty_stream_is_a_valid_file_and_odd_data_is_padded() {
        let mono = MediaType::audio(Subtype::PCM_S24, 8_000, 1);
        let file = write(&mono, &[]);
        assert_eq!(word(&file, file.len() - 4), 0);
        let file = write(&mono, &[&[1, 2, 3]]);
        assert_eq!(file.len() % 2, 0);
        assert_eq!(word(&file, 4) as usize, file.len() - 8);
    }

    #[test]
    fn past_4_gib_the_head_becomes_rf64() {
        let format = Format {
            float: false,
            bits: 16,
            channels: 2,
            rate: 48_000,
        };
        let patches = sizes(&format, 5 << 30, (5 << 30) - 80, 99);
        assert_eq!(patches[0], (0, b"RF64".to_vec()));
        assert_eq!(patches[1].0, DS64_AT);
        assert_eq!(patches[1].1.len(), 8 + DS64_SIZE as usize);
        assert_eq!(patches[1].1[8..16], ((5u64 << 30) - 8).to_le_bytes());
    }

    #[test]
    fn another_format_midway_is_refused() {
        let mut sink = WavSink::new(WavSettings { url: "a".into() }).expect("new");
        let sound = MediaType::audio(Subtype::PCM_S16, 44_100, 2);
        sink.set_type(0, &sound).expect("first");
        sink.set_type(0, &sound).expect("same");
        let other = MediaType::audio(Subtype::PCM_S16, 48_000, 2);
        assert!(sink.set_type(0, &other).is_err());
        assert!(sink.set_type(1, &sound).is_err());
        assert!(
            sink.set_type(0, &MediaType::audio(Subtype::PCM_U8, 44_100, 2))
                .is_err()
        );
    }
}
