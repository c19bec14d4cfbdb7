//! One decoded picture as a PNG.

use std::io::{self, BufWriter, Write};
use std::time::Instant;

use futures::StreamExt;
use portcullis_engine::{Error, PixelFormat, Sample};

use super::{Decode, FileKind, Summary};
use crate::cli::failure::{Failure, Faults};
use crate::cli::outputs::OutputFile;
use crate::{PictureFormat, SampleStream, StreamOutput};

/// Writes the first intact picture at or after the position.
pub(super) async fn write(decode: &Decode) -> Result<(), Failure> {
    let since = Instant::now();
    let Some(path) = decode.output.as_deref() else {
        return Err(Failure::usage("-o names the picture"));
    };
    let mut file = OutputFile::claim(path, &decode.file)?;
    let reader = decode.reader()?.open().await?;
    let selector = decode.selector(Some(FileKind::Png), reader.presentation())?;
    let format = PictureFormat {
        pixel_format: Some(PixelFormat::Rgb8),
        size: decode.size,
    };
    let mut pictures = reader
        .samples_from(StreamOutput::picture(selector, format), decode.at)
        .await?;
    let mut faults = Faults::new(None);
    let (picture, bytes) = loop {
        match pictures.next().await {
            Some(Ok(sample)) => break encode(&pictures, &sample)?,
            Some(Err(error)) if error.is_content() => faults.add(&error),
            Some(Err(error)) => return Err(error.into()),
            None if faults.count() > 0 => {
                let what = format!("{}: no picture is intact", decode.file.display());
                return Err(Failure::Content(what));
            }
            None => {
                let nothing =
                    Error::invalid_argument("there is no picture at or after the position");
                return Err(nothing.of_input(decode.file.display().to_string()).into());
            }
        }
    };
    save(&file, &picture).map_err(|error| Failure::output(path.display().to_string(), error))?;
    file.keep();
    let summary = Summary {
        stream: selector.to_string(),
        media_type: pictures.media_type().to_string(),
        samples: 1,
        bytes,
        faults: faults.count(),
        host_pid: reader.session().host().pid(),
        since,
    };
    if decode.json {
        summary.print(true)?;
    }
    faults.outcome()
}

/// The PNG of a picture, and the bytes of the picture itself.
fn encode(pictures: &SampleStream, sample: &Sample) -> Result<(Vec<u8>, u64), Failure> {
    let wrong = |error: png::EncodingError| {
        Failure::Media(Error::invalid_argument(format!("png: {error}")))
    };
    let (width, height) = pictures.media_type().frame_size().unwrap_or((0, 0));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(wrong)?;
    writer
        .write_image_data(&sample.payload.to_bytes())
        .map_err(wrong)?;
    writer.finish().map_err(wrong)?;
    Ok((file, sample.len() as u64))
}

fn save(file: &OutputFile, picture: &[u8]) -> io::Result<()> {
    let mut out = BufWriter::new(file.open()?);
    out.write_all(picture)?;
    out.flush()
}
