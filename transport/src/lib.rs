//! Portcullis transport.
