//! Decoded samples as FFmpeg's framemd5, or only counted.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use futures::StreamExt;
use md5::{Digest, Md5};
use portcullis_engine::{MajorType, MediaType, Sample, TimeBase, keys};

use super::{Decode, Summary};
use crate::SampleStream;
use crate::cli::failure::{Failure, Faults};
use crate::cli::outputs::OutputFile;
use crate::cli::progress::Progress;

/// Decodes into the checksums, or counts up to the number of samples that is asked for.
pub(super) async fn write(decode: &Decode) -> Result<(), Failure> {
    let since = Instant::now();
    let reader = decode.reader()?.open().await?;
    let output = decode.stream_output(reader.presentation())?;
    let stream = output.selector.to_string();
    let mut samples = reader.samples_from(output, decode.at).await?;
    let create = |path| Target::create(path, &decode.file);
    let mut target = decode.framemd5.as_deref().map(create).transpose()?;
    let mut faults = Faults::new(None);
    let (mut count, mut bytes) = (0, 0);
    let mut ending = Ok(());
    let progress = Progress::new(reader.presentation().duration);
    while decode.frames.is_none_or(|most| count < most) {
        match samples.next().await {
            None => break,
            Some(Ok(sample)) => {
                if let Some(target) = &mut target {
                    target.sample(&samples, &sample)?;
                }
                progress.at(sample.time);
                count += 1;
                bytes += sample.len() as u64;
            }
            Some(Err(error)) if error.is_content() => faults.add(&error),
            // The content is not at fault: nothing follows.
            Some(Err(error)) => {
                ending = Err(Failure::Media(error));
                break;
            }
        }
    }
    drop(progress);
    if let Some(mut target) = target {
        target.finish(&samples)?;
        if let Some(file) = target.file.as_mut().filter(|_| count > 0 || ending.is_ok()) {
            file.keep();
        }
    }
    let summary = Summary {
        stream,
        media_type: samples.media_type().to_string(),
        samples: count,
        bytes,
        faults: faults.count(),
        host_pid: reader.session().host().pid(),
        since,
    };
    if decode.framemd5.as_deref() != Some(Path::new("-")) {
        summary.print(decode.json)?;
    }
    ending.and_then(|()| faults.outcome())
}

/// Where the lines go.
struct Target {
    name: String,
    out: BufWriter<Box<dyn Write>>,
    /// The file, where it is one.
    file: Option<OutputFile>,
    base: Option<TimeBase>,
}

impl Target {
    fn create(path: &Path, input: &Path) -> Result<Self, Failure> {
        let name = if path == Path::new("-") {
            "standard output".into()
        } else {
            path.display().to_string()
        };
        let mut file = None;
        let out: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let claimed = file.insert(OutputFile::claim(path, input)?);
            let opened = claimed.open();
            Box::new(opened.map_err(|error| Failure::output(name.as_str(), error))?)
        };
        let out = BufWriter::new(out);
        Ok(Self {
            name,
            out,
            file,
            base: None,
        })
    }

    /// The head, once. The type is the first sample's where there is one.
    fn base(&mut self, samples: &SampleStream) -> Result<TimeBase, Failure> {
        if let Some(base) = self.base {
            return Ok(base);
        }
        let media_type = samples.media_type();
        let base = match media_type.sample_rate() {
            Some(rate) if media_type.major == MajorType::Audio => TimeBase::per_second(rate),
            _ => None,
        };
        let base = base.unwrap_or(samples.descriptor().time_base);
        self.base = Some(base);
        self.put(&head(media_type, base))?;
        Ok(base)
    }

    fn sample(&mut self, samples: &SampleStream, sample: &Sample) -> Result<(), Failure> {
        let base = self.base(samples)?;
        let hash = Md5::digest(sample.payload.to_bytes());
        let time = base.to_units(sample.time);
        let length = base.to_units(sample.time + sample.duration) - time;
        let mut line = format!(
            "0, {time:>10}, {time:>10}, {length:>8}, {:>8}, ",
            sample.len()
        );
        for byte in hash {
            line.push_str(&format!("{byte:02x}"));
        }
        line.push('\n');
        self.put(&line)
    }

    fn finish(&mut self, samples: &SampleStream) -> Result<(), Failure> {
        self.base(samples)?;
        self.out
            .flush()
            .map_err(|error| Failure::output(self.name.as_str(), error))
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        self.out
            .write_all(text.as_bytes())
            .map_err(|error| Failure::output(self.name.as_str(), error))
    }
}

/// The head of FFmpeg's layout, version 2.
fn head(media_type: &MediaType, base: TimeBase) -> String {
    let mut head = String::from("#format: frame checksums\n#version: 2\n#hash: MD5\n");
    head.push_str(&format!(
        "#tb 0: {base}\n#media_type 0: {}\n#codec_id 0: {}\n",
        media_type.major, media_type.subtype
    ));
    match media_type.major {
        MajorType::Video => {
            let (width, height) = media_type.frame_size().unwrap_or((0, 0));
            let (x, y) = media_type.get(&keys::PIXEL_ASPECT).unwrap_or((0, 1));
            head.push_str(&format!(
                "#dimensions 0: {width}x{height}\n#sar 0: {x}/{y}\n"
            ));
        }
        MajorType::Audio => {
            let layout = match media_type.channels().unwrap_or(0) {
                1 => "mono".to_owned(),
                2 => "stereo".to_owned(),
                channels => format!("{channels} channels"),
            };
            head.push_str(&format!(
                "#sample_rate 0: {}\n#channel_layout_name 0: {layout}\n",
                media_type.sample_rate().unwrap_or(0)
            ));
        }
        _ => {}
    }
    head.push_str("#stream#, dts,        pts, duration,     size, hash\n");
    head
}
