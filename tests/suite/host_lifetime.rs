//! How long a host lives, what it may be, and what it may use up.

use std::time::Duration;

use futures::TryStreamExt;
use portcullis::engine::trust::{
    ClassVersion, Envelope, HostEntry, ImageDigest, MANIFEST_TYPE, Manifest, PrivateKey,
    TrustError, TrustRoots, UnixTime,
};
use portcullis::host::{
    CountHostLocks, CreateObject, CreatedObject, DescribeHost, Host, HostConnection, HostPool,
    HostQuotas, LockHost, ProtectedHost, SandboxPolicy, SandboxProfile, Trust, UnlockHost,
};
use portcullis::{
    ContentLimits, ErrorKind, Placement, PmpFlags, Settings, StreamSelector, system_time,
};

use crate::support::{host, media, process, run, until};

async fn pictures(host: HostConnection) -> portcullis::Result<usize> {
    let reader = portcullis::open(media::clip()).host(host).open().await?;
    let mut pictures = reader.samples(StreamSelector::FIRST_VIDEO).await?;
    let mut count = 0;
    while pictures.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_host_needs_no_session_and_creates_by_class() {
    run(async {
        let host = host().start().await.unwrap();
        let create = |class: &str| {
            host.pmp_host().send(CreateObject {
                class: class.into(),
                settings: Settings::default(),
                opener: None,
                limits: ContentLimits::default(),
            })
        };
        let sink = create("sink.null").await.unwrap();
        assert!(matches!(sink, CreatedObject::Sink(_)), "{sink:?}");
        let error = create("no.such.class").await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ClassNotInHost { class } if class == "no.such.class"),
            "{error}"
        );
    });
}

#[test]
fn sessions_share_a_host_up_to_its_quota() {
    run(async {
        let host = host().max_sessions(2).start().await.unwrap();
        let session = || {
            portcullis::session(Placement::InProcess)
                .host(host.clone())
                .start()
        };
        let first = session().await.unwrap();
        let second = session().await.unwrap();
        assert_eq!(first.host().pid(), second.host().pid());
        let error = session().await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::LimitExceeded { max: 2, .. }),
            "{error}"
        );
        first.shutdown().await.unwrap();
        drop(first);
        // The place is free when the host has noticed that the session's last handle went.
        let deadline = system_time::now() + portcullis::MediaTime::from_secs(10);
        while let Err(error) = session().await {
            assert!(system_time::now() < deadline, "{error}");
        }
    });
}

#[test]
fn locks_are_counted_and_must_balance() {
    run(async {
        let host = host().start().await.unwrap();
        let pmp = host.pmp_host();
        assert_eq!(pmp.send(LockHost).await.unwrap(), 1);
        let second = host.lock().await.unwrap();
        assert_eq!(pmp.send(CountHostLocks).await.unwrap(), 2);
        assert_eq!(second.unlock().await.unwrap(), 1);
        assert_eq!(pmp.send(UnlockHost).await.unwrap(), 0);
        let error = pmp.send(UnlockHost).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidRequest { .. }),
            "{error}"
        );
    });
}

#[test]
fn a_locked_host_outlives_its_connection_until_it_is_unlocked() {
    run(async {
        let host = host().start().await.unwrap();
        let pid = host.pid();
        let lock = host.lock().await.unwrap();
        drop(host);
        // It still answers.
        lock.unlock().await.unwrap();
        until("the unlocked host ends", || !process::exists(pid)).await;
    });
}

#[test]
fn a_lock_holds_a_host_no_longer_than_the_grace() {
    run(async {
        let host = host().start().await.unwrap();
        let pid = host.pid();
        let lock = host.lock().await.unwrap();
        let pmp = host.pmp_host().clone();
        drop(host);
        // Well within the three seconds it is there.
        assert_eq!(pmp.send(CountHostLocks).await.unwrap(), 1);
        until("the grace ends", || !process::exists(pid)).await;
        let error = lock.unlock().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::HostLost(_)), "{error}");
    });
}

#[test]
fn a_pool_gives_each_host_once_and_refills() {
    run(async {
        let pool = HostPool::isolated(host(), 2).await.unwrap();
        until("the pool is full", || pool.ready() == 2).await;
        let first = pool.take().await.unwrap();
        let second = pool.take().await.unwrap();
        assert_ne!(first.pid(), second.pid());
        let used = [first.pid(), second.pid()];
        assert_eq!(pictures(first).await.unwrap(), 90);
        assert_eq!(pictures(second).await.unwrap(), 90);
        until("the pool is full again", || pool.ready() == 2).await;
        let third = pool.take().await.unwrap();
        assert!(!used.contains(&third.pid()));
        drop(pool);
        assert_eq!(pictures(third).await.unwrap(), 90);
    });
}

#[test]
fn a_pool_refuses_hosts_whose_time_would_run_out_in_it() {
    run(async {
        let quotas = HostQuotas {
            wall_time: Some(Duration::from_secs(60)),
            ..HostQuotas::default()
        };
        let error = HostPool::isolated(host().quotas(quotas), 1)
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument { .. }),
            "{error}"
        );
    });
}

#[test]
fn a_protected_session_runs_in_no_lesser_host() {
    run(async {
        let isolated = host().start().await.unwrap();
        let session = portcullis::session(Placement::Protected(protected(Trust::development())));
        let error = session.host(isolated).start().await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidRequest { .. }),
            "{error}"
        );
    });
}

#[test]
fn a_host_beyond_its_time_ends_with_an_error_that_names_the_quota() {
    run(async {
        let quotas = HostQuotas {
            wall_time: Some(Duration::from_millis(300)),
            ..HostQuotas::default()
        };
        let short = host().quotas(quotas).start().await.unwrap();
        let other = host().start().await.unwrap();
        let error = short.lost().unwrap().wait().await;
        let exit = error.host_exit().unwrap_or_else(|| panic!("{error}"));
        assert_eq!(
            exit.quota.map(|quota| quota.to_string()).as_deref(),
            Some("wall time"),
            "{error}"
        );
        // Only that one.
        other.pmp_host().send(DescribeHost).await.unwrap();
    });
}

#[test]
fn a_host_says_what_is_in_force_around_it() {
    run(async {
        let isolated = host().start().await.unwrap();
        let facts = isolated.isolation().unwrap();
        assert_eq!(facts.profile, Some(SandboxProfile::Isolated));
        assert!(facts.is_complete(SandboxProfile::Isolated), "{facts}");
        let described = isolated.pmp_host().send(DescribeHost).await.unwrap();
        assert_eq!(described.isolation.as_ref(), Some(facts));
        assert_eq!(described.pid, isolated.pid());
        let lenient = host()
            .sandbox(SandboxPolicy::BestEffort)
            .start()
            .await
            .unwrap();
        assert_eq!(
            lenient.isolation().unwrap().policy,
            SandboxPolicy::BestEffort
        );
    });
}

/// A manifest of the test host program, signed by a key of its own.
struct Signed {
    roots: TrustRoots,
    key: PrivateKey,
    manifest: Manifest,
}

impl Signed {
    fn of(components: Vec<ClassVersion>) -> Self {
        let key = PrivateKey::from_seed([7; 32]);
        let program = std::fs::read(env!("CARGO_BIN_EXE_portcullis-host")).unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        Self {
            roots: TrustRoots::new([key.public()]).unwrap(),
            manifest: Manifest {
                name: "test-host".into(),
                version: 1,
                issued: UnixTime(now - 60),
                expires: UnixTime(now + 3600),
                development: false,
                host: HostEntry::new(ImageDigest::of(&program), "x86_64-linux"),
                components,
                min_revocation_version: None,
            },
            key,
        }
    }

    fn envelope(&self) -> Vec<u8> {
        let payload = self.manifest.to_json().unwrap();
        Envelope::sign(MANIFEST_TYPE, payload, &[&self.key])
            .unwrap()
            .to_json()
    }

    fn trust(&self) -> Trust {
        Trust::manifest(self.envelope(), self.roots.clone())
    }
}

fn builtin() -> Vec<ClassVersion> {
    portcullis::builtin().components().class_versions()
}

fn protected(trust: Trust) -> ProtectedHost {
    ProtectedHost::new(host(), trust)
}

fn refusal(error: &portcullis::Error) -> &TrustError {
    match error.kind() {
        ErrorKind::NotTrusted(why) => why,
        _ => panic!("{error}"),
    }
}

#[test]
fn a_verified_host_plays_and_is_complete() {
    run(async {
        let host = protected(Signed::of(builtin()).trust())
            .start()
            .await
            .unwrap();
        let facts = host.isolation().unwrap().clone();
        assert_eq!(facts.profile, Some(SandboxProfile::Protected));
        assert!(facts.is_complete(SandboxProfile::Protected), "{facts}");
        assert!(!host.vouched().unwrap().is_development());
        assert_eq!(pictures(host).await.unwrap(), 90);
    });
}

#[test]
fn a_component_that_the_manifest_does_not_list_is_refused_there_and_works_when_isolated() {
    run(async {
        let without: Vec<_> = builtin()
            .into_iter()
            .filter(|component| component.class != "sink.null")
            .collect();
        let mut other_version = builtin();
        for component in &mut other_version {
            if component.class == "sink.null" {
                component.version += 1;
            }
        }
        let create = |host: &HostConnection| {
            host.pmp_host().send(CreateObject {
                class: "sink.null".into(),
                settings: Settings::default(),
                opener: None,
                limits: ContentLimits::default(),
            })
        };
        let started = protected(Signed::of(without).trust())
            .start()
            .await
            .unwrap();
        let error = create(&started).await.unwrap_err();
        assert!(
            matches!(refusal(&error), TrustError::ComponentNotListed { .. }),
            "{error}"
        );
        let started = protected(Signed::of(other_version).trust())
            .start()
            .await
            .unwrap();
        let error = create(&started).await.unwrap_err();
        assert!(
            matches!(refusal(&error), TrustError::ComponentVersion { .. }),
            "{error}"
        );
        let isolated = host().start().await.unwrap();
        create(&isolated).await.unwrap();
    });
}

#[test]
fn what_is_not_trusted_does_not_start() {
    run(async {
        let good = Signed::of(builtin());
        let mut tampered = good.envelope();
        let place = tampered.len() / 2;
        tampered[place] ^= 1;
        assert!(
            protected(Trust::manifest(tampered, good.roots.clone()))
                .start()
                .await
                .is_err()
        );

        let stranger = TrustRoots::new([PrivateKey::from_seed([8; 32]).public()]).unwrap();
        let error = protected(Trust::manifest(good.envelope(), stranger))
            .start()
            .await
            .unwrap_err();
        assert!(
            matches!(refusal(&error), TrustError::UnknownSigner { .. }),
            "{error}"
        );

        let mut expired = Signed::of(builtin());
        expired.manifest.issued = UnixTime(1_000);
        expired.manifest.expires = UnixTime(2_000);
        let error = protected(expired.trust()).start().await.unwrap_err();
        assert!(
            matches!(refusal(&error), TrustError::Expired { .. }),
            "{error}"
        );

        let mut other = Signed::of(builtin());
        let size = other.manifest.host.image().size;
        let image = ImageDigest {
            sha256: ImageDigest::of(b"another").sha256,
            size,
        };
        other.manifest.host = HostEntry::new(image, "x86_64-linux");
        let error = protected(other.trust()).start().await.unwrap_err();
        assert!(
            matches!(refusal(&error), TrustError::ImageMismatch { .. }),
            "{error}"
        );

        let trust = Trust::file("/no/such/manifest", good.roots.clone());
        let error = protected(trust).start().await.unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Io { .. } | ErrorKind::NotFound { .. }
            ),
            "{error}"
        );
    });
}

#[test]
fn a_pmp_session_is_protected_unless_told_otherwise() {
    run(async {
        let trust = Signed::of(builtin()).trust();
        let protected = portcullis::pmp_session(host(), PmpFlags::Protected(trust));
        let session = protected.start().await.unwrap();
        assert_eq!(
            session.host().isolation().unwrap().profile,
            Some(SandboxProfile::Protected)
        );
        let plain = portcullis::pmp_session(host(), PmpFlags::UnprotectedProcess);
        let session = plain.start().await.unwrap();
        assert_eq!(
            session.host().isolation().unwrap().profile,
            Some(SandboxProfile::Isolated)
        );
    });
}

#[test]
fn a_program_that_is_no_host_says_so() {
    run(async {
        let error = Host::program("/bin/true").start().await.unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::HostLost(_) | ErrorKind::LayerMissing { .. } | ErrorKind::HostStart(_)
            ),
            "{error}"
        );
        let error = ProtectedHost::new(Host::program("/bin/true"), Trust::development())
            .start()
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::LayerMissing { layer, .. } if layer == "sealed image"),
            "{error}"
        );
    });
}

#[test]
fn a_session_is_made_during_resolution_only_for_what_needs_one() {
    run(async {
        let (clear, none) = portcullis::resolve(media::clip())
            .create_session(async || panic!("clear content needs no session"))
            .resolve()
            .await
            .unwrap();
        assert!(none.is_none());
        assert_eq!(clear.presentation.streams.len(), 2);

        let error = portcullis::resolve(media::protected())
            .resolve()
            .await
            .unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoPmpHost), "{error}");

        let trust = Signed::of(builtin()).trust();
        let (source, session) = portcullis::resolve(media::protected())
            .create_session(move || {
                portcullis::pmp_session(host(), PmpFlags::Protected(trust)).start()
            })
            .resolve()
            .await
            .unwrap();
        let session = session.unwrap();
        assert!(source.presentation.requires_protected_host());
        assert_eq!(
            session.host().isolation().unwrap().profile,
            Some(SandboxProfile::Protected)
        );
    });
}
