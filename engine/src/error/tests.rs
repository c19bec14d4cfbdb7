//! What errors say.

use super::*;

#[test]
fn says_what_where_and_why() {
    let error = Error::malformed(8, "box of 7 bytes")
        .of_input("a.mp4")
        .at_node("1 container.mp4")
        .in_process(42)
        .because("mkv: no EBML header");
    assert_eq!(
        error.to_string(),
        "a.mp4: malformed input at byte 8: box of 7 bytes (node 1 container.mp4, process 42); mkv: no EBML header"
    );
}

#[test]
fn the_nearest_place_wins() {
    let error = Error::cancelled().in_process(1).in_process(2);
    assert_eq!(error.place().process, Some(1));
}

#[test]
fn an_error_inside_of_a_read_comes_out_whole() {
    let lost = Error::new(ErrorKind::HostLost(HostExit::default()));
    let read = std::io::Error::other(lost.clone());
    assert_eq!(Error::io("read", &read), lost);
}
