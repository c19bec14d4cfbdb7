//! Derive macros of Portcullis.
