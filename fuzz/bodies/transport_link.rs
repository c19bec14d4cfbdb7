//! A whole link against a peer that sends any bytes: it ends with an error and never hangs.

use portcullis_transport::frame::HEADER_LEN;
use portcullis_transport::link::MAX_FRAMES_PER_RECEIVE;
use portcullis_transport::{Endpoint, Hello};
use tokio::io::AsyncWriteExt;

/// The first byte says whether a good hello comes first.
pub(crate) fn run(data: &[u8]) {
    let Some((hello, stream)) = data.split_first() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        if hello & 1 == 1 {
            theirs
                .write_all(&Hello::default().to_bytes())
                .await
                .expect("room for it");
        }
        theirs.write_all(stream).await.expect("room for all of it");
        theirs.shutdown().await.expect("a duplex stream");
        let Ok(mut link) = Endpoint::stream(ours).connect(Hello::default()).await else {
            return;
        };
        let mut frames = Vec::new();
        while link.receiver.receive(&mut frames).await.is_ok() {
            assert!((1..=MAX_FRAMES_PER_RECEIVE).contains(&frames.len()));
            frames.clear();
        }
        assert!(
            link.receiver.receive(&mut frames).await.is_err(),
            "errors are final"
        );
        assert!(stream.len() < HEADER_LEN || link.sender.queued_bytes() == 0);
    });
}
