//! Collects the spans of this process: name, parent, fields.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

/// A span or an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Of a span.
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) parent: Option<u64>,
    pub(crate) fields: BTreeMap<String, String>,
}

/// From now on all spans are collected.
pub(crate) fn collect() {
    let subscriber = Registry::default().with(Collector);
    tracing::subscriber::set_global_default(subscriber).expect("is the first");
}

/// What was collected so far.
pub(crate) fn seen() -> Vec<Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Collector;

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = context.span(id);
        let parent = span.and_then(|span| Some(span.parent()?.id().into_u64()));
        note(Seen {
            id: Some(id.into_u64()),
            name: attributes.metadata().name().into(),
            parent,
            fields: fields.0,
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        note(Seen {
            id: None,
            name: event.metadata().level().to_string(),
            parent: context.event_span(event).map(|span| span.id().into_u64()),
            fields: fields.0,
        });
    }
}

fn note(seen: Seen) {
    // Spans outside of this project are none of ours; what is kept is bounded by the length of the tests.
    SEEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen);
}
