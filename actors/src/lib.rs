//! Portcullis actors.
