//! A component with a message of its own, in every placement. The host program is the example that has it.

use futures::StreamExt;
use portcullis::engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis::host::Host;
use portcullis::pipeline::sink::Grabbed;
use portcullis::{
    Component, ErrorKind, Interactive, MajorType, NodeObject, OpenPolicy, Output, Pacing, Receive,
    Remote, Result, Sample, Transform, interface,
};
use serde::{Deserialize, Serialize};

use crate::support::{Place, example, media, run};

/// The component of `examples/custom_transform.rs`, as this process sees it.
#[derive(Debug, Serialize, Deserialize, Component)]
#[component(transform, class = "example.gain", about = "Multiplies sound by a factor", accepts = [PCM_S16], produces = [PCM_S16])]
struct Gain {
    factor: f32,
}

impl Transform for Gain {
    fn process(&mut self, input: Sample, output: &mut Output) -> Result<()> {
        output.push(input.map_i16(|value| (f32::from(value) * self.factor) as i16));
        Ok(())
    }
}

#[derive(Debug, Serialize, Deserialize, Remote)]
#[remote(reply = f32)]
struct SetFactor(f32);

interface! { GainControl = "example.GainControl" { SetFactor } }

impl Interactive for Gain {
    type Interface = GainControl;
}

impl Receive<SetFactor> for Gain {
    fn receive(&mut self, SetFactor(factor): SetFactor) -> Result<f32> {
        Ok(std::mem::replace(&mut self.factor, factor))
    }
}

#[test]
fn a_knob_turned_while_the_pipeline_runs_takes_effect_at_a_sample_in_every_placement() {
    run(async {
        for place in Place::ALL {
            let placement = place.placement_in(Host::program(example("custom_transform")));
            let mut policy = OpenPolicy::new();
            let url = policy.grant(media::clip());
            let registry = std::sync::Arc::new(portcullis::builtin().with_interactive::<Gain>());
            let session = portcullis::MediaSessionBuilder::new(registry, placement)
                .pacing(Pacing::Free)
                .policy(policy)
                .start()
                .await
                .unwrap();
            let source = session.resolve(&url, place.side()).await.unwrap();
            let sound = source.presentation.nth_of(MajorType::Audio, 0).unwrap().id;
            let (knob, gain) = session.create(Gain { factor: 1.0 }).await.unwrap();
            assert_eq!(knob.is_remote(), place.is_in_host(), "{place:?}");
            let (sink, mut samples) = session.sample_grabber().await.unwrap();

            let [source_id, gain_id, sink_id] = [0, 1, 2].map(ObjectId);
            let mut topology = Topology::new();
            let described = NodeKind::described(
                ObjectRef::Object(source_id),
                sound,
                source.presentation.clone(),
            );
            let from = topology.add_node(described);
            let through = topology.add_node(NodeKind::transform(ObjectRef::Object(gain_id)));
            let to = topology.add_node(NodeKind::output(ObjectRef::Object(sink_id), 0));
            topology.connect(from, 0, through, 0).unwrap();
            topology.connect(through, 0, to, 0).unwrap();
            let objects = vec![
                (source_id, NodeObject::Source(source)),
                (gain_id, NodeObject::Transform(gain)),
                (sink_id, sink),
            ];
            session.set_topology(topology, objects).await.unwrap();
            session.start(None).await.unwrap();

            let mut silent = Vec::new();
            while let Some(item) = samples.next().await {
                match item.what {
                    Grabbed::Sample(sample) => {
                        silent.push(sample.payload.to_bytes().iter().all(|byte| *byte == 0));
                        if silent.len() == 5 {
                            assert_eq!(knob.send(SetFactor(0.0)).await, Ok(1.0), "{place:?}");
                        }
                    }
                    Grabbed::Fault(error) => panic!("{place:?}: {error}"),
                    Grabbed::End => break,
                    _ => {}
                }
            }
            assert!(!silent[..5].iter().all(|s| *s), "{place:?}: heard at first");
            assert!(silent.last().unwrap(), "{place:?}: silent at last");
            // From one sample on, and never half of one.
            let turned = silent.iter().rposition(|s| !*s).unwrap();
            assert!(silent[turned + 1..].iter().all(|s| *s), "{place:?}");
        }
    });
}

#[test]
fn a_class_that_the_host_program_lacks_is_named() {
    run(async {
        let session = portcullis::session(Place::IsolatedSourceInHost.placement())
            .start()
            .await
            .unwrap();
        let error = session.create(Gain { factor: 1.0 }).await.unwrap_err();
        let expected = ErrorKind::ClassNotInHost {
            class: "example.gain".into(),
        };
        assert_eq!(error.kind(), &expected, "{error}");
    });
}
