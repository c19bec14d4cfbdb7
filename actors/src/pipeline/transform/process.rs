//! What a transform's worker does with a batch.

use std::time::{Duration, Instant};

use portcullis_engine::component::OutputItem;
use portcullis_engine::{
    Error, ErrorKind, MediaType, Output, Result, Transform as TransformComponent,
};

use crate::pipeline::memory::NodeMemory;
use crate::pipeline::port::FlowItem;

/// Time after which a job hands over what it has made: the first picture must not wait for the fifteen after it.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// Payload bytes after which it does.
const BATCH_BYTES: u64 = 4 << 20;

/// What came out of a batch.
pub(super) struct Processed {
    pub(super) items: Vec<FlowItem>,
    /// The faults among the items that are this transform's own, not passed on.
    pub(super) faults: Vec<Error>,
    /// What was not processed yet.
    pub(super) rest: Vec<FlowItem>,
}

/// Processes a batch on the worker. A sample that cannot be processed becomes a fault; the next one is tried.
pub(super) fn process<T: TransformComponent>(
    transform: &mut T,
    batch: Vec<FlowItem>,
    mut output: Output,
    memory: &NodeMemory,
) -> Processed {
    let mut items = Vec::with_capacity(batch.len());
    let mut faults = Vec::new();
    let (start, mut bytes) = (Instant::now(), 0_u64);
    let mut batch = batch.into_iter();
    for item in batch.by_ref() {
        let last = matches!(item, FlowItem::End);
        let outcome = match item {
            FlowItem::Sample(sample) => transform.process(sample, &mut output),
            FlowItem::Format(media_type) => change_format(transform, &media_type, &mut output),
            FlowItem::End => transform.drain(&mut output),
            other => {
                items.push(other);
                continue;
            }
        };
        while let Some(made) = output.take() {
            items.push(match made {
                OutputItem::Sample(sample) => {
                    bytes = bytes.saturating_add(sample.len() as u64);
                    FlowItem::Sample(sample)
                }
                OutputItem::Format(media_type) => FlowItem::Format(media_type),
                other => FlowItem::Error(Error::new(ErrorKind::Unsupported {
                    what: format!("{other:?}").into(),
                })),
            });
        }
        if let Err(error) = outcome {
            faults.push(error.clone());
            items.push(FlowItem::Error(error));
        }
        if last {
            items.push(FlowItem::End);
        }
        let is_enough = bytes >= BATCH_BYTES || start.elapsed() >= BATCH_TIME;
        if !items.is_empty() && (is_enough || !memory.has_room()) {
            break;
        }
    }
    Processed {
        items,
        faults,
        rest: batch.collect(),
    }
}

/// A format change in band: what belongs to the old type is drained first (reference 1.7 X5).
fn change_format<T: TransformComponent>(
    transform: &mut T,
    media_type: &MediaType,
    output: &mut Output,
) -> Result<()> {
    transform.drain(output)?;
    let types = transform.set_input(media_type)?;
    let Some(first) = types.first() else {
        return Err(Error::invalid_type(
            media_type,
            "nothing can be made from it",
        ));
    };
    transform.set_output(first)?;
    output.push_format(first.clone());
    Ok(())
}
