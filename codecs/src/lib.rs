//! Portcullis codecs.
