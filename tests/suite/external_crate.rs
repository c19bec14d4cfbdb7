//! A crate of somebody else, outside of the workspace, with only the public interface: a reader inside of `tokio::spawn`, a
//! component with a message, and the program itself as the host.

use std::fs;
use std::process::Command;

use crate::support::{media, root, target_directory};

const PROGRAM: &str = r#"
use futures::{StreamExt, TryStreamExt};
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::pipeline::sink::Grabbed;
use portcullis::{
    Component, Interactive, MajorType, NodeObject, OpenPolicy, Output, Pacing, Placement, Receive, Remote, Result, Sample,
    SourceSide, StreamSelector, Transform, interface,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Component)]
#[component(transform, class = "stranger.mute", about = "Silences sound", accepts = [PCM_S16], produces = [PCM_S16])]
struct Mute {
    on: bool,
}

impl Transform for Mute {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        let on = self.on;
        output.push(input.map_i16(|value| if on { 0 } else { value }));
        Ok(())
    }
}

#[derive(Serialize, Deserialize, Remote)]
#[remote(reply = bool)]
struct Switch(bool);

interface! { MuteControl = "stranger.MuteControl" { Switch } }

impl Interactive for Mute {
    type Interface = MuteControl;
}

impl Receive<Switch> for Mute {
    fn receive(&mut self, Switch(on): Switch) -> Result<bool> {
        Ok(std::mem::replace(&mut self.on, on))
    }
}

fn main() {
    portcullis::host::init(portcullis::builtin().with_interactive::<Mute>());
    let clip = std::env::args().nth(1).expect("a clip");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let read = tokio::spawn(count(clip.clone()));
        let heard = tokio::spawn(mute(clip));
        println!("{} pictures", read.await.expect("joins").expect("reads"));
        println!("{} samples of silence", heard.await.expect("joins").expect("plays"));
    });
}

async fn count(clip: String) -> Result<usize> {
    let reader = portcullis::open(clip).open().await?;
    assert_ne!(reader.session().host().pid(), std::process::id());
    let pictures = reader.samples(StreamSelector::FIRST_VIDEO).await?;
    pictures.try_fold(0, |count, _| async move { Ok(count + 1) }).await
}

async fn mute(clip: String) -> Result<usize> {
    let mut policy = OpenPolicy::new();
    let url = policy.grant(clip);
    let session = portcullis::session(Placement::isolated()).pacing(Pacing::Free).policy(policy).start().await?;
    let source = session.resolve(&url, SourceSide::Host).await?;
    let sound = source.presentation.nth_of(MajorType::Audio, 0).expect("sound").id;
    let (switch, mute) = session.create(Mute { on: false }).await?;
    assert!(switch.is_remote());
    assert!(!switch.send(Switch(true)).await?);
    let (sink, mut samples) = session.sample_grabber().await?;
    let ids = [0, 1, 2].map(ObjectId);
    let mut topology = Topology::new();
    let described = NodeKind::described(ObjectRef::Object(ids[0]), sound, source.presentation.clone());
    let from = topology.add_node(described);
    let through = topology.add_node(NodeKind::transform(ObjectRef::Object(ids[1])));
    let to = topology.add_node(NodeKind::output(ObjectRef::Object(ids[2]), 0));
    topology.connect(from, 0, through, 0)?;
    topology.connect(through, 0, to, 0)?;
    let objects = vec![(ids[0], NodeObject::Source(source)), (ids[1], NodeObject::Transform(mute)), (ids[2], sink)];
    session.set_topology(topology, objects).await?;
    session.start(None).await?;
    let mut silent = 0;
    while let Some(item) = samples.next().await {
        match item.what {
            Grabbed::Sample(sample) => {
                assert!(sample.payload.to_bytes().iter().all(|byte| *byte == 0));
                silent += 1;
            }
            Grabbed::Fault(error) => return Err(error),
            Grabbed::End => break,
            _ => {}
        }
    }
    Ok(silent)
}
"#;

#[test]
fn a_crate_outside_of_the_workspace_builds_with_the_public_interface_and_works() {
    let directory = tempfile::tempdir().unwrap();
    let root = root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    // The workspace's own profile, so that what is built already is built the same way.
    let profile = manifest.split_once("[profile.dev]").unwrap().1;
    let profile = profile.split_once("[profile.release]").unwrap().0;
    // There, members of the workspace are dependencies like others: they need not be optimised.
    let members: String = ["", "-engine", "-derive", "-transport", "-codecs", "-actors"]
        .iter()
        .map(|member| format!("[profile.dev.package.portcullis{member}]\nopt-level = 0\n"))
        .collect();
    let dependencies = format!(
        "portcullis = {{ path = {root:?} }}\nfutures = \"0.3\"\nserde = {{ version = \"1\", features = [\"derive\"] }}\n\
         tokio = {{ version = \"1\", features = [\"rt-multi-thread\"] }}\n"
    );
    let manifest = format!(
        "[package]\nname = \"stranger\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{dependencies}\n\
         [profile.dev]{profile}{members}"
    );
    fs::write(directory.path().join("Cargo.toml"), manifest).unwrap();
    fs::copy(root.join("Cargo.lock"), directory.path().join("Cargo.lock")).unwrap();
    fs::create_dir(directory.path().join("src")).unwrap();
    fs::write(directory.path().join("src/main.rs"), PROGRAM).unwrap();

    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--config"])
        .arg(root.join(".cargo/config.toml"))
        .arg("--")
        .arg(media::clip())
        .current_dir(directory.path())
        // The workspace's own place and flags, so that what is built already serves here too.
        .env("CARGO_TARGET_DIR", target_directory())
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}\n{text}\n{errors}",
        output.status
    );
    assert!(text.contains("90 pictures"), "{text}\n{errors}");
    assert!(text.contains("samples of silence"), "{text}\n{errors}");
}
