//! The `portcullis` command.
