//! The program of a host, as it is executed.
//!
//! What is to be verified is copied once into sealed anonymous memory, and the very descriptor whose content was hashed is
//! the one that is executed: what happens to the file afterwards is of no consequence. The copy is unreadable, so that a host is
//! closed to other processes of its user from its first moment on; no seal keeps a process of the application's user from
//! changing that by way of the application's descriptor, but a protected host sees it and does not start. Copying a program of
//! 20 megabytes takes some 50 milliseconds, so one that nobody verifies is executed from its file, by descriptor too, and
//! shares its pages with the application that is the same program. A dynamic program needs its loader, which finds libraries
//! by path, so it is always executed so.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ring::digest::{Context, SHA256};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::elf::Elf;
use super::launch::HostProgram;
use crate::error::TransportError;
use crate::sys::spawn::spare;

/// From where a host's program is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Its own file, unless only its owner may execute it, as hosts are users of their own: then as the other.
    File,
    /// A sealed copy, if it is static.
    SealedCopy,
}

/// A host's program, ready to be executed any number of times.
pub struct HostImage {
    descriptor: OwnedFd,
    is_sealed: bool,
    facts: ImageFacts,
    /// As people know it.
    name: String,
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageFacts {
    /// SHA-256 of a sealed copy, read through the descriptor that is executed. Of a file there is none that would still hold
    /// when it is executed.
    pub sha256: Option<[u8; 32]>,
    /// Bytes.
    pub size: u64,
    /// Whether it needs no loader.
    pub is_static: bool,
}

/// Images that are kept, with what each was made from.
const KEPT: usize = 8;

/// Larger ones are no host programs.
const MAX_BYTES: u64 = 1 << 30;

/// By which a file is known to be the same as before.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Where an image is kept; locked while it is made, so that it is made once, however many hosts start at a time.
type Place = Arc<Mutex<Option<Arc<HostImage>>>>;

/// Locked for a look only: a slow disk under one program must not hold up hosts of others.
static IMAGES: Mutex<Vec<(Identity, ImageSource, Place)>> = Mutex::new(Vec::new());
/// This program's images, by source: what runs stays what it is.
static OWN: [OnceLock<Arc<HostImage>>; 2] = [const { OnceLock::new() }; 2];

/// Where the image of this file is kept or is to be.
fn place(identity: Identity, source: ImageSource) -> Place {
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = images.iter();
    if let Some((.., place)) = known.find(|known| (known.0, known.1) == (identity, source)) {
        return Arc::clone(place);
    }
    if images.len() >= KEPT {
        images.remove(0);
    }
    let place = Place::default();
    images.push((identity, source, Arc::clone(&place)));
    place
}

impl HostImage {
    /// Opens a host's program. The first time for a file, a copy is made and hashed, which takes milliseconds: not for an
    /// async task.
    ///
    /// # Errors
    /// [`TransportError::Spawn`] that says what is wrong with the program.
    pub fn open(program: &HostProgram, source: ImageSource) -> Result<Arc<Self>, TransportError> {
        let own = (*program == HostProgram::CurrentExe).then(|| &OWN[source as usize]);
        if let Some(image) = own.and_then(OnceLock::get) {
            return Ok(Arc::clone(image));
        }
        let image = Self::of_file(program, source)?;
        Ok(match own {
            Some(own) => Arc::clone(own.get_or_init(|| image)),
            None => image,
        })
    }

    fn of_file(program: &HostProgram, source: ImageSource) -> Result<Arc<Self>, TransportError> {
        let name = program.to_string();
        let failed = |text: String| TransportError::Spawn {
            program: name.clone(),
            text,
        };
        let (file, metadata) = open(program).map_err(failed)?;
        let place = place(Identity::of(&metadata), source);
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = &*kept {
            return Ok(Arc::clone(image));
        }
        // Of one that fails the place stays empty: the next one tries again.
        let image = Self::make(file, &metadata, source, name.clone()).map_err(failed)?;
        Ok(Arc::clone(kept.insert(Arc::new(image))))
    }

    /// The same on a thread of its own; works on any executor. Not on the one that starts hosts: a slow disk must not hold
    /// up the start of others.
    ///
    /// # Errors
    /// As [`HostImage::open`].
    pub async fn prepare(
        program: HostProgram,
        source: ImageSource,
    ) -> Result<Arc<Self>, TransportError> {
        let own = (program == HostProgram::CurrentExe).then(|| &OWN[source as usize]);
        if let Some(image) = own.and_then(OnceLock::get) {
            return Ok(Arc::clone(image));
        }
        // Kept for the next one if nobody waits for it by then.
        on_own_thread(move || Self::open(&program, source)).await?
    }

    fn make(
        file: File,
        metadata: &Metadata,
        source: ImageSource,
        name: String,
    ) -> Result<Self, String> {
        let size = metadata.len();
        let is_static = Elf::read(&file, size)?.is_static;
        let is_for_all = metadata.permissions().mode() & 0o001 != 0;
        if !is_static || (source == ImageSource::File && is_for_all) {
            return Ok(Self {
                descriptor: out_of_the_way(file)?,
                is_sealed: false,
                facts: ImageFacts {
                    sha256: None,
                    size,
                    is_static,
                },
                name,
            });
        }
        let copied = seal(&file).and_then(|copy| {
            let (sha256, size) = digest(&copy)?;
            Ok((copy, sha256, size))
        });
        let (copy, sha256, size) =
            copied.map_err(|error| format!("cannot make a sealed copy of it: {error}"))?;
        // The copy counts: the file may have changed between the look at it and the copying.
        if !Elf::read(&copy, size)?.is_static {
            return Err("it changed while it was copied".into());
        }
        Ok(Self {
            descriptor: out_of_the_way(copy)?,
            is_sealed: true,
            facts: ImageFacts {
                sha256: Some(sha256),
                size,
                is_static,
            },
            name,
        })
    }

    /// What is known of it.
    pub fn facts(&self) -> ImageFacts {
        self.facts
    }

    /// Whether it is executed from a sealed copy.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The file that is executed, if it is one.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_sealed).then(|| self.descriptor())
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl fmt::Debug for HostImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostImage")
            .field("name", &self.name)
            .field("is_sealed", &self.is_sealed)
            .field("size", &self.facts.size)
            .finish_non_exhaustive()
    }
}

/// What a program's file is, as it lies there. Nothing says that it will be the same when it is executed: for that there is
/// [`HostImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramFacts {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// ELF's number of the machine that it runs on, such as 62 for x86-64.
    pub machine: u16,
    /// Whether it needs no loader.
    pub is_static: bool,
}

/// Reads a program's file, on a thread of its own; works on any executor. Dropping the future does not stop the reading, which
/// ends with the file.
///
/// # Errors
/// [`TransportError::Spawn`] that says what is wrong with the program.
pub async fn inspect(program: HostProgram) -> Result<ProgramFacts, TransportError> {
    let read = move || {
        let look = || {
            let (file, metadata) = open(&program)?;
            let elf = Elf::read(&file, metadata.len())?;
            let (sha256, size) = digest(&file).map_err(|error| error.to_string())?;
            Ok(ProgramFacts {
                sha256,
                size,
                machine: elf.machine,
                is_static: elf.is_static,
            })
        };
        look().map_err(|text| TransportError::Spawn {
            program: program.to_string(),
            text,
        })
    };
    on_own_thread(read).await?
}

/// Not on the thread that starts hosts: a slow disk must not hold up the start of others.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TransportError> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("portcullis-image".into())
        .spawn(move || {
            if !reply.is_closed() {
                drop(reply.send(work()));
            }
        })
        .map_err(|error| TransportError::io("start a thread for a host's program", error))?;
    answer
        .await
        .map_err(|_| TransportError::io("open a host's program", "its thread ended"))
}

/// Opens a program without waiting: the path may name a pipe, at which an ordinary opening waits for a writer.
fn open(program: &HostProgram) -> Result<(File, Metadata), String> {
    let path = match program {
        // Not its path: the file may have been replaced or removed since.
        HostProgram::CurrentExe => "/proc/self/exe".as_ref(),
        HostProgram::Path(path) => path.as_path(),
    };
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, metadata))
        });
    let (file, metadata) = opened.map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err("it is not an executable file".into());
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(format!("its {size} bytes are more than {MAX_BYTES}"));
    }
    Ok((file, metadata))
}

/// A child puts other descriptors under the lowest numbers before it executes this one.
fn out_of_the_way(file: File) -> Result<OwnedFd, String> {
    spare(&file.into()).map_err(|error| format!("cannot keep it open: {error}"))
}

/// `F_SEAL_EXEC`: whether it is executable can no longer change. Linux 6.3.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);
/// `MFD_EXEC`: executable also where that is not the default. Linux 6.3.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// A copy in memory that is executable and never changes again; its content, that is: seals do not keep it unreadable.
fn seal(file: &File) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create(c"portcullis-host", flags | MFD_EXEC) {
        Err(Errno::INVAL) => memfd_create(c"portcullis-host", flags)?,
        result => result?,
    };
    let mut copy = File::from(memory);
    let limit = MAX_BYTES + 1;
    if io::copy(&mut file.take(limit), &mut copy)? >= limit {
        return Err(io::Error::other("it grows"));
    }
    fchmod(&copy, Mode::from_bits_truncate(0o111))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    match fcntl_add_seals(&copy, seals | SEAL_EXEC) {
        Err(Errno::INVAL) => fcntl_add_seals(&copy, seals)?,
        result => result?,
    }
    Ok(copy)
}

/// The digest of a file of at most [`MAX_BYTES`].
fn digest(file: &File) -> io::Result<([u8; 32], u64)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        let read = match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
        if at > MAX_BYTES {
            return Err(io::Error::other("it grows"));
        }
    }
    let digest = context.finish();
    let digest = digest.as_ref().try_into().map_err(io::Error::other)?;
    Ok((digest, at))
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::{elf, file};
    use super::*;

    #[test]
    fn a_pipe_is_no_program_and_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("portcullis-fifo-{}", std::process::id()));
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RWXU).unwrap();
        let error =
            HostImage::open(&HostProgram::Path(path.clone()), ImageSource::File).unwrap_err();
        assert!(
            error.to_string().contains("not an executable file"),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn one_image_in_the_making_holds_up_no_other() {
        let folder = std::env::temp_dir().join(format!("portcullis-slow-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let program = |name: &str| {
            let path = folder.join(name);
            std::fs::write(&path, elf(&[1])).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            HostProgram::Path(path)
        };
        let (slow, quick) = (program("slow"), program("quick"));
        let metadata = open(&slow).unwrap().1;
        let place = place(Identity::of(&metadata), ImageSource::File);
        let making = place.lock().unwrap();
        HostImage::open(&quick, ImageSource::File).unwrap();
        let waiting = std::thread::spawn({
            let slow = slow.clone();
            move || HostImage::open(&slow, ImageSource::File).unwrap()
        });
        drop(making);
        let image = waiting.join().unwrap();
        let again = HostImage::open(&slow, ImageSource::File).unwrap();
        assert!(Arc::ptr_eq(&image, &again), "made once");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_sealed_copy_cannot_be_changed() {
        let source = file(&elf(&[1]));
        std::io::Seek::rewind(&mut &source).unwrap();
        let copy = seal(&source).unwrap();
        let (sha256, size) = digest(&copy).unwrap();
        assert_eq!(size, elf(&[1]).len() as u64);
        let expected = ring::digest::digest(&SHA256, &elf(&[1]));
        assert_eq!(sha256, expected.as_ref());
        assert!(copy.write_at(b"x", 0).is_err());
        assert!(copy.set_len(0).is_err());
        assert!(copy.set_len(1 << 20).is_err());
        assert!(fcntl_add_seals(&copy, SealFlags::FUTURE_WRITE).is_err());
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o111);
    }
}
