//! Writes raw pictures into a YUV4MPEG2 file.

use portcullis_engine::component::ByteSink;
use portcullis_engine::{
    Component, ComponentInfo, Error, MediaSink, MediaTime, MediaType, PixelFormat, Registry,
    Result, Sample, Subtype, keys,
};
use serde::{Deserialize, Serialize};

use super::file::OutputFile;

pub(crate) fn register(registry: &mut Registry) {
    registry.sink::<Y4mSink>();
}

/// Where the file goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Y4mSettings {
    /// The URL or path of the file.
    pub url: String,
}

/// Writes one stream of planar pictures, 8, 10 or 12 bit, or luma alone.
///
/// The frame rate is the type's; where the type has none it is taken from the first two pictures' times, or else 25.
#[derive(Debug)]
pub struct Y4mSink {
    file: OutputFile,
    media_type: Option<MediaType>,
    /// The first picture, while the second one is needed for the rate.
    first: Option<Sample>,
}

impl Component for Y4mSink {
    type Settings = Y4mSettings;
    const INFO: ComponentInfo =
        ComponentInfo::sink("sink.y4m", "Writes raw pictures into a YUV4MPEG2 file")
            .accepts(&[Subtype::RAW_VIDEO]);

    fn new(settings: Y4mSettings) -> Result<Self> {
        Ok(Self {
            file: OutputFile::new(settings.url)?,
            media_type: None,
            first: None,
        })
    }
}

impl MediaSink for Y4mSink {
    fn set_type(&mut self, stream: u32, media_type: &MediaType) -> Result<()> {
        let refuse = |why: &'static str| Err(Error::invalid_type(media_type, why));
        if stream != 0 {
            return refuse("a Y4M file holds one stream");
        }
        let (Some(_), Some(format)) = (media_type.frame_size(), media_type.pixel_format()) else {
            return refuse("a picture needs a size and a pixel format");
        };
        if colour_space(format).is_none() {
            return refuse("sink.y4m writes planar pictures; convert.picture makes them");
        }
        if let Some(known) = &self.media_type
            && (known.frame_size(), known.pixel_format())
                != (media_type.frame_size(), media_type.pixel_format())
        {
            return refuse("a Y4M file cannot change its picture size; convert.picture keeps it");
        }
        if self.media_type.is_none() {
            self.media_type = Some(media_type.clone());
        }
        Ok(())
    }

    fn render(&mut self, _: u32, sample: Sample) -> Result<()> {
        let Some(media_type) = &self.media_type else {
            return Err(Error::invalid_request("the stream has no type"));
        };
        let expected = media_type
            .frame_size()
            .zip(media_type.pixel_format())
            .and_then(|((width, height), format)| format.picture_bytes(width, height));
        if Some(sample.len()) != expected {
            return Err(Error::invalid_argument(format!(
                "a picture of {} bytes is no {media_type}",
                sample.len()
            )));
        }
        if self.file.written() > 0 {
            return self.write_picture(&sample);
        }
        let rate = media_type.get(&keys::FRAME_RATE).filter(is_rate);
        match (rate, self.first.take()) {
            (Some(rate), _) => {
                self.write_head(rate)?;
                self.write_picture(&sample)
            }
            (None, None) => {
                self.first = Some(sample);
                Ok(())
            }
            (None, Some(first)) => {
                self.write_head(rate_of(sample.time - first.time))?;
                self.write_picture(&first)?;
                self.write_picture(&sample)
            }
        }
    }

    fn finalize(&mut self) -> Result<()> {
        if self.media_type.is_none() {
            return Ok(());
        }
        let first = self.first.take();
        if self.file.written() == 0 {
            let span = first
                .as_ref()
                .map_or(MediaTime::ZERO, |sample| sample.duration);
            self.write_head(rate_of(span))?;
        }
        if let Some(first) = first {
            self.write_picture(&first)?;
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

impl Y4mSink {
    fn write_head(&mut self, rate: (u32, u32)) -> Result<()> {
        let Some(media_type) = &self.media_type else {
            return Err(Error::invalid_request("the stream has no type"));
        };
        let rate = media_type
            .get(&keys::FRAME_RATE)
            .filter(is_rate)
            .unwrap_or(rate);
        let (width, height) = media_type.frame_size().unwrap_or_default();
        let space = media_type
            .pixel_format()
            .and_then(colour_space)
            .unwrap_or("420jpeg");
        let aspect = media_type.get(&keys::PIXEL_ASPECT).unwrap_or((0, 0));
        let range = match media_type.get(&keys::FULL_RANGE) {
            Some(true) => " XCOLORRANGE=FULL",
            Some(false) => " XCOLORRANGE=LIMITED",
            None => "",
        };
        let head = format!(
            "YUV4MPEG2 W{width} H{height} F{}:{} Ip A{}:{} C{space}{range}\n",
            rate.0, rate.1, aspect.0, aspect.1
        );
        self.file.write(head.as_bytes())
    }

    fn write_picture(&mut self, sample: &Sample) -> Result<()> {
        self.file.write(b"FRAME\n")?;
        self.file.write_payload(&sample.payload, 0)
    }
}

fn is_rate(rate: &(u32, u32)) -> bool {
    rate.0 > 0 && rate.1 > 0
}

/// The rate of pictures that lie so far apart: a common one where it is meant.
fn rate_of(span: MediaTime) -> (u32, u32) {
    let ticks = span.ticks();
    if ticks <= 0 {
        return (25, 1);
    }
    let distance = |(rate, base): &(u32, u32)| {
        let exact = 1e7 * f64::from(*base) / f64::from(*rate);
        (ticks as f64 - exact).abs()
    };
    COMMON_RATES
        .into_iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        // Containers with millisecond times round by up to half of one.
        .filter(|rate| distance(rate) <= 5_001.0)
        .unwrap_or((10_000_000, u32::try_from(ticks).unwrap_or(u32::MAX)))
}

const COMMON_RATES: [(u32, u32); 9] = [
    (25, 1),
    (30, 1),
    (24, 1),
    (50, 1),
    (60, 1),
    (15, 1),
    (30_000, 1001),
    (24_000, 1001),
    (60_000, 1001),
];

const fn colour_space(format: PixelFormat) -> Option<&'static str> {
    Some(match format {
        PixelFormat::I420 => "420jpeg",
        PixelFormat::I420P10 => "420p10",
        PixelFormat::I420P12 => "420p12",
        PixelFormat::I422 => "422",
        PixelFormat::I422P10 => "422p10",
        PixelFormat::I422P12 => "422p12",
        PixelFormat::I444 => "444",
        PixelFormat::I444P10 => "444p10",
        PixelFormat::I444P12 => "444p12",
        PixelFormat::Gray8 => "mono",
        PixelFormat::Gray10 => "mono10",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::file::testing::SharedFile;
    use super::*;

    fn write(media_type: &MediaType, pictures: &[(i64, Vec<u8>)]) -> Vec<u8> {
        let file = SharedFile::default();
        let mut sink = Y4mSink::new(Y4mSettings {
            url: "out.y4m".into(),
        })
        .expect("new");
        sink.attach(Box::new(file.clone())).expect("attached");
        sink.set_type(0, media_type).expect("pictures");
        for (millis, picture) in pictures {
            let time = MediaTime::from_millis(*millis);
            sink.render(0, Sample::new(time, MediaTime::ZERO, picture.clone()))
                .expect("written");
        }
        sink.finalize().expect("finalized");
        file.bytes()
    }

    #[test]
    fn the_rate_comes_from_the_type_or_the_times() {
        let picture = vec![7; 6];
        let plain = MediaType::raw_video(PixelFormat::I420, 2, 2);
        let file = write(&plain, &[(0, picture.clone()), (33, picture.clone())]);
        let head = b"YUV4MPEG2 W2 H2 F30:1 Ip A0:0 C420jpeg\nFRAME\n";
        assert_eq!(&file[..head.len()], head);
        assert_eq!(file.len(), head.len() + 6 + 6 + 6);
        let told = plain
            .with(&keys::FRAME_RATE, (24_000, 1001))
            .with(&keys::PIXEL_ASPECT, (4, 3));
        let file = write(&told, &[(0, picture)]);
        assert!(file.starts_with(b"YUV4MPEG2 W2 H2 F24000:1001 Ip A4:3 C420jpeg\nFRAME\n"));
    }

    #[test]
    fn one_picture_and_none_are_valid_files() {
        let mono = MediaType::raw_video(PixelFormat::Gray10, 1, 1);
        assert_eq!(
            write(&mono, &[(0, vec![1, 2])]),
            b"YUV4MPEG2 W1 H1 F25:1 Ip A0:0 Cmono10\nFRAME\n\x01\x02"
        );
        assert_eq!(
            write(&mono, &[]),
            b"YUV4MPEG2 W1 H1 F25:1 Ip A0:0 Cmono10\n"
        );
    }

    #[test]
    fn a_picture_of_another_size_is_refused() {
        let mut sink = Y4mSink::new(Y4mSettings { url: "a".into() }).expect("new");
        sink.set_type(0, &MediaType::raw_video(PixelFormat::I420, 2, 2))
            .expect("taken");
        let short = Sample::new(MediaTime::ZERO, MediaTime::ZERO, vec![0; 5]);
        assert!(sink.render(0, short).is_err());
        let packed = MediaType::raw_video(PixelFormat::Rgb8, 2, 2);
        assert!(sink.set_type(0, &packed).is_err());
    }
}
