//! From a file to decoded pictures, in an isolated host: `cargo run --example file_to_samples -- clip.mp4`.

use futures::TryStreamExt;
use portcullis::StreamSelector;

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tests/media/clip.mp4".into());
    let reader = portcullis::open(path).open().await?;
    let mut pictures = reader.samples(StreamSelector::FIRST_VIDEO).await?;
    let mut count = 0;
    while let Some(picture) = pictures.try_next().await? {
        count += 1;
        println!("{count} {} {} bytes", picture.time, picture.len());
    }
    Ok(())
}
