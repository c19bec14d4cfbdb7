//! The host program: it serves the application that starts it, and does nothing by itself.

fn main() {
    portcullis::host::init(custom_host::registry()); // in a host this never returns
    eprintln!("my-host is started by an application");
    std::process::exit(2);
}
