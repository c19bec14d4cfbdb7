//! Kills its hosts and reads on: `lose_hosts HOST-PROGRAM CLIP`, one round for each line of input.
//!
//! What a service does when a decoder takes its host down: the error says how the host ended, and the next host is a fresh one.
//! The tests watch that nothing of a dead host is left.

use std::io::BufRead;

use futures::StreamExt;
use portcullis::{Placement, StreamSelector, host::Host};

fn main() -> anyhow::Result<()> {
    portcullis::host::init(portcullis::builtin());
    run()
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(program), Some(clip)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("lose_hosts HOST-PROGRAM CLIP");
    };
    for line in std::io::stdin().lock().lines() {
        line?;
        let placement = Placement::Isolated(Host::program(&program));
        let reader = portcullis::open(clip.as_str())
            .placement(placement)
            .open()
            .await?;
        let mut pictures = reader.samples(StreamSelector::FIRST_VIDEO).await?;
        let first = pictures.next().await;
        anyhow::ensure!(matches!(first, Some(Ok(_))), "no picture");
        reader.session().host().kill();
        while let Some(picture) = pictures.next().await {
            if let Err(error) = picture {
                println!("{error}");
            }
        }
    }
    Ok(())
}
