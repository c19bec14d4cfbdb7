//! Which container handler opens an input: content first, names only where the content says nothing.

mod lend;

use bytes::Bytes;

use crate::component::{
    ByteSource, ByteStreamHandler, Confidence, MediaSource, OpenContext, Registry, Role, Settings,
};
use crate::error::{Error, ErrorKind, Result};
use lend::{Lender, read_head};

/// How many bytes handlers look at before one of them opens the input.
pub const PROBE_BYTES: usize = 4096;

/// Opens an input with the registered handler that recognises it.
///
/// Every handler looks at the head of the input; those that may know it are tried by their confidence, so a wrong file
/// name does no harm. A seekable input is rewound between tries; of a forward-only one the head is given again, and the
/// first handler that reads past it decides. Where a handler that is sure finds the input damaged, handlers that are less
/// sure are not tried: one of them might take the rest for its own.
///
/// # Errors
/// `UnsupportedByteStream` with what each handler said as causes; the handler's own error where exactly one was sure that
/// the input is its own; whatever reading the input finds.
pub fn open_source(
    registry: &Registry,
    mut input: Box<dyn ByteSource>,
    context: &OpenContext,
) -> Result<Box<dyn MediaSource>> {
    let head = read_head(input.as_mut())?;
    if head.is_empty() {
        return Err(unrecognised("it has no bytes".to_owned()));
    }
    let (candidates, mut rejected) = probe(registry, &head, context);
    let mut search = Search::new(&candidates);
    let lender = Lender::new(input, head.clone());
    for candidate in &candidates {
        if search.is_settled(candidate.confidence) {
            break;
        }
        let Some(input) = lender.lend()? else {
            search.not_tried(candidate, "the input cannot be read again");
            continue;
        };
        match candidate.handler.open(input, context) {
            Ok(source) => return Ok(source),
            Err(error) if is_about_reading(&error) => return Err(error),
            Err(error) => search.refused(candidate, error),
        }
    }
    rejected.splice(0..0, search.causes);
    let error = search
        .own_error
        .unwrap_or_else(|| unrecognised(describe(&head, context)));
    Err(rejected.into_iter().fold(error, Error::because))
}

struct Candidate {
    class: &'static str,
    confidence: Confidence,
    handler: Box<dyn ByteStreamHandler>,
}

/// The handlers that may know the input, best first, and why the others do not.
fn probe(registry: &Registry, head: &[u8], context: &OpenContext) -> (Vec<Candidate>, Vec<String>) {
    let mut candidates = Vec::new();
    let mut rejected = Vec::new();
    for entry in registry.candidates(|info| info.role == Role::ByteStreamHandler) {
        let class = entry.info().class;
        match registry.create_byte_stream_handler(class, &Settings::default()) {
            Ok(handler) => match handler.probe(head, &context.hints) {
                Confidence::No => rejected.push(format!("{class}: not its format")),
                confidence => candidates.push(Candidate {
                    class,
                    confidence,
                    handler,
                }),
            },
            Err(error) => rejected.push(format!("{class}: {error}")),
        }
    }
    // The sort is stable: of equal confidence the one registered last stays first.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.confidence));
    (candidates, rejected)
}

/// What the tries so far mean for the next one and for the final error.
struct Search {
    only_one_is_sure: bool,
    sure_found_damage: bool,
    own_error: Option<Error>,
    causes: Vec<String>,
}

impl Search {
    fn new(candidates: &[Candidate]) -> Self {
        let sure = candidates
            .iter()
            .filter(|candidate| candidate.confidence == Confidence::Sure);
        Self {
            only_one_is_sure: sure.count() == 1,
            sure_found_damage: false,
            own_error: None,
            causes: Vec::new(),
        }
    }

    fn is_settled(&self, next: Confidence) -> bool {
        self.sure_found_damage && next < Confidence::Sure
    }

    fn not_tried(&mut self, candidate: &Candidate, why: &str) {
        self.causes
            .push(format!("{}: not tried, {why}", candidate.class));
    }

    fn refused(&mut self, candidate: &Candidate, error: Error) {
        let is_sure = candidate.confidence == Confidence::Sure;
        let is_damage = !matches!(error.kind(), ErrorKind::UnsupportedByteStream { .. });
        self.sure_found_damage |= is_sure && is_damage;
        if is_sure && self.only_one_is_sure {
            self.own_error = Some(error);
        } else {
            self.causes.push(format!("{}: {error}", candidate.class));
        }
    }
}

/// Whether the error says that the input could not be read at all, so that no other handler can do better.
fn is_about_reading(error: &Error) -> bool {
    error.ends_every_try()
        || matches!(
            error.kind(),
            ErrorKind::Io { .. } | ErrorKind::NotFound { .. } | ErrorKind::OpenRefused { .. }
        )
}

fn unrecognised(what: String) -> Error {
    Error::new(ErrorKind::UnsupportedByteStream { what: what.into() })
}

fn describe(head: &Bytes, context: &OpenContext) -> String {
    let shown = &head[..head.len().min(12)];
    let mut what = format!("it starts with \"{}\"", shown.escape_ascii());
    if let Some(extension) = &context.hints.extension {
        what.push_str(&format!(", extension {extension}"));
    }
    if let Some(mime_type) = &context.hints.mime_type {
        what.push_str(&format!(", MIME type {mime_type}"));
    }
    what
}

#[cfg(test)]
mod tests;
