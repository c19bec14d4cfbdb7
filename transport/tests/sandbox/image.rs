//! What becomes of a host when somebody meddles with its program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use portcullis_transport::host::{HostImage, ImageSource};
use portcullis_transport::{HostCommand, HostProgram, Sandbox, SandboxPolicy};

use super::{ROLE, is_static, reported, run};

pub(crate) fn what_happens_to_the_file_later_does_not_matter() {
    if !is_static() {
        println!("  left out: a dynamic program is executed from its file");
        return;
    }
    let path = std::env::temp_dir().join(format!("portcullis-sandbox-test-{}", std::process::id()));
    std::fs::copy("/proc/self/exe", &path).unwrap();
    let program = HostProgram::Path(path.clone());
    let image = HostImage::open(&program, ImageSource::SealedCopy).unwrap();
    let digest = image.facts().sha256.unwrap();
    assert!(std::sync::Arc::ptr_eq(
        &image,
        &HostImage::open(&program, ImageSource::SealedCopy).unwrap()
    ));
    std::fs::write(&path, "#!/bin/false\n").unwrap();
    let command = HostCommand::new(program.clone())
        .image(image.clone())
        .variable(ROLE, "report")
        .sandbox(Sandbox::protected());
    reported(command).end();
    assert_eq!(image.facts().sha256, Some(digest));
    assert!(
        HostImage::open(&program, ImageSource::SealedCopy).is_err(),
        "another file by now"
    );
    std::fs::remove_file(&path).unwrap();
}

/// Landlock has no rule for a file in anonymous memory, from which an application may run itself.
pub(crate) fn a_program_without_a_path_is_a_host_too() {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let memory = rustix::fs::memfd_create(c"program", flags).unwrap();
    let mut memory = std::fs::File::from(memory);
    let mut program = std::fs::File::open("/proc/self/exe").unwrap();
    std::io::copy(&mut program, &mut memory).unwrap();
    // What is open for writing is not executed.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let memory_read = std::fs::File::open(path).unwrap();
    drop(memory);
    let path = format!("/proc/self/fd/{}", memory_read.as_raw_fd());
    let sandbox = Sandbox::isolated(SandboxPolicy::Require);
    let command = HostCommand::new(HostProgram::Path(path.into()))
        .variable(ROLE, "report")
        .sandbox(sandbox);
    let host = reported(command);
    assert!(host.text.contains("landlock: InForce"), "{}", host.text);
    host.end();
}

/// Seals keep the content of an image, not its mode, which whoever is of the application's user can change.
pub(crate) fn a_host_with_a_readable_image_is_not_protected() {
    if !is_static() {
        println!("  left out: a dynamic program is executed from its file");
        return;
    }
    let path = std::env::temp_dir().join(format!("portcullis-readable-{}", std::process::id()));
    std::fs::copy("/proc/self/exe", &path).unwrap();
    let program = HostProgram::Path(path.clone());
    let images = || -> BTreeSet<std::path::PathBuf> {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        open.map(|entry| entry.unwrap().path())
            .filter(|path| {
                let target = std::fs::read_link(path);
                target.is_ok_and(|target| target.to_string_lossy().contains("portcullis-host"))
            })
            .collect()
    };
    let before = images();
    let image = HostImage::open(&program, ImageSource::SealedCopy).unwrap();
    let made: Vec<_> = images().difference(&before).cloned().collect();
    let [descriptor] = &made[..] else {
        panic!("{made:?}");
    };
    let start = || {
        let command = HostCommand::new(program.clone())
            .image(image.clone())
            .variable(ROLE, "report")
            .sandbox(Sandbox::protected());
        run(async {
            let (process, socket) = command.spawn().await.unwrap();
            // All that it says, which is nothing if it refuses: only then the socket goes.
            let mut said = BufReader::new(UnixStream::from(socket));
            let mut line = String::new();
            while said.read_line(&mut line).is_ok_and(|length| length > 0) && line != ".\n" {
                line.clear();
            }
            drop(said);
            process.exited().await
        })
    };
    let exit = start();
    assert_eq!(exit.last_words, Vec::<String>::new(), "{exit:?}");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(descriptor, readable).unwrap();
    let exit = start();
    assert_eq!(exit.code(), Some(70), "{exit:?}");
    let words = exit.last_words.concat();
    assert!(
        words.contains("not dumpable") && words.contains("readable"),
        "{words}"
    );
    std::fs::remove_file(path).unwrap();
}
