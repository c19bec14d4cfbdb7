//! How a command fails: what is printed, and which exit code says it.

use std::fmt;
use std::io;

use portcullis_engine::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the library says.
    Media(Error),
    /// The arguments make no sense together.
    Usage(String),
    /// The content has nothing to offer.
    Content(String),
    /// Faults in place of samples, printed before; the rest was delivered.
    Faults(u64),
    /// An output could not be written.
    Output { what: String, error: io::Error },
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// A signal asked to end.
    Signal(u8),
    /// Printed before; only the code is left to say.
    Told(u8),
}

/// The form of a failure on standard output, beside the line on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) enum JsonForm {
    /// One indented document, the command's only one.
    Document,
    /// One object a line.
    Lines,
}

impl Failure {
    pub(super) fn output(what: impl Into<String>, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        let what = what.into();
        Self::Output { what, error }
    }

    /// Names the input, where the library's error names none yet.
    pub(super) fn of_input(self, name: &str) -> Self {
        match self {
            Self::Media(error) => Self::Media(error.of_input(name)),
            other => other,
        }
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Media(error) => code_of(error),
            Self::Usage(_) => 2,
            Self::Content(_) | Self::Faults(_) => 4,
            Self::Output { .. } => 1,
            Self::BrokenPipe => 0,
            Self::Signal(signal) => 128 + signal,
            Self::Told(code) => *code,
        }
    }

    /// Says it and gives the exit code.
    pub(super) fn report(self, json: Option<JsonForm>) -> u8 {
        let code = self.code();
        if let Self::BrokenPipe | Self::Signal(_) | Self::Told(_) = self {
            return code;
        }
        let text = self.to_string();
        eprintln!("portcullis: {}", one_line(&text));
        if let Some(form) = json {
            let mut object = match &self {
                Self::Media(error) => describe(error),
                _ => Map::new(),
            };
            object.insert("code".into(), json!(code));
            object.entry("string").or_insert_with(|| json!(text));
            let document = json!({ "error": object });
            // The line on standard error and the code have said it already.
            let _ = match form {
                JsonForm::Document => super::output::document(&document),
                JsonForm::Lines => super::output::line(&document.to_string()),
            };
        }
        code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Media(error) => error.fmt(out),
            Self::Usage(text) | Self::Content(text) => out.write_str(text),
            Self::Faults(count) => {
                let s = if *count == 1 { "" } else { "s" };
                write!(
                    out,
                    "{count} fault{s} in the input; what is intact was delivered"
                )
            }
            Self::Output { what, error } => write!(out, "{what}: {error}"),
            Self::BrokenPipe => out.write_str("nobody reads the output"),
            Self::Signal(2) => out.write_str("interrupted"),
            Self::Signal(_) => out.write_str("terminated"),
            Self::Told(code) => write!(out, "failed with code {code}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Media(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => Self::Media(error),
            Err(error) => match error.downcast::<io::Error>() {
                Ok(error) => Self::output("the figures", error),
                Err(error) => Self::output("bench", io::Error::other(error)),
            },
        }
    }
}

/// The exit code of an error of the library.
pub(super) fn code_of(error: &Error) -> u8 {
    // A sink that cannot write is no fault of the input.
    let of_output = error
        .place()
        .node
        .as_deref()
        .is_some_and(|node| node.contains("sink."));
    match error.kind() {
        ErrorKind::NotFound { .. } | ErrorKind::OpenRefused { .. } | ErrorKind::Io { .. }
            if of_output =>
        {
            1
        }
        ErrorKind::NotFound { .. }
        | ErrorKind::UnsupportedScheme { .. }
        | ErrorKind::OpenRefused { .. }
        | ErrorKind::NotSeekable { .. }
        | ErrorKind::Io { .. } => 3,
        // What the content is cannot be brought to what was asked for.
        ErrorKind::CannotConnect(_) => 4,
        ErrorKind::HostLost(_) | ErrorKind::Protocol(_) => 5,
        ErrorKind::HostStart(_) | ErrorKind::LayerMissing { .. } => 6,
        ErrorKind::NotTrusted(_) => 7,
        _ if error.is_content() => 4,
        _ => 1,
    }
}

/// An error as JSON: its text, its kind with what belongs to it, and where it happened.
pub(super) fn describe(error: &Error) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("string".into(), json!(error.to_string()));
    match serde_json::to_value(error.kind()) {
        Ok(Value::String(kind)) => drop(object.insert("kind".into(), json!(kind))),
        Ok(Value::Object(kind)) => {
            for (name, detail) in kind {
                object.insert("kind".into(), json!(name));
                object.insert("detail".into(), detail);
            }
        }
        // Every kind has one of these forms.
        Ok(_) | Err(_) => {}
    }
    let place = error.place();
    for (name, value) in [
        ("input", json!(place.input)),
        ("node", json!(place.node)),
        ("process", json!(place.process)),
    ] {
        if !value.is_null() {
            object.insert(name.into(), value);
        }
    }
    if !error.causes().is_empty() {
        object.insert("causes".into(), json!(error.causes()));
    }
    object
}

/// Prints what could not be delivered while the rest is; a hostile file can make one a sample, so only the first few.
#[derive(Debug)]
pub(super) struct Faults {
    input: Option<String>,
    count: u64,
}

/// Faults that are printed one by one.
const PRINTED_FAULTS: u64 = 20;

impl Faults {
    /// Of the input with this name, or of several.
    pub(super) fn new(input: Option<String>) -> Self {
        Self { input, count: 0 }
    }

    pub(super) fn add(&mut self, error: &Error) {
        self.count += 1;
        let error = match &self.input {
            Some(input) => &error.clone().of_input(input.clone()),
            None => error,
        };
        if self.count <= PRINTED_FAULTS {
            eprintln!("portcullis: {}", one_line(&error.to_string()));
        } else if self.count == PRINTED_FAULTS + 1 {
            eprintln!("portcullis: more faults follow and are only counted");
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What is left to say at the end.
    pub(super) fn outcome(&self) -> Result<(), Failure> {
        match self.count {
            0 => Ok(()),
            count => Err(Failure::Faults(count)),
        }
    }
}

/// One line, without what could drive a terminal: texts may come out of a hostile file.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use portcullis_engine::error::HostExit;
    use portcullis_engine::trust::TrustError;

    use super::*;

    #[test]
    fn codes_follow_the_kind() {
        let not_found = ErrorKind::NotFound { what: "a".into() };
        for (error, code) in [
            (Error::new(not_found), 3),
            (Error::malformed(8, "box"), 4),
            (Error::limit("pixels", 1, 2), 4),
            (Error::new(ErrorKind::HostLost(HostExit::default())), 5),
            (Error::new(ErrorKind::HostStart("no".into())), 6),
            (Error::from(TrustError::Unsigned), 7),
            (Error::cancelled(), 1),
        ] {
            assert_eq!(code_of(&error), code, "{error}");
        }
        assert_eq!(Failure::Signal(2).code(), 130);
        assert_eq!(Failure::Signal(15).code(), 143);
        assert_eq!(
            Failure::output("x", io::ErrorKind::BrokenPipe.into()).code(),
            0
        );
    }

    #[test]
    fn an_error_is_described_by_kind_and_place() {
        let object = describe(
            &Error::malformed(8, "box of 7 bytes")
                .of_input("a.mp4")
                .in_process(4),
        );
        assert_eq!(object["kind"], "Malformed");
        assert_eq!(object["detail"]["at"], 8);
        assert_eq!(object["input"], "a.mp4");
        assert_eq!(describe(&Error::cancelled())["kind"], "Cancelled");
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\x1b[2J"), "a b [2J");
    }
}
