//! Bodies, whole and bounded. The accept loop bounds and times them too; here it holds for every
//! way in.

use std::{error::Error, io};

use axum::{
    body::{Bytes, HttpBody},
    extract::Request,
    http::request::Parts,
};
use dayfly_domain::Reason;
use http_body_util::LengthLimitError;

use crate::flow::Refused;

/// A whole request body.
pub const BODY_MAX_BYTES: usize = 64 << 10;

pub(super) async fn read(request: Request) -> Result<(Parts, Bytes), Refused> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(Reason::TooLarge.into());
    }
    let bytes = axum::body::to_bytes(body, BODY_MAX_BYTES).await.map_err(|error| Refused::from(why(&error)))?;
    Ok((parts, bytes))
}

fn why(error: &(dyn Error + 'static)) -> Reason {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return Reason::TooLarge;
        }
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return Reason::Timeout;
        }
        next = error.source();
    }
    Reason::Request
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn reason(body: Body) -> Option<Reason> {
        read(Request::new(body)).await.err().map(|refused| refused.reason)
    }

    #[tokio::test]
    async fn t_159_a_body_is_bounded_whether_it_says_its_size_or_not() {
        let hidden = |size| Body::new(Unsized(Body::from(vec![0; size])));
        for (size, expected) in [(BODY_MAX_BYTES, None), (BODY_MAX_BYTES + 1, Some(Reason::TooLarge))] {
            assert_eq!(reason(Body::from(vec![0; size])).await, expected);
            assert_eq!(reason(hidden(size)).await, expected);
        }
    }

    /// A body that does not say how long it is.
    struct Unsized(Body);

    impl HttpBody for Unsized {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }
    }

    #[test]
    fn a_slow_body_is_a_timeout_and_a_broken_one_is_malformed() {
        let timeout = axum::Error::new(io::Error::from(io::ErrorKind::TimedOut));
        assert_eq!(why(&timeout), Reason::Timeout);
        assert_eq!(why(&axum::Error::new(io::Error::other("cut"))), Reason::Request);
    }
}
