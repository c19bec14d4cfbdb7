//! Portcullis engine.
