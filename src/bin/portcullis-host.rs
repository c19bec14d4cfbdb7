//! A host program with every built-in component, for applications that are not their own host.

fn main() -> std::process::ExitCode {
    portcullis::host::init(portcullis::builtin());
    eprintln!("portcullis-host serves applications that start it; it does nothing by itself");
    std::process::ExitCode::from(2)
}
