//! What the sinks that write a file share: the attached output, and errors that name it.

use std::io::SeekFrom;

use portcullis_engine::component::ByteSink;
use portcullis_engine::{Error, Payload, Result};

/// The output of a sink, once the session's opener has given it.
pub(super) struct OutputFile {
    url: String,
    output: Option<Box<dyn ByteSink>>,
    written: u64,
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "OutputFile({}, {} bytes)", self.url, self.written)
    }
}

impl OutputFile {
    pub(super) fn new(url: String) -> Result<Self> {
        if url.is_empty() {
            return Err(Error::invalid_argument("`url` says where the sink writes"));
        }
        Ok(Self {
            url,
            output: None,
            written: 0,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn attach(&mut self, output: Box<dyn ByteSink>) -> Result<()> {
        if self.output.is_some() {
            return Err(Error::invalid_request("the sink has its output already"));
        }
        self.output = Some(output);
        Ok(())
    }

    /// Bytes written so far, patches not counted.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.run(|output| output.write_all(bytes))?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Writes a payload without its last `cut` bytes.
    pub(super) fn write_payload(&mut self, payload: &Payload, cut: usize) -> Result<()> {
        let bytes = payload.to_bytes();
        self.write(&bytes[..bytes.len().saturating_sub(cut)])
    }

    /// Overwrites bytes that were written before.
    pub(super) fn patch(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.run(|output| {
            output.seek(SeekFrom::Start(at))?;
            output.write_all(bytes)?;
            output.seek(SeekFrom::End(0)).map(drop)
        })
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.run(|output| output.flush())
    }

    fn run(&mut self, action: impl FnOnce(&mut dyn ByteSink) -> std::io::Result<()>) -> Result<()> {
        let Some(output) = &mut self.output else {
            return Err(Error::invalid_request(format!(
                "{} was not opened for the sink",
                self.url
            )));
        };
        action(&mut **output).map_err(|error| Error::io(format!("writing {}", self.url), &error))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::io::{Cursor, Result, Seek, SeekFrom, Write};
    use std::sync::{Arc, Mutex};

    /// A file in memory that the test can read afterwards.
    #[derive(Clone, Default)]
    pub(crate) struct SharedFile(Arc<Mutex<Cursor<Vec<u8>>>>);

    impl SharedFile {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().expect("not poisoned").get_ref().clone()
        }
    }

    impl Write for SharedFile {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Seek for SharedFile {
        fn seek(&mut self, to: SeekFrom) -> Result<u64> {
            self.0.lock().expect("not poisoned").seek(to)
        }
    }
}
