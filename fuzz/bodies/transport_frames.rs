//! The frame decoder: any bytes, in any pieces, give frames within the limit or an error that stays.

use portcullis_transport::FrameDecoder;

const MAX_FRAME: u32 = 4096;

/// The first byte says how large the pieces are.
pub(crate) fn run(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else {
        return;
    };
    let mut decoder = FrameDecoder::new(MAX_FRAME);
    let (mut fed, mut given) = (0, 0);
    for piece in stream.chunks(usize::from(*piece) + 1) {
        decoder.feed(piece);
        fed += piece.len();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert_eq!(frame.body.len(), frame.header.len as usize);
                    assert!(frame.header.len <= MAX_FRAME);
                    assert!(frame.descriptors.is_empty());
                    given += 32 + frame.body.len();
                }
                Ok(None) => {
                    assert_eq!(
                        decoder.buffered(),
                        fed - given,
                        "no byte is lost or invented"
                    );
                    break;
                }
                Err(error) => {
                    assert_eq!(decoder.next_frame().unwrap_err(), error);
                    return;
                }
            }
        }
    }
}
