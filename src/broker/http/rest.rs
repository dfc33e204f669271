//! What is left of a body that nobody has read to its end. A client that still sends it does not
//! listen, or is cut off and loses the answer: over HTTP/2, curl 7.88 says nothing then but that
//! the stream ended. So it is taken in before the answer goes out, and thrown away.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// How much of it is taken in, in bytes. Who sends more has not looked at what is served.
const MOST: usize = 1024 * 1024;

/// How long that may take: the answer waits.
const LONGEST: Duration = Duration::from_secs(1);

/// Where what is left of a body comes to, once whoever had it is done with it.
pub(super) struct Rest(Option<oneshot::Receiver<Body>>);

impl Rest {
    /// Lends the body of a request to whoever reads it. Where its client holds it back until it is
    /// asked for it, and nobody asks, nothing is left.
    pub(super) fn of(request: Request) -> (Request, Self) {
        if request.body().is_end_stream() {
            return (request, Self(None));
        }
        let (give_back, rest) = oneshot::channel();
        let is_sent = !request.headers().contains_key(EXPECT);
        let lend = |body| Body::new(Lent { body, is_sent, give_back: Some(give_back) });
        (request.map(lend), Self(Some(rest)))
    }

    /// Takes it in, where somebody is done with the body and has left some.
    pub(super) async fn take_in(self) {
        let Some(mut body) = self.0.and_then(|mut rest| rest.try_recv().ok()) else { return };
        let take_in = async {
            let mut left = MOST;
            while let Some(Ok(frame)) = body.frame().await {
                let size = frame.data_ref().map_or(0, Bytes::len);
                let Some(less) = left.checked_sub(size) else { return };
                left = less;
            }
        };
        // Who is slower loses the answer, perhaps.
        let _ = tokio::time::timeout(LONGEST, take_in).await;
    }
}

/// A body that somebody reads, as far as they want to.
struct Lent {
    body: Body,
    /// Whether its client sends it.
    is_sent: bool,
    /// `None` once there is nothing more to read.
    give_back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // That asks for it, where it was not.
        self.is_sent = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.give_back = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_left = self.is_sent && !self.body.is_end_stream();
        if let Some(give_back) = self.give_back.take().filter(|_| is_left) {
            // Nobody may wait for it.
            let _ = give_back.send(mem::take(&mut self.body));
        }
    }
}
