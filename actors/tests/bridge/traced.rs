//! One tree of spans over both processes.

use portcullis_actors::bridge::Handle;
use portcullis_actors::host::Host;
use portcullis_actors::runtime;
use tracing::Instrument;

use crate::claims::within_deadline;
use crate::lab::{Call, Lab, LabActor, Spans};
use crate::spans::{self, Seen};

pub(crate) fn claims(run: &mut impl FnMut(&str, fn())) {
    run(
        "a_span_tree_covers_both_processes_and_the_way_back",
        a_span_tree_covers_both_processes_and_the_way_back,
    );
}

fn field<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.fields.get(name).map_or("", String::as_str)
}

fn a_span_tree_covers_both_processes_and_the_way_back() {
    within_deadline(async {
        let host = Host::current().start_actor::<Lab>().await.expect("starts");
        let back = runtime::run(|| async { Ok(Handle::<Lab>::start(LabActor::default())) });
        let back = back.await.expect("starts");
        let request = tracing::info_span!("request");
        let number = request.id().expect("is collected").into_u64();
        let trace = async { host.root().send(Call(Some(back))).await }
            .instrument(request)
            .await
            .expect("answers")
            .expect("is traced");

        let there = host.root().send(Spans).await.expect("answers");
        let called = there.iter().find(|span| {
            span.name == "call" && field(span, "parent_id") == format!("{number:016x}")
        });
        let called = called.expect("the call in the host");
        assert_eq!(field(called, "method"), "portcullis-actors.Call");
        assert_eq!(
            field(called, "parent_process"),
            std::process::id().to_string()
        );
        let trace_id = field(called, "trace_id").to_owned();
        assert!(trace.contains(&trace_id), "{trace} {trace_id}");
        let work = there.iter().find(|span| span.name == "work");
        assert_eq!(work.expect("works").parent, called.id, "{there:?}");

        // The way back: made in the reply future of the call, and of the same trace.
        let here = spans::seen();
        let back = here.iter().find(|span| {
            span.name == "call"
                && field(span, "parent_id") == format!("{:016x}", called.id.unwrap_or(0))
                && field(span, "parent_process") == host.pid().to_string()
        });
        let back = back.expect("the call back");
        assert_eq!(field(back, "trace_id"), trace_id);
        let work = here
            .iter()
            .find(|span| span.name == "work" && span.parent == back.id);
        assert!(work.is_some(), "{here:?}");
    });
}
