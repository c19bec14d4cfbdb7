//! The hello: any bytes are refused by name or agreed to within our own limits.

use portcullis_transport::Hello;
use portcullis_transport::handshake::HELLO_LEN;

/// The bytes overwrite a good hello from its beginning.
pub(crate) fn run(data: &[u8]) {
    let ours = Hello::default();
    let mut theirs: [u8; HELLO_LEN] = ours.to_bytes();
    for (byte, given) in theirs.iter_mut().zip(data) {
        *byte = *given;
    }
    match ours.agree(theirs) {
        Ok(agreed) => {
            assert!(ours.features.contains(agreed.features));
            assert!(agreed.limits.max_frame <= ours.limits.max_frame);
            assert!(agreed.limits.max_objects <= ours.limits.max_objects);
            assert!(agreed.limits.call_window <= ours.limits.call_window);
            assert!(agreed.limits.byte_window <= ours.limits.byte_window);
            assert!(agreed.limits.pool_mebibytes <= ours.limits.pool_mebibytes);
            // And we would be agreed with, too.
            assert!(ours.agree(ours.to_bytes()).is_ok());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
