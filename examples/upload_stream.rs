//! An upload, decoded while it comes: `cargo run --example upload_stream < clip.webm`.
//!
//! The body cannot seek and nobody knows its length; a format that needs either says so with a typed error.

use bytes::BytesMut;
use futures::TryStreamExt;
use portcullis::{Input, StreamSelector};
use tokio::io::AsyncReadExt;

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    // What a web framework gives as the request's body is a stream like this one.
    let body = futures::stream::try_unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut chunk = BytesMut::with_capacity(16 << 10);
        let count = stdin.read_buf(&mut chunk).await?;
        Ok((count > 0).then(|| (chunk.freeze(), stdin)))
    });
    let reader = portcullis::open(Input::stream(body)).open().await?;
    for stream in &reader.presentation().streams {
        println!("stream {}: {}", stream.id, stream.media_type);
    }
    let mut sound = reader.samples(StreamSelector::FIRST_AUDIO).await?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(sample) = sound.try_next().await? {
        count += 1;
        bytes += sample.len();
    }
    println!("{count} samples, {bytes} bytes of {}", sound.media_type());
    Ok(())
}
