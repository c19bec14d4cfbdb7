//! In a web service: an upload is decoded in the handler that receives it.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use futures::TryStreamExt;
use portcullis::Input;
use tower::ServiceExt;

use super::{clip_bytes, expected, pictures};
use crate::support::{Place, run};

async fn count(place: Place, body: Body) -> portcullis::Result<String> {
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let reader = place.open(Input::stream(body)).open().await?;
    Ok(pictures(&reader).await?.join("\n"))
}

fn service(place: Place) -> Router {
    let handler = move |body: Body| async move {
        match count(place, body).await {
            Ok(text) => (StatusCode::OK, text).into_response(),
            Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
        }
    };
    Router::new().route("/pictures", post(handler))
}

async fn answer(place: Place, upload: Bytes) -> (StatusCode, String) {
    let pieces: Vec<_> = upload
        .chunks(4096)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let request = Request::post("/pictures")
        .body(Body::from_stream(futures::stream::iter(pieces)))
        .unwrap();
    let response = service(place).oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[test]
fn an_upload_is_decoded_in_its_handler() {
    run(async {
        for place in Place::ALL {
            let (status, text) = tokio::spawn(answer(place, clip_bytes())).await.unwrap();
            assert_eq!(
                (status, text),
                (StatusCode::OK, expected().join("\n")),
                "{place:?}"
            );
            let (status, text) = answer(place, Bytes::from_static(b"not a film at all")).await;
            assert_eq!(
                status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{place:?}: {text}"
            );
            assert!(
                text.contains("no handler recognises the input"),
                "{place:?}: {text}"
            );
        }
    });
}
