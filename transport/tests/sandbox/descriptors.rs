//! What hosts cost in descriptors, and what they may cost.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{command, reported, strict};

/// The link, the process, its words and its last note: many hosts must fit into the usual limit.
pub(crate) fn a_host_costs_its_application_four_descriptors() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let first = reported(command("report", strict()));
    let before = open();
    let second = reported(command("report", strict()));
    let each = open() - before;
    assert!(each <= 4, "{each}");
    first.end();
    second.end();
}

pub(crate) fn an_application_with_more_descriptors_than_a_host_may_have_starts_one() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let many: Result<Vec<_>, _> = (0..1_500)
        .map(|_| std::fs::File::open("/dev/null"))
        .collect();
    match many {
        Ok(_many) => reported(command("report", strict())).end(),
        Err(error) => println!("  left out: {error}"),
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}
