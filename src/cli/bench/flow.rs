//! Samples through a real session, from a source to a sink, on one or both sides of the wall.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use portcullis_codecs::sink::NullSettings;
use portcullis_codecs::synthetic::{PatternSettings, Touch};
use portcullis_engine::event::EventKind;
use portcullis_engine::topology::{NodeKind, ObjectId, ObjectRef, Topology};
use portcullis_engine::{Component, ContentLimits, MediaTime, Settings, StreamId};

use super::components::{METRONOME, MetronomeSettings, Stopwatch, TakeLatencies};
use super::cores::{Cores, pin_process, pin_threads, threads, unpin};
use super::row::Setting;
use super::{Direction, Where};
use crate::host::{CreateObject, CreatedObject, HostConnection};
use crate::pipeline::session::NodeObject;
use crate::pipeline::sink::ReadAhead;
use crate::{EventStream, MediaSession, Pacing};

/// Samples of the run that finds out how many samples to measure with.
pub(super) const PROBE: u64 = 200;

/// A source and a sink and what goes between them.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    placement: Where,
    direction: Direction,
    size: u32,
    touch: bool,
    copy: bool,
    batch: Option<u32>,
}

impl Flow {
    /// Samples of `size` bytes, untouched, in the batches that a sink asks for by itself.
    pub fn new(placement: Where, direction: Direction, size: u32) -> Self {
        Self {
            placement,
            direction,
            size,
            touch: false,
            copy: false,
            batch: None,
        }
    }

    pub(super) fn size(self) -> u32 {
        self.size
    }

    pub(super) fn is_touched(self) -> bool {
        self.touch
    }

    pub(super) fn setting(self, count: u64) -> Setting {
        Setting {
            placement: self.placement,
            direction: self.direction,
            size: self.size,
            touch: self.touch,
            count,
        }
    }

    /// The consumer copies what another process can still write before it looks at it.
    pub(super) fn copied_out(self) -> Self {
        Self { copy: true, ..self }
    }

    /// Whether the producer writes every byte and the consumer reads a word of every 64 bytes.
    #[must_use]
    pub fn touch(self, touch: bool) -> Self {
        Self { touch, ..self }
    }

    /// Samples that one request asks for; `None` leaves it to the sink.
    #[must_use]
    pub fn batch(self, batch: Option<u32>) -> Self {
        Self { batch, ..self }
    }

    /// Makes a session with a source of `count` samples, ready to run.
    ///
    /// # Errors
    /// Those of a session.
    pub async fn start(self, count: u64) -> Result<Ready> {
        self.start_in(None, count).await
    }

    /// The same in a host that is there already.
    pub(super) async fn start_in(self, host: Option<HostConnection>, count: u64) -> Result<Ready> {
        let settings = PatternSettings {
            size: self.size,
            count,
            touch: if self.touch {
                Touch::Fill
            } else {
                Touch::Header
            },
            ..PatternSettings::default()
        };
        let settings = Settings::of(&settings)?;
        self.connect(host, "synthetic.pattern", settings, count, false)
            .await
    }

    /// Latencies in microseconds of `count` samples that are made one by one, from the source to the other side.
    pub(super) async fn paced(self, interval_us: u32, count: u64) -> Result<Vec<f64>> {
        let settings = MetronomeSettings {
            size: self.size,
            count,
            interval_us,
        };
        let flow = self.batch(Some(1));
        let mut ready = flow
            .connect(None, METRONOME, Settings::of(&settings)?, count, true)
            .await?;
        let stopwatch = ready.stopwatch.take().context("a stopwatch")?;
        ready.play().await?;
        let latencies = stopwatch.send(TakeLatencies).await?;
        // The first ones find cold caches and a preroll.
        Ok(latencies
            .iter()
            .skip(5)
            .map(|ticks| f64::from(*ticks) / 10.0)
            .collect())
    }

    async fn connect(
        self,
        host: Option<HostConnection>,
        source: &str,
        settings: Settings,
        count: u64,
        timed: bool,
    ) -> Result<Ready> {
        let limits = ContentLimits {
            max_samples: u64::MAX,
            max_output_bytes: u64::MAX,
            max_duration: MediaTime::MAX,
            ..ContentLimits::default()
        };
        let mut builder = crate::session(self.placement.placement())
            .pacing(Pacing::Free)
            .limits(limits);
        if let Some(batch) = self.batch {
            builder = builder.read_ahead(ReadAhead {
                batch,
                ..ReadAhead::default()
            });
        }
        if let Some(host) = host {
            builder = builder.host(host);
        }
        unpin();
        let session = builder.start().await?;
        let there = session.host().clone();
        let process = std::process::id();
        let before = threads(process);
        // Without a wall there are two threads, on two cores as with one.
        let here = match self.placement {
            Where::InProcess => there.on_own_thread(crate::registry()).await?,
            _ => there.application_side(crate::registry()).await?,
        };
        let (source_side, sink_side) = match self.direction {
            Direction::ToHost => (&here, &there),
            Direction::FromHost => (&there, &here),
        };
        let CreatedObject::Source(source) = create(source_side, source, settings, limits).await?
        else {
            bail!("not a source");
        };
        let sink = NullSettings {
            rateless: true,
            touch: self.touch,
            copy: self.copy,
        };
        let CreatedObject::Sink(sink) =
            create(sink_side, "sink.null", Settings::of(&sink)?, limits).await?
        else {
            bail!("not a sink");
        };
        let cores = Cores::apart();
        if self.placement == Where::InProcess {
            pin_process(process, cores.far);
            let new = threads(process)
                .into_iter()
                .filter(|thread| !before.contains(thread));
            pin_threads(new, cores.near);
        } else {
            pin_process(process, cores.near);
            pin_process(there.pid(), cores.far);
        }
        let mut topology = Topology::new();
        let presentation = source.presentation.clone();
        let mut objects = vec![
            (ObjectId(0), NodeObject::Source(source)),
            (ObjectId(1), NodeObject::Sink(sink)),
        ];
        let from = topology.add_node(NodeKind::described(
            ObjectRef::Object(ObjectId(0)),
            StreamId(0),
            presentation,
        ));
        let to = topology.add_node(NodeKind::output(ObjectRef::Object(ObjectId(1)), 0));
        let mut stopwatch = None;
        if timed {
            let CreatedObject::Transform(object, control) = create(
                sink_side,
                Stopwatch::INFO.class,
                Settings::default(),
                limits,
            )
            .await?
            else {
                bail!("not a transform");
            };
            stopwatch = Some(control.context("the stopwatch's messages")?.typed()?);
            objects.push((ObjectId(2), NodeObject::Transform(object)));
            let middle = topology.add_node(NodeKind::transform(ObjectRef::Object(ObjectId(2))));
            topology.connect(from, 0, middle, 0)?;
            topology.connect(middle, 0, to, 0)?;
        } else {
            topology.connect(from, 0, to, 0)?;
        }
        let events = session.events();
        session.set_topology(topology, objects).await?;
        Ok(Ready {
            session,
            _side: here,
            events,
            stopwatch,
            count,
            bytes: count * u64::from(self.size),
        })
    }
}

async fn create(
    side: &HostConnection,
    class: &str,
    settings: Settings,
    limits: ContentLimits,
) -> Result<CreatedObject> {
    let request = CreateObject {
        class: class.to_owned(),
        settings,
        opener: None,
        limits,
    };
    Ok(side.pmp_host().send(request).await?)
}

/// A session that has not started yet.
#[derive(Debug)]
pub struct Ready {
    session: MediaSession,
    /// Where what the application itself makes lives.
    _side: HostConnection,
    events: EventStream,
    stopwatch: Option<crate::Handle<super::components::StopwatchControl>>,
    count: u64,
    bytes: u64,
}

impl Ready {
    /// Runs it to its end.
    ///
    /// # Errors
    /// Those of a session; when not every sample arrived.
    pub async fn run(mut self) -> Result<Measured> {
        let pids = [std::process::id(), self.session.host().pid()];
        let cpu_before = CpuTime::of(pids);
        let start = Instant::now();
        self.play().await?;
        let wall = start.elapsed();
        let cpu = CpuTime::of(pids).since(&cpu_before);
        let arrived: u64 = self
            .session
            .statistics()
            .await?
            .iter()
            .map(|output| output.counts.samples)
            .sum();
        if arrived != self.count {
            bail!("{arrived} of {} samples arrived", self.count);
        }
        Ok(Measured {
            samples: self.count,
            bytes: self.bytes,
            wall,
            cpu,
        })
    }

    /// Processor time so far of all the processes in which these run.
    pub(super) fn cpu_of_all(all: &[Self]) -> CpuTime {
        let hosts = all.iter().map(|ready| ready.session.host().pid());
        CpuTime::of(hosts.chain([std::process::id()]))
    }

    /// Plays it to its end.
    pub(super) async fn play(&mut self) -> Result<()> {
        self.session.start(None).await?;
        while let Some(event) = self.events.next().await {
            event.status.clone()?;
            if matches!(event.kind, EventKind::SessionEnded { .. }) {
                return Ok(());
            }
        }
        bail!("the session is gone before its end")
    }
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Samples that went through.
    pub samples: u64,
    /// Their payload.
    pub bytes: u64,
    /// From the start command to the end event.
    pub wall: Duration,
    /// Processor time of both processes; `None` where the system does not say.
    pub cpu: Option<Duration>,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        self.samples as f64 / self.wall.as_secs_f64()
    }

    pub(super) fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu?.as_secs_f64() * 1e6 / self.samples as f64)
    }

    /// How many samples take about so many seconds.
    pub(super) fn count_for(&self, seconds: f64) -> u64 {
        (self.per_second() * seconds).clamp(200.0, 5e6) as u64
    }
}

/// Processor time so far of all threads of some processes, each counted once.
#[derive(Debug, Default)]
pub(super) struct CpuTime(BTreeMap<(u32, OsString), u64>);

impl CpuTime {
    fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let mut times = BTreeMap::new();
        for pid in pids {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
                continue;
            };
            for thread in threads.filter_map(Result::ok) {
                if let Some(nanoseconds) = of_thread(&thread.path()) {
                    times.insert((pid, thread.file_name()), nanoseconds);
                }
            }
        }
        Self(times)
    }

    /// What was spent since; `None` where the system does not say. What a thread has spent that has ended since is not in it.
    pub(super) fn since(&self, before: &Self) -> Option<Duration> {
        let spent = self.0.iter().map(|(thread, now)| {
            let then = before.0.get(thread).copied().unwrap_or_default();
            now.saturating_sub(then)
        });
        (!self.0.is_empty()).then(|| Duration::from_nanos(spent.sum()))
    }
}

fn of_thread(path: &Path) -> Option<u64> {
    // Nanoseconds on a core, then nanoseconds of waiting for one, then time slices.
    let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_measured_arrives() {
        crate::host::init(super::super::registry());
        let _pinning = super::super::cores::Pinning::begin();
        let flow = Flow::new(Where::InProcess, Direction::ToHost, 4096).touch(true);
        for batch in [Some(1), None] {
            let ready = flow.batch(batch).start(500).await.expect("is set");
            let measured = ready.run().await.expect("runs");
            assert_eq!((measured.samples, measured.bytes), (500, 500 * 4096));
            assert!(measured.per_second() > 0.0 && measured.count_for(1.0) >= 200);
        }
        let latencies = flow.paced(100, 30).await.expect("runs");
        assert_eq!(latencies.len(), 25);
    }
}
