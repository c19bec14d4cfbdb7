//! What hosts cost in descriptors, and what they may cost.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{command, reported, strict};

/// The link, the process, its words and its last note: many hosts must fit into the usual limit.
pub(crate) fn a_host_costs_its_application_four_descriptors() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // What is opened once for all is there then.
    reported(command("report", strict())).end();
    let before = open();
    let hosts: Vec<_> = (0..4)
        .map(|_| reported(command("report", strict())))
        .collect();
    // One more is the network namespace for the next host.
    let cost = open() - before;
    assert!(cost <= 4 * hosts.len() + 1, "{cost}");
    hosts.into_iter().for_each(|host| host.end());
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
