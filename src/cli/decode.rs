//! `portcullis decode`: as fast as it goes, into checksums, a file, or nothing.

mod checksums;
mod files;
mod picture;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use portcullis_engine::{MajorType, MediaTime, PresentationDescriptor, SampleFormat};

use super::arguments;
use super::failure::Failure;
use super::placement::{PlacementArgs, SourceArgs};
use super::signals::Interrupt;
use crate::{OutputFormat, SoundFormat, SourceReaderBuilder, StreamOutput, StreamSelector};

/// Decodes one stream as fast as it goes.
///
/// Without --framemd5 and --output the samples are only counted. What is damaged is said on standard error and passed
/// over; the exit code is then 4.
#[derive(Debug, Args)]
pub(super) struct Decode {
    /// A path, a file: URL, or - for standard input
    file: PathBuf,
    #[command(flatten)]
    place: PlacementArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Which stream: v:0, a:0, or its index. The first picture stream if there is one, or else the first of sound
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamSelector>,
    /// The form of sound; as its decoder gives it if nothing is said
    #[arg(long, value_name = "FORMAT", value_enum)]
    sample_format: Option<SampleFormatName>,
    /// Writes FFmpeg's framemd5: one line for each sample with its time, length and MD5. `-` is standard output
    #[arg(long, value_name = "PATH", conflicts_with = "output")]
    framemd5: Option<PathBuf>,
    /// Writes the decoded stream: .wav for sound, .y4m for pictures, .png for one picture
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Begins here, such as 10s
    #[arg(long, value_name = "TIME", value_parser = arguments::time)]
    at: Option<MediaTime>,
    /// Ends after this many samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Scales pictures
    #[arg(long, value_name = "WxH", value_parser = arguments::size)]
    size: Option<(u32, u32)>,
    /// Prints the summary as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SampleFormatName {
    S16,
    F32,
}

/// What `-o` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Wav,
    Y4m,
    Png,
}

impl Decode {
    pub(super) async fn run(self, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let kind = self.output.as_deref().map(FileKind::of).transpose()?;
        self.check(kind)?;
        match kind {
            Some(FileKind::Wav | FileKind::Y4m) => files::write(&self, kind, interrupt).await,
            None if self.framemd5.is_none() && self.frames.is_none() => {
                files::write(&self, None, interrupt).await
            }
            Some(FileKind::Png) => interrupt.or(picture::write(&self)).await,
            None => interrupt.or(checksums::write(&self)).await,
        }
    }

    fn check(&self, kind: Option<FileKind>) -> Result<(), Failure> {
        let usage = |text: &str| Err(Failure::usage(text));
        match kind {
            Some(FileKind::Png) if self.frames.unwrap_or(1) != 1 => {
                usage("a .png holds one picture: leave --frames out")
            }
            Some(FileKind::Wav | FileKind::Y4m) if self.frames.is_some() => {
                usage("--frames goes with --framemd5, with a .png, or without an output")
            }
            Some(FileKind::Wav) if self.size.is_some() => {
                usage("--size is of pictures, and a .wav holds sound")
            }
            Some(FileKind::Y4m | FileKind::Png) if self.sample_format.is_some() => {
                usage("--sample-format is of sound, and the output holds pictures")
            }
            _ if self.json && self.framemd5.as_deref() == Some(Path::new("-")) => {
                usage("--json and --framemd5 - would both write to standard output")
            }
            _ => Ok(()),
        }
    }

    fn reader(&self) -> Result<SourceReaderBuilder, Failure> {
        let input = arguments::input(&self.file)?;
        Ok(
            SourceReaderBuilder::new(crate::registry(), self.place.placement()?, input)
                .source_side(self.source.side())
                .limits(self.place.limits()),
        )
    }

    /// The stream that is meant: what was asked for, what the output holds, or the first picture or sound stream.
    fn selector(
        &self,
        kind: Option<FileKind>,
        presentation: &PresentationDescriptor,
    ) -> Result<StreamSelector, Failure> {
        let first = match kind {
            Some(FileKind::Wav) => StreamSelector::FIRST_AUDIO,
            Some(FileKind::Y4m | FileKind::Png) => StreamSelector::FIRST_VIDEO,
            None if presentation.first_played(MajorType::Video).is_some() => {
                StreamSelector::FIRST_VIDEO
            }
            None => StreamSelector::FIRST_AUDIO,
        };
        let selector = self.stream.unwrap_or(first);
        let file = self.file.display();
        let Some(stream) = selector.find(presentation) else {
            return Err(match (self.stream, selector) {
                (Some(_), _) => Failure::usage(format!("{file}: there is no stream {selector}")),
                (None, StreamSelector::Video(_)) => {
                    Failure::Content(format!("{file}: it has no pictures"))
                }
                (None, _) if kind.is_some() => Failure::Content(format!("{file}: it has no sound")),
                (None, _) => Failure::Content(format!("{file}: it has neither pictures nor sound")),
            });
        };
        let holds = match kind {
            Some(FileKind::Wav) => Some(MajorType::Audio),
            Some(FileKind::Y4m | FileKind::Png) => Some(MajorType::Video),
            None => None,
        };
        if let Some(holds) = holds.filter(|holds| *holds != stream.major()) {
            let major = stream.major();
            return Err(Failure::usage(format!(
                "{file}: stream {selector} is {major}, and the output holds {holds}"
            )));
        }
        Ok(selector)
    }

    /// What was asked of a form that the stream cannot have.
    fn check_stream(&self, selector: StreamSelector, major: MajorType) -> Result<(), Failure> {
        let file = self.file.display();
        let (option, of) = match major {
            MajorType::Video if self.sample_format.is_some() => ("--sample-format", "sound"),
            MajorType::Video => return Ok(()),
            _ if self.size.is_some() => ("--size", "pictures"),
            MajorType::Audio => return Ok(()),
            _ if self.sample_format.is_some() => ("--sample-format", "sound"),
            _ => return Ok(()),
        };
        Err(Failure::usage(format!(
            "{file}: {option} is of {of}, and stream {selector} is {major}"
        )))
    }

    fn output_format(&self, major: MajorType) -> OutputFormat {
        match major {
            MajorType::Video if self.size.is_some() => {
                OutputFormat::Picture(crate::PictureFormat {
                    size: self.size,
                    ..crate::PictureFormat::default()
                })
            }
            MajorType::Audio if self.sample_format.is_some() => OutputFormat::Sound(SoundFormat {
                sample_format: self.sample_format.map(SampleFormatName::format),
                ..SoundFormat::default()
            }),
            _ => OutputFormat::Decoded,
        }
    }

    fn stream_output(
        &self,
        presentation: &PresentationDescriptor,
    ) -> Result<StreamOutput, Failure> {
        let selector = self.selector(None, presentation)?;
        let major = selector
            .find(presentation)
            .map_or(MajorType::Data, |stream| stream.major());
        self.check_stream(selector, major)?;
        let format = self.output_format(major);
        Ok(StreamOutput { selector, format })
    }
}

impl SampleFormatName {
    fn format(self) -> SampleFormat {
        match self {
            Self::S16 => SampleFormat::S16,
            Self::F32 => SampleFormat::F32,
        }
    }
}

impl FileKind {
    fn of(path: &Path) -> Result<Self, Failure> {
        let extension = path
            .extension()
            .map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("wav") => Ok(Self::Wav),
            Some("y4m") => Ok(Self::Y4m),
            Some("png") => Ok(Self::Png),
            _ => Err(Failure::usage(format!(
                "{}: an output is a .wav, .y4m or .png",
                path.display()
            ))),
        }
    }
}

/// What was decoded, for the last line.
#[derive(Debug)]
struct Summary {
    stream: String,
    media_type: String,
    samples: u64,
    bytes: u64,
    faults: u64,
    host_pid: u32,
    since: Instant,
}

impl Summary {
    fn print(&self, json: bool) -> Result<(), Failure> {
        let wall = self.since.elapsed();
        if json {
            let object = serde_json::json!({
                "event": "summary",
                "stream": self.stream,
                "media_type": self.media_type,
                "samples": self.samples,
                "bytes": self.bytes,
                "faults": self.faults,
                "wall_time": MediaTime::from(wall),
                "host_pid": self.host_pid,
            });
            return super::output::line(&object.to_string());
        }
        super::output::line(&format!(
            "{}: {} samples, {} bytes, {} faults, {:.3} s",
            self.media_type,
            self.samples,
            self.bytes,
            self.faults,
            wall.as_secs_f64()
        ))
    }
}
