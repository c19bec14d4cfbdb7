//! Creating an object by class id, where the host is.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use portcullis_engine::component::Role;
use portcullis_engine::{Error, ErrorKind, Result};

use super::pmp_host::{CreateObject, CreatedObject, SOURCE_RESOLVER};
use crate::bridge::FileDescriptor;
use crate::pipeline::memory::NodeMemory;
use crate::pipeline::opener::CreateUrl;
use crate::pipeline::resolver::SourceResolverActor;
use crate::pipeline::sink::{ComponentRenderer, ReadAhead, SinkActor};
use crate::pipeline::source::SourceActor;
use crate::registry::{Environment, Registry};
use crate::system_time;

/// Creates an object by class id in this process, on this arbiter.
pub(crate) async fn create_object(
    registry: Arc<Registry>,
    environment: Environment,
    request: CreateObject,
) -> Result<CreatedObject> {
    let CreateObject {
        class,
        settings,
        opener,
        limits,
    } = request;
    if class == SOURCE_RESOLVER {
        return Ok(CreatedObject::Resolver(SourceResolverActor::create(
            registry,
        )));
    }
    if let Some(why) = registry.refusal(&class) {
        return Err(Error::new(ErrorKind::NotTrusted(why.clone())));
    }
    let Some(info) = registry.components().get(&class).map(|entry| *entry.info()) else {
        return Err(Error::new(ErrorKind::ClassNotInHost {
            class: class.into(),
        }));
    };
    match info.role {
        Role::Source => {
            let memory = NodeMemory::new(environment.allocator);
            let allocator = memory.allocator();
            let build = move || {
                let mut source = registry.components().create_source(&class, &settings)?;
                source.use_memory(allocator);
                Ok(source)
            };
            SourceActor::create(info.inline, limits, memory, None, build)
                .await
                .map(CreatedObject::Source)
        }
        Role::Decoder | Role::Converter | Role::Transform => {
            let (object, control) = registry
                .create_transform(&class, &settings, environment)
                .await?;
            Ok(CreatedObject::Transform(object, control))
        }
        Role::Sink => {
            let build = move || registry.components().create_sink(&class, &settings);
            let (renderer, url) = ComponentRenderer::create(info.inline, build).await?;
            if let Some(url) = url {
                let opener = opener
                    .ok_or_else(|| Error::invalid_request("a sink that writes needs an opener"))?;
                let file = opener.send(CreateUrl { url }).await?;
                let output = Overwritten::new(into_file(&file)?);
                renderer.attach(Box::new(output)).await?;
            }
            let sink = SinkActor::create(renderer, ReadAhead::default(), system_time::now);
            Ok(CreatedObject::Sink(sink))
        }
        role => Err(Error::invalid_request(format!(
            "{class} is a {role}: use a source resolver"
        ))),
    }
}

fn into_file(descriptor: &FileDescriptor) -> Result<File> {
    let descriptor = descriptor
        .take()
        .ok_or_else(|| Error::invalid_request("the descriptor of an output was taken before"))?;
    Ok(File::from(descriptor))
}

/// A file whose old content goes with the first write, and not before: whoever fails earlier has lost nothing.
#[derive(Debug)]
struct Overwritten {
    file: File,
    is_written: bool,
}

impl Overwritten {
    fn new(file: File) -> Self {
        Self {
            file,
            is_written: false,
        }
    }
}

impl Write for Overwritten {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_written {
            // A pipe or device has no old content.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.is_written = true;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Overwritten {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_content_goes_with_the_first_write_and_not_before() {
        let path = std::env::temp_dir().join(format!("portcullis-{}-kept", std::process::id()));
        std::fs::write(&path, b"old and long").unwrap();
        let open = || File::options().write(true).open(&path).unwrap();
        drop(Overwritten::new(open()));
        assert_eq!(std::fs::read(&path).unwrap(), b"old and long");
        let mut output = Overwritten::new(open());
        output.write_all(b"new").unwrap();
        output.write_all(b"er").unwrap();
        output.seek(SeekFrom::Start(0)).unwrap();
        output.write_all(b"N").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"Newer");
        std::fs::remove_file(&path).unwrap();
    }
}
